"""Messages, and the one way to post them."""

from uuid import uuid4

from django.db import models, transaction

from django_eventstream import get_current_event_id, send_event

MESSAGES_SHOWN = 50


class Message(models.Model):
    room = models.SlugField()
    user = models.CharField(max_length=40)
    text = models.CharField(max_length=500)
    created = models.DateTimeField(auto_now_add=True)
    # Chosen by whoever posts; a client that got no answer posts the same key again.
    key = models.UUIDField(default=uuid4, unique=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return f"{self.user}: {self.text}"

    @classmethod
    @transaction.atomic
    def post(cls, *, key=None, **values):
        """Save a message and send it, both or neither; a key that is known changes nothing."""
        message, is_new = cls.objects.get_or_create(key=key or uuid4(), defaults=values)
        if is_new:
            send_event(channel_of(message.room), "message", message.as_data())
        return message

    @classmethod
    def history(cls, room):
        """Return the last messages of a room, and the cursor from which its stream goes on.

        The cursor is read first: what is posted in between is then in both, and a page knows a
        message that it has. The other way round it would be in neither.
        """
        cursor = get_current_event_id([channel_of(room)])
        messages = cls.objects.filter(room=room).order_by("-pk")[:MESSAGES_SHOWN]
        return [message.as_data() for message in reversed(messages)], cursor

    def as_data(self):
        """Return what a page needs to show it, whether it is loaded or comes as an event."""
        created = self.created.isoformat()
        return {"id": self.pk, "user": self.user, "text": self.text, "created": created}


def channel_of(room):
    return f"room-{room}"
