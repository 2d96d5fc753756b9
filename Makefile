# Three commands do everything on a fresh machine with Python 3.11 or newer:
#   make run     light install, then the main job: the video pipeline and measured edge boards, with
#                and without energy
#   make live    real models on this machine: installs PyTorch and a model server, then 2 × 3 minutes
#                of load, without and with energy (LIVE_SECONDS=60 for less)
#   make test    full install, lint, the documentation, then every test
# and while you work:
#   make check   lint and the fast tests: none that measures, serves or draws
#   make long    every test, those on random cases with SEEDS seeds each
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs
ENERGY_WEIGHT ?= 2
BOARDS_ENERGY_WEIGHT ?= 20

LIVE_SECONDS ?= 180
LIVE_PIPELINE ?= configs/video-live.yaml
LIVE_BACKEND ?= local

SEEDS ?= 500

# Half as many again as there are cores: half of a test's time is waiting, for servers and clocks.
WORKERS ?= $(shell echo $$(( ($$(nproc) * 3 + 1) / 2 )))

# A test file is one worker's, so that what its tests share is made once; the longest begin (conftest.py).
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

.PHONY: run live test check long coverage lint docs bench schema constraints clean

run: $(VENV)/.light
	@echo "make run: 20 minutes of load on two pipelines, simulated without and with energy, and what that saves"
	@echo "against the best other weights, for which each is simulated at some sixty: once, a minute of processor time"
	rm -rf $(RUNS)/video-ipa $(RUNS)/video-energy
	$(BIN)/ipa-energy run configs/video.yaml --energy-weight 0 --out $(RUNS)/video-ipa --quiet
	$(BIN)/ipa-energy run configs/video.yaml --energy-weight $(ENERGY_WEIGHT) --out $(RUNS)/video-energy --quiet
	$(BIN)/ipa-energy compare $(RUNS)/video-ipa $(RUNS)/video-energy --html $(RUNS)/video.html --png $(RUNS)/video-png
	rm -rf $(RUNS)/boards-ipa $(RUNS)/boards-energy
	$(BIN)/ipa-energy run configs/boards.yaml --out $(RUNS)/boards-ipa --quiet
	$(BIN)/ipa-energy run configs/boards.yaml --energy-weight $(BOARDS_ENERGY_WEIGHT) --out $(RUNS)/boards-energy --quiet
	$(BIN)/ipa-energy compare $(RUNS)/boards-ipa $(RUNS)/boards-energy --html $(RUNS)/boards.html

live: $(VENV)/.live
	$(BIN)/python experiments/live/first_run.py --pipeline $(LIVE_PIPELINE) --backend $(LIVE_BACKEND) \
	    --seconds $(LIVE_SECONDS) --out $(RUNS)

test: lint docs
	$(PYTEST)

check: lint
	$(PYTEST) -n auto -m "not slow"

long: lint
	IPA_ENERGY_SEEDS=$(SEEDS) $(PYTEST)

coverage: $(VENV)/.dev
	$(PYTEST) --cov --cov-report term:skip-covered

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev
	$(BIN)/python experiments/benchmarks/decision_time.py
	$(BIN)/python experiments/benchmarks/front_time.py
	$(BIN)/python experiments/benchmarks/simulation_speed.py
	$(BIN)/python experiments/benchmarks/startup_time.py
	$(BIN)/python experiments/benchmarks/meter_overhead.py
	$(BIN)/python experiments/benchmarks/report_time.py

schema: $(VENV)/.light
	$(BIN)/ipa-energy schema > configs/pipeline.schema.json

clean:
	rm -rf $(VENV) $(RUNS) build site *.egg-info

# uv installs the same packages several times faster; pip does it where uv cannot be had.
define install
	$(BIN)/python -m pip install --quiet --upgrade uv && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable "$(1)" $(2) || \
	$(BIN)/python -m pip install --quiet --editable "$(1)" $(2)
endef

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The core, and what draws the report; not gurobi, torch (docs/install.md).
$(VENV)/.light: $(VENV)/bin/python pyproject.toml
	@echo "installs ipa-energy and what draws its reports into $(VENV), 340 MB, once"
	$(call install,.[report])
	touch $@

# What serves real models; says before it begins what that means.
$(VENV)/.live: $(VENV)/.light pyproject.toml constraints.txt
	@echo "make live: installs what is missing of PyTorch, ultralytics (AGPL-3.0) and MLServer: with the CUDA"
	@echo "libraries of PyPI's PyTorch about 4 GB to download and 7 GB on disk, 5 to 15 minutes, once; a"
	@echo "PyTorch that is there already stays. No weights and no pictures are downloaded."
	$(call install,.[report$(comma)serve$(comma)video],--constraint constraints.txt)
	touch $@

$(VENV)/.dev: $(VENV)/.light pyproject.toml constraints.txt
	$(call install,.[$(EVERYTHING)],--constraint constraints.txt)
	touch $@

comma := ,
EVERYTHING := all$(comma)dev$(comma)docs$(comma)video$(comma)audio$(comma)serve$(comma)kubernetes$(comma)accuracy

# The versions that make test installs, found anew.
constraints: $(VENV)/.light
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --no-header --no-annotate \
	    --no-emit-index-url --upgrade $(foreach extra,$(subst $(comma), ,$(EVERYTHING)),--extra $(extra)) \
	    --quiet --output-file constraints.txt
