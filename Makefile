# make demo · make test · make bench: each makes its own virtual environment first. `make help` lists all.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint simulate faults faults-selftest faults-syscalls bench bench-alerts bench-peers bench-fleet bench-elasticsearch bench-benign kibana env clean

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "auditship needs Python 3.11 or later; set PYTHON=python3.12 or the like"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## three gateways, the agent and the indexer on this machine; ARGS="--events 20000 --exit" for a bounded run
	@$(BIN)/auditship demo $(ARGS)

lint: $(STAMP) ## formatter, linter and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint ## everything that is promised; ARGS="tests/unit -k line" for a part
	@$(BIN)/python $(if $(ARGS),-m pytest $(ARGS),tests/all.py)

faults: $(STAMP) ## real processes under random faults; SEEDS=200, SEED=1234 for one again, ARGS="--elasticsearch"
	@$(BIN)/python tests/chaos/run.py $(if $(SEED),--seed $(SEED) $(if $(SEEDS),--seeds $(SEEDS)),--seeds $(or $(SEEDS),500)) $(ARGS)

simulate: $(STAMP) ## the agent in a simulated world of files, crashes and networks; SEEDS=10000, SEED=1234
	@$(BIN)/python tests/model/simulation.py $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),2000))

faults-selftest: $(STAMP) ## planted bugs: each must be noticed
	@$(BIN)/python tests/chaos/selftest.py

faults-syscalls: $(STAMP) ## every system call of the agent's in turn fails or kills it (needs strace)
	@$(BIN)/python tests/chaos/syscalls.py

bench: $(STAMP) ## figures, as JSON lines and a table
	@$(BIN)/python bench/run.py $(ARGS)

bench-elasticsearch: $(STAMP) ## what Elasticsearch spends on a document, next to its own defaults
	@$(BIN)/python bench/cluster.py $(ARGS)

bench-peers: $(STAMP) ## ours next to rsyslog, syslog-ng and Filebeat, each fetched first; ARGS="--lines 200000"
	@$(BIN)/python bench/compare.py $(ARGS)

bench-alerts: $(STAMP) ## from a critical line to a webhook's receipt; ARGS="--elasticsearch"
	@$(BIN)/python bench/alerts.py $(ARGS)

bench-fleet: $(STAMP) ## ten thousand simulated agents on one indexer; ARGS="--agents 2000"
	@$(BIN)/python bench/fleet.py $(ARGS)

bench-benign: $(STAMP) ## a million events with nothing wrong through the detections; ARGS="--events 100000"
	@$(BIN)/python bench/benign.py $(ARGS)

kibana: $(STAMP) ## builds kibana/audit.ndjson from its source
	@$(BIN)/python -m kibana

env: ## .env for docker compose, with new passwords; one that is there stays as it is
	@test ! -e .env || { echo ".env is there already: nothing was changed"; exit 1; }
	@umask 077 && $(PYTHON) -c 'import secrets; [print(f"{name}={secrets.token_hex(16)}") for name in ("ELASTIC_PASSWORD", "KIBANA_PASSWORD", "KIBANA_ENCRYPTION_KEY")]' > .env.new && mv .env.new .env
	@echo ".env has new passwords; Kibana's user is elastic, with ELASTIC_PASSWORD"

clean: ## removes what the other targets made here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
