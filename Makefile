# Two commands on a fresh machine with python3, make and git: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

TOOLS := .venv-tools
PIP := python -m pip install --quiet --disable-pip-version-check
# What tells that dependencies fit: charts and pages, tables, help, exports, the wire, a server over sockets.
FITS := tests/golden tests/docs/test_reference.py tests/docs/test_commands.py tests/unit/test_charts.py \
  tests/unit/test_html.py tests/unit/test_export.py tests/unit/test_telemetry_probe.py tests/unit/test_wire.py \
  tests/unit/test_lenient.py tests/conformance

.PHONY: demo test test-long chaos fuzz hostile mutate soak install check lock lowest newest dist sbom clean
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

install: $(VENV)/.installed

demo: install
	$(BIN)/comfyload demo

test: install
	$(BIN)/python -m pytest -n 4 --dist loadfile -m "not alone and not long"
	$(BIN)/python -m pytest -m "alone and not long"

# Error rates by simulation, advice and trouble end to end, browsers, the tutorial: some minutes more, in CI.
test-long: install
	$(BIN)/python -m pytest -n 4 --dist loadfile -m "long and not alone"
	$(BIN)/python -m pytest -m "alone and long"

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

# Do the tests notice faults in the code? So many small ones, one at a time; survivors are named. Not in CI: an hour.
FAULTS ?= 300
MUTANTS ?= /tmp/comfyload-mutants
mutate: install
	$(BIN)/python -m tools.mutate map --tree $(MUTANTS)
	$(BIN)/python -m tools.mutate run --tree $(MUTANTS) --mutants $(FAULTS)
	$(BIN)/python -m tools.mutate table --tree $(MUTANTS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=pack $(BIN)/lint-imports  # the pack is not installed

$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/$(PIP) uv build cyclonedx-bom
	touch $@

# For all systems and Pythons at once, with no index's address in it.
lock: $(TOOLS)/.installed
	for of in dev comfyload; do \
	  $(TOOLS)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header pyproject.toml \
	    $$(test $$of = comfyload && echo --constraint requirements/dev.txt || echo requirements/build.in --extra dev --extra bench) \
	    --output-file requirements/$$of.txt > /dev/null || exit 1; \
	done

# The least versions that pyproject.toml allows, and the newest that there are.
lowest newest: $(TOOLS)/.installed
	$(TOOLS)/bin/uv venv --quiet --clear --python $(PYTHON) .venv-$@
	$(TOOLS)/bin/uv pip install --quiet --python .venv-$@/bin/python \
	  --resolution $(if $(filter lowest,$@),lowest-direct,highest) -e '.[dev]'
	.venv-$@/bin/python -m pytest -n 2 -m "not alone and not long" $(FITS)

dist: $(TOOLS)/.installed
	$(TOOLS)/bin/python -m build --quiet --outdir dist .

# Of what a user gets who installs the lock: components, their licences, and who needs whom.
sbom: $(TOOLS)/.installed
	$(TOOLS)/bin/uv venv --quiet --clear --python $(PYTHON) .venv-sbom
	$(TOOLS)/bin/uv pip install --quiet --python .venv-sbom/bin/python --require-hashes -r requirements/comfyload.txt
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/comfyload.cdx.json .venv-sbom/bin/python

clean:
	rm -rf $(VENV) $(TOOLS) .venv-lowest .venv-newest .venv-sbom build dist .mypy_cache .ruff_cache .import_linter_cache
