"""URLs of the chat: a page for each room, its messages and its stream."""

from django.urls import include, path
from django.views.generic import RedirectView

from examples.chat import views

app_name = "example_chat"
urlpatterns = [
    path("", RedirectView.as_view(pattern_name="example_chat:room"), {"room": "default"}),
    path("<slug:room>/", views.room, name="room"),
    path("<slug:room>/messages/", views.post_message, name="messages"),
    path(
        "<slug:room>/events/",
        include("django_eventstream.urls"),
        {"format-channels": ["room-{room}"]},
    ),
]
