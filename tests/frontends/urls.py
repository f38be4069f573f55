"""The pages of docs/howto/frontends.md, and a stream behind a proxy that at first says 502."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from django.contrib.auth.models import Group
from django.contrib.staticfiles.views import serve
from django.http import HttpResponse, JsonResponse
from django.template import engines
from django.template.loader import get_template
from django.urls import path, re_path

from django_eventstream import get_current_event_id
from django_eventstream.views import events
from tests import urls

asked: Counter[str] = Counter()
"""How often each page has asked for its stream."""


def page(request, name, channel):
    source = Path(get_template(f"{name}.html").origin.name).read_text()
    of_page = f"{channel}-turbo" if name == "turbo" else channel
    source = source.replace("channel=news-turbo", "channel=news")
    source = source.replace("channel=news", f"channel={of_page}")
    cursor = get_current_event_id([of_page])
    articles = Group.objects.order_by("pk")
    template = engines["django"].from_string(f"<!doctype html><title>{name}</title>{source}")
    return HttpResponse(template.render({"cursor": cursor, "articles": articles}, request))


def stream(request):
    page = request.headers["Referer"].partition("/page/")[2]
    asked[page] += 1
    if asked[page] == 1:
        return HttpResponse("<li>Bad Gateway</li>", status=502)
    return events(request)


urlpatterns = [
    path("page/<name>/<channel>/", page),
    path("frames/", lambda request: HttpResponse("<!doctype html><title>Frames</title>")),
    path("asked/", lambda request: JsonResponse(asked)),
    path("events/", stream),
    re_path("^static/(?P<path>.*)$", serve, {"insecure": True}),
    *urls.urlpatterns,
]
