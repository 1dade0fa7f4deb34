# make demo   the whole loop on this machine, from nothing to two classified photos
# make test   every check: ruff, mypy, pytest
# make bench  the figures of the README, as a table and as JSON
# make clean  ends localcloud and removes its state; make distclean removes the virtual environment too

PYTHON ?= python3
VENV ?= .venv
# Where PyTorch comes from, when pip's own configuration should not decide (on Linux PyPI's build carries several GB of CUDA):
# make demo TORCH_PIP_ARGS="--index-url <PyTorch's CPU wheel index>"
TORCH_PIP_ARGS ?=

BIN := $(VENV)/bin
# uv installs the same set several times faster than pip; pip gets torch, because pip's configuration is where people say which build they want.
INSTALL := $(BIN)/uv pip install --python $(BIN)/python --quiet --constraint constraints.txt

# The loop is dozens of Python processes (jobs, functions, commands): what one has compiled, the next ones need not.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint typecheck pytest bench clean distclean

demo: $(VENV)/.demo
	@$(BIN)/scones demo

test: lint typecheck pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.dev
	$(BIN)/mypy

pytest: $(VENV)/.dev
	$(BIN)/python -m pytest

bench: $(VENV)/.dev
	$(BIN)/python -m bench

$(VENV)/bin/uv:
	@command -v '$(firstword $(PYTHON))' >/dev/null || { echo "There is no command '$(firstword $(PYTHON))'; Python 3.11 or newer is needed. Name one that is there: make demo PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Name another: make demo PYTHON=python3.12" >&2; exit 1; }
	@echo "[1/3] virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(VENV)/.torch: $(VENV)/bin/uv
	@echo "[2/3] PyTorch (about 200 MB on a CPU; once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(TORCH_PIP_ARGS) torch
	@touch $@

$(VENV)/.demo: $(VENV)/.torch setup.py constraints.txt
	@echo "[3/3] SageMaker SDK, MLflow, moto and the rest (about 1.2 GB unpacked; once)"
	@$(INSTALL) pip --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "tools for the checks"
	@$(INSTALL) --editable '.[demo,dev]'
	@touch $@

clean:
	@if [ -x $(BIN)/scones ]; then $(BIN)/scones down; fi
	rm -rf .scones

distclean: clean
	rm -rf $(VENV) *.egg-info
