"""Middleware that does to streams what a project's may do."""

from __future__ import annotations


def add_header(get_response):
    def middleware(request):
        response = get_response(request)
        response["X-Seen"] = "yes"
        return response

    return middleware


def replace_body(get_response):
    def middleware(request):
        response = get_response(request)
        if request.path.startswith("/events/"):
            response.content = b"something else"
        return response

    return middleware


def replace_status(get_response):
    def middleware(request):
        response = get_response(request)
        if request.path.startswith("/events/"):
            response.status_code = 418
        return response

    return middleware
