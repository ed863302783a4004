# Needs Python 3.11 to 3.13, make and pip. Everything runs in .venv; nothing is activated.
SHELL := /bin/sh
SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
REQUIREMENTS ?= requirements.txt
PY = .venv/bin/python
STAMP = .venv/installed.$(notdir $(REQUIREMENTS))
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# a clone that was moved or copied with its .venv still uses its own ckutils
export PYTHONPATH := $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help .venv book test nbval notebooks pages lab lint gpu-test bench publish clean

help:  ## list the targets
	@sed -n 's/^\([a-z.-]*\):.*##/\1 -/p' Makefile

.venv: $(STAMP)  ## make the environment that all other targets use

$(STAMP): $(REQUIREMENTS) pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 found; say make PYTHON=..."; exit 1; }
	@"$(PYTHON)" -c '$(SUPPORTED)' || { echo "$(PYTHON) is not Python 3.11 to 3.13"; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	$(PY) -m pip install --quiet -r $(REQUIREMENTS)
	@touch $(STAMP)

book: .venv  ## build the book from stored outputs; any warning fails; prints the file to open
	@$(PY) tools/book.py

test: .venv lint  ## linters, unit tests, every number of every notebook, the book and its pages
	$(PY) -m pytest

lint: .venv  ## ruff: rules and layout
	$(PY) -m ruff check . && $(PY) -m ruff format --check .

nbval: .venv  ## only strict nbval over every notebook
	$(PY) -m pytest tests/test_notebooks.py -k test_every_number_is_reproduced

notebooks: .venv  ## execute the chapters whose .py has changed into the .ipynb beside it
	$(PY) tools/notebooks.py $(CHAPTERS)

pages: .venv  ## write the pages that are made from tables, results and counts
	$(PY) -m tools.pages

lab: .venv  ## open the chapters in JupyterLab, .py and .ipynb paired
	$(PY) -m jupyterlab notebooks

gpu-test: .venv  ## the tests that need an NVIDIA GPU, also under compute-sanitizer
	$(PY) -m pytest -m gpu && $(PY) -m tools.compute_sanitizer

bench: .venv  ## ours against what one would use instead: ratios, in one run each
	$(PY) -m benchmarks --save && $(PY) -m tools.performance

publish: .venv  ## write the repository's address everywhere: make publish REPO=owner/name
	$(PY) tools/publish.py $(REPO)

clean:  ## remove what was built, and the environment
	rm -rf .venv _build .cache .pytest_cache .ruff_cache .hypothesis
