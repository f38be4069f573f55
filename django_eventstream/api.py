"""The verbs that application code calls."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import SyncToAsync, sync_to_async
from django.utils.asyncio import async_unsafe

from django_eventstream import control, sending
from django_eventstream.backends import get_channel_manager, get_storage, is_reliable
from django_eventstream.cursors import format_cursor
from django_eventstream.events import Event, validate, validate_channel, validate_user_ids
from django_eventstream.payloads import encode_payload
from django_eventstream.processes import after_fork

SendArgument = Event | tuple[str, str, Any]


@async_unsafe("send_event() blocks: in async code write `await asend_event(...)`.")
def send_event(
    channel: str,
    event_type: str,
    data: Any,
    skip_user_ids: Iterable[Any] | None = None,
    async_publish: bool = True,
    json_encode: bool = True,
) -> Event:
    """Send one event to everybody who reads `channel`.

    Inside `transaction.atomic()` the event belongs to the transaction: rolled back, it was never
    sent; committed, it is sent right after the commit, before other callbacks of it are called.
    A log in another database, or in none, waits for all transactions that are open. Outside it is
    stored before this returns.

    Args:
        channel: any text of 1 to 255 characters.
        event_type: what the page listens for; `message` is the default of browsers.
        data: encoded as JSON, the way Django does; with `json_encode=False` a ready string.
        skip_user_ids: primary keys of users (or the users) who do not get the event.
        async_publish: False waits until each proxy and broker took the event, and raises
            `PublishError` if one did not, or not within a few times
            `EVENTSTREAM_PUBLISH_TIMEOUT`; the event is stored all the same.
        json_encode: False if `data` is the text to send.

    Returns:
        The event; its id is None as long as the transaction is open, and on channels that are
        not reliable.

    Raises:
        TypeError, ValueError: an argument cannot be sent; nothing was.
        StorageUnavailableError: the log could not be written. Nothing was sent, unless its
            `may_be_stored` is true: then the connection was lost before the answer came, and the
            event is in the log or not. Where the log is not in the database of the transaction,
            the commit raises it, and stays.
    """
    event = Event(
        channel,
        event_type,
        encode_payload(data) if json_encode else data,
        skip_user_ids=validate_user_ids(frozenset() if skip_user_ids is None else skip_user_ids),
    )
    return _send([event], wait=not async_publish)[0]


@async_unsafe("send_events() blocks: in async code write `await asend_events(...)`.")
def send_events(events: Iterable[SendArgument], async_publish: bool = True) -> list[Event]:
    """Send many events at once, all or none of those that are stored.

    Takes `Event`s, whose data is ready text, and `(channel, event_type, data)` tuples, whose
    data is encoded as JSON. Their order is kept. See `send_event()`. Events on channels that are
    not reliable are sent if the others could be stored, whether or not those could be published.
    """
    return _send([_to_event(argument) for argument in events], wait=not async_publish)


@async_unsafe(
    "get_current_event_id() blocks: in async code write `await aget_current_event_id(…)`."
)
def get_current_event_id(channels: Iterable[str]) -> str:
    """Return the cursor that stands at the end of these channels, such as `"a:3,b:0"`.

    A page that was made from data read after this call and gives it as `lastEventId` misses
    nothing. Raises ValueError where no events are stored.
    """
    storage = get_storage()
    if storage is None:
        raise ValueError("EVENTSTREAM_STORAGE_CLASS is None: without a log there are no event ids")
    if isinstance(channels, str):
        raise TypeError(f"channels must be an iterable of names, such as [{channels!r}], not str")
    names = [validate_channel(channel) for channel in channels]
    position = storage.get_position(names)
    return format_cursor([(name, position.ids[name]) for name in names], position.epoch)


@async_unsafe(
    "channel_permission_changed() blocks:"
    " in async code write `await achannel_permission_changed(…)`."
)
def channel_permission_changed(user: Any, channel: str) -> None:
    """End the user's streams on `channel`, everywhere, if the user may not read it any more.

    `user` is None for everybody who is not logged in. Does nothing if the channel manager
    still lets the user read. Inside transactions, of whatever database, it takes effect after the
    commit of each. Raises ValueError for a user who was deleted already: Django took the primary
    key away.
    """
    validate_channel(channel)
    if not get_channel_manager().can_read_channel(user, channel):
        control.announce_disconnect(user, channel)


def _renew_thread_of_asgiref() -> None:
    # It stayed in the parent, and whatever waits for it in a child would wait for ever.
    SyncToAsync.single_thread_executor = ThreadPoolExecutor(max_workers=1)


after_fork(_renew_thread_of_asgiref)

asend_event = sync_to_async(send_event)
asend_events = sync_to_async(send_events)
aget_current_event_id = sync_to_async(get_current_event_id)
achannel_permission_changed = sync_to_async(channel_permission_changed)


def _to_event(argument: object) -> Event:
    if isinstance(argument, Event):
        return argument
    if isinstance(argument, tuple | list) and len(argument) == 3:
        channel, event_type, data = argument
        return Event(channel, event_type, encode_payload(data))
    raise TypeError(
        f"send_events() takes Events and (channel, event_type, data) tuples, not {argument!r:.100}"
    )


def _send(events: list[Event], *, wait: bool) -> list[Event]:
    checked = [validate(event) for event in events]
    asked = {channel: is_reliable(channel) for channel in {event.channel for event in checked}}
    stored = [asked[event.channel] for event in checked]
    reliable = [event for event, keep in zip(checked, stored, strict=True) if keep]
    unreliable = [event for event, keep in zip(checked, stored, strict=True) if not keep]
    sent = iter(sending.send(reliable, unreliable, wait=wait))
    return [next(sent) if keep else event for event, keep in zip(checked, stored, strict=True)]
