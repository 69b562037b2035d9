# `make help` lists the targets. Needs Python 3.11 or newer, make, and a Python package index; nothing else.
#
#   make demo                  set up, then curate the embedded pool and say where the report is
#   make PYTHON=python3.12 …   choose the interpreter of the virtual environment
#   make JOBS=1 test           processes of the test suite

SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.ready
JOBS  ?= 2
MGD_HOME ?= runs
# Newest first. A name may exist and yet not run (version managers' shims), so each is tried.
PYTHONS := python3.14 python3.13 python3.12 python3.11 python3

export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv with the exact versions of requirements.lock

# Done again only when the lock or the project file changes; the stamp is written last, so a set-up that
# was cut off is finished by the next one.
$(STAMP): requirements.lock pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
	  for candidate in $(or $(PYTHON),$(PYTHONS)); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      found="$$candidate"; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "No Python 3.11 or newer with the venv module found (tried: $(or $(PYTHON),$(PYTHONS)))." >&2; \
	    echo "Install one (on Debian: python3.11 and python3.11-venv), or name it: make setup PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  echo "setup: $(VENV) from $$($$found --version)"; \
	  "$$found" -m venv $(VENV); \
	fi
	@echo "setup: installing requirements.lock (once; a few minutes where torch has to be downloaded)"
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(STAMP)  ## curate the embedded fashion pool (about 8 minutes on 2 cores) and print the result
	@$(BIN)/mgd curate fashion --home $(MGD_HOME)
	@echo "runs    $(BIN)/mgd server status    Prefect's page of this and later runs ('stop' ends the server)"

# A worker takes a file at a time: what its tests share is made once. mypy fills what cores the tests leave idle.
test: $(STAMP)  ## lint, and beside it the fast test suite in random order (about 7 minutes on 2 cores)
	@$(BIN)/ruff check --quiet .
	@said=$$(mktemp); $(BIN)/mypy --no-error-summary > $$said 2>&1 & types=$$!; \
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types; typed=$$?; cat $$said; rm $$said; exit $$((tests + typed))

lint: $(STAMP)  ## ruff and mypy
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

bench: $(STAMP)  ## every benchmark in its quick form (leave out --quick for the full ones)
	@for file in $$(grep -l __main__ benchmarks/[a-z]*.py) $$(dirname benchmarks/*/__main__.py); do \
	  name=$$(basename $$file .py); echo "== python -m benchmarks.$$name --quick"; \
	  $(BIN)/python -m benchmarks.$$name --quick || exit 1; \
	done

lock: $(STAMP)  ## compile requirements.lock anew from pyproject.toml
	@env -u UV_FIND_LINKS -u PIP_FIND_LINKS $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	  --no-header --no-annotate --upgrade --extra dev pyproject.toml --output-file requirements.lock

clean:  ## stop the local server; remove .venv and caches (runs stay)
	@if [ -x $(BIN)/mgd ]; then $(BIN)/mgd server stop --home $(MGD_HOME) || true; fi
	@rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
