# Two commands on a fresh machine with python3, make and git: `make demo` and `make test`. All others: `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Compiled modules are kept, whatever the shell says: the tests start hundreds of commands.
export PYTHONDONTWRITEBYTECODE :=

TOOLS := .venv-tools
PIP := python -m pip install --quiet --disable-pip-version-check
# What tells that dependencies fit: charts and pages, tables, help, exports, the wire, a server over sockets.
FITS := tests/golden tests/docs/test_reference.py tests/docs/test_commands.py tests/unit/test_charts.py \
  tests/unit/test_html.py tests/unit/test_export.py tests/unit/test_telemetry_probe.py tests/unit/test_wire.py \
  tests/unit/test_lenient.py tests/conformance

.PHONY: help demo test test-long bench chaos fuzz hostile mutate soak install check lock lowest newest dist sbom changelog \
  hooks clean
.DELETE_ON_ERROR:

# With LOCKED=1 exactly what requirements/dev.txt names, each file by its hash: what CI installs.
$(VENV)/.installed: pyproject.toml $(if $(LOCKED),requirements/dev.txt)
	$(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(BIN)/$(PIP) --require-hashes -r requirements/dev.txt
	$(BIN)/$(PIP) --no-deps --no-build-isolation -e .
else
	$(BIN)/$(PIP) -e '.[dev]'
endif
	touch $@

install: $(VENV)/.installed  ## a virtual environment with all that development needs (LOCKED=1: by hash)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / { sub(/ newest/, ", newest", $$1); printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install  ## a simulated ComfyUI and a small load on it
	$(BIN)/comfyload demo

test: install  ## the tests: three and a half minutes on two cores
	$(BIN)/python -m pytest -m "alone and not long"
	$(BIN)/python -m pytest -n 4 --dist loadfile -m "not alone and not long"

test-long: install  ## error rates by simulation, trouble end to end, browsers: some minutes more
	$(BIN)/python -m pytest -n 4 --dist loadfile -m "long and not alone"
	$(BIN)/python -m pytest -m "alone and long"

MINUTES ?= 20
soak: install  ## 100 jobs a second for MINUTES: memory, open files and lateness must stay as they are
	$(BIN)/python bench/soak.py --minutes $(MINUTES)

# Of what it compares with, what cannot be installed is left out. QUICK=--quick for a look.
bench: install  ## comfyload beside other clients and what the machine allows: 20 minutes on two idle cores
	$(BIN)/$(PIP) -e '.[bench]'
	$(BIN)/python -m bench $(QUICK)

# Every decoder against odd input, each target for an equal part of MINUTES. With atheris: pip install -e .[fuzz], --guided.
fuzz: install  ## odd input for every decoder, for MINUTES in all
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# Every kind of trouble, every point to be killed at, 200 races, the gateway's; what the server executed is the judge. Half an hour.
JOBS ?= 10000
chaos: install  ## every kind of trouble with JOBS jobs each, every point to be killed at, 200 races, the gateway's
	$(BIN)/python -m tests.chaos --jobs $(JOBS)
	$(BIN)/python -m tests.chaos.kills
	$(BIN)/python -m tests.chaos.races
	$(BIN)/python -m tests.chaos.gateway
	$(BIN)/python -m tests.chaos.gateway --faults
	$(BIN)/python -m tests.chaos.gateway --overload

hostile: install  ## every hostile server against every command
	$(BIN)/python -m tests.hostile

FAULTS ?= 300
MUTANTS ?= build/mutants
mutate: install  ## do the tests notice FAULTS small faults put into the code, one at a time? About an hour
	$(BIN)/python -m tools.mutate map --tree $(MUTANTS)
	$(BIN)/python -m tools.mutate run --tree $(MUTANTS) --mutants $(FAULTS)
	$(BIN)/python -m tools.mutate table --tree $(MUTANTS)

check: install  ## ruff, mypy --strict, import-linter: what pre-commit runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=pack $(BIN)/lint-imports  # the pack is not installed

$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/$(PIP) uv build cyclonedx-bom pre-commit towncrier twine
	touch $@

# For all systems and Pythons at once, with no index's address in it.
lock: $(TOOLS)/.installed  ## renew requirements/*.txt
	for of in dev comfyload; do \
	  $(TOOLS)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header pyproject.toml \
	    $$(test $$of = comfyload && echo --constraint requirements/dev.txt || echo requirements/build.in --extra dev) \
	    --output-file requirements/$$of.txt > /dev/null || exit 1; \
	done

# The least versions that pyproject.toml allows, and the newest that there are.
lowest newest: $(TOOLS)/.installed  ## the tests with the lowest or the newest versions of all dependencies
	$(TOOLS)/bin/uv venv --quiet --clear --python $(PYTHON) .venv-$@
	$(TOOLS)/bin/uv pip install --quiet --python .venv-$@/bin/python \
	  --resolution $(if $(filter lowest,$@),lowest-direct,highest) -e '.[dev]'
	.venv-$@/bin/python -m pytest -n 2 -m "not alone and not long" $(FITS)

dist: $(TOOLS)/.installed  ## wheel and sdist
	$(TOOLS)/bin/python -m build --quiet --outdir dist .
	$(TOOLS)/bin/twine check --strict dist/*.whl dist/*.tar.gz

# The fragments of changelog.d become the section of VERSION in CHANGELOG.md, and are deleted.
changelog: $(TOOLS)/.installed  ## CHANGELOG.md of a release: make changelog VERSION=0.2.0
	$(TOOLS)/bin/towncrier build --yes --version $(VERSION)

hooks: $(TOOLS)/.installed  ## run `make check` before each commit
	$(TOOLS)/bin/pre-commit install

# Of what a user gets who installs the lock: components, their licences, and who needs whom.
sbom: $(TOOLS)/.installed  ## a bill of materials (CycloneDX)
	$(TOOLS)/bin/uv venv --quiet --clear --python $(PYTHON) .venv-sbom
	$(TOOLS)/bin/uv pip install --quiet --python .venv-sbom/bin/python --require-hashes -r requirements/comfyload.txt
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/comfyload.cdx.json .venv-sbom/bin/python

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(TOOLS) .venv-lowest .venv-newest .venv-sbom build dist .mypy_cache .ruff_cache .import_linter_cache
