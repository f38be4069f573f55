from __future__ import annotations

from django.urls import path

from tests.tenants import views
from tests.urls import urlpatterns as urls_of_tests

urlpatterns = [*urls_of_tests, path("send-as-tenant/", views.send)]
