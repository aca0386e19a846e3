SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
N ?= 50
SEED ?= 0
WORKERS ?= 1
PYTEST ?= $(BIN)/python -m pytest
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: install docs demo test coverage lint fast sweep versions fuzz chaos mutants clean test-fusion test-stages test-flows test-simulation test-rest fast-data fast-mathematics simulation

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml infra/constraints.txt
	@echo "installing into $(VENV): about two minutes on a fast line, 3 GB on the disk (more with CUDA's libraries)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "1 of 2: torch and torchvision, the largest part"
	$(BIN)/python -m pip install --quiet --constraint infra/constraints.txt torch torchvision
	@echo "2 of 2: Ray, Prefect, transformers and the rest, at the versions of infra/constraints.txt"
	$(BIN)/python -m pip install --quiet --constraint infra/constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/barycenter demo

# The site of docs/, in site/; a warning, a broken link or an anchor that is not there fails it.
docs: install
	$(BIN)/python docs/build.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two at a time, the longest first; each has a Ray and a Prefect of its own, and fusion's tests need neither.
# With CI set a skip fails the run, unless tests/skips.py accepts its reason.
test: export CI = 1
# Two parts share the cores; threads that wait for each other would burn them.
test coverage fast: export OMP_NUM_THREADS = 1
test coverage fast: export OPENBLAS_NUM_THREADS = 1
test: lint
	$(MAKE) --jobs=2 --output-sync=target test-flows test-stages test-fusion test-simulation test-rest

# Without the simulation: coverage would not follow its greenlets.
coverage: install
	$(BIN)/coverage erase
	$(MAKE) PYTEST="$(BIN)/coverage run -m pytest" test-flows test-stages test-fusion test-rest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-fusion:
	$(PYTEST) tests/fusion barycenter/fusion

test-rest:
	$(PYTEST) -m "not slow" tests/sweep tests/mutants tests/test_fuzz.py tests/test_docs.py tests/docs tests/language tests/messages tests/test_project.py tests/benchmarks

# They need a Prefect server, whose start is the dearest of all: one part has it, and the chaos tests beside them.
WITH_PREFECT := tests/infra/storage/test_credentials.py tests/tasks/test_pipeline.py

test-stages:
	$(PYTEST) tests/infra tests/tasks barycenter/infra barycenter/tasks $(addprefix --ignore=,$(WITH_PREFECT))

test-simulation:
	$(PYTEST) -m "not slow" tests/simulation
	$(BIN)/python -m tests.simulation N=1000 WORKERS=$(WORKERS)
	$(BIN)/python -m tests.simulation.whole N=30 WORKERS=$(WORKERS)

test-flows:
	$(PYTEST) tests/flows barycenter/flows $(WITH_PREFECT) tests/chaos

# The core: what needs no model, no server and no long fit; two parts of about the same length.
FAST_MATHEMATICS := $(addprefix tests/fusion/,moments heads $(addprefix alignment/test_,$(addsuffix .py,base linear linear_limits eigenproblems spectrum imputation joint target_fill)))
FAST_DATA := tests/fusion/dataset $(wildcard tests/fusion/test_*.py) $(addprefix tests/infra/,dispatch job storage versions corpus/types test_names.py test_logs.py) $(addprefix tests/tasks/,data fuse observability)

fast: install
	$(MAKE) --jobs=2 --output-sync=target fast-data fast-mathematics

fast-mathematics:
	$(PYTEST) -q -m "not slow" $(FAST_MATHEMATICS)

fast-data:
	$(PYTEST) -q -m "not slow" $(FAST_DATA)

sweep: install
	$(BIN)/python -m tests.sweep.supported_text
	$(BIN)/python -m tests.sweep.supported_vision --all

versions: install
	$(BIN)/python -m tests.versions

fuzz: install
	$(BIN)/python -m tests.fuzz N=$(N)

chaos: install
	$(BIN)/python -m tests.chaos N=$(N)

simulation: install
	$(BIN)/python -m tests.simulation N=$(N) SEED=$(SEED)

mutants: install
	$(BIN)/python -m tests.mutants N=$(N) SEED=$(SEED) WORKERS=$(WORKERS) $(MODULES)

clean:
	rm -rf $(VENV) out
