# What a contributor runs. Each command sets up what it needs; nothing is installed outside .venv.

# Python to build .venv with, 3.10 or newer, e.g. make test PYTHON=python3.12
PYTHON ?= python3
# What the demo's jobs run on: sandbox, docker or auto, e.g. make demo ENGINE=docker
ENGINE ?= sandbox
# 1: the demo leaves its project and pages up, e.g. make demo KEEP=1
KEEP ?=
# Extra arguments for pytest, e.g. make test PYTEST_ARGS='-k upload -x'
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
SOURCES := neuro_local tests benchmarks scripts hooks
# An editable package as a plain path: setuptools' finder would cost every start of this Python, and
# thus every call of the client, as much again as Python itself.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
  --config-settings editable_mode=compat

.DEFAULT_GOAL := help
.PHONY: help demo test test_slow lint format screenshots clean _tested_with _chromium _ckati _registry _docker

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z_]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo  ## render a project and take it through its whole cycle on neuro-local
	@PATH="$(CURDIR)/$(BIN):$$PATH" KEEP="$(KEEP)" NEURO_LOCAL_ENGINE="$(ENGINE)" sh scripts/demo.sh

test:  ## run every test: unit and end to end
	@$(MAKE) --no-print-directory --jobs=2 _tested_with
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup $(PYTEST_ARGS)

test_slow: $(VENV)/.dev $(VENV)/.neuromation  ## run the tests that take long: faults and load, again and again
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup tests/slow $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## check format, style and types; writes nothing
	$(BIN)/black --check --quiet $(SOURCES) || { echo 'Run: make format' >&2; exit 1; }
	$(BIN)/isort --check --quiet $(SOURCES) || { echo 'Run: make format' >&2; exit 1; }
	$(BIN)/flake8 $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/.dev  ## put the code into the format that lint wants
	$(BIN)/black --quiet $(SOURCES)
	$(BIN)/isort --quiet $(SOURCES)

screenshots: $(VENV)/.dev _chromium  ## take the pictures in docs/ anew
	$(BIN)/python -m pytest --quiet tests/e2e/screenshots.py

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache build neuro_local.egg-info

# Two stamps, so that the demo does not wait for the developers' tools.
$(VENV)/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'Python 3.10 or newer is needed; name one with PYTHON=' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo 'Python has no venv module; on Debian: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(INSTALL) --editable '.[demo,dev]'
	@touch $@

# The older client, to test with as well; without a stamp as long as there is no Python that can run it.
$(VENV)/.neuromation: $(VENV)/.demo constraints-neuromation.txt scripts/neuromation.sh
	@sh scripts/neuromation.sh $(VENV)/neuromation $(PYTHON)
	@if [ -d $(VENV)/neuromation ]; then touch $@; fi

_tested_with: $(VENV)/.dev $(VENV)/.neuromation _chromium _ckati _registry _docker; @:

# The tests' browser. It only looks, once there is one; without one those tests are skipped, and fail on CI.
_chromium:
	@sh scripts/chromium.sh install

# The tests' old make, likewise; after the browser, since only one apt-get can run at a time.
_ckati: _chromium
	@sh scripts/ckati.sh

# The server behind `neuro image push`, likewise.
_registry: _ckati
	@sh scripts/registry.sh

# The tests' Docker engine, likewise.
_docker: _registry
	@sh scripts/docker.sh
