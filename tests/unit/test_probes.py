"""When a channel is probed: once it is silent, and with each id at most once a minute."""

from __future__ import annotations

from django_eventstream.publishers.probes import (
    CHANNELS_REMEMBERED,
    REMEMBERED_SECONDS,
    SILENCE_SECONDS,
    Probes,
)


def test_a_silent_channel_is_probed_once_with_its_last_id():
    probes = Probes()
    assert probes.seconds_until_due(0) is None
    probes.note("a", 1, 0)
    probes.note("a", 2, 1)
    assert probes.take_due(SILENCE_SECONDS, 10) == []
    assert probes.take_due(1 + SILENCE_SECONDS, 10) == [("a", 2)]
    assert probes.take_due(1_000, 10) == []
    assert probes.seconds_until_due(1_000) is None


def test_a_busy_channel_is_not_probed():
    probes = Probes()
    for second in range(100):
        probes.note("a", second + 1, second)
        assert probes.take_due(second, 10) == []


def test_an_id_is_not_probed_twice_within_a_minute():
    probes = Probes()
    probes.note("a", 5, 0)
    assert probes.take_due(10, 10) == [("a", 5)]
    for last_id in (5, 4):
        probes.note("a", last_id, 11)
    assert probes.take_due(11 + SILENCE_SECONDS, 10) == []
    probes.note("a", 5, 10 + REMEMBERED_SECONDS)
    assert probes.take_due(10 + REMEMBERED_SECONDS + SILENCE_SECONDS, 10) == [("a", 5)]


def test_a_channel_that_moved_on_is_probed_again_soon():
    """It was not within a minute, so that a lost event came a minute late."""
    probes = Probes()
    probes.note("a", 1, 0)
    assert probes.take_due(10, 10) == [("a", 1)]
    probes.note("a", 2, 11)
    assert probes.take_due(11 + SILENCE_SECONDS, 10) == [("a", 2)]


def test_a_probe_that_did_not_reach_the_proxy_is_due_again():
    """It was tried again a minute later."""
    probes = Probes()
    probes.note("a", 1, 0)
    assert probes.take_due(10, 10) == [("a", 1)]
    probes.failed("a", 1, 11)
    assert probes.take_due(11 + SILENCE_SECONDS, 10) == [("a", 1)]


def test_what_is_due_comes_in_bounded_portions():
    probes = Probes()
    for number in range(25):
        probes.note(str(number), 1, 0)
    found = [probes.take_due(10, 10) for _ in range(4)]
    assert [len(portion) for portion in found] == [10, 10, 5, 0]


def test_an_older_id_does_not_replace_a_newer_one():
    probes = Probes()
    probes.note("a", 5, 0)
    probes.note("a", 3, 0)
    assert probes.take_due(10, 10) == [("a", 5)]


def test_the_memory_of_probes_is_bounded():
    probes = Probes()
    for number in range(1_000):
        probes.note(str(number), 1, number * REMEMBERED_SECONDS)
        probes.take_due(number * REMEMBERED_SECONDS + SILENCE_SECONDS, 10)
    assert len(probes._probed) < 5
    for number in range(CHANNELS_REMEMBERED + 10):
        probes.note(f"of a minute {number}", 1, 10**6)
        probes.take_due(10**6 + SILENCE_SECONDS, 10)
    assert len(probes._probed) == CHANNELS_REMEMBERED
