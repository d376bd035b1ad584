# On a fresh machine with Python 3.11 or later, make and git: `make tour` or `make test`.

PYTHON ?= python3
# What pip should do otherwise for torch alone, such as an index that has its CPU build.
TORCH_OPTIONS ?=

BIN := .venv/bin
READY := .venv/.ready
PACKAGES := pgm causal privacy

# One BLAS thread: the tests run in two processes, and the benchmarks compare single threads.
test bench: export OMP_NUM_THREADS := 1
test bench: export MKL_NUM_THREADS := 1
test bench: export OPENBLAS_NUM_THREADS := 1
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help tour test format bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "make %-8s %s\n", $$1, $$2}'

tour: $(READY) ## every kind of model on real data; writes out/index.html
	$(BIN)/python -m pgm tour

test: $(READY) ## format, lint, types, layers, tests, doctests, README, tutorials
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest
	PYTHONPATH=.venv/arviz-1 $(BIN)/pytest -q tests/test_inference_diagnostics.py \
		tests/test_inference_criticism.py tests/test_inference_groups.py

format: $(READY) ## rewrite the code as `make test` wants it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## the figures of benchmarks/, one script after the other
	@set -e; for script in benchmarks/[a-z]*.py; do \
		[ -e "$$script" ] || { echo "benchmarks/ holds no script yet."; break; }; \
		echo "== $$script"; $(BIN)/python "$$script"; \
	done

clean: ## everything that make made
	rm -rf .venv out build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PACKAGES) tests -name __pycache__ -prune -exec rm -rf {} +

# The environment, made once and again when what it is made from changes. torch comes first and
# alone, so that no other package chooses its build.
$(READY): pyproject.toml constraints.txt tests/arviz-1.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "Hotplate needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one, for example: make $(or $(MAKECMDGOALS),test) PYTHON=python3.11"; \
		exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt $(TORCH_OPTIONS) torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --no-deps --ignore-requires-python --target .venv/arviz-1 \
		-r tests/arviz-1.txt
	@touch $@
