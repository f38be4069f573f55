"""Sphinx: `make docs` builds the pages, and every warning is an error."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import django
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django_eventstream import __version__  # noqa: E402

project = "django-reliable-eventstream"
copyright = "the django-reliable-eventstream contributors"  # noqa: A001
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
python_use_unqualified_type_names = True

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

html_theme = "furo"
html_title = f"{project} {version}"


def lay_out(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings mark code as Markdown does, and name arguments as Google does."""
    # The escaped space ends the mark, whatever follows: `Event`s.
    text = re.sub(r"`([^`]+)`", r"``\1``\\ ", "\n".join(lines))
    lines[:] = text.splitlines()
    if what in ("function", "method"):
        config = Config(napoleon_use_param=False, napoleon_use_rtype=False)
        lines[:] = GoogleDocstring(lines, config, app, what, name, obj, options).lines()


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", lay_out)
