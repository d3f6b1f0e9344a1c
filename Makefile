# What this repo can do for you, one word each. Every target brings its own virtual environment (.venv) on first use.
#
#   make demo        a demonstration: issues, agents, reviews, verified branches; needs nothing but Python and git
#   make up          run it for real; ORCH_PROJECT_ROOT=/path/to/repo names the repo; stop it with Ctrl-C
#   make test        all tests, several at once;  make test ARGS=tests/unit  runs one ring
#   make check       formatting, lint, types, import contracts, the house, generated docs
#   make chaos       a running stack, broken every few seconds: is anything lost?  make chaos SEEDS="4 5" MINUTES=10
#   make docker-test the image and the stack of docker-compose.yml, for real; starts a Docker engine where none runs
#   make bench       the benchmarks
#   make docs        write the generated parts of docs/ anew
#   make lock        write constraints.txt anew, from the newest releases that pyproject.toml allows
#
# ARGS="..." is passed on to the program. PYTHON=... names another Python (3.11 or newer) for a new .venv.

PYTHON  ?= python3
BIN     := .venv/bin
ARGS    ?=
SEEDS   ?= 1 2 3
MINUTES ?= 2

# Two makes at once take turns where there is flock(1). The lock is on a file that is there anyway.
ALONE   := $(if $(shell command -v flock),flock Makefile)

.DEFAULT_GOAL := help
.PHONY: help demo up test check chaos docker-test bench docs lock

help:
	@sed -n 's/^#   make/make/p' Makefile

demo: .venv/.for-use
	@$(BIN)/orch demo $(ARGS)

up: .venv/.for-use
	@$(BIN)/orch up $(ARGS)

# Coverage is of the whole suite, and of what runs in the tests' own processes.
test: .venv/.for-development
	@$(BIN)/python -m pytest -q -n auto --tb=short --maxfail=10 $(or $(ARGS),--cov --cov-report=)
	@$(if $(ARGS),,echo "branch coverage: $$($(BIN)/coverage report --format=total) %")

check: .venv/.for-development
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m tests.docs_generate --check
	@$(BIN)/python -m tests.house --check

chaos: .venv/.for-development
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(SEEDS)

docker-test: .venv/.for-development
	@$(BIN)/python -m tests.docker

bench: .venv/.for-development
	@$(BIN)/python -m tests.benchmarks $(ARGS)

docs: .venv/.for-development
	@$(BIN)/python -m tests.docs_generate

lock:
	@$(call supported)
	@rm -rf .venv/lock && $(PYTHON) -m venv .venv/lock
	@.venv/lock/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@.venv/lock/bin/python -m pip freeze --exclude-editable > .venv/lock/all
	@mv .venv/lock/all constraints.txt && rm -rf .venv/lock

# A stamp is written last, so an installation that was cut off is done again. The one for development covers both.
.venv/.for-use: pyproject.toml constraints.txt
	@$(call installed,.,$@)

.venv/.for-development: pyproject.toml constraints.txt
	@$(call installed,.[dev],$@ .venv/.for-use)

define supported
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
  echo "Python 3.11 or newer is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
       "Name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
endef

# Asked again with the lock in hand: another make may have been here meanwhile.
define installed
$(supported); \
$(ALONE) sh -ec ' \
  test "$$2" -nt pyproject.toml && test "$$2" -nt constraints.txt && exit; \
  echo "Installing into .venv (once; half a minute) ..." >&2; \
  .venv/bin/python -m pip --version >/dev/null 2>&1 || "$$0" -m venv --clear .venv; \
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$$1"; \
  shift; touch "$$@"' \
  '$(PYTHON)' '$(1)' $(2)
endef
