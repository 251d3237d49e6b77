# Two commands: `make run` opens the dashboard, `make test` checks everything. Both make their own environment in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHORT := tests/maths tests/data tests/trace tests/components \
	$(addprefix tests/test_,options.py runs.py jobs.py sixth_experiment.py)
# Spinning OpenMP threads stall a busy machine ten- to twentyfold.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0
# Two processes of tests, each on a core of its own; what sums to the last digit sums in one order.
unit: export OMP_NUM_THREADS ?= 1

.PHONY: run test lint types unit oldest clean

run: $(VENV)/.run
	$(BIN)/streamlit run app.py

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore=tests/browser
	$(BIN)/python -m pytest tests/browser

# A short run on the oldest versions that pyproject.toml allows; `make oldest PYTHON=python3.13` on another Python.
oldest: export OMP_NUM_THREADS ?= 1
oldest:
	$(PYTHON) -m venv --clear $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet $$($(PYTHON) .ci/oldest.py words cluster) pytest pytest-xdist hypothesis
	$(VENV)-oldest/bin/python -m pytest -n 2 --dist loadfile -m "not slow" $(SHORT)

clean:
	rm -rf $(VENV) $(VENV)-oldest .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt requirements-cluster.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@ $(VENV)/.run
