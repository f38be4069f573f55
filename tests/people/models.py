from __future__ import annotations

import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Person(AbstractBaseUser):
    """What the tests' views and channel managers ask of a user."""

    is_staff = models.BooleanField(default=True)
    is_active = models.BooleanField(default=True)

    objects = BaseUserManager()

    USERNAME_FIELD = "username"

    class Meta:
        abstract = True


class Numbered(Person):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    username = models.CharField(max_length=100, unique=True)


class Named(Person):
    username = models.CharField(max_length=100, primary_key=True)
