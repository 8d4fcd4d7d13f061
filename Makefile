# Two commands for users; each needs only make and Python 3.11 or newer:
#
#   make search    set .venv up (once), then search `digits-100` with 24 trials and print the leaderboard
#   make test      set .venv up with the development tools (once), then run every check
#
# For developers: make dev (once: tools and git hooks), make test-fast (the tests for every change: none that compiles,
# trains long or starts a search), make lint, make format, make docs (the pages of docs/, into build/docs), make
# reference (the pages that are made from the code), make test PYTEST_ARGS="-n 4 tests/unit", make clean;
# CONTRIBUTING.md explains them. Unit tests run in a random order, whose seed is printed;
# make test LADDER_SEARCH_TEST_ORDER=7 repeats one.
# Another interpreter: make search PYTHON=python3.12. Another study: make search STUDY=mnist-100-full TRIALS=100.

PYTHON ?= python3
STUDY = digits-100
TRIALS = 24
# Two at a time, file by file: whole searches mostly wait for Ray to start, and a file's tests share their fixtures. In
# the order of tests/durations.py, the long files first: else one process waits for the other at the end.
PYTEST_ARGS = --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Ignore an active environment of the calling shell, and user-wide settings of pip that install elsewhere than into .venv.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
export PIP_USER = 0

# Relative, and through `python -m` only: scripts in .venv/bin carry the absolute path of this folder, which may hold
# spaces, or may have been moved.
RUN = .venv/bin/python -m
PIP_INSTALL = $(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS = pyproject.toml constraints.txt

.PHONY: search test test-fast lint format docs reference dev install install-dev install-docs clean

search: install
	.venv/bin/python search.py $(STUDY) --trials $(TRIALS)

test: lint
	$(RUN) pytest $(PYTEST_ARGS)

test-fast: install-dev
	$(RUN) pytest $(PYTEST_ARGS) -m 'not slow and not e2e' tests/architecture tests/properties tests/unit

lint: install-dev
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	.venv/bin/python -c 'from importlinter.cli import lint_imports_command as main; main()' --no-logo

format: install-dev
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

# Warnings are errors: a link to a page or heading that does not exist is one.
docs: install-docs
	$(RUN) sphinx --builder html --fail-on-warning --keep-going --fresh-env --quiet docs build/docs
	@echo "built: build/docs/index.html"

reference: install
	.venv/bin/python docs/generate.py

dev: install-dev install-docs
	$(RUN) pre_commit install

install: .venv/.installed

install-dev: .venv/.installed-dev

install-docs: .venv/.installed-docs

.venv/.created:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$("$(PYTHON)" --version 2>/dev/null || echo missing); \
		echo "ladder-search needs Python 3.11 or newer and $(PYTHON) is $$found: install one, or name it with PYTHON=python3.12." >&2; \
		exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "ladder-search needs the venv module, which $(PYTHON) lacks: install it (Debian, Ubuntu: apt install python3-venv)." >&2; \
		exit 2; }
	@echo "Setting up .venv (once)"
	@"$(PYTHON)" -m venv .venv
	@touch $@

.venv/.installed: $(INPUTS) | .venv/.created
	@echo "Installing ladder-search and its pinned dependencies into .venv (once, some minutes)"
	@$(PIP_INSTALL) --editable .
	@touch $@

# What it adds to .venv/.installed is the development tools; what is there already is left as it is.
.venv/.installed-dev: $(INPUTS) | .venv/.created
	@echo "Installing ladder-search, its pinned dependencies and the development tools into .venv (once, some minutes)"
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch .venv/.installed $@

.venv/.installed-docs: $(INPUTS) | .venv/.created
	@echo "Installing what builds the documents into .venv (once)"
	@$(PIP_INSTALL) --editable '.[docs]'
	@touch .venv/.installed $@

# Never the results.
clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find ladder_search spaces trainables tests benchmarks clusters -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
