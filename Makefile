# Threadline. `make help` lists the targets; demo and test need only python3 (3.11 or newer) and a package registry.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Two processes of tests: most of a test is waiting, but what is measured in seconds should not starve.
JOBS   ?= 2
Q      ?=
CORPUS ?=

.DEFAULT_GOAL := help
.PHONY: help demo dev test lint types docs recording lock chaos mutants bench deploy-check clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# A bare Debian python3 has venv but no ensurepip: then pip from outside installs into the environment.
# One of ensurepip, pip and uv must be there; the message says so if none is.
$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "threadline needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "making $(VENV) …"
	@rm -rf $(VENV)
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	 elif $(PYTHON) -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --without-pip $(VENV); \
	 elif command -v uv >/dev/null; then uv venv -q $(VENV); \
	 else echo "python3 has neither ensurepip nor pip: install python3-venv or python3-pip (or uv), then repeat" >&2; exit 2; fi

# Versions and hashes come from the lock file; the package itself is installed in place.
$(STAMP): $(VENV)/pyvenv.cfg requirements.lock pyproject.toml
	@echo "installing what requirements.lock names (about a minute the first time) …"
	@if [ -x $(BIN)/pip ]; then install="$(BIN)/python -m pip install --disable-pip-version-check --quiet"; \
	 elif $(PYTHON) -m pip --version >/dev/null 2>&1; then install="$(PYTHON) -m pip --python $(BIN)/python install --disable-pip-version-check --quiet"; \
	 else install="uv pip install --quiet --python $(BIN)/python"; fi; \
	 $$install --require-hashes -r requirements.lock && $$install --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP) ## two workers, one SIGKILL, one report; Q="…" and CORPUS=folder for your own
	@$(BIN)/threadline demo $(if $(Q),--question "$(Q)") $(if $(CORPUS),--corpus "$(CORPUS)")

dev: $(STAMP) ## servers and workers for development, until Ctrl-C
	@$(BIN)/threadline dev

test: $(STAMP) lint types ## everything that CI runs: lint, types, all tests
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadscope

lint: $(STAMP) ## ruff and import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports

types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy

docs: $(STAMP) ## renew the generated tables in README and docs/
	@$(BIN)/python docs/generate.py
	@$(BIN)/python docs/schema.py

recording: $(STAMP) ## renew the README's picture from a real run
	@$(BIN)/python docs/record.py

lock: $(STAMP) ## renew requirements.lock: hashes, no URLs
	@$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras \
	  --upgrade --quiet --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@sh deploy/docker/lock.sh

chaos: $(STAMP) ## seeded faults against real processes; SEED=… MINUTES=…
	@PYTHONPATH=tests $(BIN)/python -m support.chaos_run --seed $(or $(SEED),1) --minutes $(or $(MINUTES),4)

mutants: $(STAMP) ## each rule removed once: does a test notice? (slow)
	@ALL_MUTANTS=1 $(BIN)/python -m pytest -q tests/chaos/test_mutants.py

bench: $(STAMP) ## the figures of README and docs, as ratios and percentiles (slow); ONLY=name for one
	@PYTHONPATH=tests $(BIN)/python -m bench $(ONLY)

deploy-check: $(STAMP) ## real tools on deploy/; DEPLOY_TOOLS=folders, ONLY="a check", PICTURE=file (exit 3: tools are missing)
	@$(BIN)/python deploy/check.py $(if $(ONLY),"$(ONLY)")

clean: ## remove .venv, .threadline and caches
	@rm -rf $(VENV) .threadline .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
