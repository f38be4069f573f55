"""What is sent at once to all who stand at the same place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


class Portion:
    """What comes next at a place, encoded once for all who stand there."""

    __slots__ = ("_end", "_pieces", "_skips", "skipped", "whole")

    def __init__(
        self, pieces: Sequence[bytes], skips: Mapping[int, Collection[str]], end: bytes
    ) -> None:
        self.whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        """For everybody else."""
        self.skipped: Collection[str] = frozenset().union(*skips.values()) if skips else ()
        """Users who do not get all of it."""
        self._pieces = pieces
        self._skips = skips
        self._end = end

    def for_user(self, user_id: str | None) -> bytes:
        """Return what one user gets; may be empty."""
        if user_id not in self.skipped:
            return self.whole
        mine = [
            piece
            for number, piece in enumerate(self._pieces)
            if user_id not in self._skips.get(number, ())
        ]
        if user_id in self._skips.get(len(self._pieces) - 1, ()):
            mine.append(self._end)
        return b"".join(mine)
