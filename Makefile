# `make demo` and `make test` set everything up in .venv on a machine with Python 3.11, make and a compiler.
PYTHON ?= python3.11
VENV ?= .venv
# What the tests need beside the package; `dev,ffcv` tests the fast loader too, once its system packages are there (README).
EXTRAS ?= dev
BIN = $(VENV)/bin
# One thread a process: the tests' models are tiny, and threads that wait for each other cost far more than they gain.
export OMP_NUM_THREADS = 1

.PHONY: demo test test-slow test-minimum lint clean
.DELETE_ON_ERROR:

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.installed-$(EXTRAS): $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[$(EXTRAS)]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/taggant demo $(ARGS)

test: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

# The lower bounds of setup.cfg, in a virtual environment of their own.
test-minimum: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(VENV)-minimum
	$(BIN)/uv pip install --quiet --python $(VENV)-minimum/bin/python --resolution lowest-direct '.[dev,onnx]'
	$(VENV)-minimum/bin/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

lint: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VENV)-minimum build *.egg-info
