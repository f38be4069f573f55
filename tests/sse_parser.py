"""Event stream parsing as WHATWG HTML §9.2.6 words it, written apart from the package it checks."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class Message:
    """An event as a page sees it: `MessageEvent.type`, `.data` and `.lastEventId`."""

    type: str
    data: str
    last_event_id: str


class EventStreamParser:
    """Bytes in, in pieces of any size; dispatched messages out.

    `last_event_id` is the event source's: what a reconnect would send. `retry` is the last
    reconnection time named, in milliseconds. `comments` has the text of comment lines.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self.comments: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._ended_with_cr = False
        self._id_buffer = last_event_id
        self._type_buffer = ""
        self._data_buffer = ""

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that this piece completes. At the end of a stream just stop feeding."""
        messages = [self._process(line) for line in self._lines(self._decoder.decode(chunk))]
        return [message for message in messages if message]

    def _lines(self, text: str) -> list[str]:
        if not text:
            return []
        if self._ended_with_cr:
            text = text.removeprefix("\n")  # the other half of a CRLF that was cut in two
        self._ended_with_cr = text.endswith("\r")
        *lines, self._line = LINE_END.split(self._line + text)
        return lines

    def _process(self, line: str) -> Message | None:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            self.comments.append(line[1:])
            return None
        field, _, value = line.partition(":")
        self._process_field(field, value.removeprefix(" "))
        return None

    def _process_field(self, field: str, value: str) -> None:
        if field == "event":
            self._type_buffer = value
        elif field == "data":
            self._data_buffer += value + "\n"
        elif field == "id" and "\0" not in value:
            self._id_buffer = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)

    def _dispatch(self) -> Message | None:
        self.last_event_id = self._id_buffer
        event_type, data = self._type_buffer, self._data_buffer
        self._type_buffer = self._data_buffer = ""
        if not data:
            return None
        return Message(event_type or "message", data.removesuffix("\n"), self.last_event_id)
