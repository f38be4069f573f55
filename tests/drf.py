"""A project that uses Django REST framework: its URLs, and what it puts into its views."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.contrib.staticfiles.views import serve
from django.http import HttpResponse
from django.urls import include, path, re_path
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.urlpatterns import format_suffix_patterns
from rest_framework.versioning import URLPathVersioning
from rest_framework.views import APIView

from django_eventstream.renderers import BrowsableAPIEventStreamRenderer, SSEEventRenderer
from django_eventstream.views import events
from django_eventstream.viewsets import EventsViewSet, configure_events_view_set
from tests import urls


class NamedInHeader(BaseAuthentication):
    """`Authorization: Name anna` is anna, whoever Django's session says."""

    def authenticate(self, request):
        kind, _, name = request.headers.get("Authorization", "").partition(" ")
        if kind != "Name":
            return None
        user = get_user_model().objects.filter(username=name).first()
        if user is None:
            raise AuthenticationFailed("Nobody has this name.")
        return user, None

    def authenticate_header(self, request):
        return "Name"


class Twice(SimpleRateThrottle):
    rate = "2/hour"

    def get_cache_key(self, request, view):
        return "throttled"


class OfClass(EventsViewSet):
    """Says it in its attributes."""

    channels = ["a", "b"]
    messages_types = ["message", "info"]


class OfConstructor(EventsViewSet):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, channels=["a"], **kwargs)


class Private(EventsViewSet):
    authentication_classes = [NamedInHeader]
    permission_classes = [IsAuthenticated]


class Named(EventsViewSet):
    authentication_classes = [NamedInHeader]


class Throttled(EventsViewSet):
    throttle_classes = [Twice]


class Versioned(EventsViewSet):
    versioning_class = URLPathVersioning


class WithJson(EventsViewSet):
    renderer_classes = [SSEEventRenderer, JSONRenderer, BrowsableAPIEventStreamRenderer]


class OwnView(APIView):
    """As projects write it that have no view set of ours."""

    renderer_classes = [SSEEventRenderer]

    def get(self, request):
        return events(request, channels=["a"])


class Plain(APIView):
    def get(self, request):
        return Response({"nothing": "of ours"})


router = DefaultRouter()
router.register("events", EventsViewSet, basename="events")
router.register("without-a-name", configure_events_view_set(channels=["a"]))
router.register(
    "configured",
    configure_events_view_set(channels=["a", "b"], messages_types=["message", "info"]),
    basename="configured",
)
router.register("instance", EventsViewSet(channels=["a", "b"]), basename="instance")
for viewset in (OfClass, OfConstructor, Private, Named, Throttled, WithJson):
    router.register(viewset.__name__.lower(), viewset, basename=viewset.__name__.lower())


def page(request):
    """A page of the project's own that loads the client."""
    kind = "module" if "module" in request.GET else "text/javascript"
    suffix = "mjs" if "module" in request.GET else "js"
    return HttpResponse(
        "<!doctype html><title>Own page</title>"
        f'<script type="{kind}" src="/static/django_eventstream/reconnecting-eventsource.{suffix}">'
        "</script>"
    )


def add_policy(get_response):
    """Middleware: the strictest policy that a page without a CDN can have."""

    def middleware(request):
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
        return response

    return middleware


urlpatterns = [
    path("api/", include(router.urls)),
    path("<version>/versioned/", Versioned.as_view({"get": "list"})),
    path("fixed/", EventsViewSet.as_view(channels=["a"])),
    path("rooms/<room>/", EventsViewSet.as_view(), {"format-channels": ["room-{room}"]}),
    *format_suffix_patterns(
        [path("suffixed/", EventsViewSet.as_view({"get": "list"}), name="suffixed")],
        allowed=["api_sse"],
    ),
    path("own/", OwnView.as_view()),
    path("plain/", Plain.as_view()),
    path("page/", page),
    re_path("^static/(?P<path>.*)$", serve, {"insecure": True}),
    *urls.urlpatterns,
]
