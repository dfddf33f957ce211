# Every target that needs the environment creates it first. `make` alone lists the targets.

PYTHON ?= python3
PAPER_PYTHON ?= $(PYTHON)
EXTRAS ?= test
SCALE ?= quick
SEED ?= 0
VENV := .venv
BIN := $(VENV)/bin
EMPTY :=
COMMA := ,
LIST := $(subst $(EMPTY) ,$(COMMA),$(strip test $(filter-out test,$(subst $(COMMA), ,$(EXTRAS)))))
STAMP := $(VENV)/installed-$(subst $(COMMA),-,$(LIST))
MOCK_STAMP := $(VENV)/installed-test-mock
BENCH_STAMP := $(VENV)/installed-test-mock-bench
MOCK = $(BIN)/cast-lens mock $(MOCK_OPTIONS)
MOCK_OPTIONS = --seed $(SEED) $(if $(N),--n $(N)) $(if $(QUIRKS),--quirks) \
    $(if $(TELESCOPE),--telescope $(TELESCOPE)) $(if $(POPULATION),--population $(POPULATION)) \
    $(if $(WORKERS),--workers $(WORKERS))
OPTIONS = --scale $(SCALE) --seed $(SEED) $(if $(DATA),--data '$(DATA)') \
    $(if $(EXPERIMENT),--experiment '$(EXPERIMENT)') $(if $(RESTART),--restart) $(if $(REAL),--real)
SHARED = $(if $(JOBS),--jobs $(JOBS)) $(if $(DASK),--dask '$(DASK)') $(if $(SLURM),--slurm)
PAPERS := active_learning sglc2 deeplense epfl nottingham

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help env reproduce table report test test-all bench bench-gpu parity assumptions lint format clean \
    reproduce-active-learning reproduce-sglc2 reproduce-deeplense reproduce-epfl reproduce-nottingham \
    data-active-learning verify-weights \
    mock-sglc2 mock-sglc1-space mock-sglc1-ground mock-deeplense mock-check \
    data-sglc1-space data-sglc1-ground data-sglc2 check-data pack weights-sglc2

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 28
	@echo "variables: SCALE=quick|hour|paper DATA=path EXPERIMENT=name SEED=n RESTART=1 REAL=1 EXTRAS=gpu,mock,..."
	@echo "of reproduce-*, but active-learning: JOBS=processes DASK=address|local SLURM=1"
	@echo "of reproduce-sglc2, -epfl and -nottingham: INIT=imagenet|random, released for the first two"
	@echo "of reproduce-sglc2: PRECISION=bfloat16, for GPUs"
	@echo "of check-data and pack: DATA=folder DTYPE=float32|float16; of bench: BENCH='fits pack'"
	@echo "of mock-*: N=objects SEED=n QUIRKS=1 TELESCOPE=challenge|in-flight POPULATION=challenge|collett WORKERS=n"

env: $(STAMP)  ## make the environment in .venv; EXTRAS=mock,fast,cluster,jax,torch,gpu,jax_gpu

# installed-test-mock has the extras test and mock, and so what needs installed-test.
$(VENV)/installed-%: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e '.[$(subst -,$(COMMA),$*)]'
	touch $(VENV)/installed-test $@

reproduce: $(addprefix reproduce-,$(subst _,-,$(PAPERS)))  ## re-run every paper that is here

reproduce-active-learning: $(STAMP)  ## re-run Li, Eadie & Walmsley (2025), ends with the table
	$(BIN)/python -m reproductions active_learning $(OPTIONS)

reproduce-sglc2: $(MOCK_STAMP)  ## re-run Bom et al. (2022), ends with the table; SCALE=calibration for how hard its images are
	$(BIN)/python -m reproductions sglc2 $(OPTIONS) $(if $(INIT),--init $(INIT)) \
	    $(if $(PRECISION),--precision $(PRECISION)) $(SHARED)

reproduce-deeplense: $(MOCK_STAMP)  ## re-run Aryal (2025), both tasks; SCALE=diagnosis for why Task 1 failed
	$(BIN)/python -m reproductions deeplense $(OPTIONS) $(SHARED)

reproduce-epfl: $(MOCK_STAMP)  ## re-run Saied, Syvis & Crettenand (2019), ends with the table and a verdict
	$(BIN)/python -m reproductions epfl $(OPTIONS) $(if $(INIT),--init $(INIT)) $(SHARED)

reproduce-nottingham: $(MOCK_STAMP)  ## re-run Gabe (2022), ends with the table
	$(BIN)/python -m reproductions nottingham $(OPTIONS) $(if $(INIT),--init $(INIT)) $(SHARED)

data-active-learning: $(STAMP)  ## download and verify the data of Li, Eadie & Walmsley (2025)
	$(BIN)/python -m reproductions active_learning --real --data-only $(if $(DATA),--data '$(DATA)')

data-sglc1-space: $(STAMP)  ## download, verify, unpack, check and pack the I SGLC, space track; DATA=path
	$(BIN)/cast-lens data sglc1-space $(if $(DATA),--data '$(DATA)')

data-sglc1-ground: $(STAMP)  ## download, verify, unpack, check and pack the I SGLC, ground track; DATA=path
	$(BIN)/cast-lens data sglc1-ground $(if $(DATA),--data '$(DATA)')

data-sglc2: $(STAMP)  ## download (19 GB), verify, unpack, check and pack the II SGLC; DATA=path
	$(BIN)/cast-lens data sglc2 $(if $(DATA),--data '$(DATA)')

check-data: $(STAMP)  ## look at a survey before training on it: DATA=folder
	$(BIN)/cast-lens check-data $(if $(DATA),'$(DATA)')

pack: $(STAMP)  ## a survey as memory-mapped arrays, with the audit: DATA=folder DTYPE=float32|float16
	$(BIN)/cast-lens pack $(if $(DATA),'$(DATA)') $(if $(DTYPE),--dtype $(DTYPE)) $(if $(RESTART),--restart)

mock-sglc2: $(MOCK_STAMP)  ## write a stand-in II SGLC: N=20000 QUIRKS=1 ...
	$(MOCK) sglc2

mock-sglc1-space: $(MOCK_STAMP)  ## write a stand-in I SGLC, space track
	$(MOCK) sglc1-space

mock-sglc1-ground: $(MOCK_STAMP)  ## write a stand-in I SGLC, ground track
	$(MOCK) sglc1-ground

mock-deeplense: $(MOCK_STAMP)  ## write stand-ins of both DeepLense tasks
	$(MOCK) deeplense1
	$(MOCK) deeplense2

mock-check: $(MOCK_STAMP)  ## compare a stand-in survey with published facts: DATA=folder
	$(BIN)/cast-lens mock-check $(if $(DATA),'$(DATA)')

table: $(STAMP)  ## gather all runs into reproduced.csv, TABLE.md and the README
	$(BIN)/cast-lens table --write

report: $(STAMP)  ## one self-contained HTML page of every number and conclusion
	$(BIN)/cast-lens report

test: $(STAMP)  ## the tests that need neither GPU nor network, under three minutes
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: $(STAMP)  ## all tests but those for a GPU and for the papers' own libraries
	$(BIN)/python -m pytest -m "not gpu and not parity"

bench: $(BENCH_STAMP)  ## measure speed and memory, as ratios; BENCH="fits pack" for these alone
	$(BIN)/python -m tests.benchmarks $(BENCH)

bench-gpu: $(STAMP)  ## objects a second on an NVIDIA GPU, every backend, beside timm; GPU='--budget 600'
	$(BIN)/python -m tests.benchmarks.bench_gpu $(GPU)

parity: $(STAMP) .venv-paper/installed  ## hold what we wrote ourselves against the papers' libraries
	.venv-paper/bin/python tests/parity/originals.py .venv-paper/originals.npz
	$(BIN)/python -m pytest -m parity

weights-sglc2: $(STAMP) .venv-paper/installed  ## download the networks Bom et al. published, as arrays; DATA=archive or folder
	$(BIN)/python weights/get_sglc2.py $(if $(DATA),--data '$(DATA)')

TESTED := mock-sglc2-seed2

verify-weights: $(MOCK_STAMP)  ## measure the released weights again, against their cards
	$(BIN)/cast-lens mock --seed 2 --n 2000 sglc2
	$(BIN)/cast-lens pack data/$(TESTED) --output runs/packs/$(TESTED)-pack
	$(BIN)/python weights/release_sglc2.py --verify runs/packs/$(TESTED)-pack
	$(BIN)/python weights/release_sglc1.py --verify
	$(BIN)/python weights/release_deeplense.py --verify
	$(BIN)/python weights/release_nottingham.py --verify

.venv-paper/installed: requirements-paper.txt
	$(PAPER_PYTHON) -m venv .venv-paper
	.venv-paper/bin/python -m pip install --progress-bar on -r requirements-paper.txt
	touch $@

assumptions: $(STAMP)  ## list what no paper says and we had to assume
	@$(BIN)/cast-lens assumptions

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff order and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove environments and caches, keep runs
	rm -rf $(VENV) .venv-paper .pytest_cache .mypy_cache .ruff_cache build *.egg-info
