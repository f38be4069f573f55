"""A room, and what is posted to it."""

from django.http import JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from examples.chat.forms import MessageForm
from examples.chat.models import Message


@never_cache
@require_safe
def room(request, room):
    """Show the room to `?user=`; ask for a name first if there is none."""
    user = request.GET.get("user", "").strip()
    if not user:
        return render(request, "examples/join.html", {"room": room})
    messages, cursor = Message.history(room)
    state = {"messages": messages, "last_event_id": cursor}
    return render(request, "examples/chat.html", {"room": room, "user": user, "state": state})


@require_POST
def post_message(request, room):
    """Save a message and send it."""
    form = MessageForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    message = Message.post(room=room, **form.cleaned_data)
    return JsonResponse(message.as_data())
