.DEFAULT_GOAL := help
.PHONY: help demo test matrix lint format docs bench clean services

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
DEMO := $(VENV)/installed-for-demo
DOCS := $(VENV)/installed-for-docs
DEV := $(VENV)/installed-for-development

help:
	@echo "make demo    the demo site on your own machine, no service needed; Ctrl-C stops it"
	@echo "make test    every check and every test (installs missing Debian packages)"
	@echo "make matrix  the tests on every Python and Django that is supported and installed"
	@echo "make lint | format | docs | bench | clean"

demo: $(DEMO)
	@exec $(BIN)/python testproject/demo.py

# Tests mostly wait for servers: four files at a time, each process with services of its own.
test: $(DEV)
	@$(MAKE) --no-print-directory lint docs
	$(BIN)/python -m pytest --numprocesses=4 --dist=loadfile

# pyenv hides all versions but one, unless told.
matrix: $(DEV)
	PYENV_VERSION=$$(pyenv versions --bare 2>/dev/null | paste -sd :) $(BIN)/python -m nox

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/python -m django makemigrations --check --dry-run --settings=tests.settings --pythonpath=.

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(DEV)
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .nox .pytest_cache .mypy_cache .ruff_cache \
	    .hypothesis .import_linter_cache

services:
	@PYTHON="$(PYTHON)" tests/install-services

# Each stamp is newer than what it was installed from, so a second run installs nothing.
$(BIN)/python:
	@PYTHON="$(PYTHON)" tests/install-services venv
	$(PYTHON) -m venv $(VENV)

$(DEMO): setup.cfg pyproject.toml | $(BIN)/python
	@echo 'Installing the demo into $(VENV) ...'
	@$(PIP) --editable '.[demo]'
	@touch $@

$(DOCS): setup.cfg pyproject.toml | $(BIN)/python
	@echo 'Installing what builds the docs into $(VENV) ...'
	@$(PIP) --editable '.[docs]'
	@touch $@

$(DEV): setup.cfg pyproject.toml | services $(BIN)/python
	@echo 'Installing what the tests need into $(VENV), about a minute ...'
	@$(PIP) --editable '.[dev]'
	@touch $@ $(DOCS)
