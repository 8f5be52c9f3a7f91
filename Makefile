# `make demo` and `make test` set up .venv on a fresh machine, then run. Both install the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test test-all lint docs setup clean

demo: $(READY)
	$(VENV)/bin/medst demo

test: $(READY) lint
	$(VENV)/bin/python -m pytest -q

test-all: $(READY) lint
	$(VENV)/bin/python -m pytest -q -m ""

lint: $(READY)
	$(VENV)/bin/ruff check src tests benchmarks examples docs conftest.py
	$(VENV)/bin/ruff format --check src tests benchmarks examples docs conftest.py
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo

docs: $(READY)
	$(VENV)/bin/python docs/generate.py
	$(VENV)/bin/zensical build --strict --clean

setup: $(READY)

# torch first and by itself: a CPU build of its pinned version may be installed already, and the next command keeps it.
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a few minutes of downloads, once."
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) medst-demo site
