# make reproduce | test | lab | smoke | check | clean      (VENV=path uses another virtual environment)
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help reproduce smoke lab test check clean

help:                ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/  /'

$(READY): requirements.txt requirements-test.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --retries 5 -r requirements.txt -r requirements-test.txt
	$(BIN)/python -m pip install --no-deps -e .
	touch $(READY)

reproduce: $(READY)  ## install, build the miniature data, run every notebook (profile lite), write the report
	$(BIN)/ovs-lite reproduce --profile lite

smoke: $(READY)      ## the same with a handful of images
	$(BIN)/ovs-lite reproduce --profile smoke

lab: $(READY)        ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

test: $(READY)       ## install and run the whole test suite
	$(BIN)/python -m pytest

check: $(READY)      ## ruff and the fast tests
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -m "not slow"

clean:               ## remove prepared data and runs
	rm -rf data runs
