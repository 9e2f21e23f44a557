# Every target sets up .venv first; it needs nothing but python3.11 and make.
#
#   make setup   .venv with the locked packages and this package, editable
#   make check   formatting, lint, types
#   make fix     formats and repairs what ruff can repair
#   make test    the tests without those marked slow (SLOW=1: all of them), one process more than
#                there are cores, since some wait (JOBS=n: as many)
#   make demo    raw media -> shards -> report -> trained model -> clip, in demo/
#   make docs    follows the links of the docs and runs their examples
#   make bench   every script of benchmarks/
#   make lock    compiles requirements.in into requirements.lock

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up
UV     := $(BIN)/uv
JOBS   ?= $(shell expr $$(nproc) + 1)

# Tests and demo start Python hundreds of times: it may keep what it compiled, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup check fix test demo docs bench lock
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(UV):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on the PATH: install Python 3.11, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"

$(STAMP): requirements.lock pyproject.toml | $(UV)
	$(UV) pip sync --quiet --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder $(if $(SLOW),,-m "not slow") $(ARGS)

demo: $(STAMP)
	$(BIN)/reelmill demo demo $(ARGS)

docs: $(STAMP)
	$(BIN)/python -m pytest -q tests/docs

bench: $(STAMP)
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

lock: $(UV)
	$(UV) pip compile --quiet --python $(BIN)/python --python-version 3.11 --no-annotate --no-header \
	    --override requirements.overrides --output-file requirements.lock requirements.in
