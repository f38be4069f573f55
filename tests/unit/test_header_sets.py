"""Response headers are kept for others in a table that is bounded, and whole at any moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_eventstream.web.header_sets import DIGEST_BYTES, MOST_BYTES, MOST_SETS, HeaderSets
from tests.services.deadline import HEALTHY

HEADERS = [(b"Content-Type", b"text/event-stream"), (b"X-Frame-Options", b"DENY")]


def numbered(number):
    return [*HEADERS, (b"X-Nonce", str(number).encode())]


def test_headers_are_found_by_what_learning_them_returned():
    sets = HeaderSets()
    digest = sets.learn(HEADERS)
    assert len(digest) == DIGEST_BYTES
    assert sets.find(digest) == tuple(HEADERS)
    assert sets.learn(list(HEADERS)) == digest
    assert sets.learn([*HEADERS, (b"set-cookie", b"a=b"), (b"X-Request-ID", b"8")]) == digest
    assert sets.learn(reversed(HEADERS)) != digest
    assert HeaderSets().find(digest) is None


@pytest.mark.parametrize("other", [[], [(b"Content-Type", b"text/event-streamX-Frame-Options")]])
def test_other_headers_have_another_digest(other):
    assert HeaderSets().learn(other) != HeaderSets().learn(HEADERS)


def test_the_latest_sets_are_kept_and_no_more():
    sets = HeaderSets()
    digests = [sets.learn(numbered(number)) for number in range(2 * MOST_SETS)]
    kept = [sets.find(digest) is not None for digest in digests]
    assert kept == [False] * MOST_SETS + [True] * MOST_SETS


def test_headers_that_are_too_long_are_not_kept():
    assert HeaderSets().learn([(b"X-Long", b"x" * MOST_BYTES)]) is None


def test_threads_that_learn_at_once_leave_a_table_that_is_bounded_and_right():
    sets, together = HeaderSets(), threading.Barrier(4)

    def learn(first):
        together.wait(HEALTHY)
        for number in range(first, first + MOST_SETS):
            headers = numbered(number)
            found = sets.find(sets.learn(headers))
            # Another thread may have put a table without it in the place of this one.
            assert found is None or list(found) == headers

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(learn, first) for first in range(0, 4 * 100, 100)]:
            done.result(HEALTHY)
    kept = [number for number in range(1_000) if sets.find(HeaderSets().learn(numbered(number)))]
    assert 0 < len(kept) <= MOST_SETS
