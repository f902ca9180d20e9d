# Two promises: `make demo` and `make test` work on a fresh machine with Python 3.11 or newer.
# Everything is installed into .venv; nothing outside this folder is touched.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
MERGEKIT_VENV ?= .venv-mergekit
FUZZ ?= 20
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt

# The versions this is tested with, where a range in pyproject.toml would be costly to widen.
define CONSTRAINTS
torch==2.13.0
endef
export CONSTRAINTS

# Threads that spin while they wait slow every other process down.
export OMP_WAIT_POLICY ?= PASSIVE
export KMP_BLOCKTIME ?= 0

.PHONY: help setup demo test lint unit fuzz bench bench-vision bench-ablations bench-presets bench-merges bench-plan bench-s3 bench-growth bench-cost bench-service soak chaos prove-control parity secrets format clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Set PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); \
	  else echo "Python cannot make virtual environments here: apt-get install python3-venv"; exit 1; fi; }

$(VENV)/engine.done: pyproject.toml Makefile | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time this takes a few minutes"
	@printf '%s\n' "$$CONSTRAINTS" > $(VENV)/constraints.txt
	@$(PIP) torch
	@$(PIP) --editable '.[service]'
	@touch $@

$(VENV)/test.done: $(VENV)/engine.done
	@$(PIP) --editable '.[service,test]'
	@touch $@

$(VENV)/bench.done: $(VENV)/test.done
	@$(PIP) --editable '.[service,test,bench]'
	@touch $@

setup: $(VENV)/engine.done  ## Make the virtual environment with the fda command

demo: $(VENV)/engine.done  ## Fetch a real base and two real fine-tunes, and merge them through the service
	@$(BIN)/fda demo demo-output

test: $(VENV)/test.done lint unit  ## Set up and run all checks and tests

lint: $(VENV)/test.done
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

unit: $(VENV)/test.done
	@$(BIN)/python -m pytest -n 2 --randomly-seed=1

fuzz: $(VENV)/test.done  ## Run the property tests with examples never drawn before (FUZZ=20 rounds)
	@for round in $$(seq $(FUZZ)); do \
	  $(BIN)/python -m pytest -n 2 -m hypothesis --hypothesis-profile=new || exit 1; done

bench: $(VENV)/test.done  ## Time construction against the naive reference
	@$(BIN)/python -m tests.bench.construction

bench-vision: $(VENV)/bench.done  ## Merge eight real vision tasks with every method, and judge (VISION=--only ties)
	@$(BIN)/python -m tests.bench.vision $(VISION)

bench-ablations: $(VENV)/bench.done  ## Vary FDA's settings one by one on three vision tasks (ABLATIONS=--only init)
	@$(BIN)/python -m tests.bench.vision.ablations $(ABLATIONS)
	@$(BIN)/python -m tests.bench.vision.subspaces
	@$(BIN)/python -m tests.bench.vision.proxy

bench-presets: $(VENV)/bench.done  ## Compare FDA's presets on whole models of two tasks (an hour of a core)
	@$(BIN)/python -m tests.bench.vision.presets

$(MERGEKIT_VENV)/done: | $(VENV)/bin/python
	@$(VENV)/bin/python -m venv $(MERGEKIT_VENV)
	@$(MERGEKIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(MERGEKIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps mergekit==0.1.5
	@$(MERGEKIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  transformers==5.23.0 peft==0.21.2 accelerate scipy sentencepiece protobuf \
	  'tqdm<5' 'click>=8.2.1,<9' 'safetensors<1' 'pydantic<3' 'immutables<1'
	@touch $@

parity: $(VENV)/test.done $(MERGEKIT_VENV)/done  ## Compare with mergekit 0.1.5, which gets an environment of its own
	@$(BIN)/python -m tests.parity.run --mergekit $(MERGEKIT_VENV)/bin/python

bench-merges: $(VENV)/test.done  ## Time whole merges of 374 M parameters (makes 3 GB of models)
	@$(BIN)/python -m tests.bench.merges

chaos: $(VENV)/test.done  ## Merge on workers and a Redis that are killed at random
	@$(BIN)/python -m tests.bench.worker_chaos

prove-control: $(VENV)/test.done  ## Kill the controller at every write; 150 lives of jobs
	@FDA_PROVE=1 $(BIN)/python -m pytest -n 0 tests/integration/control/test_recovery.py \
		tests/integration/control/test_state_machine.py

soak: $(VENV)/test.done  ## Hurt the service: 50 kills, empty Redis, bad storage, killed Postgres, lost database
	@$(BIN)/python -m tests.soak.kills --steps 300
	@$(BIN)/python -m tests.soak.elsewhere
	@$(BIN)/python -m tests.soak.kills --flush --kills 12 --jobs 6
	@$(BIN)/python -m tests.soak.storage
	@$(BIN)/python -m tests.soak.postgres
	@$(BIN)/python -m tests.soak.rebuild
	@$(BIN)/python -m tests.soak.races
	@FDA_SOAK_CLIENTS=200 FDA_SOAK_EVENTS=2000 $(BIN)/python -m pytest -n 0 \
	  tests/integration/service/test_rest_streams.py -k many_clients

bench-service: $(VENV)/test.done  ## Time the service: answers under load, empty units, tiny jobs
	@$(BIN)/python -m tests.bench.rest
	@$(BIN)/python -m tests.bench.service

secrets:  ## Make the secrets of docker-compose.yml, once
	@sh docker/make-secrets.sh

bench-plan: $(VENV)/test.done  ## Time planning of a 70B-shaped merge on disk and over S3 (takes no disk)
	@$(BIN)/python -m tests.bench.planning

bench-s3: $(VENV)/test.done  ## Compare our rates on a local S3 server with a bare client's
	@$(BIN)/python -m tests.bench.s3_rates

bench-growth: $(VENV)/test.done  ## Time merges of 0.1 to 1 B parameters (10 GB of disk; GROWTH=--huge: 3 B, 30 GB)
	@$(BIN)/python -m tests.bench.growth $(GROWTH)

bench-cost: $(VENV)/test.done  ## Hold predicted costs to this processor; predict the paper's merges on GPUs
	@$(BIN)/python -m tests.bench.cost

format: $(VENV)/test.done  ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## Remove the environment and outputs
	@rm -rf $(VENV) demo-output bench-output build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
