"""The app of the chat with Django REST framework; its messages are those of `examples.chat`."""

from django.apps import AppConfig


class ChatRestConfig(AppConfig):
    name = "examples.chat_rest"
    label = "example_chat_rest"
