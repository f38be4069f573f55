"""Middleware that does to streams what a project's may do."""

from __future__ import annotations

from collections import Counter
from functools import wraps

from django.http import HttpResponse


def of_answers(change):
    """A middleware that changes answers to requests for streams, or gives others."""

    def factory(get_response):
        @wraps(change)
        def middleware(request):
            response = get_response(request)
            return change(response) or response if "/events/" in request.path else response

        return middleware

    return factory


@of_answers
def add_header(response):
    response["X-Seen"] = "yes"
    response.set_cookie("seen", "yes")


@of_answers
def replace_response(response):
    return HttpResponse(b"something else")


@of_answers
def replace_body(response):
    response.content = b"something else"


@of_answers
def replace_status(response):
    response.status_code = 418


@of_answers
def replace_type(response):
    response["Content-Type"] = "text/plain"


@of_answers
def claim_encoding(response):
    response["Content-Encoding"] = "br"


@of_answers
def wrap_chunks(response):
    async def shouting(content):
        async for chunk in content:
            yield chunk.upper()

    response.streaming_content = shouting(response.streaming_content)


def forbid(get_response):
    """Answers before any view is asked."""

    def middleware(request):
        return HttpResponse("not you", status=403)

    return middleware


asked: Counter[str] = Counter()
"""How often Django was asked for each path."""


def count_requests(get_response):
    def middleware(request):
        asked[request.path] += 1
        return get_response(request)

    return middleware
