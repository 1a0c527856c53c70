# Two commands matter: `make demo` and `make test`. The rest are their parts and their longer siblings.
SHELL := /bin/bash
PYTHON ?= python3
TORCH_PYTHON ?= $(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help demo demo-down test lint unit molecule test-long bench bench-fleet test-gpu bench-gpu tables lock prerequisites control clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: prerequisites control ## provision and prove a fleet of two container nodes with simulated GPUs
	@tests/demo/up

demo-down: ## remove every trace of the demo (containers, network, images, caches, reports)
	@tests/demo/down

test: lint unit molecule ## everything CI runs: lint, unit tests, molecule scenarios

lint: $(VENV)/.dev ## ansible-lint, yamllint, ruff, mypy
	@tests/lint

unit: prerequisites $(VENV)/.dev ## unit tests and tests of the simulated NVML
	@tests/simnvml/fetch-nvidia-smi || echo "==> without nvidia-smi here; the molecule scenarios still run it on their nodes"
	@$(BIN)/python -m pytest

molecule: prerequisites $(VENV)/.dev ## every scenario, or SCENARIO="os_base site"
	@tests/molecule/run $(SCENARIO)

test-long: prerequisites $(VENV)/.dev ## the real DKMS build of the driver's kernel module, and a fleet's update with all its bad luck (about 25 minutes)
	@tests/molecule/run driver_build update

bench: $(VENV)/.dev ## time probes, modules and the planning of 1,000 nodes (about 3 minutes)
	@$(BIN)/python -m pytest -q tests/bench -s -m "not nodes"

bench-fleet: prerequisites $(VENV)/.dev ## time a converged fleet of 8 container nodes, 300 and 1,000 hosts against ping (about 17 minutes)
	@$(BIN)/python -m pytest -q tests/bench -s -m nodes

test-gpu: $(VENV)/.dev ## on a machine with a real GPU only: facts, kernel launch, benchmark
	@$(BIN)/python -m pytest tests/gpu

bench-gpu: ## on a machine with a real GPU only: our numbers beside those of other tools, and three runs of each (TORCH_PYTHON=..., ARGS=...)
	@$(TORCH_PYTHON) tests/gpu/bench/run.py $(ARGS)

tables: $(VENV)/.dev ## regenerate the code that is made from the tables
	@$(BIN)/python tests/support/make_tables.py

lock: ## recompile requirements.txt and requirements-dev.txt with hashes
	@tests/support/lock-requirements

prerequisites: ## install what the host lacks for the container fleets (podman, runc, mmdebstrap, ...)
	@$(PYTHON) tests/nodes/nodes.py prerequisites --install

control: $(VENV)/.control ## the control node's Python environment

$(VENV)/.control: requirements.txt
	@echo "==> control node environment in $(VENV) (pinned, hashes checked)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Could not use this Python: it is older than 3.11. Run make PYTHON=python3.11 ...")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(PYTHON) tests/nodes/nodes.py prerequisites --install
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.control
	@echo "==> development tools in $(VENV)"
	@$(BIN)/python -m pip install -q --require-hashes -r requirements-dev.txt
	@touch $@

clean: ## remove environments and build products (fleets: make demo-down)
	@rm -rf $(VENV) build .cache .mypy_cache .ruff_cache .pytest_cache
