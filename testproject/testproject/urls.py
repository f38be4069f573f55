"""URLs of the demo."""

from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", include("chat.urls")),
    path("examples/", include("examples.urls")),
    path("events/", include("django_eventstream.urls")),
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url=static("chat/icon.svg"))),
    # With DEBUG only; elsewhere a web server or WhiteNoise serves them.
    *staticfiles_urlpatterns(),
]
