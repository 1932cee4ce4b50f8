# make demo         train a model on a text that comes along for a minute, and let it write
# make test         run the tests
# make lint types   check style and types
# make wheel-check  build the wheel and look into it
# make pictures     draw the pictures of the README anew
# make bench        compare with other software; takes a while, on a machine that does nothing else
#
# Each of them sets up .venv first if it is not there, and the last one bench/.venv.

BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint types wheel-check pictures bench

demo: .venv/installed
	$(BIN)/trnn train harbour --minutes 1
	$(BIN)/trnn sample --length 400

test: .venv/installed-dev
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: .venv/installed-dev
	$(BIN)/mypy

wheel-check: .venv/installed-dev
	$(BIN)/python tests/packaging/check_wheel.py

pictures: .venv/installed-dev
	$(BIN)/python docs/pictures.py

bench: bench/.venv/installed
	bench/.venv/bin/python -m bench $(BENCH)

bench/.venv/installed: .venv/bin/python bench/requirements.txt pyproject.toml
	$(BIN)/python -m venv bench/.venv
	bench/.venv/bin/python -m pip install --quiet --requirement bench/requirements.txt --editable .
	@touch $@

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ .venv/installed

.venv/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    $$python -c 'import ensurepip, venv' 2>/dev/null || \
	        { echo "$$python cannot make virtual environments: install its venv package (python3-venv)"; exit 1; }; \
	    echo "$$python -m venv .venv"; \
	    exec $$python -m venv .venv; \
	done; \
	echo "Python 3.11 or newer is needed, and none was found (python3, python3.11 to 3.14, python)"; exit 1
