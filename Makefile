.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCAL := $(BIN)/python -m ops.local
IN_LOCAL = state="$${LOCAL_STATE_DIR:-.local}"; \
	test -f "$$state/env" || { echo "start the stack first: make up" >&2; exit 1; }; set -a; . "$$state/env"; set +a;
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup run up down reset status migrate import check test bench docs

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install the locked dependencies into .venv

run: $(STAMP) ## start the local stack and serve on http://127.0.0.1:8080; Ctrl-C stops all
	@$(LOCAL) run

up: $(STAMP) ## the same in the background; returns when the service is ready
	@$(LOCAL) up

down: $(STAMP) ## stop what `make up` started; the data stays
	@$(LOCAL) down

reset: $(STAMP) ## stop, and forget the data
	@$(LOCAL) reset

status: $(STAMP) ## say what of the local stack runs; JSON=1 for scripts
	@$(LOCAL) status $(if $(JSON),--json)

migrate: $(STAMP) ## apply the migrations to the local stack
	@$(IN_LOCAL) $(BIN)/python -m migrations apply

import: $(STAMP) ## import users into the local stack: make import FILE=users.ndjson
	@test -n "$(FILE)" || { echo "which file? make import FILE=users.ndjson" >&2; exit 2; }
	@$(IN_LOCAL) $(BIN)/python -m service import "$(FILE)"

check: $(STAMP) ## lint, types, import rules, docs
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m docs.check

test: check ## check, and every test that needs nothing but Python packages
	@$(BIN)/pytest

bench: $(STAMP) ## compare with hand-written peers: make bench [ONLY=point_ops]
	@$(BIN)/python -m bench $(ONLY)

docs: $(STAMP) ## check the documentation's links and code
	@$(BIN)/python -m docs.check

$(STAMP): requirements/dev.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or later is needed; name one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
		echo "this Python can't make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
