# `make demo` and `make test` need only python3 (3.10 or newer) and make. Everything is installed into .venv, never into
# the system's Python. Each target only wraps lines that the README shows too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-clients lint clean

demo: $(VENV)/installed ## the embedded model, int8 against fp32, as a page of pictures
	$(BIN)/clipq demo

test: $(VENV)/installed-dev ## the test suite
	$(BIN)/python -m pytest

test-clients: $(VENV)/installed-clients ## the tests that need packages which clipq does not
	$(BIN)/python -m pytest -m clients --dist loadfile # a cluster, a session, once

lint: $(VENV)/installed-dev ## style and common mistakes
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) dist

$(VENV)/installed: pyproject.toml | $(BIN)/pip
	@echo 'Installing clipq into $(VENV); torch is large, so this takes a few minutes'
	$(BIN)/pip install -qq -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/pip
	@echo 'Installing clipq and its tools into $(VENV); torch is large, so this takes a few minutes'
	$(BIN)/pip install -qq -e '.[dev]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-clients: pyproject.toml | $(BIN)/pip
	@echo 'Installing clipq, its tools and the packages of docs/ into $(VENV)'
	$(BIN)/pip install -qq -e '.[dev,clients,onnx,openvino,mnn,wheels,ray,daft]'
	@touch $@ $(VENV)/installed-dev $(VENV)/installed

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'clipq needs Python 3.10 or newer; say which with: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'No virtual environment could be made. On Debian or Ubuntu: sudo apt install python3-venv' >&2; exit 1; }
