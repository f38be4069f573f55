"""URLs of the chat with Django REST framework: a page for each room, its messages, its stream."""

from django.urls import path
from django.views.generic import RedirectView

from examples.chat_rest import views

app_name = "example_chat_rest"
urlpatterns = [
    path("", RedirectView.as_view(pattern_name="example_chat_rest:room"), {"room": "default"}),
    path("<slug:room>/", views.room, name="room"),
    path(
        "<slug:room>/messages/",
        views.MessageViewSet.as_view({"get": "list", "post": "create"}),
        name="messages",
    ),
    path(
        "<slug:room>/events/",
        views.RoomEvents.as_view(),
        {"format-channels": ["room-{room}"]},
        name="events",
    ),
]
