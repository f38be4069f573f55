"""A write whose answer is lost may be stored: whoever sent it is told what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from django_eventstream import send_event, send_events
from django_eventstream.backends import get_storage
from django_eventstream.events import Event
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.models import Event as Row
from tests.cut_answers import CutAnswers
from tests.services.databases import Database

MAYBE = "it may have been stored: the connection was lost while it was being written"


@pytest.fixture(params=["postgres", "mariadb"])
def served_database(request, database_of, django_db_blocker) -> Iterator[Database]:
    with django_db_blocker.unblock():
        database = database_of(request.param)
        database.empty()
        yield database
        connections[database.alias].close()


@contextmanager
def behind_a_cut(database: Database) -> Iterator[CutAnswers]:
    """The default database is this one, by a way on which answers get lost."""
    with CutAnswers(int(database.settings["PORT"])) as cut:
        there = connections.settings[database.alias]
        connections.settings[database.alias] = {**there, "PORT": str(cut.port)}
        try:
            with database.as_default():
                yield cut
        finally:
            connections.settings[database.alias] = there


def stored(database: Database) -> list[str]:
    rows = Row.objects.using(database.alias).order_by("id")
    return list(rows.values_list("data", flat=True))


def test_an_event_whose_commit_was_not_answered_may_be_stored(served_database, monkeypatch):
    """It said that nothing was sent, and the event was in the log."""
    with behind_a_cut(served_database) as cut:
        send_event("a", "message", 0)
        wrapper = connections[DEFAULT_DB_ALIAS]
        commit = wrapper._commit

        def commit_unheard():
            cut.next_answer()
            commit()

        monkeypatch.setattr(wrapper, "_commit", commit_unheard)
        with pytest.raises(StorageUnavailableError, match=MAYBE) as raised:
            send_events([(channel, "message", channel) for channel in ("new", "newer")])
        assert raised.value.may_be_stored
        assert stored(served_database) == ['"0"', '"\\"new\\""', '"\\"newer\\""']
        monkeypatch.undo()
        assert send_event("a", "message", 1).id == 2


def test_a_statement_that_commits_by_itself_may_be_stored(postgres_only):
    """On PostgreSQL an event is stored in one statement, outside of any transaction of ours."""
    with behind_a_cut(postgres_only) as cut:
        send_event("a", "message", 0)
        cut.next_answer()
        with pytest.raises(StorageUnavailableError, match=MAYBE) as raised:
            send_event("a", "message", 1)
        assert raised.value.may_be_stored
        assert cut.count == 1
        assert send_event("a", "message", 2).id == len(stored(postgres_only))


def test_an_event_lost_before_the_commit_is_known_not_to_be_stored(served_database):
    with behind_a_cut(served_database) as cut:
        send_event("a", "message", 0)
        with pytest.raises(StorageUnavailableError) as raised:
            send_in_a_transaction(cut)
        assert not raised.value.may_be_stored
        assert stored(served_database) == ['"0"']


def send_in_a_transaction(cut: CutAnswers) -> None:
    with transaction.atomic():
        cut.next_answer()
        send_event("a", "message", 1)


def test_a_database_that_was_never_reached_has_stored_nothing(served_database):
    with behind_a_cut(served_database) as cut:
        cut.next_answer()
        with pytest.raises(StorageUnavailableError) as raised:
            send_event("a", "message", 1)
        assert not raised.value.may_be_stored
        assert MAYBE not in str(raised.value)


def test_an_event_that_the_database_refused_is_not_stored(default_database):
    send_event("a", "message", 1)
    Row.objects.create(channel="a", type="t", data='"in the way"', eid=2)
    with pytest.raises(StorageUnavailableError) as raised:
        get_storage().append([Event("a", "message", "x")])
    assert not raised.value.may_be_stored
    with transaction.atomic():
        with pytest.raises(StorageUnavailableError) as raised:
            get_storage().append([Event("a", "message", "x")])
        transaction.set_rollback(True)
    assert not raised.value.may_be_stored
