"""Tenants, as a project with django-tenants has them."""

from __future__ import annotations

from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):
    auto_create_schema = True


class Domain(DomainMixin):
    pass
