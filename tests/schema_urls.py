"""View sets in all their forms, of which drf-spectacular makes a schema."""

from __future__ import annotations

from django.urls import include, path

from django_eventstream.viewsets import EventsViewSet
from tests.drf import Versioned, router

# Its authentication is the project's own, and so is the description of it.
OWN = {"private", "named"}
router_of_schema = type(router)()
for prefix, viewset, basename in router.registry:
    if prefix not in OWN:
        router_of_schema.register(prefix, viewset, basename)

urlpatterns = [
    path("api/", include(router_of_schema.urls)),
    path("<str:version>/versioned/", Versioned.as_view({"get": "list"})),
    path("fixed/", EventsViewSet.as_view(channels=["a"])),
    path("rooms/<str:room>/", EventsViewSet.as_view(), {"format-channels": ["room-{room}"]}),
]
