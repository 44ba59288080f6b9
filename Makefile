PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart test test-all lint types wheel docs clean help

help:
	@echo "make quickstart   install into $(VENV) and run the first study (about two minutes)"
	@echo "make test         install what the tests need and run the quick ones"
	@echo "make test-all     the slow, browser and PostgreSQL tests, too"
	@echo "make docs         build the documentation into site/, running its examples; open site/index.html"
	@echo "make lint types wheel clean"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[test]'
	@touch $@ $(VENV)/.installed

quickstart: $(VENV)/.installed
	$(BIN)/autovae run quickstart

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m 'not gpu' --timeout 1200

lint: $(VENV)/.installed-test
	$(BIN)/ruff check autovae tests
	$(BIN)/ruff format --check autovae tests

types: $(VENV)/.installed-test
	$(BIN)/mypy

wheel: $(VENV)/.installed-test
	$(BIN)/python -m build --wheel --no-isolation

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
