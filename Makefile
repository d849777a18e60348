# Two commands do everything: make serve, make test.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { echo $$p; break; }; done)
CONFIG ?= configs/local.yaml
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found. Install one, or run: make PYTHON=/path/to/python" >&2; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || \
		{ echo "No C++ compiler found; llama.cpp is built from source. Install one (g++ or clang++)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: requirements-dev.txt $(VENV)/.serve
	$(BIN)/python -m pip install --require-hashes -r requirements-dev.txt
	@touch $@

.PHONY: install
install: $(VENV)/.serve ## Make .venv and install what serving needs

.PHONY: serve
serve: $(VENV)/.serve ## Install, prepare the model, check CONFIG, run the server (Ctrl-C ends it)
	$(BIN)/poolhouse check --pull $(CONFIG)
	@# Serve lets replicas linger 30 s for load balancers elsewhere; here there is none, and Ctrl-C should end at once.
	@set -a; . configs/serve.env; : "$${RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S:=1}"; \
		: "$${RAY_SERVE_HAPROXY_BINARY_PATH:=$(CURDIR)/$(BIN)/poolhouse-haproxy}"; set +a; \
		exec $(BIN)/python -m deployments.launch $(CONFIG)

.PHONY: test
test: $(VENV)/.test ## Install, then run all tests
	$(BIN)/poolhouse models pull
	$(BIN)/python -m pytest

.PHONY: bench
bench: $(VENV)/.test ## Measure side by side (ROWS="batch cpu", QUICK=1, LLAMA_SERVER=/path, SERVERS="name=url")
	$(BIN)/python -m benchmarks.run $(if $(QUICK),--quick) $(if $(ROWS),--rows $(ROWS)) \
		$(foreach server,$(SERVERS),--server $(server)) $(if $(LLAMA_SERVER),--llama-server $(LLAMA_SERVER))

.PHONY: chaos
chaos: $(VENV)/.test ## Kill, stop and overload a cluster on this machine, row by row (half an hour; ROWS="kill hang", WIRING=fused)
	$(BIN)/poolhouse models pull
	$(BIN)/python -m tests.chaos $(if $(WIRING),--wiring $(WIRING)) $(ROWS)

.PHONY: lint
lint: $(VENV)/.test ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(VENV)/.test ## Check types
	$(BIN)/mypy

.PHONY: format
format: $(VENV)/.test ## Format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lock
lock: $(VENV)/.test ## Write the hash-locked requirements anew from pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header pyproject.toml --extra build -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header pyproject.toml --extra build --extra dev -c requirements.txt -o requirements-dev.txt

.PHONY: pictures
pictures: $(VENV)/.serve ## Draw the pictures of docs/pooling.md again; PAIRS names the STS-B development split
	@test -n "$(PAIRS)" || { echo "Give the file: make pictures PAIRS=stsb-en-dev.csv" >&2; exit 1; }
	$(BIN)/poolhouse compare --data "$(PAIRS)" --report build/report
	cp build/report/{intervals,scatter,heatmaps,tsne}.png docs/images/
	$(BIN)/poolhouse tokens --png docs/images/tokens.png "The capital of China is Beijing."

.PHONY: autoscaling
autoscaling: $(VENV)/.test ## Measure a step of load on this machine; writes docs/autoscaling.png
	$(BIN)/python -m benchmarks.autoscaling --picture docs/autoscaling.png

.PHONY: mix
mix: $(VENV)/.test ## Judge every answer to 100,000 requests of all kinds, and the memory (REQUESTS=5000, WIRING=fused)
	$(BIN)/poolhouse models pull
	$(BIN)/python -m tests.mix $(if $(REQUESTS),--requests $(REQUESTS)) $(if $(WIRING),--wiring $(WIRING))

.PHONY: clean
clean: ## Remove .venv and caches (the model cache stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
