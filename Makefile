# Two commands on a fresh machine with python3, make and git: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long fuzz install check clean
.DELETE_ON_ERROR:

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/comfyload demo

test: install
	$(BIN)/python -m pytest -n 4 --dist loadfile -m "not alone and not long"
	$(BIN)/python -m pytest -m alone

# Error rates by simulation, advice and trouble end to end, browsers: a few minutes more, in CI.
test-long: install
	$(BIN)/python -m pytest -n 4 --dist loadfile -m "long and not alone"

# Every decoder against odd input, each target for an equal part of MINUTES. With atheris: pip install -e .[fuzz], --guided.
MINUTES ?= 10
fuzz: install
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .import_linter_cache
