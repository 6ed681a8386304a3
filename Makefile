# make demo | make test: each from a bare checkout; the first call makes .venv and installs everything.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test test-slow lint format clean

help:
	@echo "make demo       train, export, prove and serve a recommender on the embedded data"
	@echo "make test       lint, types and all tests but the slow ones"
	@echo "make test-slow  the tests that take minutes"

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/genrec quickstart

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest

test-slow: install
	$(BIN)/pytest -m slow

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv quickstart
