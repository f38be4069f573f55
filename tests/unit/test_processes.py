"""The end of a process."""

from __future__ import annotations

from django_eventstream import processes


def test_one_that_cannot_finish_keeps_no_other_from_it(monkeypatch, caplog):
    """A thread that had not begun yet could not be waited for, and nothing was posted any more."""
    finished = []

    def fail(deadline: float) -> None:
        raise RuntimeError("cannot join thread before it is started")

    monkeypatch.setattr(processes, "_at_exit", processes._Callbacks())
    processes.before_exit(fail)
    processes.before_exit(finished.append)
    processes.flush(seconds=1)
    assert len(finished) == 1
    assert "cannot join" in caplog.text
