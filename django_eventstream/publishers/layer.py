"""The channel layer as this package uses it: one group, of all processes that hold streams."""

from __future__ import annotations

from typing import Any

from channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer

GROUP = "django_eventstream"
"""Every process that holds streams is in it once, however many streams it holds."""

BLOCKING_SECONDS = 2
"""How long one question to Redis waits for an answer."""


def is_in_memory(alias: str) -> bool:
    """Say whether the layer ends with this process, whose hubs hear of everything anyway."""
    return isinstance(get_channel_layer(alias), InMemoryChannelLayer)


def make_layer(alias: str) -> Any:
    """Return a new channel layer, made from the settings, for one event loop.

    The project's own is shared by its event loops, and by the processes that fork after it was
    made: channels_redis lets only one loop receive through it, and processes that share one
    take each other's messages.
    """
    layer = channel_layers.make_backend(alias)
    if hasattr(type(layer), "brpop_timeout"):
        # channels_redis lets Redis wait for five seconds, and redis-py 8 gives up after five:
        # https://github.com/django/channels_redis/issues/422
        layer.brpop_timeout = BLOCKING_SECONDS
    return layer
