# `make demo` and `make test` are all that a newcomer needs; the rest is for who works on Trueup.
.DEFAULT_GOAL := help
PY := .venv/bin/python
# The npm package first where npm is there; both are pinned and checked.
export TRUEUP_ARTIFACT_SOURCES ?= $(if $(shell command -v npm),npm$(,)wordpress.org$(,)github,wordpress.org$(,)github$(,)npm)
, := ,
# The certificates that this machine trusts, a company proxy's among them.
export UV_SYSTEM_CERTS ?= 1
# Or every start of every command compiles its imports again.
unexport PYTHONDONTWRITEBYTECODE
# How many test files run at once: one more than the cores that the budget is for, as a file waits now and then.
TEST_PROCESSES ?= 3
# Archives and the lab's base image, kept across checkouts.
export TRUEUP_CACHE ?= $(if $(shell test -w /var/cache && echo 1),/var/cache/trueup,$(HOME)/.cache/trueup)

.PHONY: help demo demo-down tour shop test test-long bench lint format lock prepare

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: prepare ## A real node, a real WordPress site made through the API, drift made and healed; left running
	@$(PY) -m tests.lab.demo up

demo-down: ## Remove every trace of the demo
	@$(PY) -m tests.lab.demo down

tour: ## The operations on two nodes as a client of the API; a table of what was verified
	@.ci/prepare test
	@$(PY) -m tests.lab.tour

shop: ## A shop takes orders during every operation; a table of what became of them, and a line of JSON
	@.ci/prepare test
	@$(PY) -m tests.shop

# A file is run by one process, the heaviest files first: not those with the most tests.
PYTEST = $(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --junitxml=build/junit.xml

test: ## Set up and run every kind of test: under 12 minutes on two cores
	@.ci/prepare test
	@$(PYTEST) -m "not long" --budget 12

test-long: ## Set up and run every test with full counts; a quarter of them with PART=1/4
	@.ci/prepare test
	@$(PYTEST) --long $(if $(PART),--part $(PART)) --budget $(if $(PART),30,90)

lint: prepare ## ruff, mypy, ansible-lint, import-linter
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/ansible-lint --offline --profile production playbooks

bench: ## Measure, as ratios in one run
	@.ci/prepare
	@$(PY) -m tests.bench

format: prepare
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format .

lock: prepare ## Renew requirements.lock
	@.venv/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --upgrade -q -o requirements.lock

prepare:
	@.ci/prepare
