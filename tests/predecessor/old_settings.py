"""A project of django-eventstream 5.3.4. It runs where that is installed, and nothing of ours is.

Configured like `tests.settings`, by `EVENTSTREAM_TEST_DATABASE` and `EVENTSTREAM_TEST_SETTINGS`.
"""

from __future__ import annotations

import json
import os

SECRET_KEY = "only-for-the-tests-and-long-enough-for-the-checks-of-django"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "old_urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_eventstream"]
MIDDLEWARE = ["django_grip.GripMiddleware"]
DATABASES = {"default": json.loads(os.environ.get("EVENTSTREAM_TEST_DATABASE", "{}"))}
EVENTSTREAM_STORAGE_CLASS = "django_eventstream.storage.DjangoModelStorage"

globals().update(json.loads(os.environ.get("EVENTSTREAM_TEST_SETTINGS", "{}")))
