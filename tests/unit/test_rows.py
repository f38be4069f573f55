"""Rows that nobody can read."""

from __future__ import annotations

from django_eventstream.storage import rows


def test_unreadable_events_are_reported_once_and_a_bounded_number_of_them(monkeypatch, caplog):
    monkeypatch.setattr(rows, "_reported", set())
    monkeypatch.setattr(rows, "MOST_REPORTED", 2)
    unreadable = [(number, "message", '"x"', "no JSON") for number in (1, 2, 3)]
    for _ in range(2):
        assert rows.make_events("a", [*unreadable, (4, "message", '"x"', None)])[0].id == 4
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(" of ")[0] for text in told] == ["The event 1", "The event 2"]
