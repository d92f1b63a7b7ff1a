# Two commands matter: `make farm` runs a whole farm on this machine, `make test` proves the code.
# Everything they need is installed into .venv from requirements.lock; nothing outside this folder is touched.

PYTHON ?= python3
JOBS   ?= 3
HISTORIES := 100
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PROTOS := $(patsubst proto/agentfarm/v1/%,agentfarm/wire/%,$(wildcard proto/agentfarm/v1/*.proto))
# Tests start hundreds of interpreters, and each would compile all it imports where nothing may be kept.
TESTING := env -u PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup farm check test test-long lint bench wire lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## install everything the farm needs into .venv

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is too old: Python 3.11 or newer is needed. Try: make PYTHON=python3.12 setup" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: this Python has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "setup: installing the locked environment into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

farm: setup ## run a whole farm on this machine; Ctrl-C stops it
	@$(BIN)/farmctl dev

lint: setup ## ruff, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint ## before every commit: lint, unit tests, 100 simulated histories; less than 5 minutes on two cores
	$(TESTING) $(BIN)/python -m pytest -m "not long" -n $(JOBS) --dist loadfile --no-loadscope-reorder -q tests/unit $(ARGS)
	$(BIN)/python -m tests.simulation --histories $(HISTORIES) --jobs $(JOBS)

test: lint ## every test but the long ones
	$(TESTING) $(BIN)/python -m pytest -m "not long" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: setup ## chaos, soak, simulation hours
	$(TESTING) $(BIN)/python -m pytest -m long $(ARGS)

bench: setup ## every figure of docs/performance.md
	$(BIN)/python -m benchmarks

wire: setup ## generate agentfarm/wire from proto/
	$(BIN)/python -m grpc_tools.protoc -I agentfarm/wire=proto/agentfarm/v1 --python_out=. --pyi_out=. $(PROTOS)
	$(BIN)/python -m grpc_tools.protoc -I agentfarm/wire=proto/agentfarm/v1 --grpc_python_out=. agentfarm/wire/link.proto

lock: ## pin every dependency again
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --all-extras --no-emit-index-url \
	  --python-version 3.11 pyproject.toml -o requirements.lock

clean: ## forget the environment and all local state
	rm -rf $(VENV) .farm
