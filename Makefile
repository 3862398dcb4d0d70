# `make demo` and `make test` set up everything by themselves in .venv; nothing else is needed but Python (>= 3.11) and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test check bench clean

setup: $(READY)

# The stamp is written last, so an interrupted installation is simply done again.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/attnpool quickstart --out runs/quickstart

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/pooling.py

clean:
	rm -rf $(VENV) runs
