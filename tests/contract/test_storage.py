"""The log keeps the contract of `Storage`, on each database, on Redis and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection as default_connection
from django.db import connections, transaction
from django.db.backends.postgresql.psycopg_any import IsolationLevel
from django.utils import timezone

from django_eventstream import models
from django_eventstream.catchup import catch_up
from django_eventstream.cursors import Cursor
from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError, StorageUnavailableError
from django_eventstream.hold import Hold
from django_eventstream.storage import DjangoModelStorage, MemoryStorage, RedisStorage
from django_eventstream.storage.base import NUMBERED_BYTES, NUMBERED_EVENTS, Storage
from django_eventstream.storage.orm import EPOCH_NAME
from tests.conftest import opened
from tests.redis_log import age_stream, delete_entry, redis_log, replace_entry
from tests.services.databases import Database
from tests.services.deadline import HEALTHY, wait_until
from tests.sse_parser import EventStreamParser, Message


@pytest.fixture
def db_log(database: Database) -> DjangoModelStorage:
    """For what only a database can do: an outbox, and rows that anybody can write."""
    return DjangoModelStorage(using=database.alias)


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "redis", "memory"])
def log(request, database_of, django_db_blocker) -> Iterator[Storage]:
    """Every kind of log in turn, empty."""
    if request.param == "redis":
        yield redis_log(request.getfixturevalue("redis_server"))
    elif request.param == "memory":
        yield MemoryStorage()
    else:
        with opened(request.param, database_of, django_db_blocker) as database:
            yield DjangoModelStorage(using=database.alias)


def events_of(channel: str, *texts: str) -> list[Event]:
    return [Event(channel, "message", text) for text in texts]


def read_all(log: Storage, channel: str, after: int = 0) -> list[tuple[int, str]]:
    return [(event.id, event.data) for event in log.read(channel, after, 100_000)]


def ids(log: Storage, channel: str, after: int = 0) -> list[int]:
    return [event_id for event_id, _ in read_all(log, channel, after)]


def last_ids(log: Storage, *channels: str) -> dict[str, int]:
    return dict(log.get_position(channels).ids)


def age(log: Storage, channel: str, up_to: int, **ago: float) -> None:
    """Makes the events up to an id as old as that."""
    if isinstance(log, RedisStorage):
        age_stream(log, channel, up_to, timedelta(**ago))
        return
    if isinstance(log, MemoryStorage):
        for number in range(1, up_to + 1):
            if number in log._stored.get(channel, {}):
                created, event = log._stored[channel][number]
                log._stored[channel][number] = created - timedelta(**ago), event
        return
    rows = models.Event.objects.using(log.alias).filter(channel=channel, eid__lte=up_to)
    rows.update(created=timezone.now() - timedelta(**ago))


def delete_by_hand(log: Storage, channel: str, event_id: int) -> None:
    """Removes one event, as nobody should."""
    if isinstance(log, RedisStorage):
        delete_entry(log, channel, event_id)
    elif isinstance(log, MemoryStorage):
        del log._stored[channel][event_id]
    else:
        models.Event.objects.using(log.alias).filter(channel=channel, eid=event_id).delete()


# Sending


def test_ids_of_a_channel_are_one_two_three(log):
    for text in "abc":
        [event] = log.append(events_of("news", text))
        assert (event.channel, event.type, event.data) == ("news", "message", text)
    assert read_all(log, "news") == [(1, "a"), (2, "b"), (3, "c")]
    assert last_ids(log, "news") == {"news": 3}


def test_many_events_of_several_channels_keep_their_order_and_are_numbered_by_channel(log):
    events = [Event(f"channel {n % 3}", "t", str(n)) for n in range(1_000)]
    numbered = log.append(events)
    assert [event.data for event in numbered] == [str(n) for n in range(1_000)]
    assert [event.id for event in numbered] == [n // 3 + 1 for n in range(1_000)]
    for channel in range(3):
        expected = [(i, str(n)) for i, n in enumerate(range(channel, 1_000, 3), 1)]
        assert read_all(log, f"channel {channel}") == expected


def test_channels_that_are_new_and_others_may_be_sent_to_at_once(log):
    log.append(events_of("known", "1"))
    names = ["z", "known", "ä", "💥", "known", "Z", "z"]
    numbered = log.append([Event(name, "t", str(n)) for n, name in enumerate(names)])
    assert [(event.channel, event.id) for event in numbered] == [
        ("z", 1), ("known", 2), ("ä", 1), ("💥", 1), ("known", 3), ("Z", 1), ("z", 2),
    ]  # fmt: skip
    assert read_all(log, "known") == [(1, "1"), (2, "1"), (3, "4")]
    assert read_all(log, "z") == [(1, "0"), (2, "6")]
    assert log.append([]) == []


def test_ten_thousand_events_are_read_in_pages(log):
    log.append(events_of("long", *map(str, range(10_000))))
    position, seen = 0, []
    while page := log.read("long", position, 700):
        seen += page
        position = page[-1].id
    assert [(event.id, event.data) for event in seen] == [(n + 1, str(n)) for n in range(10_000)]


def test_every_text_comes_back_as_it_was(log):
    texts = [
        "",
        "\x00",
        "\r\n",
        "💥",
        "\u2028\u2029\ufeff",
        '"quoted"',
        "[1]",
        "null",
        "a" * 300_000,
    ]
    log.append([Event("texts", "typ ä💥", text) for text in texts])
    found = log.read("texts", 0, 100)
    assert [event.data for event in found] == texts
    assert {event.type for event in found} == {"typ ä💥"}


@pytest.mark.parametrize("channel", ["💥", "user:5", "a,b", "%", "x" * 255, "ä" * 255, "💥" * 255])
def test_every_channel_name_is_possible(log, channel):
    log.append(events_of(channel, "1", "2"))
    assert read_all(log, channel) == [(1, "1"), (2, "2")]
    assert last_ids(log, channel) == {channel: 2}
    assert log.get_channels() == [channel]


@pytest.mark.parametrize("channel", ["💥", "a,b", "%", "x" * 255, "ä" * 255, "💥" * 255])
def test_staging_works_for_every_channel_name(db_log, channel):
    with transaction.atomic(db_log.alias):
        db_log.stage(events_of(channel, "1"))
    db_log.number(channel)
    assert read_all(db_log, channel) == [(1, "1")]


def test_names_that_are_only_alike_are_different_channels(log):
    """MariaDB compared them without case and trailing spaces: readers of `room` had read `ROOM`."""
    alike = ["room", "ROOM", "room ", "roóm", "rooｍ"]
    for channel in alike:
        log.append(events_of(channel, channel))
    assert {channel: read_all(log, channel) for channel in alike} == {
        channel: [(1, channel)] for channel in alike
    }
    assert last_ids(log, *alike, "Room") == {**dict.fromkeys(alike, 1), "Room": 0}


def test_who_skips_an_event_is_kept_with_it(log):
    log.append([Event("a", "t", "1", skip_user_ids=frozenset({"7", "ü"})), Event("a", "t", "2")])
    assert [event.skip_user_ids for event in log.read("a", 0, 9)] == [{"7", "ü"}, frozenset()]


def test_an_append_that_fails_stores_nothing_and_takes_no_ids(db_log):
    db_log.append(events_of("a", "1"))
    taken = models.Event.objects.using(db_log.alias).create(channel="b", type="t", data="", eid=2)
    models.EventCounter.objects.using(db_log.alias).create(name="b", value=0)
    with pytest.raises(StorageUnavailableError):
        db_log.append(events_of("a", "2") + events_of("b", "1", "2"))
    assert last_ids(db_log, "a", "b") == {"a": 1, "b": 0}
    taken.delete()
    assert [event.id for event in db_log.append(events_of("a", "2") + events_of("b", "1"))] == [
        2,
        1,
    ]


# Staging


def test_a_staged_event_is_not_there_until_it_is_numbered(db_log):
    with transaction.atomic(db_log.alias):
        db_log.stage(events_of("a", "1", "2"))
    assert read_all(db_log, "a") == []
    assert last_ids(db_log, "a") == {"a": 0}
    numbered = db_log.number("a")
    assert [(event.id, event.data) for event in numbered] == [(1, "1"), (2, "2")]
    assert read_all(db_log, "a") == [(1, "1"), (2, "2")]
    assert db_log.number("a") == []


def test_numbering_takes_what_every_transaction_left_of_that_channel_only(db_log):
    for text in "xy":
        with transaction.atomic(db_log.alias):
            db_log.stage([*events_of("a", text), *events_of("b", text)])
    db_log.append(events_of("a", "sent meanwhile"))
    assert [event.id for event in db_log.number("a")] == [2, 3]
    assert read_all(db_log, "a") == [(1, "sent meanwhile"), (2, "x"), (3, "y")]
    assert read_all(db_log, "b") == []


def test_staged_events_that_are_rolled_back_take_no_id(db_log):
    with transaction.atomic(db_log.alias):
        db_log.stage(events_of("a", "never"))
        transaction.set_rollback(True, using=db_log.alias)
    assert db_log.number("a") == []
    db_log.append(events_of("a", "first"))
    assert read_all(db_log, "a") == [(1, "first")]


def test_thousands_of_staged_events_are_numbered_in_their_order(db_log):
    with transaction.atomic(db_log.alias):
        db_log.stage(events_of("a", *map(str, range(3_000))))
    assert len(db_log.number("a")) == 3_000
    assert read_all(db_log, "a") == [(n + 1, str(n)) for n in range(3_000)]


def test_staged_events_are_numbered_in_pages_of_so_many_events_and_bytes(db_log):
    """What a crash had left behind was loaded at once: 438 MB."""
    count = NUMBERED_EVENTS + 3
    with transaction.atomic(db_log.alias):
        db_log.stage(events_of("a", *map(str, range(count))))
        large = "x" * (NUMBERED_BYTES // 4)
        db_log.stage(events_of("b", *[large] * 6, "\u00e9" * (NUMBERED_BYTES // 6), "last"))
    pages = {name: [len(db_log.number(name)) for _ in range(4)] for name in "ab"}
    assert pages == {"a": [NUMBERED_EVENTS, 3, 0, 0], "b": [4, 3, 1, 0]}
    assert [text for _, text in read_all(db_log, "a")] == list(map(str, range(count)))
    assert ids(db_log, "b") == list(range(1, 9))


def test_staged_events_between_those_of_other_channels_are_numbered_in_their_order(db_log):
    with transaction.atomic(db_log.alias):
        for n in range(30):
            db_log.stage(events_of("ab"[n % 3 > 0], str(n)))
    assert [event.id for event in db_log.number("a")] == list(range(1, 11))
    assert read_all(db_log, "a") == [(i, str(n)) for i, n in enumerate(range(0, 30, 3), 1)]
    assert read_all(db_log, "b") == []
    others = [n for n in range(30) if n % 3]
    db_log.number("b")
    assert read_all(db_log, "b") == [(i, str(n)) for i, n in enumerate(others, 1)]


@pytest.mark.parametrize("takes_all", [False, True])
def test_who_waited_to_number_finds_what_another_left(postgres_only, takes_all):
    """A statement of PostgreSQL sees what was committed before it began to wait for a lock."""
    log = DjangoModelStorage(using=postgres_only.alias)
    log.append(events_of("a", "1"))
    with transaction.atomic(log.alias):
        log.stage(events_of("a", "staged"))
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(log.alias):
            log.append(events_of("a", "2"))
            if takes_all:
                log.number("a")
            waiting = pool.submit(number_in_thread, log, "a")
            wait_until(lambda: waits_for_a_lock(postgres_only))
        found = [event.id for event in waiting.result(HEALTHY)]
    assert found == ([] if takes_all else [3])
    assert read_all(log, "a") == [(1, "1"), (2, "2"), (3, "staged")]
    assert last_ids(log, "a") == {"a": 3}


def number_in_thread(log: DjangoModelStorage, channel: str) -> list[Event]:
    try:
        return log.number(channel)
    finally:
        connections[log.alias].close()


def waits_for_a_lock(database: Database) -> bool:
    # By a session of its own: a transaction goes on seeing the sessions that it saw first.
    question = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return database.server.sql(question) == "1"


def test_a_channel_with_events_left_behind_is_found_after_a_second(db_log):
    with transaction.atomic(db_log.alias):
        db_log.stage([*events_of("a", "1", "2"), *events_of("b", "1")])
    assert db_log.get_position([]).unnumbered == frozenset()
    models.Event.objects.using(db_log.alias).update(created=timezone.now() - timedelta(seconds=2))
    assert db_log.get_position([]).unnumbered == {"a", "b"}
    db_log.number("a")
    assert db_log.get_position(["a"]).unnumbered == {"b"}


def test_an_event_left_behind_is_found_without_anyone_changing_clocks(db_log):
    with transaction.atomic(db_log.alias):
        db_log.stage(events_of("a", "1"))
    wait_until(lambda: db_log.get_position([]).unnumbered == {"a"})


# Reading


def test_reading_goes_on_after_an_id_up_to_the_limit(log):
    log.append(events_of("a", *"12345"))
    assert [event.id for event in log.read("a", 2, 2)] == [3, 4]
    assert log.read("a", 5, 100) == []
    assert log.read("a", 99, 100) == []
    assert log.read("unknown", 0, 100) == []


@pytest.mark.parametrize(
    ("room", "expected"), [(0, [1]), (1, [1]), (999, [1]), (2_500, [1, 2, 3]), (10**6, 9)]
)
def test_a_page_ends_with_the_event_that_fills_it(log, room, expected):
    """Five hundred events of a megabyte each were read at once."""
    log.append(events_of("a", *["x" * 1_000] * 9))
    found = [event.id for event in log.read("a", 0, 100, room)]
    assert found == (expected if isinstance(expected, list) else list(range(1, expected + 1)))
    assert [event.id for event in log.read("a", 6, 2, room)] == [7, 8][: len(found)]


def test_a_page_that_is_full_before_a_hole_tells_of_it_later(log):
    log.append(events_of("a", *["x" * 1_000] * 5))
    log.trim("a", None, 4, 10)
    with pytest.raises(HistoryGoneError) as raised:
        log.read("a", 0, 100, 1)
    assert raised.value.oldest == 2
    delete_by_hand(log, "a", 4)
    assert [event.id for event in log.read("a", 1, 100, 10_000)] == [2, 3]


def test_a_quiet_channel_whose_events_are_all_gone_resumes_who_is_up_to_date(log):
    log.append(events_of("a", *"123"))
    assert log.trim("a", timezone.now() + timedelta(hours=1), None, 10) == 3
    assert log.read("a", 3, 10) == []
    assert last_ids(log, "a") == {"a": 3}
    with pytest.raises(HistoryGoneError) as raised:
        log.read("a", 2, 10)
    assert raised.value.oldest == 4


@pytest.mark.parametrize(("after", "expected"), [(3, [4, 5]), (4, [5]), (5, [])])
def test_a_position_not_older_than_the_oldest_kept_id_minus_one_resumes(log, after, expected):
    log.append(events_of("a", *"12345"))
    log.trim("a", None, 2, 10)
    assert [event.id for event in log.read("a", after, 10)] == expected


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_older_position_is_told_what_is_still_kept(log, after):
    log.append(events_of("a", *"12345"))
    log.trim("a", None, 2, 10)
    with pytest.raises(HistoryGoneError, match="keeps no events before 4") as raised:
        log.read("a", after, 10)
    assert (raised.value.channel, raised.value.oldest) == ("a", 4)


def test_a_position_older_than_a_page_before_the_oldest_is_told_too(log):
    log.append(events_of("a", *map(str, range(30))))
    log.trim("a", None, 2, 100)
    with pytest.raises(HistoryGoneError) as raised:
        log.read("a", 3, 10)
    assert raised.value.oldest == 29


def test_events_before_a_hole_are_delivered_and_the_hole_is_told(log):
    """Somebody deleted rows by hand; a read that only met the hole had withheld good events."""
    log.append(events_of("a", *"12345"))
    delete_by_hand(log, "a", 3)
    assert [event.id for event in log.read("a", 0, 10)] == [1, 2]
    with pytest.raises(HistoryGoneError) as raised:
        log.read("a", 2, 10)
    assert raised.value.oldest == 4


def test_the_position_of_many_channels_is_one_answer(log):
    log.append([Event(f"c{n}", "t", "x") for n in range(500) for _ in range(n % 3)])
    names = [f"c{n}" for n in range(12_000)]
    position = log.get_position(names)
    assert position.ids == {f"c{n}": n % 3 if n < 500 else 0 for n in range(12_000)}
    assert position.epoch == log.get_position([]).epoch
    assert position.unnumbered == frozenset()


def test_a_position_asked_for_a_name_twice_has_it_once(log):
    assert log.get_position(["a", "a"]).ids == {"a": 0}
    assert log.get_position(iter(())).ids == {}


# The beginning


def frames_of(log: Storage, *channels: str, since: str) -> list[Message]:
    """Returns what a stream of these channels begins with."""
    hold = Hold(channels, (), Cursor.parse(since), None, 0, lambda: None)
    batch = catch_up(log, hold, log.get_position(channels), room=100_000, at_least_one=True)
    return EventStreamParser().feed(b"".join(batch.frames))


def test_zero_is_the_beginning_of_what_is_kept_in_every_epoch(log):
    """Redis and the log in memory have no epoch 0, so that they always answered with a reset, and
    a database did where somebody had begun an epoch, or the first event was gone."""
    log.append(events_of("a", *"12345") + events_of("b", "1"))
    assert [m.data for m in frames_of(log, "a", since="a:0")] == [*"12345"]
    log.trim("a", None, 2, 10)
    assert [m.data for m in frames_of(log, "a", since="a:0")] == ["4", "5"]
    log.begin_epoch()
    assert [m.data for m in frames_of(log, "a", "b", since="a:0,b:0")] == ["4", "5", "1"]
    log.trim("a", None, 0, 10)
    assert frames_of(log, "a", since="a:0") == []


def test_the_position_of_an_empty_channel_is_resumed_exactly_or_told_to_be_gone(log):
    position = log.get_position(["a"])
    cursor = str(Cursor(position.ids, position.epoch))
    log.append(events_of("a", *"123"))
    assert [m.data for m in frames_of(log, "a", since=cursor)] == [*"123"]
    log.trim("a", None, 2, 10)
    [reset] = frames_of(log, "a", since=cursor)
    assert '"expired"' in reset.data
    log.begin_epoch()
    [reset] = frames_of(log, "a", since=cursor)
    assert '"epoch"' in reset.data


# Trimming


def test_trimming_by_age_removes_the_oldest_run(log):
    log.append(events_of("a", *"12345") + events_of("b", *"12345"))
    age(log, "a", up_to=3, hours=2)
    assert log.trim("a", timezone.now() - timedelta(hours=1), None, 100) == 3
    assert ids(log, "a", after=3) == [4, 5]
    assert ids(log, "b") == [1, 2, 3, 4, 5]


def test_trimming_by_count_keeps_the_last(log):
    log.append(events_of("a", *"12345"))
    assert log.trim("a", None, 2, 100) == 3
    assert read_all(log, "a", after=3) == [(4, "4"), (5, "5")]
    assert log.trim("a", None, 0, 100) == 2
    assert last_ids(log, "a") == {"a": 5}


def test_what_either_age_or_count_expires_is_removed(log):
    log.append(events_of("a", *"12345"))
    age(log, "a", up_to=1, hours=2)
    assert log.trim("a", timezone.now() - timedelta(hours=1), 2, 100) == 3
    age(log, "a", up_to=5, hours=2)
    assert log.trim("a", timezone.now() - timedelta(hours=1), 2, 100) == 2


def test_trimming_goes_in_batches(log):
    log.append(events_of("a", *map(str, range(25))))
    assert [log.trim("a", None, 5, 10) for _ in range(3)] == [10, 10, 0]
    assert ids(log, "a", after=20) == [21, 22, 23, 24, 25]


def test_trimming_never_makes_a_hole(db_log):
    """An event of a long transaction is older than those numbered before it."""
    db_log.append(events_of("a", *"12345"))
    age(db_log, "a", up_to=5, hours=2)
    rows = models.Event.objects.using(db_log.alias)
    rows.filter(channel="a", eid=3).update(created=timezone.now())
    assert db_log.trim("a", timezone.now() - timedelta(hours=1), None, 100) == 2
    assert ids(db_log, "a", after=2) == [3, 4, 5]


def test_trimming_without_a_limit_or_an_event_removes_nothing(log):
    log.append(events_of("a", *"12"))
    assert log.trim("a", None, None, 100) == 0
    assert log.trim("a", None, 2, 100) == 0
    assert log.trim("unknown", timezone.now(), 1, 100) == 0


def test_trimming_leaves_staged_events_alone(db_log):
    with transaction.atomic(db_log.alias):
        db_log.stage(events_of("a", "1"))
    assert db_log.trim("a", timezone.now() + timedelta(hours=1), 0, 100) == 0
    assert [event.id for event in db_log.number("a")] == [1]


def test_an_id_is_not_used_again_after_everything_was_trimmed(log):
    log.append(events_of("a", "1"))
    log.trim("a", None, 0, 10)
    assert [event.id for event in log.append(events_of("a", "2"))] == [2]


def test_a_counter_deleted_by_hand_goes_on_after_the_events_that_are_there(db_log):
    db_log.append(events_of("a", *"123"))
    models.EventCounter.objects.using(db_log.alias).filter(name="a").delete()
    assert [event.id for event in db_log.append(events_of("a", *"45"))] == [4, 5]
    models.EventCounter.objects.using(db_log.alias).filter(name="a").delete()
    with transaction.atomic(db_log.alias):
        db_log.stage(events_of("a", "6"))
    assert [event.id for event in db_log.number("a")] == [6]


# Epochs


def test_each_epoch_is_higher_than_the_one_before(log):
    log.append(events_of("a", "1"))
    first = log.begin_epoch()
    assert log.get_position(["a"]).epoch == first
    assert log.begin_epoch() > first
    assert last_ids(log, "a") == {"a": 1}


def test_what_is_kept_from_an_epoch_before_belongs_to_the_one_of_now(log):
    log.append(events_of("a", "1"))
    epoch = log.begin_epoch()
    log.append(events_of("a", "2"))
    found = log.read("a", 0, 9)
    assert [event.id for event in found] == [1, 2]
    assert {event.epoch for event in found} <= {None, epoch}


def test_the_first_epoch_in_a_database_is_zero(db_log):
    db_log.append(events_of("a", "1"))
    assert db_log.get_position(["a"]).epoch == 0


def test_two_restores_of_one_backup_begin_different_epochs(db_log):
    earlier = int(timezone.now().timestamp()) - 1
    assert db_log.begin_epoch() > earlier


def test_the_epoch_is_no_channel(log):
    log.begin_epoch()
    assert log.get_channels() == []
    assert last_ids(log, "a") == {"a": 0}


# What the predecessor left


def test_rows_of_the_predecessor_are_read_right(db_log):
    """It encoded twice what `json_encode=True` sent, and kept an empty row with the id 0."""
    rows = models.Event.objects.using(db_log.alias)
    rows.create(channel="a", type="", data="", eid=0)
    rows.create(channel="a", type="message", data='"{\\"text\\": \\"hello\\"}"', eid=1)
    rows.create(channel="a", type="message", data='"plain"', eid=2)
    rows.create(channel="a", type="message", data='{"not": "text"}', eid=3)
    models.EventCounter.objects.using(db_log.alias).create(name="a", value=3)
    assert read_all(db_log, "a") == [
        (1, '{"text": "hello"}'),
        (2, "plain"),
        (3, '{"not": "text"}'),
    ]
    assert [event.id for event in db_log.append(events_of("a", "4"))] == [4]
    assert db_log.trim("a", timezone.now() + timedelta(hours=1), None, 100) == 4
    assert db_log.get_position(["a"]).unnumbered == frozenset()


def test_a_row_saved_by_hand_is_an_event_like_any_other(db_log):
    models.Event.objects.using(db_log.alias).create(channel="a", type="message", data='"by hand"')
    wait_until(lambda: db_log.get_position([]).unnumbered == {"a"})
    assert [(event.id, event.data) for event in db_log.number("a")] == [(1, "by hand")]


# Isolation


@pytest.fixture(params=["repeatable read", "serializable"])
def strict_log(request, database):
    """A project may have chosen another isolation for all its transactions."""
    connection = connections[database.alias]
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one isolation")
    options = connection.settings_dict["OPTIONS"]
    if connection.vendor == "postgresql":
        level = IsolationLevel[request.param.upper().replace(" ", "_")]
    else:
        level = request.param
    connection.close()
    options["isolation_level"] = level
    yield DjangoModelStorage(using=database.alias)
    connection.close()
    del options["isolation_level"]


def test_the_log_works_under_any_isolation(strict_log):
    log = strict_log
    log.append(events_of("a", "1"))
    log.append(events_of("a", "2") + events_of("b", "1"))
    with transaction.atomic(log.alias):
        log.stage(events_of("a", "3"))
    log.number("a")
    assert read_all(log, "a") == [(1, "1"), (2, "2"), (3, "3")]
    assert log.trim("a", None, 1, 10) == 2


@pytest.mark.parametrize("prepare_threshold", [None, 0])
def test_the_log_works_where_the_server_binds_and_prepares(postgres_only, prepare_threshold):
    """The first event of a channel failed: its name stood for two types at once."""
    connection = connections[postgres_only.alias]
    options = connection.settings_dict["OPTIONS"]
    connection.close()
    options |= {"server_side_binding": True, "prepare_threshold": prepare_threshold}
    try:
        use_every_way(DjangoModelStorage(using=postgres_only.alias))
    finally:
        connection.close()
        options.clear()


def use_every_way(log: DjangoModelStorage) -> None:
    for n in "12":
        log.append(events_of("a", n))
        log.append(events_of("a", n) + events_of("b", n))
        with transaction.atomic(log.alias):
            log.stage(events_of("a", n))
            log.stage(events_of("a", n, n))
        assert len(log.number("a")) == 3
    assert [event.data for event in log.read("a", 0, 100, 1_000)] == [*"11111", *"22222"]
    assert last_ids(log, "a", "b") == {"a": 10, "b": 2}
    assert log.trim("a", timezone.now() - timedelta(hours=1), 5, 10) == 5


# Errors


def test_a_log_inside_a_transaction_of_the_caller_says_so(db_log):
    assert not db_log.is_in_transaction()
    with transaction.atomic(db_log.alias):
        assert db_log.is_in_transaction()


def test_a_log_without_autocommit_counts_as_in_a_transaction(db_log):
    transaction.set_autocommit(False, using=db_log.alias)
    try:
        assert db_log.is_in_transaction()
        db_log.stage(events_of("a", "1"))
        transaction.rollback(using=db_log.alias)
        assert db_log.number("a") == []
        db_log.stage(events_of("a", "2"))
        transaction.commit(using=db_log.alias)
    finally:
        transaction.set_autocommit(True, using=db_log.alias)
    assert [(event.id, event.data) for event in db_log.number("a")] == [(1, "2")]


def test_the_default_database_is_the_one_that_routers_choose(default_database):
    DjangoModelStorage().append(events_of("a", "1"))
    assert models.Event.objects.using(default_database.alias).count() == 1
    assert default_connection.vendor == default_database.vendor


def test_the_epoch_has_a_name_that_no_channel_can_have():
    assert EPOCH_NAME == ""


# What nobody can read

UNREADABLE = [
    ("message", '"x"', "[7"),
    ("message", '"x"', '{"7": 1}'),
    ("message", '"x"', "[" * 100_000),
    ("two\nlines", '"x"', None),
    ("message", '"\\ud800"', None),
]


def spoil(log: DjangoModelStorage, channel: str, kind: str, data: str, skip: str | None) -> None:
    """Writes an event by hand, as nobody should."""
    models.Event.objects.using(log.alias).create(
        channel=channel, type=kind, data=data, skip_user_ids=skip
    )


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch):
    monkeypatch.setattr("django_eventstream.storage.rows._reported", set())


@pytest.mark.parametrize(("kind", "data", "skip"), UNREADABLE)
def test_an_event_that_nobody_can_read_is_left_out_and_reported_once(
    db_log, caplog, kind, data, skip
):
    """It silenced its channel, and raised in the next process that sent there."""
    db_log.append(events_of("a", "1"))
    spoil(db_log, "a", kind, data, skip)
    with transaction.atomic(db_log.alias):
        db_log.stage(events_of("a", "3"))
    assert [(event.id, event.data) for event in db_log.number("a")] == [(3, "3")]
    db_log.append(events_of("a", "4"))
    assert read_all(db_log, "a") == [(1, "1")]
    for _ in range(2):
        with pytest.raises(HistoryGoneError) as gone:
            db_log.read("a", 1, 100)
        assert gone.value.oldest == 3
        with pytest.raises(HistoryGoneError) as gone:
            db_log.read("a", 1, 1)
        assert gone.value.oldest == 3
    assert read_all(db_log, "a", 2) == [(3, "3"), (4, "4")]
    [record] = caplog.records
    assert "The event 2 of channel 'a' cannot be read" in record.message
    assert "(1 such events so far)" in record.message


def test_a_stream_goes_on_behind_an_event_that_nobody_can_read(db_log):
    spoil(db_log, "a", "message", '"x"', "[7")
    db_log.number("a")
    db_log.append(events_of("a", "2"))
    position = db_log.get_position(["a"])
    expected = {
        "a:0": "2",
        "a:0,:0": '{"channels": ["a"], "reasons": {"a": "expired"}}',
        "a:1": "2",
    }
    for cursor, data in expected.items():
        cursor = Cursor.parse(cursor)
        hold = Hold(("a",), (), cursor, None, 0, lambda: None)
        batch = catch_up(db_log, hold, position, room=1_000, at_least_one=True)
        parser = EventStreamParser()
        assert parser.feed(b"".join(batch.frames))[-1].data == data
        assert parser.last_event_id == "a:2"


def test_keys_of_users_that_were_written_as_numbers_are_meant(db_log):
    spoil(db_log, "a", "message", '"x"', "[7]")
    [event] = db_log.number("a")
    assert event.skip_user_ids == {"7"}


@pytest.mark.parametrize("text", ["no lines", "message\n[7\nx", b"message\n\n\xff"])
def test_an_entry_of_redis_that_nobody_can_read_is_left_out(redis_server, caplog, text):
    log = redis_log(redis_server)
    log.append(events_of("a", "1", "2", "3"))
    replace_entry(log, "a", 2, text)
    assert read_all(log, "a") == [(1, "1")]
    with pytest.raises(HistoryGoneError) as gone:
        log.read("a", 1, 1)
    assert gone.value.oldest == 3
    assert read_all(log, "a", 2) == [(3, "3")]
    assert "The event 2 of channel 'a' cannot be read" in caplog.text
