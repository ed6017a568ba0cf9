# Each target sets up what it needs. `make help` lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

# What the fullest test run needs on top of the development environment; versions: constraints.txt.
EVERYTHING := torch onnxscript tflite-micro ethos-u-vela safetensors scikit-learn keras \
  openvino MNN ncnn tract

# tflite-runtime's last release needs NumPy 1 and Python 3.9 to 3.11: it gets its own environment.
TFLITE_RUNTIME_VENV   := .venv-tflite-runtime
TFLITE_RUNTIME_PYTHON ?= $(PYTHON) python3.11 python3.10 python3.9

# TFLM before its change of 2026-10-13; the wheels of that day run in Python 3.13 or later only.
TFLM_2026_08_VENV   := .venv-tflm-2026-08
TFLM_2026_08_PYTHON ?= $(PYTHON) python3.13 python3.14

# How many random models and graphs `make fuzz` runs in each interpreter, and from which seed on.
FUZZ_MODELS ?= 3000
FUZZ_GRAPHS ?= 2000
# How many random models of each framework it reads, and writes to be read again.
FUZZ_ROUND_TRIPS ?= 300
FUZZ_NATIVE ?= 300
FUZZ_SEED   ?= $(shell date +%s)

# What `make sim` runs the weather model on; a name that is unknown lists those there are.
SIM_DEVICES ?= nrf52840,rp2040,rp2350,stm32f7,esp32-c3,corstone-300
WEATHER     := benchmarks/edge_lstm_benchmarks/models/weather

.DEFAULT_GOAL := help
.PHONY: help demo test check bench firmware sequences streams gpu accuracy results supported fuzz sim test-tflite-runtime test-tflm-2026-08 install-everything clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.ready  ## convert the sample model and check it on every backend present
	$(BIN)/edge-lstm demo

test: $(VENV)/.ready  ## run every test; what this machine cannot run is skipped with its reason
	$(PYTEST)

check: $(VENV)/.ready  ## format, lint, types, layers
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(VENV)/.ready  ## measure every backend present: on the sample models, and at seven shapes
	$(BIN)/python -m edge_lstm_benchmarks
	$(BIN)/python -m edge_lstm_benchmarks.runtimes

firmware: $(VENV)/.ready  ## measure generated C on every core: bytes, instructions, flash, RAM
	$(BIN)/python -m edge_lstm_benchmarks.firmware

sequences: $(VENV)/.ready  ## compare LSTM, GRU, RNN and Transformer of equal size, to 10^6 steps
	$(BIN)/python -m edge_lstm_benchmarks.sequence_models

streams: $(VENV)/.ready  ## run a whole book through a model, with saved and restored states
	$(BIN)/python -m edge_lstm_benchmarks.streams

gpu: $(VENV)/.ready  ## find the batch from which on a GPU is faster than this CPU
	$(BIN)/python -m edge_lstm_benchmarks.gpu

accuracy: $(VENV)/.ready  ## measure what trained models lose in integers, in every profile
	$(BIN)/python -m edge_lstm_benchmarks.real_models

results: $(VENV)/.ready  ## measure the sample models and rewrite the README's results
	$(BIN)/python -m edge_lstm_benchmarks.results README.md

supported: $(VENV)/.ready  ## write SUPPORTED.md anew from the rules
	$(BIN)/python -m edge_lstm_converters.supported > SUPPORTED.md.new && mv SUPPORTED.md.new SUPPORTED.md

fuzz: $(VENV)/.ready  ## run the property tests and the random models on many new inputs
	EDGE_LSTM_MODELS=$(FUZZ_MODELS) EDGE_LSTM_GRAPHS=$(FUZZ_GRAPHS) EDGE_LSTM_SEED=$(FUZZ_SEED) \
	  $(PYTEST) -k random tests/test_conformance.py tests/test_graph_conformance.py
	EDGE_LSTM_ROUND_TRIPS=$(FUZZ_ROUND_TRIPS) EDGE_LSTM_SEED=$(FUZZ_SEED) $(PYTEST) -k 'random or survive' \
	  tests/test_round_trips.py tests/test_read_keras.py tests/test_write_onnx_cells.py tests/test_recurrent_onnx.py
	EDGE_LSTM_NATIVE=$(FUZZ_NATIVE) EDGE_LSTM_SEED=$(FUZZ_SEED) $(PYTEST) -k random tests/test_native.py
	EDGE_LSTM_GOLDEN=1000 $(PYTEST) -k golden tests/test_c_exact.py
	$(PYTEST) -m hypothesis --hypothesis-profile=fuzz

sim: $(VENV)/.ready  ## run the sample model as firmware under CPU emulation
	$(BIN)/edge-lstm simulate $(WEATHER)/model.pt --layers $(WEATHER)/layers.toml \
	  --calib $(WEATHER)/calibration.npz --data $(WEATHER)/test.npz --device $(SIM_DEVICES)

test-tflite-runtime: $(VENV)/.ready $(TFLITE_RUNTIME_VENV)/.ready  ## run the tests against tflite-runtime 2.14.0
	EDGE_LSTM_TFLITE_RUNTIME_PYTHON=$(CURDIR)/$(TFLITE_RUNTIME_VENV)/bin/python $(PYTEST) -m tflite_runtime

test-tflm-2026-08: $(VENV)/.ready $(TFLM_2026_08_VENV)/.ready  ## run the tests against TFLite Micro of August 2026
	EDGE_LSTM_TFLM_2026_08_PYTHON=$(CURDIR)/$(TFLM_2026_08_VENV)/bin/python $(PYTEST) -m tflm_2026_08

install-everything: $(VENV)/.everything  ## add PyTorch, TFLite Micro and the other engines that tests can use

clean:  ## remove builds, caches and the demo's output (to set up again: rm -r .venv*)
	rm -rf build dist demo-output .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find edge_lstm converters firmware_sim benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

# $(call install,ENVIRONMENT,WHAT). The environments are made --without-pip and filled by the pip
# outside: works where Debian left ensurepip out (no python3-venv). pip has --python from 22.3 on;
# an older one puts a newer one into the environment.
install = if $(PYTHON) -m pip --python $(1)/bin/python --version >/dev/null 2>&1; then \
	  $(PYTHON) -m pip --disable-pip-version-check --python $(1)/bin/python install --quiet $(2); \
	else \
	  $(PYTHON) -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=22.3' \
	    --target "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" && \
	  $(1)/bin/python -m pip --disable-pip-version-check install --quiet $(2); \
	fi

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: $(PYTHON) is not Python 3.10 or later; name one that is: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || \
	  { echo "make: $(PYTHON) has no pip; install it (Debian: apt install python3-pip)" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; a minute or two)"
	@$(PYTHON) -m venv --without-pip $(VENV)
	@$(call install,$(VENV),-c constraints.txt -e '.[dev]')
	@touch $@

$(VENV)/.everything: $(VENV)/.ready
	@echo "Adding to $(VENV): $(EVERYTHING)"
	@$(call install,$(VENV),-c constraints.txt $(EVERYTHING))
	@touch $@

$(TFLITE_RUNTIME_VENV)/.ready:
	@echo "Setting up $(TFLITE_RUNTIME_VENV) (once)"
	@for python in $(TFLITE_RUNTIME_PYTHON); do \
	  if $$python -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 12))' 2>/dev/null; then \
	    exec $$python -m venv --without-pip $(TFLITE_RUNTIME_VENV); \
	  fi; \
	done; \
	echo "make: tflite-runtime 2.14.0 needs Python 3.9 to 3.11, and none of these is one: $(TFLITE_RUNTIME_PYTHON);" \
	  "name one: make TFLITE_RUNTIME_PYTHON=/path/to/python3.11 test-tflite-runtime" >&2; exit 1
	@$(call install,$(TFLITE_RUNTIME_VENV),tflite-runtime==2.14.0 numpy==1.26.4)
	@touch $@

$(TFLM_2026_08_VENV)/.ready:
	@echo "Setting up $(TFLM_2026_08_VENV) (once)"
	@for python in $(TFLM_2026_08_PYTHON); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null; then \
	    exec $$python -m venv --without-pip $(TFLM_2026_08_VENV); \
	  fi; \
	done; \
	echo "make: tflite-micro 0.dev20260820164721 needs Python 3.13 or later, and none of these is one:" \
	  "$(TFLM_2026_08_PYTHON); name one: make TFLM_2026_08_PYTHON=/path/to/python3.13 test-tflm-2026-08" >&2; exit 1
	@$(call install,$(TFLM_2026_08_VENV),tflite-micro==0.dev20260820164721)
	@touch $@
