# Everything a person or a machine does with this repository. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
# One more than there are processors: many tests wait for processes that they have started, stopped or killed.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n + 1 : 4)))
PACKAGES := nanobatch_runtime nanobatch_catalog nanobatch_storage nanobatch_generator nanobatch_gateway nanobatch_embedded nanobatch_client nanobatch_web

.PHONY: help setup run test lint format protos published soak bench shots axe deploy-check images-check clean lock

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## Make .venv with everything in it

.venv/.ready: requirements/bootstrap.txt requirements/dev.txt requirements/s3.txt scripts/setup.sh $(wildcard */pyproject.toml */*/pyproject.toml)
	@scripts/setup.sh

run: .venv/.ready ## Start nanobatch on this machine; pictures and database go to ./data
	@.venv/bin/nanobatch up

test: .venv/.ready ## Run all tests, on private servers that leave nothing behind
	@scripts/system-packages.sh
	@$(PY) -m pytest tests -n $(WORKERS) --dist worksteal $(ARGS)

lint: .venv/.ready ## Style, types, layers, contracts, stubs
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy $(PACKAGES:%=-p %)
	.venv/bin/lint-imports --no-logo
	.venv/bin/buf lint
	.venv/bin/buf format --diff --exit-code
	.venv/bin/buf breaking --against protos/published.binpb
	scripts/check-stubs.sh

format: .venv/.ready ## Bring code and protos into their form
	.venv/bin/ruff check --fix --exit-zero .
	.venv/bin/ruff format .
	.venv/bin/buf format --write

protos: .venv/.ready ## Generate the committed stubs anew
	scripts/protos.sh

published: .venv/.ready ## Publish the contracts as they are: the new baseline of `buf breaking`
	.venv/bin/buf build --output protos/published.binpb

soak: .venv/.ready ## Faults on the real product, and a checker; SCENARIO=1,2 SEED=n LONG=1 TWIN=all
	@scripts/system-packages.sh
	@PYTHONPATH=tests $(PY) -m soak $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SEED),--seed $(SEED)) $(if $(LONG),--long) $(if $(TWIN),--twin $(TWIN)) $(ARGS)

bench: .venv/.ready ## Measure, as ratios against a bare script in the same run
	@PYTHONPATH=tests:scripts $(PY) -m bench $(ARGS)

deploy-check: .venv/.ready ## Render every overlay, hold it against the schema and the code, evaluate the alerts
	@scripts/deploy-check.sh

images-check: ## Build every image in a chroot and start it once; needs root on Debian or Ubuntu
	@scripts/images-check.sh

shots: .venv/.ready ## Screenshots of every step of the web page, into build/shots
	@PYTHONPATH=tests $(PY) -m shots build/shots

axe: .venv/.ready ## Hold every step of the web page against axe-core, which it fetches from npm
	@scripts/axe.sh

lock: .venv/.ready ## Pin the newest dependencies with their hashes
	scripts/lock.sh

clean: ## Remove what setup and tests made; your data stays
	rm -rf .venv .cache/images .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
