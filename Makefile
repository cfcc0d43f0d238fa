# `make` lists the targets. Each of them sets up what it needs, on a bare machine with Python 3.11 or newer.
# With another Python, or the environment in another place:  make test PYTHON=python3.12 VENV=/tmp/venv

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
# Touched when the environment is complete; older than what it was made from, it is brought up to date.
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-faults lint format ci clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## the virtual environment, with everything at the tested versions

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; name a Python 3.11 or newer: make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1), sngd_tune needs Python 3.11 or newer: make PYTHON=…" >&2; exit 1; }
	@echo "setting up $(VENV): some minutes the first time" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[tune,mlflow,cluster,postgresql,server,gpu,peers,dev]'
	@touch $@

demo: $(READY)  ## tune SNGD on handwritten digits: search, confirmation on fresh seeds, report
	$(BIN)/sngd-tune run search_spaces/digits_mlp.yaml

test: $(READY)  ## the quick suite
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(READY)  ## what takes longer, but the faults
	$(BIN)/python -m pytest -m "slow and not faults" $(TESTS)

test-faults: $(READY)  ## real faults on a real cluster of several nodes on this machine
	$(BIN)/python -m pytest -m faults

lint: $(READY)  ## style, types and the rules of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci:  ## all that CI does, in environments of its own
	bash .ci/run

clean:  ## remove environment, caches and build files; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find sngd_tune tests -name __pycache__ -type d -prune -exec rm -rf {} +
