"""The keys of a project that has a field of its own for them."""

from __future__ import annotations

from django.db import models


class LargeKey(models.BigAutoField):
    """What `DEFAULT_AUTO_FIELD` may name."""
