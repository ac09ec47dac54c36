# Everything a person or CI does stands here; each target sets up what it needs.
.DEFAULT_GOAL := help
.PHONY: help demo test check format proto bench clean
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin

# Flower reports its use and asks for updates unless told not to
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("crossply needs Python 3.11 or 3.12, found " + sys.version.split()[0] if not (3, 11) <= sys.version_info < (3, 13) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/ready ## Set up, make six virtual labs, and see whether joining pays
	$(BIN)/crossply demo

test: .venv/ready ## Set up and run the tests
	$(BIN)/python -m pytest

check: .venv/ready ## Format, lint, types, layers and tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: .venv/ready ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: .venv/ready ## Write the Python modules of the link's schema
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. common/link.proto

bench: .venv/ready ## Print the table of accuracies
	$(BIN)/python -m benchmarks.accuracy

clean: ## Remove the environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
