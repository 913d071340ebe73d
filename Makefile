# The two targets a newcomer needs are `make demo` and `make test`; both start from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo half test test-search test-slow resolve lint types docs wheel-check benchmarks clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lean: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.lean
	$(PIP) -e '.[train,onnxruntime,dev]'
	@touch $@

# Cellpose and StarDist without their dependencies: what is measured of Cellpose needs those of the
# extra, see pyproject.toml, and of StarDist what cellrt has.
$(VENV)/.benchmarks: $(VENV)/.dev
	$(PIP) -e '.[benchmarks,precision]'
	$(PIP) --no-deps cellpose stardist csbdeep six
	@touch $@

demo: $(VENV)/.lean
	$(BIN)/cellrt simulate nuclei -o demo --count 1 --shape 64 192 192 --seed 7 --overwrite
	$(BIN)/cellrt segment demo/nuclei_000.tif --model nuclei --overwrite
	@echo
	@echo "Open demo/nuclei_000.preview.png to see the cells, demo/nuclei_000.labels.tif in Fiji or napari,"
	@echo "demo/nuclei_000.cells.csv for one row per cell. How well it did against the simulated truth:"
	@$(BIN)/cellrt evaluate demo/nuclei_000.labels.tif demo/nuclei_000.truth.tif

# After the weights of a bundled model changed: its fp16 file anew, if it finds the same cells.
half: $(VENV)/.dev
	for model in $(filter-out %.fp16.onnx,$(wildcard cellrt/zoo/*.onnx)); do \
	  $(BIN)/cellrt export $$model --precision fp16 --overwrite || exit; \
	done

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# Examples that the tests do not draw each time, others with each run.
test-search: $(VENV)/.dev
	$(BIN)/python -m pytest -m "hypothesis and not slow" --hypothesis-profile search

# Whether every extra can be installed on every Python and processor; skips without a package index.
resolve: $(VENV)/.dev
	$(BIN)/python -m pytest -m index tests/test_extras.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy cellrt

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel-check:
	PYTHON=$(PYTHON) bash .ci/wheel-check

# Each line makes the page that names it, on a machine that does nothing else. About 6 hours on two
# cores: the figures that depend on time 1.5, accuracy and robustness 2, trainings for ablation 2. The last ends with
# an error where bf16 on this CPU finds other cells than fp32.
benchmarks: $(VENV)/.benchmarks
	$(BIN)/python benchmarks/first_run.py
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/end_to_end.py membranes-3dcellseg --coarser 1.2 --repeats 1
	$(BIN)/python benchmarks/end_to_end.py nuclei-harmonicnet
	$(BIN)/python benchmarks/end_to_end.py nuclei-stardist
	$(BIN)/python benchmarks/network.py
	$(BIN)/python benchmarks/decoder.py
	$(BIN)/python benchmarks/star_decoder.py
	$(BIN)/python benchmarks/tascan.py
	$(BIN)/python benchmarks/footprint.py
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/empty_wells.py
	$(BIN)/python benchmarks/fields.py
	$(BIN)/python benchmarks/along_z.py
	$(BIN)/python benchmarks/halo.py
	$(BIN)/python benchmarks/mean_shift.py
	$(BIN)/python benchmarks/images.py
	$(BIN)/python benchmarks/ceiling.py
	$(BIN)/python benchmarks/boxplots.py
	$(BIN)/python benchmarks/when_shapes.py
	$(BIN)/python benchmarks/robustness.py
	$(BIN)/python benchmarks/confidence.py
	$(BIN)/python benchmarks/ablation.py
	$(BIN)/python benchmarks/embeddings.py
	$(BIN)/python benchmarks/gpu.py --cpu

clean:
	rm -rf $(VENV) demo site build dist
