"""The page, and what it posts.

`ATOMIC_REQUESTS` is on: a view's rows and its events are committed together.
"""

import os
import signal

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from chat.channels import ROOM, TICKER
from chat.forms import MessageForm
from chat.models import Message
from django_eventstream import get_current_event_id, send_event, send_events

MESSAGES_SHOWN = 50
BURST = 20


@never_cache
@require_safe
def room(request):
    """Show the page: what there is now, and the cursor from which its stream goes on."""
    channels = [ROOM, TICKER]
    # The cursor first, then the state: what is sent in between is in both, and the page knows a
    # message that it has. The other way round it would be in neither.
    cursor = get_current_event_id(channels)
    messages = [message.as_data() for message in Message.latest(MESSAGES_SHOWN)]
    state = {"channels": channels, "cursor": cursor, "messages": messages}
    return render(
        request,
        "chat/room.html",
        {"state": state, "burst": BURST, "server_is_restarted": settings.SERVER_IS_RESTARTED},
    )


@require_POST
def post_message(request):
    """Save a message and send it."""
    form = MessageForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    message = form.save()
    send_event(ROOM, "posted", message.as_data())
    return HttpResponse(status=204)


@require_POST
def post_burst(request):
    """Save many messages and send them at once: all of them arrive, or none."""
    author = request.POST.get("author", "")[:40] or "Somebody"
    messages = [
        Message.objects.create(author=author, text=f"{number} of {BURST} in one transaction")
        for number in range(1, BURST + 1)
    ]
    send_events((ROOM, "posted", message.as_data()) for message in messages)
    return HttpResponse(status=204)


@require_POST
def kill_server(request):
    """End this very process without a goodbye; `demo.py` starts another."""
    if not (settings.DEBUG and settings.SERVER_IS_RESTARTED):
        raise Http404
    os.kill(os.getpid(), signal.SIGKILL)


@require_POST
def open_history(request):
    """Log the visitor in as the demo's admin, who has no password, and show all events."""
    if not settings.DEBUG:
        raise Http404
    admin, is_new = get_user_model().objects.get_or_create(
        username="admin", defaults={"is_staff": True, "is_superuser": True}
    )
    if is_new:
        admin.set_unusable_password()
        admin.save()
    login(request, admin)
    return redirect("admin:django_eventstream_event_changelist")
