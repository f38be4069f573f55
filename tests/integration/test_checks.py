"""System checks: each finds its mistake, and none cries wolf."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.checks import Tags, run_checks
from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor

from django_eventstream import backends
from django_eventstream.channelmanager import ChannelManagerBase, DefaultChannelManager
from django_eventstream.checks import configuration
from django_eventstream.checks import database as database_checks
from django_eventstream.checks.messages import TAG
from django_eventstream.storage.base import Storage
from tests.services.ports import free_port

DEFAULT_MANAGER = "django_eventstream.channelmanager.DefaultChannelManager"
KEY = "0123456789abcdef0123456789abcdef"
ROOT = Path(__file__).resolve().parents[2]


class HalfAStorage(Storage):
    def append(self, events):
        return []


class WholeManager(ChannelManagerBase):
    pass


class ManagerOfNothing:
    def can_read_channel(self, user, channel):
        return True


def found(*tags: str, **options) -> dict[str, str]:
    return {message.id: message.msg for message in run_checks(tags=[TAG, *tags], **options)}


def found_at(alias: str) -> dict[str, str]:
    return found(Tags.database, databases=[alias])


TENANTS = {"TENANT_MODEL": "customers.Client", "TENANT_APPS": ["django.contrib.auth"]}
OWN_CHANNELS = {
    "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.integration.test_checks.ChannelsOfTenants"
}


class ChannelsOfTenants(DefaultChannelManager):
    def get_channels_for_request(self, request, view_kwargs):
        return set()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, set()),
        ({"TENANT_APPS": ["django_eventstream"]}, {"eventstream.E034"}),
        (
            {"TENANT_APPS": ["django_eventstream.apps.DjangoEventstreamConfig"]},
            {"eventstream.E034"},
        ),
        (
            {
                "TENANT_TYPES": {
                    "public": {"APPS": ["django_eventstream"]},
                    "shop": {"APPS": ["django.contrib.auth"]},
                }
            },
            set(),
        ),
        ({"TENANT_TYPES": {"shop": {"APPS": ["django_eventstream"]}}}, {"eventstream.E034"}),
        (
            {
                "TENANT_APPS": ["django_eventstream"],
                "EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.MemoryStorage",
            },
            set(),
        ),
        ({"EVENTSTREAM_CHANNELMANAGER_CLASS": DEFAULT_MANAGER}, {"eventstream.W035"}),
    ],
)
def test_tenants_need_one_log_and_channels_of_their_own(settings, more, expected):
    for name, value in {**TENANTS, **OWN_CHANNELS, **more}.items():
        setattr(settings, name, value)
    assert set(found()) == expected


def test_a_project_without_mistakes_gets_no_message():
    assert found() == {}


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [
        ("CHANEL_LIMIT", 5, "W001"),
        ("COLOUR", "red", "W001"),
        ("REDIS", "localhost:6379", "E030"),
        ("REDIS", "redis://:pa/ss@localhost", "E030"),
        ("REDIS", "redis://localhost?colour=red", "E030"),
        ("REDIS", {"hots": "localhost"}, "E030"),
        ("REDIS_PREFIX", "", "E030"),
        ("STORAGE_CONNECTION", {}, "W033"),
        ("CHANNEL_LIMIT", 0, "E003"),
        ("CHANNEL_LIMIT", 2.5, "E003"),
        ("CHANNEL_LIMIT", None, "E003"),
        ("RETENTION_SECONDS", "60", "E003"),
        ("RETENTION_SECONDS", -1, "E003"),
        ("RETENTION_COUNT", 0, "E003"),
        ("RETENTION_COUNT", 1.0, "E003"),
        ("KEEP_ALIVE_SECONDS", True, "E003"),
        ("KEEP_ALIVE_SECONDS", float("nan"), "E003"),
        ("POLL_SECONDS", float("inf"), "E003"),
        ("POLL_SECONDS", 0, "E003"),
        ("WINDOW_BYTES", "1M", "E003"),
        ("TOTAL_WINDOW_BYTES", 0, "E003"),
        ("BACKLOG_BYTES", -5, "E003"),
        ("RECOVERY_SECONDS", 0, "E003"),
        ("PUBLISH_TIMEOUT", None, "E003"),
        ("POSTGRES_NOTIFY", "no", "E004"),
        ("ALLOW_CREDENTIALS", 1, "E004"),
        ("STORAGE_CLASS", "not.there.Storage", "E005"),
        ("STORAGE_CLASS", "django_eventstream.storage.RedisStorage", "E031"),
        ("STORAGE_CLASS", f"{__name__}.HalfAStorage", "E005"),
        ("STORAGE_CLASS", f"{__name__}.WholeManager", "E005"),
        ("STORAGE_CLASS", HalfAStorage, "E005"),
        ("CHANNELMANAGER_CLASS", None, "E006"),
        ("CHANNELMANAGER_CLASS", "nothing", "E006"),
        ("CHANNELMANAGER_CLASS", f"{__name__}.ManagerOfNothing", "E006"),
        ("ALLOW_ORIGIN", 5, "E007"),
        ("ALLOW_ORIGINS", [5], "E007"),
        ("ALLOW_HEADERS", {"X-Name": 1}, "E007"),
        ("ALLOW_ORIGIN", "https://example.com/", "W009"),
        ("ALLOW_ORIGINS", ["https://good.example", "example.com"], "W009"),
        ("ALLOW_ORIGINS", ["http://["], "W009"),
        ("CHANNEL_LAYER", 5, "E011"),
        ("CHANNEL_LAYER", "other", "W012"),
        ("CHANNEL_LAYER", "default", "W012"),
    ],
)
def test_a_mistake_in_a_setting_is_found(settings, name, value, check):
    setattr(settings, f"EVENTSTREAM_{name}", value)
    assert list(found()) == [f"eventstream.{check}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RETENTION_SECONDS", None),
        ("RETENTION_SECONDS", 0.5),
        ("RETENTION_COUNT", None),
        ("KEEP_ALIVE_SECONDS", 7),
        ("STORAGE_CLASS", None),
        ("CHANNELMANAGER_CLASS", f"{__name__}.WholeManager"),
        ("ALLOW_ORIGIN", "*"),
        ("ALLOW_ORIGINS", ("https://example.com", "http://localhost:8000")),
        ("ALLOW_HEADERS", "X-One, X-Two"),
        ("CHANNEL_LAYER", None),
        ("REDIS", "redis://localhost"),
        ("REDIS", "rediss://user:p%2Fw@redis.example:6380/2?ssl_cert_reqs=none"),
        ("REDIS", "unix:///run/redis.sock?db=1"),
    ],
)
def test_a_good_setting_gets_no_message(settings, name, value):
    setattr(settings, f"EVENTSTREAM_{name}", value)
    assert found() == {}


def test_a_password_in_a_url_that_cannot_be_read_is_not_told(settings):
    settings.EVENTSTREAM_REDIS = "redis://:secret/word@localhost"
    [message] = run_checks(tags=[TAG])
    assert "secret" not in str(message)


def test_a_misspelt_name_gets_a_proposal(settings):
    settings.EVENTSTREAM_RETENTION_SECOND = 60
    [message] = run_checks(tags=[TAG])
    assert message.hint == "Did you mean EVENTSTREAM_RETENTION_SECONDS?"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("EVENT_STREAM_CHANNELMANAGER_CLASS", "EVENTSTREAM_CHANNELMANAGER_CLASS"),
        ("EVENT_STREAM_CHANNEL_MANAGER_CLAS", "EVENTSTREAM_CHANNELMANAGER_CLASS"),
        ("EVENT_STREAM_POLL", "EVENTSTREAM_POLL_SECONDS"),
        ("EVENTSTREAMS_REDIS", "EVENTSTREAM_REDIS"),
        ("EVENSTREAM_STORAGE_CLASS", "EVENTSTREAM_STORAGE_CLASS"),
        ("DJANGO_EVENTSTREAM_ALLOW_ORIGIN", "EVENTSTREAM_ALLOW_ORIGIN"),
    ],
)
def test_a_misspelt_prefix_is_found(settings, given, meant):
    """Every channel was open to everybody, and no check said a word."""
    setattr(settings, given, "x")
    [message] = run_checks(tags=[TAG])
    assert (message.id, message.hint) == ("eventstream.W001", f"Did you mean {meant}?")


@pytest.mark.parametrize(
    "name",
    ["EVENTS_PER_PAGE", "STREAM_STORAGE_CLASS", "EVENT_LIMIT", "KINESIS_EVENT_STREAM_NAME"],
)
def test_settings_of_others_are_none_of_ours(settings, name):
    setattr(settings, name, "x")
    assert found() == {}


def test_an_incomplete_storage_is_told_what_it_lacks(settings):
    settings.EVENTSTREAM_STORAGE_CLASS = f"{__name__}.HalfAStorage"
    assert "it has no get_position(), read(), trim()" in found()["eventstream.E005"]


def test_two_settings_of_origins_are_one_too_many(settings):
    settings.EVENTSTREAM_ALLOW_ORIGIN = "https://a.example"
    settings.EVENTSTREAM_ALLOW_ORIGINS = ["https://b.example"]
    assert list(found()) == ["eventstream.W008"]


def test_every_site_with_cookies_is_warned_of(settings):
    settings.EVENTSTREAM_ALLOW_ORIGIN = "*"
    settings.EVENTSTREAM_ALLOW_CREDENTIALS = True
    assert list(found()) == ["eventstream.W010"]


def test_a_channel_layer_needs_channels(settings, monkeypatch):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    assert found() == {}
    monkeypatch.setitem(sys.modules, "channels", None)
    monkeypatch.setattr(
        "django_eventstream.checks.configuration.find_spec", lambda name: None, raising=True
    )
    assert list(found()) == ["eventstream.E013"]


def test_wsgi_alone_is_warned_of(settings):
    settings.WSGI_APPLICATION = "project.wsgi.application"
    assert list(found()) == ["eventstream.W014"]
    settings.ASGI_APPLICATION = "project.asgi.application"
    assert found() == {}
    del settings.ASGI_APPLICATION
    settings.GRIP_URL = f"http://localhost:5561/?key={KEY}"
    assert found() == {}


def test_a_runserver_without_asgi_is_warned_of_where_it_starts(settings, monkeypatch):
    settings.ASGI_APPLICATION = "project.asgi.application"
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])
    assert found() == {}
    monkeypatch.setattr(sys, "argv", ["manage.py", "runserver", "8000"])
    assert list(found()) == ["eventstream.W108"]
    settings.GRIP_URL = f"http://localhost:5561/?key={KEY}"
    assert found() == {}
    del settings.GRIP_URL
    monkeypatch.setattr(configuration, "get_commands", lambda: {"runserver": "daphne"})
    assert found() == {}


def test_a_layer_in_memory_is_no_layer_for_a_deployment(settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    assert found() == {}
    assert list(found(include_deployment_checks=True)) == ["eventstream.W109"]
    settings.EVENTSTREAM_REDIS = "redis://localhost"
    assert found(include_deployment_checks=True) == {}
    settings.EVENTSTREAM_REDIS = None
    settings.EVENTSTREAM_CHANNEL_LAYER = None
    assert found(include_deployment_checks=True) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRIP_URL", "localhost:5561"),
        ("GRIP_URL", "http://[::1"),
        ("GRIP_URL", 5561),
        ("GRIP_PROXIES", [{}]),
        ("GRIP_PROXIES", ["http://localhost:5561"]),
        ("GRIP_PROXIES", [{"control_uri": "http://localhost:port"}]),
        ("GRIP_PROXIES", [{"control_uri": None}]),
    ],
)
def test_a_proxy_that_cannot_be_published_to_is_an_error(settings, name, value):
    setattr(settings, name, value)
    assert list(found()) == ["eventstream.E020"]


def test_a_proxy_without_a_key_is_warned_of(settings):
    settings.GRIP_URL = "http://localhost:5561"
    [message] = run_checks(tags=[TAG])
    assert message.id == "eventstream.W021"
    assert "?key=… in GRIP_URL" in message.hint
    assert "a logged-in user's stream has missed something" in message.msg
    settings.GRIP_VERIFY_KEY = KEY
    assert found() == {}


def test_each_proxy_needs_a_key(settings):
    settings.GRIP_PROXIES = [
        {"control_uri": "http://one.example:5561", "key": KEY},
        {"control_uri": "http://two.example:5561"},
    ]
    assert "http://two.example:5561" in found()["eventstream.W021"]
    assert "logged-in" not in found()["eventstream.W021"]


def test_a_database_without_support_is_an_error(monkeypatch):
    monkeypatch.setattr(connection, "vendor", "oracle")
    assert list(found()) == ["eventstream.E015"]


def test_an_old_sqlite_is_an_error(monkeypatch):
    monkeypatch.setattr(database_checks.sqlite3, "sqlite_version_info", (3, 34, 1))
    assert list(found()) == ["eventstream.E016"]


def test_postgresql_without_psycopg_3_is_slower(settings, monkeypatch):
    monkeypatch.setattr(connection, "vendor", "postgresql")
    monkeypatch.setattr(database_checks, "find_spec", lambda name: None)
    assert list(found()) == ["eventstream.W017"]
    settings.EVENTSTREAM_POSTGRES_NOTIFY = False
    assert found() == {}


def test_sqlite_that_will_lock_is_warned_of_before_a_deployment(monkeypatch):
    assert found(include_deployment_checks=True) == {}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
    assert found() == {}
    assert list(found(include_deployment_checks=True)) == ["eventstream.W018"]


def test_missing_tables_are_explained_where_the_database_may_be_asked(default_database):
    assert found_at("default") == {}
    executor = MigrationExecutor(connections["default"])
    try:
        executor.migrate([("django_eventstream", "0001_initial")])
        assert "0002_outbox, 0003" in found_at("default")["eventstream.W019"]
        executor = MigrationExecutor(connections["default"])
        executor.migrate([("django_eventstream", None)])
        assert "tables of the event log are missing" in found_at("default")["eventstream.W019"]
    finally:
        call_command("migrate", verbosity=0)
    assert found_at("default") == {}


def test_a_database_that_is_down_is_a_message_and_no_traceback(postgres_only):
    settings = {**postgres_only.settings, "PORT": str(free_port())}
    down = replace(postgres_only, settings=settings)
    complete = connections.configure_settings({"default": {}, "down": settings})
    connections.settings["down"] = complete["down"]
    try:
        with replace(down, alias="down").as_default():
            assert "cannot be asked" in found_at("default")["eventstream.W019"]
    finally:
        del connections.settings["down"]


def test_a_postgresql_with_an_isolation_that_django_does_not_know_of_is_found(postgres_only):
    serializable = "-c default_transaction_isolation=serializable"
    settings = {**postgres_only.settings, "OPTIONS": {"options": serializable}}
    told = {**settings, "OPTIONS": {**settings["OPTIONS"], "isolation_level": 4}}
    for options, expected in ((settings, ["eventstream.W024"]), (told, [])):
        connections.settings["strict"] = connections.configure_settings(
            {"default": {}, "strict": options}
        )["strict"]
        try:
            with replace(postgres_only, settings=options, alias="strict").as_default():
                assert list(found_at("default")) == expected
        finally:
            del connections.settings["strict"]


def test_a_log_in_memory_is_no_log_for_a_deployment(settings):
    settings.EVENTSTREAM_STORAGE_CLASS = "django_eventstream.storage.MemoryStorage"
    deployed = run_checks(tags=[TAG], include_deployment_checks=True)
    assert "eventstream.W025" in [message.id for message in deployed]
    assert "eventstream.W025" not in [message.id for message in run_checks(tags=[TAG])]


def test_a_project_without_a_database_is_told_so(sqlite_only):
    complete = connections.configure_settings({"default": {}})
    connections.settings["none"] = complete["default"]
    try:
        with replace(sqlite_only, alias="none").as_default():
            [(check, text)] = found_at("default").items()
            assert (check, "no database" in text) == ("eventstream.E015", True)
    finally:
        del connections.settings["none"]


def test_checks_ask_no_database_unless_told_to(django_assert_num_queries, db):
    with django_assert_num_queries(0):
        call_command("check")
        call_command("check", tags=[TAG])
        call_command("check", deploy=True, fail_level="CRITICAL")


def test_a_fresh_project_gets_the_warning_about_wsgi_and_nothing_else(tmp_path):
    environment = {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "mysite.settings"}

    def manage(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    call_command("startproject", "mysite", str(tmp_path))
    settings = tmp_path / "mysite" / "settings.py"
    with settings.open("a") as file:
        file.write("INSTALLED_APPS.append('django_eventstream')\n")
    assert manage("check").count("eventstream.") == 1
    assert "eventstream.W014" in manage("check")
    assert "eventstream.W019" in manage("check", "--database", "default")
    # The tables of others come first, as in a project that is older than what it adds.
    assert "eventstream.W019" not in manage("migrate", "auth") + manage("migrate")
    with settings.open("a") as file:
        file.write("ASGI_APPLICATION = 'mysite.asgi.application'\n")
    assert "no issues" in manage("check", "--database", "default")
    assert "eventstream.W018" in manage("check", "--deploy", "--fail-level", "CRITICAL")


@pytest.mark.parametrize(
    "code",
    [
        "from django_eventstream import send_event; send_event('a', 'message', 1)",
        "from django.core.management import call_command; call_command('check')",
    ],
)
def test_an_app_that_is_not_installed_is_named_with_what_to_do(code):
    """Sending said something of an `app_label`, and the checks found nothing."""
    set_up = (
        "import django; from django.conf import settings; "
        "settings.configure(ROOT_URLCONF='django_eventstream.urls'); django.setup(); "
    )
    done = subprocess.run(
        [sys.executable, "-c", set_up + code], cwd=ROOT, capture_output=True, text=True
    )
    assert "Add 'django_eventstream' to INSTALLED_APPS" in done.stderr


def test_a_broken_storage_class_does_not_break_the_other_checks(settings):
    settings.EVENTSTREAM_STORAGE_CLASS = "not.there"
    assert list(found_at("default")) == ["eventstream.E005"]
    backends.get_storage.cache_clear()


def test_messages_are_written_for_people(settings):
    settings.EVENTSTREAM_CHANNEL_LIMIT = "ten"
    [message] = run_checks(tags=[TAG])
    assert json.dumps(str(message)) == json.dumps(
        "?: (eventstream.E003) EVENTSTREAM_CHANNEL_LIMIT must be a whole number above 0, "
        "not 'ten'.\n\tHINT: Correct it, or leave it out."
    )


def test_autocommit_that_is_off_is_explained_for_the_log_and_for_other_databases(
    sqlite_only, monkeypatch
):
    monkeypatch.setitem(connections.settings[sqlite_only.alias], "AUTOCOMMIT", False)
    assert "stays if it is rolled back" in found()["eventstream.W026"]
    with sqlite_only.as_default():
        assert any(
            "waits, committed and without a number" in message.msg
            for message in run_checks(tags=[TAG])
            if message.id == "eventstream.W026"
        )
