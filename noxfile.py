"""The tests on every supported pair of Python and Django whose interpreter is installed."""

from __future__ import annotations

import configparser
import re

import nox

nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
DJANGOS = {"5.2": "Django~=5.2.0", "6": "Django>=6.0,<7"}
# As `make test` does.
PYTEST = ["python", "-m", "pytest", "--numprocesses=4", "--dist=loadfile"]
# Django 6 dropped Python 3.10 and 3.11.
PAIRS = [
    (python, django)
    for python in PYTHONS
    for django in DJANGOS
    if django != "6" or python >= "3.12"
]


@nox.session
@nox.parametrize(["python", "django"], PAIRS)
def tests(session: nox.Session, django: str) -> None:
    session.install("--editable", ".[dev]", DJANGOS[django])
    session.run(*PYTEST, *session.posargs)


@nox.session(python=PYTHONS[0])
def floors(session: nox.Session) -> None:
    """The lowest versions that `setup.cfg` allows, by the tests that start no site of their own."""
    session.install("--editable", ".[dev]", *lowest_versions())
    default = ["tests/unit", "tests/contract", "tests/integration"]
    session.run(*PYTEST, *(session.posargs or default))


def lowest_versions() -> list[str]:
    """What the package itself needs, and each of its extras for users: `redis==5.0.1`, …"""
    setup = configparser.RawConfigParser()
    setup.read("setup.cfg")
    extras = setup["options.extras_require"]
    needed = [setup["options"]["install_requires"]]
    needed += [extras[name] for name in ("drf", "channels", "redis", "postgres")]
    found = re.findall(r"^([\w\[\]-]+)>=([\d.]+)", "\n".join(needed), re.MULTILINE)
    return [f"{name}=={version}" for name, version in found]
