# Everything runs from .venv, which `make install` builds from the locked requirements. CI calls the same targets.

BIN := .venv/bin
PYTHON := $(BIN)/python
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.SHELLFLAGS := -euc
.PHONY: help install demo up example chaos memory bench bench-sql test test-again test-zoo test-long check format async-client migration lock docs dist clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## make .venv and install the locked requirements

demo: $(INSTALLED)  ## watch a transfer survive its worker; FILE=… takes a file of your own
	$(PYTHON) -m dev.demo $(if $(FILE),--file "$(FILE)")

up: $(INSTALLED)  ## start everything on this machine, without Docker, until Ctrl-C
	$(PYTHON) -m dev.up

example: $(INSTALLED)  ## start one of the apps in examples/ with all that it needs, until Ctrl-C; APP=fastapi
	$(PYTHON) -m dev.example $(or $(APP),fastapi)

chaos: $(INSTALLED)  ## let everything go wrong for MINUTES=2, as SEED=1 wants it; then all jobs must be right
	$(PYTHON) -m dev.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

memory: $(INSTALLED)  ## measure the peak memory of a worker child that moves 2 GiB, about 2 minutes
	$(PYTHON) -m dev.memory

bench: $(INSTALLED)  ## measure beside boto3, awscli, s5cmd, rclone, obstore and plain Celery; LOADS=… ROUNDS=3 SCALE=0.1
	$(PYTHON) -m bench $(if $(LOADS),--loads $(LOADS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SCALE),--scale $(SCALE)) $(ARGS)

bench-sql: $(INSTALLED)  ## measure what each statement costs at a million rows, as ratios to the empty table; SCALE=1
	$(PYTHON) -m bench.sql_fills $(if $(SCALE),--scale $(SCALE)) $(ARGS)

# Tests that are marked no_cover run without coverage: other tests reach the same lines, and coverage would double their time.
test: $(INSTALLED)  ## run all tests, with coverage; ARGS=… goes to pytest
	$(PYTHON) -m pytest -m "no_cover and not long" --numprocesses 4 --dist worksteal --ignore tests/system $(ARGS)
	$(PYTHON) -m pytest -m "not no_cover and not long" --numprocesses 4 --dist worksteal --ignore tests/system --cov --cov-report=term-missing:skip-covered $(ARGS)
	$(PYTHON) -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder tests/system $(ARGS)

test-again: $(INSTALLED)  ## run all tests N=5 times in a row, beside BUSY=0 busy loops: no test may depend on luck
	@loops=""; trap 'test -z "$$loops" || kill $$loops' EXIT; \
	for loop in $$(seq $(or $(BUSY),0)); do (while :; do :; done) & loops="$$loops $$!"; done; \
	for run in $$(seq $(or $(N),5)); do echo "run $$run of $(or $(N),5)"; $(MAKE) --no-print-directory test; done

test-zoo: $(INSTALLED)  ## run the cases of driver and stores on every store of the zoo, or on PROFILE=… (python -m dev.zoo)
	$(PYTHON) -m dev.zoo_suites $(if $(PROFILE),--profile "$(PROFILE)") $(ARGS)

test-long: $(INSTALLED)  ## run the tests that are too long for every run
	$(PYTHON) -m pytest -m long $(ARGS)

check: $(INSTALLED)  ## check format, style, types, import directions and migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(SCRATCH_DATABASE) $(BIN)/alembic upgrade head && $(BIN)/alembic check

format: $(INSTALLED)  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

async-client: $(INSTALLED)  ## write blobferry/async_client.py anew from the signatures of Client
	$(PYTHON) -m dev.async_methods

migration: $(INSTALLED)  ## write the migration that brings the database to the models; m="what changes"
	@test -n "$(m)" || { echo 'say what changes: make migration m="add a column"' >&2; exit 2; }
	@$(SCRATCH_DATABASE) $(BIN)/alembic upgrade head && $(BIN)/alembic revision --autogenerate -m "$(m)"

lock: .venv  ## write the requirements files with their hashes anew, changing no more than needed; ARGS=--upgrade takes the newest
	@$(SCRATCH) \
	$(PYTHON) -m venv "$$scratch/venv"; \
	"$$scratch/venv/bin/pip" install --quiet --disable-pip-version-check uv; \
	compile() { "$$scratch/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --no-header --generate-hashes \
		--no-strip-extras --no-emit-index-url --no-emit-find-links $(ARGS) "$$@"; }; \
	compile --group worker -o requirements.txt; \
	compile --group dev -c requirements.txt -o requirements-dev.txt

docs: $(INSTALLED)  ## write docs/settings.md anew, from the code that reads the settings
	$(PYTHON) -m dev.settings_page

dist: $(INSTALLED)  ## build the wheels of the client and of the worker into dist/
	rm -rf dist
	$(PYTHON) -m build --no-isolation --outdir dist .
	$(PYTHON) -m build --no-isolation --wheel --outdir dist packaging/worker
	@echo; echo "for an app:     pip install '$$(ls $$PWD/dist/blobferry-*.whl)[postgresql]'"
	@echo "for a worker:   pip install --find-links $$PWD/dist blobferry-worker, in an environment of its own"

clean:  ## remove what tools and tests leave behind, but not .venv
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

$(INSTALLED): requirements-dev.txt | .venv
	@echo 'installing the locked requirements into .venv; the first time takes minutes, in which pip prints nothing'
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv:
	@for python in python3.13 python3.12 python3.11 python3; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making .venv with $$("$$python" --version)"; \
			"$$python" -m venv .venv || { rm -rf .venv; exit 1; }; \
			exit 0; \
		fi; \
	done; \
	echo 'make: no Python >= 3.11 found (tried python3.13, python3.12, python3.11 and python3 on PATH)' >&2; \
	exit 1

# The start of a recipe that needs a place of its own, which goes with it.
SCRATCH = set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT;
SCRATCH_DATABASE = $(SCRATCH) export BLOBFERRY_DATABASE_URL="sqlite:///$$scratch/blobferry.db";
