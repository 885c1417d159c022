# Two commands on a fresh machine with python3, make and git: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long chaos fuzz hostile soak install check clean
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

# 100 jobs a second for a while: memory, open files and lateness must stay as they are. Not in CI: it takes its time.
MINUTES ?= 20
soak: install
	$(BIN)/python bench/soak.py --minutes $(MINUTES)

# Every decoder against odd input, each target for an equal part of MINUTES. With atheris: pip install -e .[fuzz], --guided.
fuzz: install
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# Every kind of trouble, every point to be killed at, 200 races; what the server executed is the judge. Half an hour.
JOBS ?= 10000
chaos: install
	$(BIN)/python -m tests.chaos --jobs $(JOBS)
	$(BIN)/python -m tests.chaos.kills
	$(BIN)/python -m tests.chaos.races

# Every hostile scenario against every command: what came of it, and the memory it took.
hostile: install
	$(BIN)/python -m tests.hostile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .import_linter_cache
