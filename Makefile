# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make run     light install, then the main job: the video pipeline and measured edge boards, with
#                and without energy
#   make test    full install, lint, the documentation, then every test
# and while you work:
#   make check   lint and the fast tests, under a minute on two cores
#   make long    every test, those on random cases with SEEDS seeds each
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs
ENERGY_WEIGHT ?= 2
BOARDS_ENERGY_WEIGHT ?= 20

SEEDS ?= 500

.PHONY: run test check long coverage lint docs bench schema constraints clean

run: $(VENV)/.light
	rm -rf $(RUNS)/video-ipa $(RUNS)/video-energy
	$(BIN)/ipa-energy run configs/video.yaml --energy-weight 0 --out $(RUNS)/video-ipa --quiet
	$(BIN)/ipa-energy run configs/video.yaml --energy-weight $(ENERGY_WEIGHT) --out $(RUNS)/video-energy --quiet
	$(BIN)/ipa-energy compare $(RUNS)/video-ipa $(RUNS)/video-energy --html $(RUNS)/video.html --png $(RUNS)/video-png
	rm -rf $(RUNS)/boards-ipa $(RUNS)/boards-energy
	$(BIN)/ipa-energy run configs/boards.yaml --out $(RUNS)/boards-ipa --quiet
	$(BIN)/ipa-energy run configs/boards.yaml --energy-weight $(BOARDS_ENERGY_WEIGHT) --out $(RUNS)/boards-energy --quiet
	$(BIN)/ipa-energy compare $(RUNS)/boards-ipa $(RUNS)/boards-energy --html $(RUNS)/boards.html

test: lint docs
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
	$(call install,.[report])
	touch $@

$(VENV)/.dev: $(VENV)/.light pyproject.toml constraints.txt
	$(call install,.[$(EVERYTHING)],--constraint constraints.txt)
	touch $@

comma := ,
EVERYTHING := all$(comma)dev$(comma)docs$(comma)video$(comma)audio$(comma)serve$(comma)accuracy

# The versions that make test installs, found anew.
constraints: $(VENV)/.light
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --no-header --no-annotate \
	    --no-emit-index-url --upgrade $(foreach extra,$(subst $(comma), ,$(EVERYTHING)),--extra $(extra)) \
	    --quiet --output-file constraints.txt
