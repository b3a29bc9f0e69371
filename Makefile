SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
RUN := .venv/.installed
DEV := .venv/.installed-dev
DOCS := .venv/.installed-docs
.PHONY: quickstart test faults check fmt types bench docs install

quickstart: $(RUN)
	$(BIN)/geosweep run sweeps/quickstart.yaml

# a third of a test's time is waiting, for processes, ports and grace periods: three workers keep two cores busy
WORKERS ?= 3

# COVER=90 also measures coverage and asks for so many per cent of it; tracing every call takes as long again as the tests
test: $(DEV)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long" $(if $(COVER),--cov --cov-report=term --cov-fail-under=$(COVER))

faults: $(DEV)
	$(BIN)/python -m pytest -m long -rs

check: $(DEV)
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not long" -x

fmt: $(DEV)
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

types: $(DEV)
	$(BIN)/mypy

bench: $(DEV)
	$(BIN)/python -m tests.bench.scheduling
	$(BIN)/python -m tests.bench.scale --trials 1000 --raylets 2
	$(BIN)/python -m tests.bench.scale --trials 10000
	$(BIN)/python -m tests.bench.outage

# the site in site/, which opens from its folder; a broken link is an error
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict && echo "site/index.html"

install: $(DEV)

$(RUN): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "geosweep needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	@test -x $(BIN)/python || { rm -rf .venv; $(PYTHON) -m venv .venv; }
	@echo "installing geosweep and what it needs into .venv (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 2> >(grep -v "is ignored: it is" >&2)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . 2> >(grep -v "is ignored: it is" >&2)
	@touch $(RUN)

$(DEV): $(RUN)
	@echo "installing what tests and benches need besides"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' 2> >(grep -v "is ignored: it is" >&2)
	@touch $(DEV)

$(DOCS): $(RUN)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]' 2> >(grep -v "is ignored: it is" >&2)
	@touch $(DOCS)
