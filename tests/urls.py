from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

import django_eventstream
from tests import views

urlpatterns = [
    path("events/", include("django_eventstream.urls")),
    # As 5.3.4 documents it: the module by attribute, the channels from the URL's own parts.
    path(
        "rooms/<room>/",
        include(django_eventstream.urls),
        {"format-channels": ["room-{room}"]},
    ),
    path("admin/", admin.site.urls),
    path("send/", views.send),
    path("login/<name>/", views.log_in),
    path("stats/", views.stats),
    path("refuse-threads/<int:count>/", views.refuse_threads),
]
