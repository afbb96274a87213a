# make train sets everything up by itself; needs only python3 (with venv) and make.
.DEFAULT_GOAL := help
.PHONY: help install train test test-all lint bench proofs notebook clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
CHECK_PYTHON := "import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit('thaw needs Python 3.11 to 3.13, and this is %d.%d. Add PYTHON=python3.12, or the path of one' % v)"

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# The stamp is newer than what the installation depends on, so a second call installs nothing. The
# import compiles some 4,000 modules: 20 seconds here once, or at every start where Python is told to
# write no bytecode.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || { $(PYTHON) -c $(CHECK_PYTHON) && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c "import thaw.training.module, thaw.report"
	touch $@

install: $(VENV)/installed ## create .venv and install thaw with the exact versions of constraints.txt

train: install ## run train.py; settings in ARGS: make train ARGS="backbone=resnet50 data=flowers102"
	$(BIN)/python train.py $(ARGS)

test: install ## the fast tests, offline, a few minutes
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

test-all: install ## all tests, the slow ones too; with THAW_DATA also those on real photos
	$(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

lint: install ## ruff (lint and format) and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: install ## thaw beside fastai, timm, Lightning and plain PyTorch: seconds, accuracy; QUICK=1: 3 minutes
	$(BIN)/uv pip install --quiet --no-deps --compile-bytecode --python $(BIN)/python --target $(VENV)/peers \
	  timm==1.0.31 fastai==2.8.12 fastcore==2.2.39 fastprogress==1.0.3 fastdownload==0.0.8 \
	  fasttransform==0.0.5 plum-dispatch==2.9.0 cloudpickle==3.1.2 beartype==0.23.1 rich==15.0.0 \
	  pandas==3.1.1 scikit-learn==1.9.1 joblib==1.6.0 narwhals==2.29.0 threadpoolctl==3.8.0
	PYTHONPATH=$(VENV)/peers $(BIN)/python benchmarks/bench.py $(if $(QUICK),--quick) $(ARGS)

proofs: install ## run thaw and the others, at the versions below, through the same proofs: 5 minutes
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --target $(VENV)/peers \
	  finetuning-scheduler==2.14.1 timm==1.0.31
	PYTHONPATH=$(VENV)/peers $(BIN)/python benchmarks/proofs.py $(ARGS)

notebook: install ## open the notebook's page in a browser
	$(BIN)/uv pip install --quiet --python $(BIN)/python jupyterlab
	$(BIN)/jupyter lab notebooks/transfer_learning.ipynb

clean: ## remove what runs and tests left (logs/, cache/), not the environment or the photos
	rm -rf logs cache .pytest_cache .ruff_cache
