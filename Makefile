# The two commands of the README: `make demo` and `make test`. Both set up .venv first.
# PYTHON may name any interpreter from 3.11 on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit install clean

help:  ## Show the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## Search small networks for handwritten digits; ends with a report.
	@if [ -f $(OUT)/config.yaml ]; then $(BIN)/bitscout resume $(OUT); \
	else $(BIN)/bitscout search quickstart --out $(OUT); fi

test: $(VENV)/.installed-dev lint unit  ## Run every check.

lint: $(VENV)/.installed-dev  ## Style, types and import layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.installed-dev  ## Tests with coverage.
	$(BIN)/pytest -n 2 --cov --cov-report=term

install: $(VENV)/.installed  ## Set up .venv with the package.

$(VENV)/.installed: pyproject.toml tools/install.py
	$(PYTHON) tools/install.py $(VENV)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml tools/install.py $(VENV)/.installed
	$(PYTHON) tools/install.py $(VENV) --extra dev
	@touch $@

clean:  ## Remove .venv and caches; runs stay.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* build dist
