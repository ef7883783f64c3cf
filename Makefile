# make demo    set up .venv and run the main job on the embedded digits
# make test    set up .venv, lint, type-check and run every test
# make bench   measure this machine's speed of retrofits against their originals
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One of the two ONNX Runtimes: they overwrite each other's files.
RUNTIME ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
EXTRAS := $(RUNTIME),attack,report,serve,dev
# Tests run side by side; one thread each keeps them from fighting over the cores.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo test lint types fast slow bench install clean

demo: install
	$(BIN)/python -m tools.demo

test: lint types fast slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

fast: install
	$(TEST_ENV) $(BIN)/pytest -n $(JOBS) -m "not slow"

slow: install
	$(TEST_ENV) $(BIN)/pytest -n $(JOBS) -m slow

bench: install
	$(BIN)/python -m tools.bench_bars

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt setup.py $(wildcard ops/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) build dist out jr_onnx/lib *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
