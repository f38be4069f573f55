"""The app of the chat."""

from django.apps import AppConfig


class ChatConfig(AppConfig):
    name = "examples.chat"
    label = "example_chat"
