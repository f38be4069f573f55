"""The quickstart page, and the guide to ASGI, followed line by line in a new project."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.process import ServerProcess, environment
from tests.services.python import ROOT
from tests.sse_client import StreamClient

PAGE = (ROOT / "docs" / "quickstart.md").read_text()
GUIDE = (ROOT / "docs" / "howto" / "asgi.md").read_text()


def file_blocks(page: str = PAGE) -> dict[str, str]:
    """File name → what the page puts into it."""
    return dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", page, re.DOTALL | re.MULTILINE))


def commands(first_word: str, page: str = PAGE) -> list[list[str]]:
    """The commands of the page that begin with a word, split as a shell does."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    split = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [words for words in split if words[0] == first_word]


class Project:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = environment({"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": ""})
        del self.env["DJANGO_SETTINGS_MODULE"]

    def python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path) -> Project:
    directory = tmp_path / "mysite"
    directory.mkdir()
    call_command("startproject", "mysite", str(directory))
    blocks = file_blocks()
    with (directory / "mysite" / "settings.py").open("a") as settings:
        settings.write(blocks["mysite/settings.py"])
    (directory / "mysite" / "urls.py").write_text(blocks["mysite/urls.py"])
    return Project(directory)


@contextmanager
def served(project: Project, words: list[str]) -> Iterator[str]:
    """The URL of a server that is started as the page says, on another port."""
    port = str(free_port())
    argv = [sys.executable, "-m", *(word.replace("8000", port) for word in words)]
    log = project.directory / "server.log"
    server = ServerProcess(argv, log=log, env=project.env, cwd=project.directory)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/admin/login/"), message=log.read_text)
        yield url
    finally:
        server.kill()


@pytest.fixture
def url(project):
    [words] = commands("uvicorn")
    for python in commands("python")[:2]:
        output = project.python(*python[1:])
        assert "migrat" in output or "no issues" in output
    with served(project, words) as url:
        yield url


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def test_the_quickstart_works_as_it_stands(project, url):
    watch, resume = [words[-1].replace("http://127.0.0.1:8000", url) for words in commands("curl")]
    [send] = [words for words in commands("python") if "shell" in words]
    with StreamClient(watch, reconnect=False) as client:
        client.wait_open()
        project.python(*send[1:])
        client.wait_for(lambda c: c.ids("news") == [1])
    project.python(*send[1:])
    project.python(*send[1:])
    with StreamClient(resume, reconnect=False) as client:
        client.wait_for(lambda c: c.ids("news") == [2, 3])
        assert [json.loads(m.data) for m in client.of_type("message")] == [{"text": "It works"}] * 2


@pytest.mark.parametrize("server", ["uvicorn", "granian", "hypercorn", "daphne"])
def test_the_servers_of_the_guide_to_asgi_hold_streams_in_the_wrapper_as_it_stands(project, server):
    (project.directory / "mysite" / "asgi.py").write_text(file_blocks(GUIDE)["mysite/asgi.py"])
    project.python("manage.py", "migrate")
    [words] = commands(server, GUIDE)
    with (
        served(project, words) as url,
        StreamClient(f"{url}/events/?channel=news", reconnect=False) as client,
    ):
        client.wait_open()
        project.python(*commands("python")[-1][1:])
        client.wait_for(lambda c: c.ids("news") == [1])
