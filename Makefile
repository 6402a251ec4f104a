# make demo   set up, and ask the bundled demo model a question
# make test   set up, and run every check; with JOBS=2 two tests at a time, which takes half as long
# make setup  set up only; make clean removes what it made

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
QUESTION ?= What is Gatewright?
JOBS ?= 0

.PHONY: demo test lint setup clean

demo: $(VENV)/.ready
	$(BIN)/gw-cli ask "$(QUESTION)"

test: $(VENV)/.ready-dev lint
	$(BIN)/pytest -n $(JOBS) --dist loadfile

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml tools/setup.sh
	tools/setup.sh $(VENV) server,engine
	@touch $@

$(VENV)/.ready-dev: pyproject.toml tools/setup.sh
	tools/setup.sh $(VENV) dev
	@touch $@ $(VENV)/.ready

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
