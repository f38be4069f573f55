"""The settings of the tests, and of the server processes that they start.

A test configures such a process through two environment variables, both JSON objects:
`EVENTSTREAM_TEST_DATABASE` is `DATABASES["default"]`, `EVENTSTREAM_TEST_SETTINGS` more settings.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

SECRET_KEY = "only-for-the-tests-and-long-enough-for-the-checks-of-django"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_eventstream",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {"django_eventstream": {"handlers": ["stderr"], "level": "INFO"}},
}


def sqlite(path: str) -> dict[str, Any]:
    """How a SQLite file must be opened to serve several processes that write."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    }


def remove_files(path: Path) -> None:
    for file in path.parent.glob(f"{path.stem}*"):
        file.unlink()


def temporary_sqlite() -> dict[str, Any]:
    """A file of this process's own, made when it is first used. Its threads share it, too."""
    path = Path(tempfile.gettempdir(), f"es-{os.getpid()}-{secrets.token_hex(4)}.sqlite3")
    atexit.register(remove_files, path)
    return {**sqlite(str(path)), "TEST": {"NAME": str(path.with_suffix(".test.sqlite3"))}}


if "EVENTSTREAM_TEST_DATABASE" in os.environ:
    DATABASES = {"default": json.loads(os.environ["EVENTSTREAM_TEST_DATABASE"])}
else:
    DATABASES = {"default": temporary_sqlite()}

globals().update(json.loads(os.environ.get("EVENTSTREAM_TEST_SETTINGS", "{}")))
