# Needs Python >= 3.10 and make. `make help` lists the targets. Variables:
#   VENV=path    the virtual environment to make and use
#   PYTHON=...   the interpreter that makes it
#   JOBS=n       parallel test processes, default one per core (each torch then keeps to one thread)
VENV ?= .venv
PYTHON ?= python3
JOBS ?= $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.PHONY: help install reproduce smoke lab test test-all check browser clean clean-data

help:                ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/'

# Made again when a requirement changes; a half-made environment has no stamp, so the next call goes on with it.
$(READY): requirements.txt requirements-test.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "ovs-lite needs Python >= 3.10, got " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --retries 5 --timeout 60 -r requirements.txt -r requirements-test.txt
	$(BIN)/python -m pip install --retries 5 --timeout 60 --no-deps -e .
	touch $(READY)

install: $(READY)    ## make the virtual environment and install everything into it

reproduce: $(READY)  ## install, build the miniature data, run every notebook (profile lite), write the report
	$(BIN)/ovs-lite reproduce --profile lite

smoke: $(READY)      ## the same with a handful of images, in a few minutes
	$(BIN)/ovs-lite reproduce --profile smoke

lab: $(READY)        ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

test: $(READY)       ## install and run the test suite, notebooks included
	$(PYTEST) -m "not fault"

test-all: $(READY)   ## the same and the long fault tests of docs/faults.md
	$(PYTEST)

check: $(READY)      ## ruff and the fast tests, in a few minutes
	$(BIN)/ruff check .
	$(PYTEST) -m "not slow and not fault"

browser: $(READY)    ## the explorer in a real browser (Debian: apt-get install chromium)
	$(BIN)/python -m pytest tests/viz/explorer tests/reproduce/test_canvas.py

clean:               ## remove what builds and tests leave (data, runs and the virtual environment stay)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find ovs_lite tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-data:          ## remove prepared data, downloads and runs
	rm -rf data runs
