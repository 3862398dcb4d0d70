# `make demo` and `make test` set up everything by themselves in .venv; nothing else is needed but Python (>= 3.11) and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# TensorFlow has an environment of its own, without PyTorch, and needs a Python before 3.13. Only tests of the released
# checkpoints use it.
TF_PYTHON ?= $(PYTHON)
TF_VENV := .venv-tf
TF_READY := $(TF_VENV)/.ready
EXTRA_TF := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["tf"])
# So has mediapipe, whose protobuf is older than others want; without PyTorch, and with a Python before 3.13 as well.
POSE_PYTHON ?= $(PYTHON)
POSE_VENV := .venv-pose
POSE_READY := $(POSE_VENV)/.ready

# Processes that share the tests, each with one thread. A file is a worker's, which makes what its tests share only once.
WORKERS ?= 2

.PHONY: setup demo test check bench clean

setup: $(READY)

# The stamp is written last, so an interrupted installation is simply done again.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off --editable '.[dev]'
	touch $(READY)

$(TF_READY): pyproject.toml | $(READY)
	$(TF_PYTHON) -m venv $(TF_VENV)
	$(TF_VENV)/bin/python -m pip install --quiet --progress-bar off "$$($(BIN)/python -c '$(EXTRA_TF)')"
	touch $(TF_READY)

$(POSE_READY): requirements-mediapipe.txt
	$(POSE_PYTHON) -m venv $(POSE_VENV)
	$(POSE_VENV)/bin/python -m pip install --quiet --progress-bar off --requirement requirements-mediapipe.txt
	$(POSE_VENV)/bin/python -m pip install --quiet --progress-bar off --no-deps mediapipe==0.10.14
	touch $(POSE_READY)

demo: $(READY)
	$(BIN)/attnpool quickstart --out runs/quickstart

test: $(READY) $(TF_READY) $(POSE_READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/attnpool benchmark pooling

clean:
	rm -rf $(VENV) $(TF_VENV) $(POSE_VENV) runs
