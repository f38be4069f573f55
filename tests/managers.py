"""Channel managers that tests name in `EVENTSTREAM_CHANNELMANAGER_CLASS`."""

from __future__ import annotations

from django_eventstream.channelmanager import DefaultChannelManager


class LooseChannelManager(DefaultChannelManager):
    """Channels whose name starts with `loose-` are not stored."""

    def is_channel_reliable(self, channel: str) -> bool:
        return not channel.startswith("loose-")
