"""Channel managers that tests name in `EVENTSTREAM_CHANNELMANAGER_CLASS`."""

from __future__ import annotations

from django.contrib.auth.models import Group

from django_eventstream.channelmanager import DefaultChannelManager


class LooseChannelManager(DefaultChannelManager):
    """Channels whose name starts with `loose-` are not stored."""

    def is_channel_reliable(self, channel: str) -> bool:
        return not channel.startswith("loose-")


class StrictChannelManager(DefaultChannelManager):
    """`private-<username>` is for that user, `staff-…` for staff; `broken` breaks."""

    def can_read_channel(self, user, channel: str) -> bool:
        if channel == "broken":
            raise RuntimeError("a secret of the server")
        if channel.startswith("staff-"):
            return user is not None and user.is_staff
        owner = channel.removeprefix("private-")
        return owner == channel or (user is not None and user.get_username() == owner)


class ClosableChannelManager(DefaultChannelManager):
    """A process in which `is_open` is False believes that nobody may read anything."""

    is_open = True

    def can_read_channel(self, user: object, channel: str) -> bool:
        return self.is_open


class TicketChannelManager(StrictChannelManager):
    """Gives tickets to everybody."""

    seconds = 60

    def get_ticket_seconds(self, user, channels) -> int:
        return self.seconds


class GroupChannelManager(DefaultChannelManager):
    """Everybody may read a channel that a group is named after, as the default database says."""

    def can_read_channel(self, user, channel: str) -> bool:
        return Group.objects.filter(name=channel).exists()


class LogElsewhere:
    """A database router: the log is in the database `postgres`."""

    def db_for_write(self, model, **hints) -> str | None:
        return "postgres" if model._meta.app_label == "django_eventstream" else None
