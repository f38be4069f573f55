"""What the wrapper itself answers, where Django is not asked."""

from __future__ import annotations

from io import BytesIO

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse

from django_eventstream.hub.holder import Message, Send
from django_eventstream.web.asking import Scope
from django_eventstream.web.responses import finish_headers, retry_response

REASONS = {
    408: "The request did not come to its end in time.\n",
    413: "A request for a stream has no body of this size.\n",
}


async def send_refusal(scope: Scope, status: int, send: Send) -> None:
    """Refuse a request that is not complete, and close its connection."""
    response = HttpResponse(REASONS[status], status=status, content_type="text/plain")
    if scope["http_version"].startswith("1"):
        # What else comes on it is the rest of the request.
        response["Connection"] = "close"
    await _send(response, send)


async def send_back(scope: Scope, send: Send) -> None:
    """Tell a client for which there is no place when to come back.

    It is a stream that ends: an `EventSource` comes back after nothing else (WHATWG HTML §9.2.3).
    """
    request = ASGIRequest(scope, BytesIO())
    await _send(finish_headers(request, retry_response()), send)


async def _send(response: HttpResponse, send: Send) -> None:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.items()
    ]
    start: Message = {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": headers,
    }
    await send(start)
    await send({"type": "http.response.body", "body": response.content})
