# make setup | demo | test | test-long | bench | gpu: each sets up what it needs; CONTRIBUTING.md says how we work
SHELL := /bin/bash
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin/python
# a file's fixtures are made once; the programs' tests, which take longest, go first
PYTEST := $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
DEMO_OUT := runs/demo
PART := all

.PHONY: setup demo test test-long bench gpu format clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 with venv is needed (on Debian: apt install python3-venv)." >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON), some minutes the first time"
	@test -x $(RUN) || $(PYTHON) -m venv .venv
	@$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(RUN) scripts/demo.py --out $(DEMO_OUT) $(DEMO_ARGS)

test: setup
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(PYTEST)

test-long: setup
	$(PYTEST) -m long

bench: setup
	$(RUN) scripts/benchmark.py $(BENCH_ARGS)

gpu: setup
	@$(RUN) scripts/gpu.py --part $(PART)

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
