"""The page, and the API that it uses."""

from django.shortcuts import render
from django.views.decorators.http import require_safe
from rest_framework.mixins import CreateModelMixin
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from django_eventstream.viewsets import EventsViewSet
from examples.chat.models import Message
from examples.chat_rest.serializers import MessageSerializer


class MessageViewSet(CreateModelMixin, GenericViewSet):
    """The messages of a room, and the cursor from which its stream goes on."""

    name = "Messages"
    serializer_class = MessageSerializer

    def list(self, request, room):
        messages, cursor = Message.history(room)
        return Response({"messages": messages, "last_event_id": cursor})

    def perform_create(self, serializer):
        serializer.save(room=self.kwargs["room"])


class RoomEvents(EventsViewSet):
    """The stream of a room; its channel comes from the URL."""


@require_safe
def room(request, room):
    """Show the room to `?user=`; ask for a name first if there is none."""
    user = request.GET.get("user", "").strip()
    template = "examples/chat_rest.html" if user else "examples/join.html"
    return render(request, template, {"room": room, "user": user})
