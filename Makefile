# make demo     install into .venv and train the demonstration
# make test     everything that has to hold before a change is accepted
# make test-peers     the benchmark against libraries that are not installed beside it
# make PYTHON=python3.12 demo     another interpreter (after `make clean`)

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# What an installation depends on; a stamp is written last, so that a broken-off installation is taken up again.
INPUTS := pyproject.toml constraints.txt Makefile

.DEFAULT_GOAL := help
.PHONY: help demo test test-peers lint bench clean

help:
	@echo "make demo    install into $(VENV) and train the demonstration"
	@echo "make test    lint, types, layers and all tests, the slow ones too"
	@echo "make lint    lint, types and layers only"
	@echo "make bench   the benchmarks"
	@echo "make test-peers   the tests of the benchmark that want transformers and litgpt, installed into $(PEERS)"
	@echo "make clean   remove environments and caches; runs/ stays"

demo: $(VENV)/.installed
	$(BIN)/birthplace-train experiment=demo

# A file's tests share what it trains, so files are handed out whole; a thread each keeps the workers out of each other's way.
test: lint
	OMP_NUM_THREADS=1 PYTHONUTF8=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile

test-peers: $(PEERS)/.installed
	OMP_NUM_THREADS=1 PYTHONUTF8=1 $(PEERS)/bin/python -m pytest -q tests/test_training_benchmark.py -k "transformers or litgpt"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy birthplace_lm

bench: $(VENV)/.installed
	$(BIN)/birthplace-bench

clean:
	rm -rf $(VENV) $(PEERS) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find birthplace_lm tests -type d -name __pycache__ -prune -exec rm -rf {} +

# A half-made environment has no working pip: it is made anew.
define make_venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "birthplace_lm needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)." \
	         "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
	  $(PYTHON) -m venv --clear $(VENV); }
endef

$(VENV)/.installed: $(INPUTS)
	$(make_venv)
	@echo "Installing birthplace_lm into $(VENV): a few minutes the first time"
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: $(INPUTS)
	$(make_venv)
	@echo "Installing birthplace_lm and its tools into $(VENV): a few minutes the first time"
	@$(PIP_INSTALL) -e ".[dev]"
	@touch $(VENV)/.installed $@

# Not into $(VENV): where transformers is installed every start of Lightning takes half as long again. An environment on
# top of that one, which sees all that is installed there, so that only what is missing is.
$(PEERS)/.installed: $(VENV)/.installed-dev
	@rm -rf $(PEERS)
	@$(BIN)/python -m venv $(PEERS)
	@$(BIN)/python -c 'import site; print("import site; site.addsitedir(%r)" % site.getsitepackages()[0])' \
	  > $$($(PEERS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/beneath.pth
	@echo "Installing transformers and litgpt into $(PEERS)"
	@$(PEERS)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[training-peers]"
	@touch $@
