# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make run     core install only, then the main job: the video pipeline with and without energy
#   make test    full install, lint, then every test
# and while you work:
#   make check   lint and the fast tests, under a minute on two cores
#   make long    every test, those on random cases with SEEDS seeds each
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs
ENERGY_WEIGHT ?= 2

SEEDS ?= 500

.PHONY: run test check long coverage lint bench schema clean

run: $(VENV)/.core
	rm -rf $(RUNS)/video-ipa $(RUNS)/video-energy
	$(BIN)/ipa-energy run configs/video.yaml --energy-weight 0 --out $(RUNS)/video-ipa --quiet
	$(BIN)/ipa-energy run configs/video.yaml --energy-weight $(ENERGY_WEIGHT) --out $(RUNS)/video-energy --quiet
	$(BIN)/ipa-energy compare $(RUNS)/video-ipa $(RUNS)/video-energy --html $(RUNS)/video.html --png $(RUNS)/video-png

test: lint
	$(BIN)/pytest -n auto

check: lint
	$(BIN)/pytest -n auto -m "not slow"

long: lint
	IPA_ENERGY_SEEDS=$(SEEDS) $(BIN)/pytest -n auto

coverage: $(VENV)/.dev
	$(BIN)/pytest -n auto --cov --cov-report term:skip-covered

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python experiments/benchmarks/decision_time.py
	$(BIN)/python experiments/benchmarks/front_time.py
	$(BIN)/python experiments/benchmarks/simulation_speed.py
	$(BIN)/python experiments/benchmarks/startup_time.py
	$(BIN)/python experiments/benchmarks/meter_overhead.py
	$(BIN)/python experiments/benchmarks/report_time.py

schema: $(VENV)/.core
	$(BIN)/python -m ipa_energy.config > configs/pipeline.schema.json

clean:
	rm -rf $(VENV) $(RUNS) build *.egg-info

# uv installs the same packages several times faster; pip does it where uv cannot be had.
define install
	$(BIN)/python -m pip install --quiet --upgrade uv && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable "$(1)" || \
	$(BIN)/python -m pip install --quiet --editable "$(1)"
endef

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python pyproject.toml
	$(call install,.)
	touch $@

$(VENV)/.dev: $(VENV)/.core pyproject.toml
	$(call install,.[dev$(comma)video$(comma)nvml$(comma)accuracy])
	touch $@

comma := ,
