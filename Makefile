# Needs GNU make and Python 3.11 or newer, setup-cards npm as well, nothing else; every target is safe to repeat.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -qq

# The checks read settings and migrations, never a deployment's database.
OFFLINE := DEBUG=true LOG_LEVEL=WARNING DATABASE_URL=sqlite://:memory:
CHECKS := lint format types imports django deploy migrations lintmigrations openapi diagram

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## print these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.runtime ## install what the console needs and start it with demo data on http://127.0.0.1:8000
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec sh bin/run

.PHONY: demo-walk
demo-walk: $(VENV)/.runtime ## drive the whole chain of a running demo as four people, prove it as an auditor, print the trace
	@DEBUG=true $(BIN)/python manage.py demo_walk

.PHONY: setup
setup: $(VENV)/.dev ## install what tests and checks need as well

CARDS := build/cards/adaptivecards.min.js
.PHONY: setup-cards
setup-cards: $(CARDS) ## install what one browser test draws cards of Teams with (needs npm)

# Files in their order, not those of most tests first: the few tests of a browser take longest and would come last, alone.
.PHONY: test
test: $(VENV)/.dev ## run the tests on DATABASE_URL, default SQLite (ARGS="-k name", WORKERS=0 for one process)
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

TORTURE := CAVRA_TORTURE=full CAVRA_TORTURE_REPORT=docs/torture.md $(BIN)/pytest --quiet tests/torture $(ARGS)
.PHONY: torture
torture: $(VENV)/.dev ## run the torture suite in full on SQLite, then on a PostgreSQL in DATABASE_URL, into docs/torture.md
	@DATABASE_URL=sqlite://:memory: $(TORTURE); failed=$$?; \
	case "$${DATABASE_URL:-}" in \
		postgres*) $(TORTURE) || failed=1 ;; \
		*) echo "PostgreSQL was left out: DATABASE_URL names none." ;; \
	esac; \
	exit $$failed

BENCH := $(BIN)/python -m tests.benchmarks --report docs/benchmarks.md $(ARGS)
.PHONY: bench
bench: $(VENV)/.dev ## measure ledger and sending on SQLite, then on a PostgreSQL in DATABASE_URL, into docs/benchmarks.md
	@DATABASE_URL= $(BENCH); failed=$$?; \
	case "$${DATABASE_URL:-}" in \
		postgres*) $(BENCH) || failed=1 ;; \
		*) echo "PostgreSQL was left out: DATABASE_URL names none." ;; \
	esac; \
	exit $$failed

.PHONY: screenshots
screenshots: $(VENV)/.dev ## write a picture of every page in light, dark and on a phone into docs/screenshots/
	@CAVRA_SCREENSHOTS=docs/screenshots $(BIN)/pytest --quiet tests/browser/screenshots.py

.PHONY: check
check: $(VENV)/.dev ## run every check: style, types, imports, settings, migrations, API document, diagram
	@failed=; \
	for name in $(CHECKS); do \
		printf '== %s\n' "$$name"; \
		$(MAKE) -s check-$$name || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then printf '\nCHECK FAILED:%s\n' "$$failed" >&2; exit 1; fi; \
	printf '\nAll checks passed: %s\n' "$(CHECKS)"

.PHONY: $(CHECKS:%=check-%)
check-lint:
	@$(BIN)/ruff check --output-format concise
check-format:
	@$(BIN)/ruff format --check --output-format concise
check-types:
	@$(OFFLINE) $(BIN)/mypy
check-imports:
	@$(BIN)/lint-imports --no-logo
check-django:
	@$(OFFLINE) $(BIN)/python manage.py check --fail-level WARNING
# The same settings as in production, with a key made for this moment.
check-deploy:
	@DEBUG=false DATABASE_URL=sqlite://:memory: ALLOWED_HOSTS=console.example HTTPS=true \
		CAVRA_LEDGER_KEYS=env:LEDGER_KEY SECRET_KEY="$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))')" \
		$(BIN)/python manage.py check --deploy --fail-level WARNING
check-migrations:
	@$(OFFLINE) $(BIN)/python manage.py makemigrations --check --dry-run
# The linter is a tool of development: it runs beside the installed apps instead of being one of them.
# Ignored: columns with a default of the database; checks of tables that the same migration created, for which SQLite
# copies them while they are empty (the linter takes the copy's columns for new ones); and unique indexes: partial ones in
# the place of full ones, and one over a column that the same migration fills.
check-lintmigrations:
	@$(OFFLINE) DJANGO_SETTINGS_MODULE=cavra_site.settings $(BIN)/python -c "import django; django.setup(); \
		from django.core.management import call_command; \
		from django_migration_linter.management.commands.lintmigrations import Command; \
		call_command(Command(), quiet=['ok', 'ignore'], ignore_name=['0004_rebuilt_tables', '0006_epochs', '0007_streams', \
			'0008_erasures_and_access', '0009_connectors', '0010_breakers_and_parking'])"
check-openapi:
	@$(OFFLINE) $(BIN)/python manage.py spectacular --validate --fail-on-warn --file /dev/null
check-diagram:
	@$(OFFLINE) $(BIN)/python manage.py chain_diagram --check

.PHONY: fix
fix: $(VENV)/.dev ## repair what lint and format can repair
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-config --custom-compile-command "make lock"
.PHONY: lock
lock: $(VENV)/.dev ## pin newer versions within the bounds of pyproject.toml, with hashes
	@$(LOCK) --upgrade --output-file requirements.txt
	@$(LOCK) --upgrade --extra dev --constraints requirements.txt --output-file requirements-dev.txt
	@touch requirements.txt requirements-dev.txt

.PHONY: clean
clean: ## remove the virtual environment and all caches; data/ stays
	@rm -rf $(VENV) build/cards .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis test-results
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- The virtual environment: a stamp file per lock file, newer than the lock it was installed from ---

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "Python's venv module is missing (Debian: apt install python3-venv)." >&2; exit 1; }

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	@echo "Installing requirements.txt into $(VENV) ..."
	@$(PIP) install --require-hashes --requirement requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	@echo "Installing requirements-dev.txt into $(VENV) ..."
	@$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@ $(VENV)/.runtime

# --- Microsoft's renderer of Adaptive Cards, for tests alone: one version, checked before it is unpacked ---

CARDS_VERSION := 3.0.6
CARDS_SHA256 := 44d0560c8c6a3a660af8dda32de5d1c428ffb414ff050ee61e9377d19785bbfb

$(CARDS): Makefile
	@command -v npm >/dev/null || { echo "npm is missing (Debian: apt install npm)." >&2; exit 1; }
	@mkdir -p $(@D)
	@cd $(@D) && npm pack --silent adaptivecards@$(CARDS_VERSION) >/dev/null
	@$(PYTHON) -c 'import hashlib, sys; sys.exit(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest() != sys.argv[2])' \
		$(@D)/adaptivecards-$(CARDS_VERSION).tgz $(CARDS_SHA256) \
		|| { rm -f $(@D)/*.tgz; echo "adaptivecards-$(CARDS_VERSION).tgz is not the file that was expected." >&2; exit 1; }
	@tar -xzf $(@D)/adaptivecards-$(CARDS_VERSION).tgz -C $(@D) --strip-components=2 package/dist/$(@F)
	@rm -f $(@D)/*.tgz
	@touch $@
