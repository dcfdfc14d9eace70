# `make help` lists the targets. Each one sets up what it needs, once, inside this folder.

PYTHON ?=
PYTHON313 ?=
WORKERS ?= 2
ARGS ?=
OPTIMISED ?=

.DEFAULT_GOAL := help
.PHONY: help demo gallery test test-thorough test-newest lint lock clean

help:
	@echo 'make demo         install into .venv, then run the digits example'
	@echo 'make gallery      install into .venv, run all experiments, then write docs/gallery.md (many minutes)'
	@echo 'make test         install into .venv, then run all tests'
	@echo 'make test-thorough more cases of what a few test already (minutes)'
	@echo 'make test-newest  install into .venv-newest with Python 3.13, then run the core tests'
	@echo 'make lint         check style, format and types'
	@echo 'make lock         write requirements/*.txt anew (needs Python 3.11 and 3.13)'
	@echo 'make clean        remove environments, caches and build artefacts'
	@echo
	@echo 'PYTHON=...        the Python for .venv          (now: found by itself, 3.11 or newer)'
	@echo 'PYTHON313=...     the Python for .venv-newest   (now: found by itself)'
	@echo 'WORKERS=$(WORKERS)         test processes'
	@echo 'OPTIMISED=1       tests on code that is compiled as users have it (slower)'
	@echo 'ARGS=...          further arguments for pytest, e.g. ARGS="-k gaussian"'

demo: .venv/.installed
	.venv/bin/vfe run digits

# Runs are kept in .cache/gallery until the next time; an experiment that breaks ends it.
gallery: .venv/.installed
	rm -rf .cache/gallery
	for name in $$(.venv/bin/python -c 'from vfe.gallery import JOBS; print(*JOBS)'); do \
		.venv/bin/vfe run $$name --out .cache/gallery/$$name || exit 1; \
	done
	.venv/bin/vfe gallery .cache/gallery --out docs/gallery.md

test: .venv/.installed
	.venv/bin/python -m pytest -n $(WORKERS) $(ARGS)

test-thorough: .venv/.installed
	.venv/bin/python -m pytest -n $(WORKERS) -m thorough $(ARGS)

test-newest: .venv-newest/.installed
	.venv-newest/bin/python -m pytest -n $(WORKERS) -m core $(ARGS)

# The tests' time is compilation, much of it LLVM's optimisation of code that then runs for
# milliseconds. `make test OPTIMISED=1`, and pytest by itself, compile as users do.
test: export JAX_DISABLE_MOST_OPTIMIZATIONS = $(if $(OPTIMISED),0,1)

# Keep compiled functions from one run to the next; draw figures without a screen or a home.
test test-thorough test-newest: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.cache/jax
test test-thorough test-newest: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0.3
gallery test test-thorough test-newest: export MPLBACKEND = Agg
gallery test test-thorough test-newest: export MPLCONFIGDIR = $(CURDIR)/.cache/matplotlib

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright --pythonpath .venv/bin/python

.venv/.installed: pyproject.toml requirements/py311.txt requirements/py313.txt
	@sh scripts/set-up.sh .venv any '$(PYTHON)'
	@touch $@

.venv-newest/.installed: pyproject.toml requirements/py313.txt
	@sh scripts/set-up.sh .venv-newest 3.13 '$(PYTHON313)'
	@touch $@

lock:
	@sh scripts/lock.sh 3.11 requirements/py311.txt
	@sh scripts/lock.sh 3.13 requirements/py313.txt '$(PYTHON313)'

clean:
	rm -rf .venv .venv-newest .venv-lock-* .cache .hypothesis .pytest_cache .ruff_cache build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
