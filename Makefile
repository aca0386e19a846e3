SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: install demo test lint fast clean

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

test: lint
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest tests/fusion fusion
	$(BIN)/coverage run -m pytest tests/infra tests/tasks tests/flows infra tasks flows
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

fast: install
	$(BIN)/pytest -m 'not slow' -q

clean:
	rm -rf $(VENV) out
