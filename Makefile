# What a stranger needs: `make run` and `make test`. Both set up what is missing, in .venv beside this file.
MAKEFLAGS += --no-print-directory
ROOT := $(shell cd "$$(dirname "$$(echo '$(MAKEFILE_LIST)' | sed 's/^ *//')")" && pwd -P)
IN := cd '$(ROOT)' &&
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
ARGS ?=
DATA ?=
# Two workers; a class or module of tests stays with one, so that it starts its servers once.
PARALLEL := -n 2 --dist loadscope

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test lint format docs bench bench-retrieval bench-peers e2e matrix adapters-matrix langgraph-tests soak smoke clean dev

help: ## Say what there is to make
	@echo 'Daram: a chat that remembers'
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' '$(ROOT)/Makefile' | awk -F'|' '{ printf "%-23s%s\n", $$1, $$2 }'
	@echo
	@echo 'ARGS="…" is handed on: make run ARGS="--port 9000", make test ARGS="-k sqlite".'

run: ## Install what is needed and open the chat page
	@$(IN) scripts/venv run serve,local serve
	@$(IN) $(BIN)/python -m daram model get --if-needed || \
	  echo '[daram] the local model could not be fetched (see above); the page starts without it and says what to set' >&2
	@$(IN) exec $(BIN)/python -m daram serve $(ARGS)

test: lint ## Install what is needed; check style, types, imports; run the tests
	@echo '[daram] pytest' >&2
	@$(IN) $(PYTEST) -m 'not e2e and not soak and not matrix' $(PARALLEL) $(ARGS)

lint: dev ## Check style, types and imports only
	@echo '[daram] ruff check' >&2
	@$(IN) $(BIN)/python -m ruff check .
	@echo '[daram] ruff format --check' >&2
	@$(IN) $(BIN)/python -m ruff format --check .
	@echo '[daram] mypy --strict' >&2
	@$(IN) $(BIN)/python -m mypy
	@echo '[daram] import contracts' >&2
	@$(IN) $(BIN)/python -c 'from importlinter.cli import lint_imports_command as lint; lint()'

format: dev ## Format the code and mend what can be mended
	@$(IN) $(BIN)/python -m ruff check --fix .
	@$(IN) $(BIN)/python -m ruff format .

docs: dev ## Write the pages of docs/reference that are made from the code
	@$(IN) $(BIN)/python scripts/reference.py

bench: dev ## Measure what a turn costs
	@$(IN) $(BIN)/python -m bench $(ARGS)

bench-retrieval: dev ## Measure what search finds; DATA=FILE: on a file in SQuAD's format
	@$(IN) $(BIN)/python -m bench.retrieval $(if $(DATA),--data '$(abspath $(DATA))') $(ARGS)

bench-peers: ## Measure the frameworks' own stores beside Daram's adapters (about a quarter of an hour; ARGS="--quick": a minute)
	@$(IN) scripts/venv bench serve,local,dev,bench
	@$(IN) $(BIN)/python -m bench.peers --write docs $(ARGS)

e2e: dev ## The story in a real browser with the local model (needs a Chromium)
	@$(IN) scripts/chromium >/dev/null
	@$(IN) $(BIN)/python -m daram model get
	@$(IN) DARAM_CHROMIUM="$$(scripts/chromium)" $(PYTEST) -m e2e --timeout 900 $(ARGS)

matrix: dev ## Every engine through every face and behind the cache
	@$(IN) $(PYTEST) -m matrix $(PARALLEL) $(ARGS)

adapters-matrix: dev ## The adapters with the oldest and the newest release of each framework
	@$(IN) $(BIN)/python scripts/adapters_matrix.py oldest newest -- $(PARALLEL) $(ARGS)

langgraph-tests: dev ## LangGraph's own tests on Daram's saver (CHECKOUT=… : a checkout of its repository)
	@$(IN) $(BIN)/python scripts/langgraph_tests.py '$(CHECKOUT)' $(ARGS)

soak: dev ## The long runs
	@$(IN) $(PYTEST) -m soak --timeout 7200 $(ARGS)

smoke: dev ## The built wheel, without extras, in a bare environment
	@$(IN) $(BIN)/python scripts/smoke.py

clean: ## Remove .venv and what tools left behind (never your conversations)
	@$(IN) rm -rf .venv .venv-adapters-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache test-results
	@$(IN) find . -name __pycache__ -type d -prune -exec rm -rf {} +

dev:
	@$(IN) scripts/venv dev serve,local,dev
