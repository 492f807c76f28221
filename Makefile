# The two commands of the README, and what developers use. Settings: PYTHON (to build the environment
# with), CORES.
PYTHON ?= python3
# The versions of envs/requirements.lock are for this one.
PYTHON_VERSION := 3.11
CORES ?= all
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: study test coverage fast unit workflow llm check docs install clean-environment
study: $(INSTALLED)
	$(VENV)/bin/snakemake --cores $(CORES)

# The C library fills memory that nobody has set with 0x7f (1.4e306 as a double): what reads it fails, instead of
# once in a hundred runs.
test coverage fast unit workflow llm: export MALLOC_PERTURB_ := 128

# Three of even length side by side, since none of them keeps two cores busy. Two have tests of a finished study,
# which the first that needs it makes for both.
SECOND := $(addprefix tests/workflow/test_,chain.py workflow.py bad_input.py)
THIRD := tests/workflow tests/llm $(addprefix --ignore=,$(SECOND))
test: $(INSTALLED)
	export TINY_STUDY=$$(mktemp -d); trap 'rm -rf "$$TINY_STUDY"' EXIT; failed=0; \
	$(VENV)/bin/pytest tests/unit >.unit.log 2>&1 & units=$$!; \
	$(VENV)/bin/pytest $(SECOND) --randomly-dont-reorganize >.study.log 2>&1 & study=$$!; \
	$(VENV)/bin/pytest $(THIRD) --randomly-dont-reorganize || failed=1; \
	wait $$study || failed=1; cat .study.log; wait $$units || failed=1; cat .unit.log; exit $$failed

# Of units, which take a third longer so. Jobs of a workflow are processes that nobody traces.
coverage: $(INSTALLED)
	$(VENV)/bin/pytest tests/unit --cov

# Tiers: fast units (minutes), all units, tiny workflows, a real LLM.
fast: $(INSTALLED)
	$(VENV)/bin/pytest tests/unit -m "not slow"

unit: $(INSTALLED)
	$(VENV)/bin/pytest tests/unit

workflow llm: $(INSTALLED)
	$(VENV)/bin/pytest tests/$@ --randomly-dont-reorganize

check: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/snakefmt --check Snakefile workflow/rules
	$(VENV)/bin/codespell
	$(VENV)/bin/python docs/config_reference.py --check
	$(VENV)/bin/mypy
	$(MAKE) docs

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

install: $(INSTALLED)

# Torch is half of all there is to unpack, so it comes beside the rest. The lock leaves nothing to find out.
PIP_INSTALL = $(VENV)/bin/pip install --quiet --disable-pip-version-check --no-compile --no-deps --requirement
# All of it, since jobs may be told to write no bytecode. Templates are no code, so that it never ends well.
COMPILE = $(VENV)/bin/python -m compileall -q -j 0 -x '/tests/' $(VENV)/lib >$(VENV)/.compiled.log 2>&1 || true
# Looked at only where the environment is built.
version_found = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
wrong_python = Python $(PYTHON_VERSION) is needed, and $(PYTHON) is $(or $(version_found),not there); give another one \
  by PYTHON=python$(PYTHON_VERSION)

$(INSTALLED): envs/requirements.lock
	$(if $(filter $(PYTHON_VERSION),$(version_found)),,$(error $(wrong_python)))
	$(PYTHON) -m venv $(VENV)
	grep '^torch=' $< >$(VENV)/torch.txt; grep -v '^torch=' $< >$(VENV)/others.txt
	$(PIP_INSTALL) $(VENV)/torch.txt & torch=$$!; $(PIP_INSTALL) $(VENV)/others.txt && wait $$torch
	$(VENV)/bin/pip check --disable-pip-version-check
	$(COMPILE)
	touch $@

clean-environment:
	rm -rf $(VENV)
