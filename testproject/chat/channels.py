"""The demo's channels, and how much of each is kept."""

from django_eventstream.channelmanager import DefaultChannelManager, Retention

ROOM = "room"
TICKER = "ticker"


class DemoChannelManager(DefaultChannelManager):
    """Everybody may read everything, as by default."""

    def get_retention(self, channel):
        """Nobody needs the ticks of yesterday."""
        if channel == TICKER:
            return Retention(seconds=3600, count=None)
        return super().get_retention(channel)
