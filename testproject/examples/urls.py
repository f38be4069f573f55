"""URLs of the three examples."""

from django.urls import include, path

urlpatterns = [
    path("time/", include("examples.time.urls")),
    path("chat/", include("examples.chat.urls")),
    path("chat-rest/", include("examples.chat_rest.urls")),
]
