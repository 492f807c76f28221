# The two commands of the README. Settings: PYTHON (to build the environment with), CORES.
PYTHON ?= python3
CORES ?= all
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: study test install clean-environment
study: $(INSTALLED)
	$(VENV)/bin/snakemake --cores $(CORES)

test: $(INSTALLED)
	$(VENV)/bin/pytest

install: $(INSTALLED)

$(INSTALLED): envs/requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement envs/requirements.lock
	touch $@

clean-environment:
	rm -rf $(VENV)
