"""The channels of tenants; `docs/howto/tenants.md` shows this file."""

from django.db import connection
from django_tenants.utils import schema_context

from django_eventstream.channelmanager import DefaultChannelManager


def tenant_channel(name):
    """The channel of this name that belongs to the tenant of this request, task or command."""
    return f"{connection.schema_name}:{name}"


class TenantChannelManager(DefaultChannelManager):
    def get_channels_for_request(self, request, view_kwargs):
        names = super().get_channels_for_request(request, view_kwargs)
        return {f"{request.tenant.schema_name}:{name}" for name in names}

    def can_read_channel(self, user, channel):
        # It may be asked again later, without a request: the tenant is the one of the channel.
        schema, _, name = channel.partition(":")
        with schema_context(schema):
            return self.can_read(user, name)

    def can_read(self, user, name):
        return not name.startswith("private-") or (
            user is not None and name == f"private-{user.get_username()}"
        )
