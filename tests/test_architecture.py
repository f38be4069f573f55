"""How the package is laid out: every module is parsed, and nothing is left to good will.

The order of the layers is the contract in `setup.cfg`, which `lint-imports` reads as well.
"""

from __future__ import annotations

import ast
from configparser import ConfigParser
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "django_eventstream"

NO_LAYER = {"", "apps"}
"""The package itself and its app find everything else by name, when it is needed."""

PURE = {
    "catchup", "cursors", "events", "exceptions", "grip", "hold", "hub.channel", "hub.connection",
    "hub.keepalive", "hub.tasks", "hub.window", "publishers.probes", "sse",
}  # fmt: skip
"""Values and the rules of holding: the standard library only, and each other."""

READ_DJANGOS_SETTINGS = {"conf", "proxies"}
"""All settings are read in `conf`, but those of django-grip, which `proxies` understands."""

MOST_LINES = 300
LONG_MODULES: dict[str, int] = {}

MOST_LINES_OF_A_FUNCTION = 40
LONG_FUNCTIONS: set[str] = set()

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = {name_of(path): path.read_text() for path in sorted((ROOT / PACKAGE).rglob("*.py"))}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}
MODULES = sorted(name for name in TREES if "migrations" not in name)


def imports(tree: ast.AST) -> list[str]:
    """Absolute names of the modules, or of names in them, that the code imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def own_imports(name: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for imported in imports(TREES[name]):
        if imported == PACKAGE or imported.startswith(f"{PACKAGE}."):
            inner = imported.removeprefix(PACKAGE).lstrip(".")
            found.add(inner if inner in TREES else inner.rpartition(".")[0])
    return found - {name}


def read_layers() -> list[list[str]]:
    """The rows of the contract, lowest first."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    rows = config["importlinter:contract:layers"]["layers"].split("\n")
    return [
        [name.strip(" ()") for name in row.replace("|", ":").split(":")]
        for row in reversed(rows)
        if row.strip() and not row.strip().startswith("#")
    ]


LAYERS = read_layers()


def layer_of(name: str) -> int | None:
    for number, row in enumerate(LAYERS):
        if any(name == layer or name.startswith(f"{layer}.") for layer in row):
            return number
    return None


def functions(tree: ast.AST) -> list[FUNCTION]:
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTION)]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_that_imports_has_a_layer(name):
    has_none = layer_of(name) is None and name not in NO_LAYER
    assert not (has_none and own_imports(name)), f"add {name} to the contract in setup.cfg"


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name):
    if name not in NO_LAYER and layer_of(name) is not None:
        others = {other: layer_of(other) for other in own_imports(name)}
        assert {o for o, layer in others.items() if (layer or 0) > layer_of(name)} == set()


def test_nothing_imports_in_a_circle():
    list(TopologicalSorter({name: own_imports(name) - {""} for name in MODULES}).static_order())


@pytest.mark.parametrize("name", MODULES)
def test_no_function_imports(name):
    """But those that exist for it: `AppConfig.ready()`, and the lazy names of a package."""
    for function in functions(TREES[name]):
        assert imports(function) == [], f"{function.name}() imports"
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        if any(isinstance(c.func, ast.Name) and c.func.id == "import_module" for c in calls):
            assert function.name in ("ready", "__getattr__")


@pytest.mark.parametrize("name", sorted(PURE & set(TREES)))
def test_the_core_knows_no_django_and_no_third_party(name):
    foreign = {
        imported
        for imported in imports(TREES[name])
        if imported.split(".")[0] not in {PACKAGE, "__future__"}
    }
    assert {imported for imported in foreign if imported.startswith("django")} == set()
    assert {imported.split(".")[0] for imported in foreign} <= STANDARD_LIBRARY


STANDARD_LIBRARY = {
    "asyncio", "collections", "contextvars", "dataclasses", "functools", "heapq", "json", "logging",
    "re", "time", "types", "typing", "urllib",
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_settings_are_read_in_one_place(name):
    reads = {"django.conf.settings"} & set(imports(TREES[name]))
    assert not reads or name in READ_DJANGOS_SETTINGS


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_too_long(name):
    assert len(SOURCES[name].splitlines()) <= LONG_MODULES.get(name, MOST_LINES)


@pytest.mark.parametrize("name", MODULES)
def test_no_function_is_long_without_being_named_here(name):
    long = {
        f"{name}.{function.name}"
        for function in functions(TREES[name])
        if function.end_lineno - function.lineno - docstring_lines(function)
        >= MOST_LINES_OF_A_FUNCTION
    }
    assert long <= LONG_FUNCTIONS


def docstring_lines(function: FUNCTION) -> int:
    docstring = ast.get_docstring(function, clean=False)
    return 0 if docstring is None else docstring.count("\n") + 1


@pytest.mark.parametrize("name", MODULES)
def test_every_public_class_and_function_says_what_it_promises(name):
    silent = [
        node.name
        for node in TREES[name].body
        if isinstance(node, ast.ClassDef | FUNCTION)
        and not node.name.startswith("_")
        # Says it in `help`, to those who run it.
        and node.name != "Command"
        and ast.get_docstring(node) is None
    ]
    assert silent == []
