"""The window says exactly what follows an id, or that it does not reach back so far."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from django_eventstream.events import Event
from django_eventstream.hub.window import Frame, Window
from tests.sse_parser import EventStreamParser

MAX_BYTES = 1_000


def frames(first: int, sizes: list[int], epoch: int = 0) -> list[Frame]:
    return [
        Frame(Event("a", "message", "x" * size, first + n), first + n, epoch)
        for n, size in enumerate(sizes)
    ]


sizes = st.lists(st.integers(0, 300), max_size=6)


class WindowMachine(RuleBasedStateMachine):
    """Whatever happens, what it holds is a run of ids that ends at the last one."""

    @initialize(last_id=st.integers(0, 50))
    def make(self, last_id):
        self.window = Window(last_id, MAX_BYTES)
        self.last_id = last_id

    @rule(sizes=sizes)
    def append(self, sizes):
        self.window.append(frames(self.last_id + 1, sizes))
        self.last_id += len(sizes)

    @rule(sizes=sizes, gap=st.integers(-3, 3))
    def prepend(self, sizes, gap):
        """A page that ends before, at, or beyond the window's first frame."""
        end = self.window.first_id - 1 - gap
        before = self.window.first_id
        first = end - len(sizes) + 1
        if first >= 1 and end <= self.last_id:
            self.window.prepend(frames(first, sizes))
            assert self.window.first_id in (before, first)
            assert gap <= 0 or self.window.first_id == before

    @rule(last_id=st.integers(0, 50))
    def restart(self, last_id):
        self.window.restart(last_id)
        self.last_id = last_id
        assert self.window.since(last_id) == []
        assert last_id == 0 or self.window.since(last_id - 1) is None

    @invariant()
    def every_answer_is_exact(self):
        assert self.window.last_id == self.last_id
        for position in range(self.last_id + 2):
            found = self.window.since(position)
            if found is None:
                assert position < self.window.first_id - 1
            else:
                ids = [frame.id for frame in found]
                assert ids == list(range(position + 1, self.last_id + 1))

    @invariant()
    def its_size_is_bounded(self):
        held = self.window.since(self.window.first_id - 1)
        assert sum(frame.size for frame in held) == self.window.bytes <= MAX_BYTES

    @precondition(lambda self: self.window.first_id > self.last_id)
    @rule()
    def while_empty_the_first_is_the_next(self):
        assert self.window.first_id == self.last_id + 1


TestWindow = WindowMachine.TestCase


def read(data: bytes):
    return EventStreamParser().feed(data)


@given(st.integers(1, 2**63 - 1), st.integers(0, 2**40))
def test_a_frame_is_encoded_whole_and_without_its_end(event_id, epoch):
    frame = Frame(Event("ä b", "tick", "1\n2", event_id), event_id, epoch)
    [message] = read(frame.whole)
    assert (message.type, message.data) == ("tick", "1\n2")
    assert message.last_event_id == f"%C3%A4%20b:{event_id}" + (f",:{epoch}" if epoch else "")
    assert frame.whole.startswith(frame.body)
    [same] = read(frame.body + b"id: b:1\n\n")
    assert (same.type, same.data, same.last_event_id) == ("tick", "1\n2", "b:1")


def test_a_frame_of_an_event_that_is_not_stored_has_no_id():
    frame = Frame(Event("a", "tick", "x"), 5, 0)
    assert frame.whole == b"event: tick\ndata: x\n\n"


def test_an_event_larger_than_the_window_does_not_stay():
    window = Window(0, 100)
    window.append(frames(1, [10, 5_000]))
    assert window.last_id == 2
    assert window.since(0) is None
    assert window.since(2) == []
