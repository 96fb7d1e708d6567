# Two commands are all a new user needs: `make book` and `make test`. `make help` lists the rest.

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
STAMP := .venv/.installed
# Snakemake needs older versions of some packages that .venv pins, and only calls `hbanalysis` as a command.
SNAKEMAKE := .venv-snakemake/bin/snakemake
PEERS := .peers
# One thread per process: two workers that each use every core are many times slower than two that use one.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Both tiers collect the same tests, doctests and notebook cells, so that each can name what it leaves to the other.
COLLECT := --doctest-modules --nbval --nbval-current-env --nbval-cell-timeout 300 tests hbanalysis notebooks
# Files are begun in the order of `tests/tiers.py`, the longest first.
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(COLLECT)

.DEFAULT_GOAL := help
.PHONY: help book site pdf serve test test-full audit weaknesses lint clean

help: ## show this list
	@grep -E '^[.a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv: $(STAMP) ## create .venv and install the package with pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: hbanalysis needs Python 3.11 or newer, and '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo 'not found');" \
	    "name another one with: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { \
	  echo "error: cannot create .venv (on Debian and Ubuntu: apt-get install python3-venv)" >&2; rm -rf .venv; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[book,dev]' -c constraints.txt
	@touch $@

book: $(STAMP) ## compute every study here at scale digits and build the site of it (SEEDS=3: all seeds)
	$(BIN)/hbanalysis book $(if $(SEEDS),--seeds $(SEEDS))

site: $(STAMP) ## build the published site from committed notebooks and rows, computing nothing
	$(BIN)/jupyter-book build . --path-output build -n -W --keep-going

pdf: site ## print the published site into build/hbanalysis.pdf (needs Chromium)
	$(BIN)/python -m hbanalysis.publishing.pdf build/_build/html build/hbanalysis.pdf

serve: site ## build the published site and open it in a browser (PORT=8000)
	@(sleep 1; $(BIN)/python -m webbrowser -t http://127.0.0.1:$(PORT)/ >/dev/null 2>&1) &
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory build/_build/html

test: $(STAMP) ## quick tier: unit tests, doctests, notebooks, site and browser smoke tests
	$(PYTEST) --tier quick

$(SNAKEMAKE):
	$(PYTHON) -m venv .venv-snakemake
	.venv-snakemake/bin/python -m pip install --quiet --disable-pip-version-check snakemake==9.27.1

# Attacks of other libraries, which ours are compared with; what they depend on is in .venv, in newer versions.
$(PEERS): | $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(PEERS) \
	  torchattacks==3.5.1 foolbox==3.3.4 eagerpy==0.30.0 gitpython==3.2.1 gitdb==4.0.12 smmap==5.0.3

test-full: $(STAMP) $(SNAKEMAKE) $(PEERS) ## full tier: everything slow; together with `make test` every test exactly once
	$(PYTEST) --tier full

AUDITOR := .venv-audit/bin/python
PIP_AUDIT := $(AUDITOR) -m pip_audit --no-deps --disable-pip --progress-spinner off -r constraints.txt
$(AUDITOR):
	$(PYTHON) -m venv .venv-audit
	$(AUDITOR) -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1

MUTANTS := $(if $(ALL),--all,$(if $(SAMPLE),--sample $(SAMPLE)))
# Verdicts on mutants are kept below build/audit: what was interrupted goes on where it stopped.
audit: $(STAMP) $(AUDITOR) ## hours, by hand: do the tests notice mutants, what do they reach, is memory flat (SAMPLE=300, ALL=1)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[book,dev,audit]' -c constraints.txt
	$(ONE_THREAD) $(BIN)/python -m audit.mutation --workers 2 $(MUTANTS)
	$(ONE_THREAD) $(BIN)/python -m audit.mutation --workers 2 $(MUTANTS) --again --slow
	$(ONE_THREAD) $(BIN)/python -m coverage run -m pytest -q -n 2 --dist loadscope --doctest-modules tests hbanalysis
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage json --quiet -o build/audit/coverage.json
	$(ONE_THREAD) $(BIN)/python -m audit.memory --out build/audit/memory.json
	-$(PIP_AUDIT) --format json --output build/audit/weaknesses.json
	$(BIN)/python -m audit.report

weaknesses: $(AUDITOR) ## ask whether a weakness of a pinned package is known; no answer is a failure
	$(PIP_AUDIT) --strict

lint: $(STAMP) ## ruff (lint and format), mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove built sites and caches; .venv and the local store stay
	rm -rf build .stage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find hbanalysis tests book notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
