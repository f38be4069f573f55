"""Old events of all channels go together, and what is kept of each has no hole."""

from __future__ import annotations

import os
import random
import threading
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from django_eventstream import models
from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError
from django_eventstream.storage import DjangoModelStorage, MemoryStorage
from django_eventstream.storage.base import Storage, Sweep
from tests.services.databases import Database
from tests.services.deadline import HEALTHY

NEVER = (None, None)


@pytest.fixture
def log(database: Database) -> DjangoModelStorage:
    return DjangoModelStorage(using=database.alias)


def rows(log: DjangoModelStorage, channel: str):
    return models.Event.objects.using(log.alias).filter(channel=channel)


def events_of(channel: str, *texts: str) -> list[Event]:
    return [Event(channel, "message", text) for text in texts]


def age(log: DjangoModelStorage, channel: str, up_to: int, **ago: float) -> None:
    rows(log, channel).filter(eid__lte=up_to).update(created=timezone.now() - timedelta(**ago))


def kept(log: DjangoModelStorage, channel: str) -> list[int]:
    return sorted(rows(log, channel).values_list("eid", flat=True))


def hour(channel: str):
    return timezone.now() - timedelta(hours=1), None


def sweep_all(log: Storage, limit: int, limits=hour) -> int:
    """One round from the oldest to the newest; how many went."""
    position, removed = 0, 0
    while position is not None:
        found = log.sweep(position, limit, limits)
        position, removed = found.position, removed + found.removed
    return removed


def test_what_has_expired_goes_from_every_channel(log):
    names = [f"user-{number}" for number in range(30)]
    log.append([Event(name, "message", text) for text in "abc" for name in names])
    for number, name in enumerate(names):
        age(log, name, up_to=number % 4, hours=2)
    assert log.sweep(0, 1_000, hour) == Sweep(removed=sum(n % 4 for n in range(30)))
    assert [kept(log, name) for name in names] == [[1, 2, 3][number % 4 :] for number in range(30)]


def test_each_look_is_bounded_and_says_where_the_next_begins(log):
    log.append([Event(f"c{number % 5}", "message", "x") for number in range(25)])
    newest = [rows(log, f"c{number}").get(eid=5) for number in range(5)]
    first = log.sweep(0, 10, hour)
    assert (first.removed, first.position) == (0, newest[0].pk - 11)
    assert first.created == rows(log, "c4").get(eid=2).created
    assert log.sweep(first.position, 15, hour).position == newest[4].pk
    assert log.sweep(newest[4].pk, 10, hour) == Sweep()


def test_each_channel_keeps_what_it_may_keep(log):
    limits = {"hour": hour(""), "two": (None, 2), "both": (hour("")[0], 3), "ever": NEVER}
    log.append([event for name in limits for event in events_of(name, *"12345")])
    for name in limits:
        age(log, name, up_to=1, hours=2)
    assert sweep_all(log, 7, limits.__getitem__) == 1 + 3 + 2
    assert [kept(log, name) for name in limits] == [
        [2, 3, 4, 5], [4, 5], [3, 4, 5], [1, 2, 3, 4, 5],
    ]  # fmt: skip


def test_who_is_up_to_date_resumes_and_no_id_is_used_again(log):
    log.append(events_of("a", *"123"))
    age(log, "a", up_to=3, hours=2)
    assert sweep_all(log, 100) == 3
    assert log.read("a", 3, 10) == []
    with pytest.raises(HistoryGoneError) as raised:
        log.read("a", 2, 10)
    assert raised.value.oldest == 4
    assert [event.id for event in log.append(events_of("a", "4"))] == [4]


def test_an_event_of_a_long_transaction_goes_after_those_numbered_before_it(log):
    """It is stored first, and old; those with smaller ids are younger."""
    with transaction.atomic(log.alias):
        log.stage(events_of("a", "staged first"))
    log.append(events_of("a", "1", "2"))
    assert [event.id for event in log.number("a")] == [3]
    rows(log, "a").filter(eid=3).update(created=timezone.now() - timedelta(hours=2))
    assert sweep_all(log, 100) == 0
    age(log, "a", up_to=1, hours=2)
    assert log.sweep(0, 1, hour).removed == 0
    assert sweep_all(log, 1) == 1
    assert kept(log, "a") == [2, 3]
    age(log, "a", up_to=2, hours=2)
    assert sweep_all(log, 1) + sweep_all(log, 1) == 2


def test_events_without_a_number_and_what_the_predecessor_left_stay(log):
    rows(log, "a").create(channel="a", type="", data="", eid=0)
    with transaction.atomic(log.alias):
        log.stage(events_of("a", "staged"))
    models.Event.objects.using(log.alias).update(created=timezone.now() - timedelta(hours=2))
    assert sweep_all(log, 100) == 0
    assert [event.id for event in log.number("a")] == [1]
    assert sweep_all(log, 100) == 1


def test_what_somebody_else_removes_meanwhile_is_no_matter(log):
    log.append(events_of("a", *"123") + events_of("b", *"123"))
    age(log, "a", up_to=3, hours=2)
    age(log, "b", up_to=2, hours=2)

    def removing(channel: str):
        log.trim("a", *hour(channel), 100)
        log.trim("b", *hour(channel), 1)
        return hour(channel)

    assert log.sweep(0, 100, removing).removed == 0
    assert (kept(log, "a"), kept(log, "b")) == ([], [3])


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_order_what_is_kept_has_no_hole(log, seed):
    chance = random.Random(seed)
    names = ["a", "b", "c"]
    for number in range(60):
        events = events_of(chance.choice(names), str(number))
        if chance.random() < 0.5:
            with transaction.atomic(log.alias):
                log.stage(events)
        else:
            log.append(events)
        if chance.random() < 0.2:
            log.number(chance.choice(names))
    for name in names:
        log.number(name)
        for row in rows(log, name):
            row.created -= timedelta(hours=chance.choice([0, 2, 2, 2]))
            row.save(using=log.alias)
    last = log.get_position(names).ids
    young = {
        name: min(rows(log, name).filter(created__gt=hour("")[0]).values_list("eid", flat=True))
        for name in names
    }
    position = 0
    for _ in range(200):
        position = log.sweep(position, chance.randint(1, 9), hour).position or 0
        for name in names:
            found = kept(log, name)
            assert found == list(range(found[0], last[name] + 1))
    assert {name: kept(log, name)[0] for name in names} == young


@pytest.mark.parametrize("count", [1, 40])
def test_nobody_waits_for_a_transaction_that_has_sent(log, count):
    """MariaDB reads a small table from its beginning, and waited for what was not committed."""
    if connections[log.alias].vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    log.append(events_of("a", *["x"] * count))
    age(log, "a", up_to=count, hours=2)
    staged, done = threading.Event(), threading.Event()

    def send_and_wait() -> None:
        with transaction.atomic(log.alias):
            log.stage(events_of("a", "staged"))
            staged.set()
            done.wait(60)
        connections[log.alias].close()

    sender = threading.Thread(target=send_and_wait)
    sender.start()
    try:
        assert staged.wait(HEALTHY)
        log.append(events_of("a", *["y"] * count))
        age(log, "a", up_to=2 * count, hours=2)
        assert log.trim("a", hour("")[0], None, count) == count
        assert sweep_all(log, 100) == count
        assert sender.is_alive()
        assert not done.is_set()
    finally:
        done.set()
        sender.join()


def test_a_log_in_memory_is_swept_from_its_oldest_events():
    log = MemoryStorage()
    names = [f"user-{number}" for number in range(30)]
    log.append([Event(name, "message", text) for text in "abc" for name in names])
    in_an_hour = timezone.now() + timedelta(hours=1)
    kept_for_ever = names[0]

    def limits(channel: str):
        return (None, None) if channel == kept_for_ever else (in_an_hour, None)

    found = log.sweep(0, 50, limits)
    assert 0 < found.removed < 50
    assert found.created is not None
    while (position := found.position) is not None:
        found = log.sweep(position, 50, limits)
    assert [event.id for event in log.read(kept_for_ever, 0, 9)] == [1, 2, 3]
    assert log.get_position(names).ids == dict.fromkeys(names, 3)
    assert log.read(names[1], 3, 9) == []
    with pytest.raises(HistoryGoneError):
        log.read(names[1], 0, 9)


def test_what_is_kept_in_memory_hides_nothing_that_has_expired():
    """Behind a thousand events that were kept none was ever removed."""
    log = MemoryStorage()
    log.append(events_of("kept", *["x"] * 2_000) + events_of("old", *["x"] * 500))
    log.append(events_of("kept", *["x"] * 2_000) + events_of("new", "x"))
    in_an_hour = timezone.now() + timedelta(hours=1)
    asked = []

    def limits(channel: str):
        asked.append(channel)
        return (in_an_hour, None) if channel == "old" else NEVER

    assert log.sweep(0, 1_000, limits).removed == 500
    assert asked == ["kept", "old", "new"]
    assert len(log.read("kept", 0, 9_999)) == 4_000


def test_a_sweep_in_memory_that_has_done_enough_leaves_nobody_out_of_the_round():
    log = MemoryStorage()
    log.append([event for name in "abc" for event in events_of(name, "x")])
    in_an_hour = timezone.now() + timedelta(hours=1)
    assert sweep_all(log, 2, lambda channel: (in_an_hour, None)) == 3


class CountedLookups(dict):
    count = 0

    def __contains__(self, key) -> bool:
        self.count += 1
        return super().__contains__(key)


def test_no_question_goes_through_the_ids_of_what_is_gone_from_memory():
    """All that send waited meanwhile: a log of a million ids held its lock for as long."""
    log = MemoryStorage()
    log.append(events_of("a", *["x"] * 20_000))
    log.append(events_of("b", "x"))
    lookups = log._stored["a"] = CountedLookups(log._stored["a"])
    assert log.trim("a", None, 5, 20_000) == 19_995
    lookups.count = 0
    for after in (0, 10_000, 19_990, 19_995):
        if after < 19_995:
            with pytest.raises(HistoryGoneError) as gone:
                log.read("a", after, 100)
            assert gone.value.oldest == 19_996
        else:
            assert len(log.read("a", after, 100)) == 5
    assert log.trim("a", None, 5, 100) == 0
    assert log.sweep(0, 100, lambda channel: (None, 5)) == Sweep(0, None, log._stored["b"][1][0])
    assert lookups.count < 30


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_process_that_forks_begins_a_log_of_its_own_in_memory():
    log = MemoryStorage()
    log.append(events_of("a", "1"))
    before = log.get_position(["a"])
    child = os.fork()
    if not child:
        mine = log.get_position(["a"])
        os._exit(0 if mine.ids == {"a": 0} and mine.epoch > before.epoch else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert log.get_position(["a"]) == before
