SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
N ?= 50
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: install demo test lint fast chaos clean test-fusion test-whole

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml infra/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint infra/constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --constraint infra/constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/barycenter demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# fusion's tests see no Ray and no Prefect; they run beside the others.
test: lint
	$(BIN)/coverage erase
	$(MAKE) --jobs=2 --output-sync=target test-fusion test-whole
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-fusion:
	$(BIN)/coverage run -m pytest tests/fusion fusion

test-whole:
	$(BIN)/coverage run -m pytest tests/infra tests/tasks tests/flows tests/chaos infra tasks flows

fast: install
	$(BIN)/pytest -m 'not slow' -q

chaos: install
	$(BIN)/python -m tests.chaos N=$(N)

clean:
	rm -rf $(VENV) out
