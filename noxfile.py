"""The tests on every supported pair of Python and Django whose interpreter is installed."""

from __future__ import annotations

import nox

nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
DJANGOS = {"5.2": "Django~=5.2.0", "6": "Django>=6.0,<7"}
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
    session.run("python", "-m", "pytest", *session.posargs)
