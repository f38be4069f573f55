"""Response headers that Django gave to streams, for those who come back without asking it."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from itertools import islice

Headers = tuple[tuple[bytes, bytes], ...]

DIGEST_BYTES = 16

MOST_SETS = 256
"""A site has a handful of them. One that gives each response a header of its own goes through all
of them all the time, and is asked each time: that costs it this much memory, and no more."""

MOST_BYTES = 4_000
"""Longer sets are not kept."""

NOT_REPEATED = frozenset(
    b"set-cookie content-length date server connection server-timing x-request-id x-correlation-id"
    b" request-id traceparent tracestate".split()
)
"""Headers that were for one response only."""


class HeaderSets:
    """What this process has seen: digest → headers. Any thread may use it.

    Each change is a new mapping that takes the place of the one before. So there is no lock that a
    fork could leave held, and what a child inherits is whole.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Headers] = {}

    def learn(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """Keep the headers of a response that may be repeated; None if they are too many."""
        kept = tuple(header for header in headers if header[0].lower() not in NOT_REPEATED)
        if sum(len(name) + len(value) for name, value in kept) > MOST_BYTES:
            return None
        digest = sha256(repr(kept).encode()).digest()[:DIGEST_BYTES]
        known = self._known
        if digest not in known:
            latest = islice(known.items(), max(0, len(known) + 1 - MOST_SETS), None)
            self._known = {**dict(latest), digest: kept}
        return digest

    def find(self, digest: bytes) -> Headers | None:
        """Return the headers; None if this process has not seen them, or not lately."""
        return self._known.get(digest)
