"""Every service starts, is stopped surely, and comes back on the same port."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections

from tests.services import reaper
from tests.services.deadline import HEALTHY, wait_until
from tests.services.mariadb import MariaDB
from tests.services.missing import program
from tests.services.ports import free_port, is_listening
from tests.services.postgres import Postgres
from tests.services.process import (
    ServerProcess,
    environment,
    heed_interrupts,
    private_directory,
    remove_directory,
)
from tests.services.pushpin import Pushpin, answers, route_to
from tests.services.python import ROOT, run, run_python, start_python
from tests.services.redis import Redis
from tests.services.servers import COMMANDS
from tests.services.varnish import Varnish

SERVICES = {
    "redis": Redis,
    "postgres": Postgres,
    "mariadb": MariaDB,
    "pushpin": lambda: Pushpin([route_to(free_port())]),
    "varnish": lambda: Varnish(free_port()),
}
names = pytest.mark.parametrize("make", SERVICES.values(), ids=SERVICES)


@names
def test_a_killed_service_comes_back_on_its_port(make):
    with make() as service:
        first = service.pid
        service.kill()
        assert not is_listening(service.port)
        service.start()
        assert service.is_ready()
        assert service.pid != first
        service.terminate()
        assert not is_listening(service.port)
    assert not service.directory.exists()


def test_a_mariadb_shares_no_temporary_file_with_another(monkeypatch, tmp_path):
    """Two that were installed at the same moment deleted each other's tables, now and then."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with MariaDB() as server:
        assert server.sql("SELECT @@tmpdir") == str(server.directory)


def test_a_killed_redis_keeps_its_data_if_it_is_to():
    with Redis(appendonly=True) as keeping, Redis() as forgetting:
        for redis in (keeping, forgetting):
            redis.command("SET key value")
            redis.kill()
            redis.start()
        assert keeping.command("GET key") == b"$5\r\nvalue\r\n"
        assert forgetting.command("GET key") == b"$-1\r\n"


def test_pushpin_ends_with_any_of_its_parts(pushpin):
    proxy = pushpin(free_port())
    proxy.kill_part("handler")
    assert not is_listening(proxy.port)
    proxy.start()
    proxy.publish({"channel": "a", "http-stream": {"content": ":\n\n"}})


def test_a_server_that_ends_at_once_is_reported_with_its_log():
    directory = private_directory("test")
    process = ServerProcess([sys.executable, "-c", "exit('no luck')"], log=directory / "log")
    with pytest.raises(RuntimeError, match="(?s)ended with status 1.*no luck"):
        process.wait_ready(lambda: False)
    remove_directory(directory)


def test_a_server_can_be_interrupted_even_when_the_tests_run_in_the_background(tmp_path):
    """It went on: what a shell without job control starts with `&` ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        heed_interrupts()
        server = ServerProcess([program("sleep", "coreutils"), "600"], log=tmp_path / "log")
        assert server.stop(signal.SIGINT, HEALTHY) == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_test_can_be_run_by_itself():
    """It passed and then ended in a traceback: Hypothesis, imported last of all, raised it."""
    test = "tests/infrastructure/test_sse_client.py::test_a_cut_is_felt_at_once"
    assert "1 passed" in run(["-m", "pytest", "-q", test], HEALTHY, environment())


def test_a_missing_service_skips_the_test_or_fails_it_where_all_must_be_there(monkeypatch):
    monkeypatch.delenv("EVENTSTREAM_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install rare-bird"):
        program("rare-bird", "rare-bird")
    monkeypatch.setenv("EVENTSTREAM_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install rare-bird"):
        program("rare-bird", "rare-bird")


def test_services_die_with_the_process_that_started_them():
    code = """if True:
        import os, signal
        from tests.services.redis import Redis
        redis = Redis()
        redis.start()
        print(redis.port, redis.directory, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    port, directory = done.stdout.split()
    wait_until(lambda: not is_listening(int(port)))
    wait_until(lambda: not Path(directory).exists())


def test_each_database_is_migrated_empty_and_seen_by_other_processes(database):
    users = get_user_model().objects.using(database.alias)
    assert not users.exists()
    users.create(username="alice")
    code = "from django.contrib.auth.models import User; print(User.objects.get().username)"
    assert run_python(code, database=database.settings) == "alice\n"
    # Processes of an earlier test may still be ending: the file of SQLite is for all of them.
    wait_until(lambda: database.open_connections() == 1)


def test_the_default_database_can_be_each_of_them(default_database):
    assert connection.vendor == default_database.vendor
    get_user_model().objects.create(username="alice")
    assert get_user_model().objects.using(default_database.alias).count() == 1


def test_a_failed_program_says_why():
    with pytest.raises(RuntimeError, match="no luck"):
        run_python("raise SystemExit('no luck')")


def test_a_program_in_the_background_can_be_waited_for_and_killed(tmp_path):
    done = start_python("print('done')", log=tmp_path / "log")
    assert done.wait() == 0
    assert done.log_text() == "done\n"
    stuck = start_python("import time; time.sleep(1000)", log=tmp_path / "log")
    assert stuck.kill() == -signal.SIGKILL
    assert not reaper.processes_of_session(stuck.pid)


@pytest.mark.parametrize("kind", COMMANDS)
def test_each_server_can_be_stopped_killed_and_restarted(app_server, sqlite_only, kind):
    server = app_server(sqlite_only, kind)
    first = server.stats()
    assert first["threads"] > 0
    assert server.log_in("alice")["Cookie"].count("sessionid=") == 1
    server.restart()
    server.kill()
    assert not is_listening(server.port)
    server.start()
    assert server.stats()["pid"] != first["pid"]
    assert get_user_model().objects.using("sqlite").get().username == "alice"


def test_pushpin_reaches_the_application(app_server, pushpin, sqlite_only):
    server = app_server(sqlite_only)
    assert answers(f"{pushpin(server.port).url}/stats/")


def test_the_browsers_are_two_persons(browser, other_browser, app_server, sqlite_only):
    server = app_server(sqlite_only)
    browser.driver.get(f"{server.url}/login/alice/")
    assert "alice" in browser.driver.page_source
    other_browser.driver.get(f"{server.url}/stats/")
    assert browser.driver.get_cookie("sessionid")
    assert not other_browser.driver.get_cookie("sessionid")


def test_a_closed_database_leaves_no_connection_behind(postgres_only):
    connections[postgres_only.alias].ensure_connection()
    connections[postgres_only.alias].close()
    wait_until(lambda: postgres_only.open_connections() == 0)
