"""What people write."""

from django.db import models


class Message(models.Model):
    author = models.CharField(max_length=40)
    text = models.CharField(max_length=500)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return f"{self.author}: {self.text}"

    @classmethod
    def latest(cls, count):
        """Return the last messages, the oldest of them first."""
        return list(cls.objects.order_by("-pk")[:count])[::-1]

    def as_data(self):
        """Return what a page needs to show it, whether it is in the page or in an event."""
        return {"id": self.pk, "author": self.author, "text": self.text, "sent": self.created}
