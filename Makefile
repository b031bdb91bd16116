# The only entry point: `make help` lists the targets. Every target creates .venv by itself and installs only what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
UV := $(shell command -v uv 2>/dev/null)
# Two processes with one torch thread each. The tests of a file stay together, so that their shared fixtures are built once.
TWO := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-engines test-jobs test-clients test-langchain test-mteb test-mteb-here test-light test-lowest test-wheel check format integration integration-client-8 conformance conformance-client-8 faults bench bench-encode bench-contenders infinity wheel builtin readme docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/bin/python:
ifdef UV
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
else
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
endif

# $(call install,what): an editable install of the project with extras or a dependency group
ifdef UV
install = $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python $(1)
else
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1)
endif

$(STAMPS)/demo: pyproject.toml | $(VENV)/bin/python
	$(call install,-e '.[qdrant]')
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/light: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group light)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group dev)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/check: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group dev --group check)
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/dev

$(STAMPS)/bench: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group dev --group bench)
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/dev

$(STAMPS)/contenders: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group contenders)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/engines: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group engines)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/langchain: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group langchain)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/mteb: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group mteb)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/docs: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group docs)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/client-8: pyproject.toml | $(VENV)/bin/python
	$(call install,-e . --group light 'elasticsearch<9')
	@mkdir -p $(STAMPS) && touch $@

# The oldest releases that pyproject.toml allows, which pip cannot select. Such releases warn about each other.
test-lowest: pyproject.toml  ## all tests with the oldest allowed versions (needs uv)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-lowest
	$(UV) pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[all,testing]'
	$(UV) pip install --quiet --python .venv-lowest/bin/python -e . --group light --group oracle
	ST_REQUIRE_TORCH=1 .venv-lowest/bin/python -m pytest -o filterwarnings=default $(ARGS)

demo: $(STAMPS)/demo  ## index the standard library's docstrings and ask a few questions (no torch)
	$(BIN)/st-connectors demo

test-light: $(STAMPS)/light  ## the tests that need no torch
	$(BIN)/python -m pytest -m "not torch" $(ARGS)

test: $(STAMPS)/dev  ## the tests of every rule; no network, no servers
	ST_REQUIRE_TORCH=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(or $(ARGS),$(TWO) -m "not long")

test-long: $(STAMPS)/dev  ## the rest: the same rules on many more models, graphs, the blocks of the pages
	ST_REQUIRE_TORCH=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(or $(ARGS),$(TWO) -m long)

test-engines:  ## the jobs of docs/scale.md on Ray, Spark and Daft, in an environment of their own
	$(MAKE) --no-print-directory VENV=.venv-engines test-jobs

test-jobs: $(STAMPS)/engines
	$(BIN)/python -m pytest $(or $(ARGS),tests/docs/test_scale.py)

test-clients:  ## LangChain's classes and older clients against `serve`, in an environment of their own
	$(MAKE) --no-print-directory VENV=.venv-langchain test-langchain

# LangChain warns about itself.
test-langchain: $(STAMPS)/langchain
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o filterwarnings=default $(or $(ARGS),tests/server/test_langchain.py tests/server/test_rerankers_clients.py tests/server/test_clients.py)

test-mteb:  ## MTEB measures a store and fuses rankings, compared with ours, in an environment of its own
	$(MAKE) --no-print-directory VENV=.venv-mteb test-mteb-here

# MTEB and what it needs warn about themselves.
test-mteb-here: $(STAMPS)/mteb
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o filterwarnings=default $(or $(ARGS),tests/evaluation/test_mteb_oracle.py)

check: $(STAMPS)/check  ## ruff (lint, format), spelling, mypy strict, import-linter, the container file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell core st_connectors tests integration bench docs *.md pyproject.toml Makefile
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint deploy/Containerfile

format: $(STAMPS)/check  ## format with ruff and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

integration: $(STAMPS)/dev  ## the conformance suite on the available engines, Elasticsearch with both majors of its client
	$(BIN)/python -m pytest integration --ignore integration/test_wheel.py $(ARGS)
	$(if $(ARGS),,$(MAKE) --no-print-directory VENV=.venv-client-8 integration-client-8)

# elasticsearch-py 9 cannot talk to a server 8. Version 8 talks to both, in an environment of its own.
integration-client-8: $(STAMPS)/client-8
	$(BIN)/python -m pytest integration/test_elasticsearch.py $(ARGS)

conformance: $(STAMPS)/dev  ## the suite on every available engine, and its tables in the pages
	$(BIN)/python -m integration.conformance $(ARGS)
	$(if $(ARGS),,$(MAKE) --no-print-directory VENV=.venv-client-8 conformance-client-8)

conformance-client-8: $(STAMPS)/client-8
	$(BIN)/python -m integration.conformance elasticsearch-8 elasticsearch-9

faults: $(STAMPS)/dev  ## ingest into the available engines through kills, outages, poison and full disks (25 minutes)
	$(BIN)/python -m integration.faults $(ARGS)

bench: $(STAMPS)/bench  ## every figure, measured side by side in one run
	$(BIN)/python -m bench $(ARGS)

bench-encode:  ## times against sentence-transformers, fastembed and more, in an environment of their own
	$(MAKE) --no-print-directory VENV=.venv-contenders bench-contenders

bench-contenders: $(STAMPS)/contenders
	$(BIN)/python -m bench.encode $(ARGS)

infinity:  ## infinity-emb in an environment of its own, for a comparison of `make bench ARGS=serve` (needs uv)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-infinity
	$(UV) pip install --quiet --python .venv-infinity/bin/python 'infinity-emb[server,torch]==0.0.78'

wheel: $(STAMPS)/light  ## build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

test-wheel: wheel  ## install the built wheel into a fresh environment and run the demo from it
	ST_WHEEL=$$(ls dist/*.whl) $(BIN)/python -m pytest integration/test_wheel.py $(ARGS)

builtin: $(STAMPS)/dev  ## build the two built-in encoders again from open material
	$(BIN)/python -m bench.builtin_models $(ARGS)

readme: $(STAMPS)/demo  ## write the generated parts of the README and of the pages
	$(BIN)/python docs/generate.py

docs: $(STAMPS)/docs  ## build the documentation site into site/; broken links fail
	$(BIN)/zensical build --strict --clean

clean:  ## remove what the targets created
	rm -rf $(VENV) .venv-client-8 .venv-contenders .venv-engines .venv-infinity .venv-langchain .venv-lowest .venv-mteb .venv-uv dist build site demo-index .mypy_cache .ruff_cache .pytest_cache .hypothesis
