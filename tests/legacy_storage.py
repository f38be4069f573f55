"""A storage as somebody wrote it for django-eventstream 5.3.4: one file for each channel."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from urllib.parse import quote

from django_eventstream.events import Event
from django_eventstream.storage import EventDoesNotExist, StorageBase

DIRECTORY = "EVENTSTREAM_TEST_FILES"


class FileStorage(StorageBase):
    """Keeps the last hundred events; the directory is named by an environment variable."""

    def append_event(self, channel, event_type, data):
        with self._path(channel).open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            event_id = len(file.readlines()) + 1
            file.write(json.dumps([event_type, data]) + "\n")
        return Event(channel, event_type, data, event_id)

    def get_events(self, channel, last_id, limit=100):
        lines = self._lines(channel)
        if not max(0, len(lines) - 100) <= last_id <= len(lines):
            raise EventDoesNotExist(f"No such event {last_id}", len(lines))
        found = enumerate(lines[last_id : last_id + limit], last_id + 1)
        return [Event(channel, *json.loads(line), event_id) for event_id, line in found]

    def get_current_id(self, channel):
        return len(self._lines(channel))

    def _lines(self, channel):
        path = self._path(channel)
        return path.read_text().splitlines() if path.exists() else []

    def _path(self, channel):
        return Path(os.environ[DIRECTORY], quote(channel, safe=""))


class BrokenStorage(FileStorage):
    """Its server is away."""

    def get_current_id(self, channel):
        raise ConnectionError("away")

    def append_event(self, channel, event_type, data):
        raise ConnectionError("away")


class DictStorage:
    """Of the old kind without its base class; ids are text, and data is none."""

    def __init__(self):
        self.events = {}

    def append_event(self, channel, event_type, data):
        events = self.events.setdefault(channel, [])
        events.append(Event(channel, event_type, {"text": data}, str(len(events) + 1)))
        return events[-1]

    def get_events(self, channel, last_id, limit=100):
        return (event for event in self.events.get(channel, ())[last_id : last_id + limit])

    def get_current_id(self, channel):
        return str(len(self.events.get(channel, ())))
