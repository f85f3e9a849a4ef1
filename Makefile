# Chatledger's commands. PYTHON chooses the interpreter, ARGS go to pytest. The tests are shared among
# JOBS processes; on PostgreSQL among two more, since there they wait for other processes a lot.

PYTHON ?= python3
ARGS ?=
FUZZ_ARGS ?=
BENCH_ARGS ?=
PROFILE ?= embedded
JOBS ?= 2

# What Python has compiled is kept, whatever the shell says: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEVELOPMENT := $(VENV)/.development-installed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
SOURCES := accounts audit benchmarks config conversations devstack eventstore examples manage.py \
	privacy projections tests

.DEFAULT_GOAL := help

.PHONY: help run test test-embedded test-full faults bank simulation fuzz mutants check lint audit \
	bench bench-quick profile stack keys lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(RUNTIME) ## everything in one process on SQLite, on http://localhost:8000 (PORT)
	@exec $(BIN)/python manage.py serve --migrate

test: test-embedded test-full ## the whole suite, on SQLite and on PostgreSQL with Redis

test-embedded: $(DEVELOPMENT)
	CHATLEDGER_TEST_PROFILE=embedded $(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-full: $(DEVELOPMENT)
	CHATLEDGER_TEST_PROFILE=full $(BIN)/python -m pytest -n $$(($(JOBS) + 2)) $(ARGS)

faults: $(DEVELOPMENT) ## each fault as often as it is promised, with the figures at the end
	CHATLEDGER_FAULTS=full CHATLEDGER_TEST_PROFILE=full $(BIN)/python -m pytest tests/faults \
		--ignore=tests/faults/test_bank.py $(ARGS)

bank: $(DEVELOPMENT) ## ten minutes of many customers and every kind of fault at once
	CHATLEDGER_FAULTS=full CHATLEDGER_TEST_PROFILE=full $(BIN)/python -m pytest \
		tests/faults/test_bank.py $(ARGS)

mutants: $(DEVELOPMENT) ## take away one guard at a time: the tests have to notice (GUARDS, a word of each)
	$(BIN)/python -m tests.mutants $(GUARDS)

simulation: $(DEVELOPMENT) ## a million simulated operations (CHATLEDGER_SIMULATION, CHATLEDGER_SEED)
	$(BIN)/python -m tests.simulation

bench: $(DEVELOPMENT) ## ten minutes: the speed beside a version without events, and what grows (BENCH_ARGS="--only NAME")
	@$(BIN)/python -m benchmarks.bench $(BENCH_ARGS)

bench-quick: $(DEVELOPMENT) ## the same in two minutes, for mistakes and not for figures
	@$(BIN)/python -m benchmarks.bench --quick $(BENCH_ARGS)

profile: $(DEVELOPMENT) ## where a process under load spends its time (PROFILE="web --gil")
	@$(BIN)/python -m benchmarks.profile $(PROFILE)

check: lint test ## what must hold before a commit

lint: $(DEVELOPMENT) ## format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(wildcard $(SOURCES))
	$(BIN)/lint-imports

fuzz: $(DEVELOPMENT) ## 20,000 requests made from the OpenAPI document (FUZZ_ARGS="--requests N --seed S")
	$(BIN)/python -m tests.attacks.fuzz $(FUZZ_ARGS)

audit: $(DEVELOPMENT) ## known weaknesses of the locked packages; asks pypi.org
	$(BIN)/pip-audit --disable-pip --require-hashes --strict --progress-spinner off \
		-r requirements.txt -r requirements-dev.txt

stack: $(DEVELOPMENT) ## PostgreSQL, Redis, web, worker and followers as processes of their own
	@exec $(BIN)/python -m devstack

keys: $(RUNTIME) ## the missing secrets for docker compose, in .env
	@$(BIN)/python manage.py make_keys --file .env

lock: $(DEVELOPMENT) ## both lock files, anew from pyproject.toml
	$(LOCK) pyproject.toml --output-file requirements.txt
	$(LOCK) pyproject.toml --group dev --constraint requirements.txt --output-file requirements-dev.txt

clean: ## what the commands made, but not var/
	rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

LOCK := UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal \
	--generate-hashes --no-annotate --python-version 3.11

$(RUNTIME): requirements.txt | $(BIN)/python
	@echo 'Installing what requirements.txt locks into $(VENV) ...' >&2
	@$(INSTALL) -r $<
	@touch $@

$(DEVELOPMENT): requirements-dev.txt | $(BIN)/python
	@echo 'Installing what requirements-dev.txt locks into $(VENV) ...' >&2
	@$(INSTALL) -r $<
	@touch $@ $(RUNTIME)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo 'Chatledger needs Python 3.11 or newer and finds no $(PYTHON); choose one: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Chatledger needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); choose another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'Chatledger needs the venv module, which $(PYTHON) lacks; on Debian and Ubuntu: apt install python3-venv' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
