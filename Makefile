# What a user types: make demo, make test. What a developer types: make check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= examples/clean

.PHONY: setup demo check test test-all bench docs fmt clean

setup: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

demo: setup  ## restore the photos in examples/ and write examples/out/report.html
	$(BIN)/python examples/demo.py

check: $(VENV)/.tested  ## what CI runs first: style, types, layers, fast tests
	$(BIN)/ruff check src tests examples
	$(BIN)/ruff format --check src tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal

test: check  ## everything
	$(BIN)/python -m pytest -m slow

test-all: test

bench: setup  ## tables of docs/models and docs/speed: make bench DATA=folder/of/clean/photos
	$(BIN)/clareo bench --data $(DATA) -o bench
	$(BIN)/clareo bench --data $(DATA) --speed
	$(BIN)/clareo bench --data $(DATA) --degradations

docs: $(VENV)/.installed  ## the site, into site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/mkdocs build --strict

fmt: $(VENV)/.tested
	$(BIN)/ruff format src tests examples
	$(BIN)/ruff check --fix src tests examples

clean:
	rm -rf $(VENV) build dist site bench examples/out
