# One command for each thing one does here; `make` alone lists them.

VENV := .venv
PY := $(VENV)/bin/python
PINS := pyproject.toml constraints.txt

# The user's own choice first (make PYTHON=...), then what is usual. Each is tried, because a name may be there and not run.
PYTHON ?=
CANDIDATES := $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14

.DEFAULT_GOAL := help
.PHONY: help venv install runtime lint types floors unit test reference contract docs swarm rig bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(PY):
	@for candidate in $(CANDIDATES); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "swarmd needs Python 3.11 or newer, and none of $(strip $(CANDIDATES)) is one: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "$$found cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)

venv: $(PY) ## an empty virtual environment in .venv

$(VENV)/.runtime: $(PINS) | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.development: $(PINS) | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.runtime $@

runtime: $(VENV)/.runtime ## what the daemon needs, pinned

install: $(VENV)/.development ## what the daemon and its development need, pinned

lint: install ## ruff
	$(VENV)/bin/ruff check .

types: install ## basedpyright, strict
	$(VENV)/bin/basedpyright --pythonpath $(PY)

floors: install ## import-linter: imports point down
	$(VENV)/bin/lint-imports --no-logo

unit: install ## the tests alone
	@sh tools/system_packages.sh
	$(VENV)/bin/pytest -q -n logical --maxprocesses 4 --dist loadfile

test: install lint types floors unit ## every check

contract: install ## 2,000 random requests to every operation of a live node; an hour
	$(PY) -m tools.schemathesis

reference: install ## print docs/settings.md, docs/cli.md and config/swarmd.toml anew
	$(PY) -m swarmd.config.reference
	$(PY) -m swarmd.cli.reference

$(VENV)/.docs: $(PINS) | $(VENV)/.runtime
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## the site of docs/, in build/site; broken links fail
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict
	@echo "build/site/index.html"

swarm: runtime ## a small swarm on this machine
	$(PY) -m tools.swarm

rig: install ## real nodes in network namespaces, behind NAT, cut off and back; needs root
	@sh tools/rig_packages.sh
	$(PY) -m tests.rig

bench: install ## measure for an hour or two, and write docs/benchmarks.md
	$(PY) -m bench

lock: install ## write the installed versions into constraints.txt
	@{ echo "# Versions that are known to work together; written by make lock."; \
	  $(PY) -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' | grep -vi '^swarmd=='; } > constraints.new
	@mv constraints.new constraints.txt
	@touch $(VENV)/.runtime $(VENV)/.development

clean: ## remove what was built; .venv too
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
