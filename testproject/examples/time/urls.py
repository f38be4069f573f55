"""URLs of the clock: a page, and a stream of one channel."""

from django.urls import include, path
from django.views.generic import TemplateView

app_name = "example_time"
urlpatterns = [
    path("", TemplateView.as_view(template_name="examples/time.html"), name="page"),
    path("events/", include("django_eventstream.urls"), {"channels": ["time"]}),
]
