# `make` lists the targets. Everything that is built lies in .venv, in the node_modules of tests/node and
# tests/remote_suite and in the cache ($MAFALDA_CACHE, by default ~/.cache/mafalda); nothing else on the machine
# is touched.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NODE_INSTALLED := tests/node/node_modules/.installed
SUITE_INSTALLED := tests/remote_suite/node_modules/.installed
PYTEST_ARGS ?=
COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo REPORT=FILE also writes what it measured as JSON; make demo KEEP=1 leaves it running."
	@echo "  make unit TESTS=tests/unit/wire PYTEST_ARGS='-k token' runs some tests; integration and e2e take the same."

## Building

.PHONY: setup
setup: $(INSTALLED) ## Make .venv with pinned, hash-checked packages (Python 3.11 or newer)

$(INSTALLED): requirements/dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on PATH: install Python 3.11 or newer, or name one by PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$(command -v $(PYTHON)) is $$($(PYTHON) --version 2>&1), but Python 3.11 or newer is needed; name one by PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$$(command -v $(PYTHON)) lacks venv; install it once with: sudo apt-get install -y python3-venv" >&2; exit 1; }
	@echo "setup: installing the packages of requirements/dev.txt into $(VENV)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: worker
worker: ## Build mediasoup-worker and the code of its messages, once
	@tools/build-worker

.PHONY: kubernetes
kubernetes: ## Build etcd, kube-apiserver, kube-controller-manager and kubectl, once
	@tools/build-kubernetes

.PHONY: cluster-binaries
cluster-binaries: kubernetes ## Build kubelet, kube-proxy, kube-scheduler, helm, CoreDNS and kube-router, once
	@tools/build-cluster

.PHONY: node
node: $(NODE_INSTALLED) ## Install the Node clients that some tests run

$(NODE_INSTALLED): tests/node/package-lock.json tests/node/package.json
	@command -v npm >/dev/null || { echo "npm is not on PATH: install Node.js 20 or newer" >&2; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { \
		echo "node is $$(node --version), but Node.js 20 or newer is needed" >&2; exit 1; }
	@cd tests/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(SUITE_INSTALLED): tests/remote_suite/package-lock.json tests/remote_suite/package.json
	@command -v npm >/dev/null || { echo "npm is not on PATH: install Node.js 20 or newer" >&2; exit 1; }
	@cd tests/remote_suite && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: image
image: ## Build the container image, unless one of the same content is in the store
	@tools/build-image

.PHONY: build
build: setup worker kubernetes node ## Build everything that demo and tests need

## Checking

.PHONY: lint
lint: setup worker ## Check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/chart --check

.PHONY: unit
unit: setup worker ## Run the unit tests: no worker process, no cluster
	$(BIN)/pytest $(or $(TESTS),tests/unit) $(PYTEST_ARGS)

.PHONY: integration
integration: build cluster-binaries ## Run the integration tests: real workers, a real API server, helm
	$(BIN)/pytest $(or $(TESTS),tests/integration) $(PYTEST_ARGS)

.PHONY: remote-suite
remote-suite: setup worker kubernetes $(SUITE_INSTALLED) ## Run mediasoup's own suite with its workers on a media server
	@tools/remote-suite --addresses Keep
	@if [ "$$(id -u)" = 0 ]; then tools/remote-suite --netns --addresses RewritePipes; \
		else echo "not root: left out the run with the media server in a network namespace of its own"; fi

.PHONY: test
test: ## Run every check and test, and print the time of each step; of the end-to-end tests the core
	@tools/steps setup worker kubernetes cluster-binaries node lint unit integration remote-suite e2e-core

## Trying it out

.PHONY: demo
demo: setup worker kubernetes ## Show real media crossing three media servers, losing one, and healing
	@$(BIN)/mafalda demo $(if $(REPORT),--report "$(REPORT)") $(if $(KEEP),--keep)

.PHONY: down
down: ## End what `make demo KEEP=1` left running
	@[ ! -x $(BIN)/mafalda ] || $(BIN)/mafalda demo --down

.PHONY: cluster
cluster: setup cluster-binaries ## Start a real Kubernetes of three nodes on this machine (as root)
	@tools/cluster up

.PHONY: e2e
e2e: setup cluster-binaries image ## Run the end-to-end tests on that Kubernetes (as root); ends it unless it ran before
	@tools/e2e $(if $(TESTS)$(PYTEST_ARGS),$(or $(TESTS),tests/e2e) $(PYTEST_ARGS))

.PHONY: e2e-core
e2e-core: setup ## Run those that `make test` runs: install, calls across nodes, losses, drains, uninstall (as root)
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory e2e PYTEST_ARGS="-m core $(PYTEST_ARGS)"; \
		else echo "not root: left out the end-to-end tests"; fi

.PHONY: cluster-down
cluster-down: ## End it; nothing is left
	@[ ! -x $(BIN)/python ] || tools/cluster down

## Keeping it

.PHONY: chart
chart: $(INSTALLED) ## Bring the chart's definitions, version and table of values in step
	@$(BIN)/python tools/chart

.PHONY: requirements
requirements: $(INSTALLED) ## Compile requirements/*.in into pinned files with hashes (UPGRADE=1 raises versions)
	$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements/runtime.txt requirements/runtime.in
	$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements/dev.txt requirements/dev.in
	$(COMPILE) -o requirements/image.txt requirements/image.in
	$(COMPILE) -o requirements/build.txt requirements/build.in
	$(COMPILE) -o tools/worker/requirements.txt tools/worker/requirements.in

.PHONY: clean
clean: ## Remove what was made in the checkout; the cache stays
	@[ ! -x $(BIN)/mafalda ] || $(MAKE) --no-print-directory down || echo "make down failed; going on" >&2
	rm -rf $(VENV) tests/node/node_modules tests/remote_suite/node_modules mediaserver/mediasoup/_fbs dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
