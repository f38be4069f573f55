"""The documentation says what the code has: settings, checks, commands, reasons and links."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from django.core.management import BaseCommand, load_command_class

from django_eventstream.conf import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
PACKAGE = ROOT / "django_eventstream"

SETTINGS = {name: value for name, value in vars(Settings).items() if name.isupper()}


def text(page: str) -> str:
    return (DOCS / page).read_text()


def source() -> str:
    return "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))


def sections(page: str, level: int) -> dict[str, str]:
    """Heading → what stands below it."""
    parts = re.split(rf"^{'#' * level} (.+)$", text(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_documented_with_its_default(name):
    section = sections("reference/settings.md", 3)[PREFIX + name]
    default = re.search(r"^Default: `(.+?)`", section, re.MULTILINE)
    assert default is not None
    assert ast.literal_eval(default.group(1)) == SETTINGS[name]


@pytest.mark.parametrize(
    "name", [name for name in SETTINGS if "SECONDS" in name or "BYTES" in name]
)
def test_a_quantity_is_documented_with_its_unit(name):
    section = sections("reference/settings.md", 3)[PREFIX + name]
    assert re.search(r"^Default: `.+` · \w+$", section, re.MULTILINE)


def test_no_page_speaks_of_a_setting_that_does_not_exist():
    for page in [*PAGES, ROOT / "README.md"]:
        named = set(re.findall(rf"\b{PREFIX}([A-Z_]+[A-Z])\b", page.read_text()))
        others = {"REQUIRE_SERVICES", "FUZZ_EXAMPLES"} if page.name == "testing.md" else set()
        assert named <= {*SETTINGS, *others}, page


def test_every_check_is_documented_and_every_documented_check_exists():
    code = set(re.findall(r'"(eventstream\.[EWI]\d{3})"', source()))
    documented = sections("reference/checks.md", 2)
    assert set(documented) == code
    for section in documented.values():
        assert "**Cause:**" in section
        assert "**Fix:**" in section


def test_every_command_and_its_options_are_documented():
    documented = sections("reference/commands.md", 2)
    modules = (PACKAGE / "management" / "commands").glob("[!_]*.py")
    assert set(documented) == {path.stem for path in modules}
    for name, section in documented.items():
        for option in options(load_command_class("django_eventstream", name)):
            assert option in section


def options(command: BaseCommand) -> set[str]:
    """The options of a command that not every command has."""
    parsers = [each.create_parser("manage.py", "any") for each in (command, BaseCommand())]
    own, common = ({o for a in p._actions for o in a.option_strings} for p in parsers)
    return own - common


def test_every_reason_of_a_reset_is_documented():
    documented = set(re.findall(r"^`([a-z]+)`\n: ", text("concepts/delivery.md"), re.MULTILINE))
    assert documented == {"unreadable", "epoch", "ahead", "expired", "overflow"}
    for reason in documented:
        assert f'"{reason}"' in source()


def test_every_condition_of_an_error_is_documented():
    conditions = set(re.findall(r'condition[^=]*= "([a-z-]+)"', source()))
    assert conditions
    for condition in conditions:
        assert f"`{condition}`" in text("reference/wire-format.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_a_page_names_exist(page):
    for name, test in re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", page.read_text()):
        found = list((ROOT / "tests").rglob(name))
        assert found, name
        assert not test or any(f"def {test}(" in path.read_text() for path in found), test


@pytest.mark.parametrize("page", ["concepts/security.md", "concepts/delivery.md"])
def test_every_claim_names_its_test(page):
    """A claim that no test shows stands among the limits of the page."""
    tables = re.findall(r"^\|.*\| Shown by \|\n\|[-|]+\|\n((?:\|.*\n)+)", text(page), re.MULTILINE)
    assert len(tables) >= 3
    for row in "".join(tables).splitlines():
        shown_by = row.rstrip("| ").rpartition("|")[2]
        assert re.fullmatch(r"(,? ?`test_\w+\.py::test_\w+`)+", shown_by), row


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_options_for_sqlite_are_the_same_wherever_they_stand():
    """They were three: one of them lost committed events when the power failed."""
    places = [
        ROOT / "README.md",
        DOCS / "quickstart.md",
        DOCS / "reference" / "checks.md",
        PACKAGE / "checks" / "database.py",
        ROOT / "testproject" / "testproject" / "settings.py",
    ]
    option = r'"(transaction_mode|init_command|timeout)": ("[^"]+"|\d+)'
    found = [dict(re.findall(option, place.read_text())) for place in places]
    assert found == [found[0]] * len(places)
    assert len(found[0]) == 3


def test_no_page_installs_the_package_from_an_index_which_has_none():
    for page in [*PAGES, ROOT / "README.md"]:
        assert not re.search(r"pip install \S*django-reliable", page.read_text()), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_line_has_one_sentence(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in prose.splitlines():
        if not line.startswith(("|", "#")):
            assert not re.search(r"[a-z`)]\. [A-Z`]", line), line
