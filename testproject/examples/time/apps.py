"""The app of the clock; without models."""

from django.apps import AppConfig


class TimeConfig(AppConfig):
    name = "examples.time"
    label = "example_time"
