# make demo    set up .venv and run the main job on the embedded digits
# make test    set up .venv, lint, type-check and run every test
# make cuda    run the tests of the CUDA side on a fake CUDA runtime (part of `make test`; needs CUDA's headers, no GPU)
# make docs    build the documentation as a site in build/site
# make bench   measure this machine's speed of retrofits against their originals
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One of the two ONNX Runtimes: they overwrite each other's files.
RUNTIME ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
EXTRAS := $(RUNTIME),attack,report,serve,dev
# Tests run side by side; one thread each keeps them from fighting over the cores.
TEST_ENV := ORT_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo test lint types fast slow cuda docs bench install clean

demo: install
	$(BIN)/python -m tools.demo

test: lint types fast slow cuda

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

types: install
	$(BIN)/mypy

fast: install
	$(TEST_ENV) $(BIN)/pytest -n $(JOBS) -m "not slow"

slow: install
	$(TEST_ENV) $(BIN)/pytest -n $(JOBS) -m slow

# onnxruntime-gpu in an environment of its own, over the packages of .venv: it and onnxruntime overwrite each other.
FAKE := build/fake_cuda
cuda: install $(VENV)-gpu/.installed
	$(VENV)-gpu/bin/python -m tests.cuda.fake $(FAKE)
	$(TEST_ENV) LD_LIBRARY_PATH=$(FAKE) JR_ONNX_LIBRARIES=$(FAKE)/ops $(VENV)-gpu/bin/python -m pytest tests/cuda

$(VENV)-gpu/.installed: $(VENV)/.installed constraints.txt
	test -x $(VENV)-gpu/bin/python || $(VENV)/bin/python -m venv $(VENV)-gpu
	$(VENV)-gpu/bin/python -m pip install --quiet --no-deps --constraint constraints.txt onnxruntime-gpu
	$(VENV)/bin/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
	  > $$($(VENV)-gpu/bin/python -c "import site; print(site.getsitepackages()[0])")/shared.pth
	touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "built build/site; open build/site/index.html, or serve it: $(BIN)/mkdocs serve"

# The requirements of the extra alone: the package itself is there already.
$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])" > $@.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement $@.txt
	touch $@

bench: install
	$(BIN)/python -m tools.bench.bars

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt setup.py $(wildcard ops/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-gpu build dist out jr_onnx/lib *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
