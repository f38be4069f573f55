"""URLs of the one page and its four buttons."""

from django.urls import path

from chat import views

urlpatterns = [
    path("", views.room, name="room"),
    path("messages/", views.post_message, name="post-message"),
    path("messages/burst/", views.post_burst, name="post-burst"),
    path("server/kill/", views.kill_server, name="kill-server"),
    path("history/", views.open_history, name="open-history"),
]
