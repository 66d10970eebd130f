# `make demo` and `make test` do all the set-up themselves: a virtual environment with the pinned versions, once, and
# again when setup.cfg or constraints.txt change. Variables: PYTHON (3.11 or newer), VENV, RUN (the demo's folder), ARGS
# (more arguments for pytest).

VENV ?= .venv
RUN ?= runs/demo
ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

is_new_enough = -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	$$python $(is_new_enough) >/dev/null 2>&1 && echo $$python && break; done)

# A worker a core: most of a test is XLA compiling on one core. A file stays on one worker, which keeps what it
# compiled; files go out in alphabetical order, which starts the longest, end to end, early.
PYTEST = $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

.PHONY: help demo test test-all lint format bench clean

help:
	@echo "make demo      train a small diffusion model on handwritten digits, sample it, score it (minutes)"
	@echo "make test      the default tests"
	@echo "make test-all  the slow ones too"
	@echo "make lint      ruff, mypy, import directions"
	@echo "make format    rewrite the files the way that lint wants them"
	@echo "make bench     speed and memory against what is promised, as ratios"
	@echo "make clean     remove what building and testing leave behind; keeps $(VENV) and runs/"

demo: $(READY)
	$(BIN)/genjax train --config=configs/digits/ddpm.py --workdir=$(RUN)
	$(BIN)/genjax sample --workdir=$(RUN) --n=100
	$(BIN)/genjax evaluate --workdir=$(RUN)

# Most of a test is compiling: without XLA's and LLVM's costly passes, which small models do not need, it takes a third
# less time. `test-all` compiles as users do.
test: export JAX_DISABLE_MOST_OPTIMIZATIONS = true
test: $(READY)
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(READY)
	$(PYTEST) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(READY)
	$(BIN)/python -m experiments.benchmark

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(READY): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found. Install one, or: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" $(is_new_enough) || { echo "$(PYTHON) is not Python 3.11 or newer. Install one, or: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$("$(PYTHON)" -V): a minute or two, the first time"
	@$(BIN)/python -c '' 2>/dev/null || "$(PYTHON)" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find genjax configs experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +
