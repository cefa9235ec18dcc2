# run, test, check, bench: see README.md. Everything is set up as needed, in .venv and target/.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3; do \
  if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
# Processes that run tests of Python's beside each other; those of a file stay together.
JOBS ?= 2
# With $(MAKE) in its line a recipe is carried out by `make -n`, too.
AGAIN := $(MAKE)
RUST_SOURCES := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

.PHONY: run test test-python test-all check bench setup all-setup fuzz format clean packages test-real-xen

run: setup
	$(BIN)/python tools/make_run.py

# What has never been built is built without what a second build would use: an eighth less of processor time.
test: all-setup
	$(if $(wildcard target/debug/incremental),,CARGO_INCREMENTAL=0) \
	tools/beside.sh 'cargo test --workspace --exclude domzero-machine-py --quiet' $(AGAIN) --no-print-directory test-python

# The second run has what pytest has made of the tests' files in the first one, whatever the environment says.
test-python: all-setup
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q -n $(JOBS) --dist loadfile -m "not slow"
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q -n $(JOBS) -m "engines and not slow" --engine interpreter

test-all: all-setup
	DOMZERO_ORACLE_CASES=1000000 DOMZERO_FUZZ_SECONDS=60 cargo test --workspace --exclude domzero-machine-py --quiet
	DOMZERO_GUEST_FUZZ_SECONDS=60 DOMZERO_API_FUZZ_SECONDS=60 $(BIN)/pytest -q
	$(BIN)/pytest -q -m "guest or engines" --engine interpreter

# The suite on real Xen 4.17 under QEMU: minutes. XEN=xen.gz with CONFIG_PV32 adds the 32-bit guests; GUESTS names some.
test-real-xen:
	tools/real_xen.py --suite $(if $(XEN),--xen $(XEN)) $(GUESTS)

check: all-setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/pytest -q tests/style

bench: all-setup
	cargo run --quiet --release -p domzero-machine --example bench
	$(BIN)/python benchmarks/hypercalls.py
	$(BIN)/python benchmarks/lock_waits.py
	$(BIN)/python benchmarks/api_load.py
	$(BIN)/python benchmarks/xenstore_load.py
	$(BIN)/python benchmarks/hostile.py
	$(BIN)/python benchmarks/disks.py
	$(BIN)/python benchmarks/shares.py
	$(BIN)/python benchmarks/boot.py
	$(BIN)/python benchmarks/guest_rows.py
	$(BIN)/python benchmarks/translator.py
	$(BIN)/python benchmarks/networks.py

fuzz: all-setup
	DOMZERO_GUEST_FUZZ_SECONDS=$${SECONDS_TO_FUZZ:-3600} DOMZERO_FUZZ_SEED=$${SEED:-$$RANDOM} $(BIN)/pytest -q tests/guest/test_fuzz.py
	DOMZERO_FUZZ_SECONDS=$${SECONDS_TO_FUZZ:-3600} cargo test --release -p domzero-backends --test block_fuzz --test net_fuzz --test net_source --test p9_fuzz
	DOMZERO_FUZZ_SECONDS=$${SECONDS_TO_FUZZ:-600} cargo test --release -p domzero-usernet --test fuzz
	DOMZERO_API_FUZZ_SECONDS=$${SECONDS_TO_FUZZ:-600} DOMZERO_FUZZ_SEED=$${SEED:-$$RANDOM} $(BIN)/pytest -q -s tests/api/test_api_fuzz.py
	DOMZERO_MODEL_EXAMPLES=3000 $(BIN)/pytest -q --timeout 0 tests/property/hypervisor
	DOMZERO_FUZZ_SECONDS=$${SECONDS_TO_FUZZ:-3600} cargo test --release -p domzero-machine --test engine hostile -- --nocapture

format: all-setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --all

# What the demo needs, and what tests and checks need besides.
setup: packages $(VENV)/.built $(VENV)/.compiled

all-setup: setup $(VENV)/.dev $(VENV)/.promtool

# Debian packages that tests and the demo use; what is missing and cannot be installed is named.
packages:
	@tools/packages.sh

$(VENV)/.deps: pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.10 with venv found (apt-get install python3-venv)" >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/requirements.py > $(VENV)/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check "maturin>=1.7,<2" -r $(VENV)/requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.deps
	@$(BIN)/python tools/requirements.py dev > $(VENV)/requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r $(VENV)/requirements-dev.txt
	@touch $@

$(VENV)/.promtool: $(VENV)/.deps tools/promtool.sh
	@tools/promtool.sh $(abspath $(BIN)/promtool)
	@touch $@

$(VENV)/.built: $(VENV)/.deps $(RUST_SOURCES)
	@command -v cargo >/dev/null || { echo "error: cargo not found; install Rust >= 1.91 (https://rustup.rs)" >&2; exit 1; }
	@echo "building the machine (cargo, release; about a minute the first time)" >&2
	@env -u CONDA_PREFIX VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet
	@touch $@

# Whoever has set PYTHONDONTWRITEBYTECODE would else compile all modules again at each start: a tenth of a second.
$(VENV)/.compiled: $(VENV)/.built $(shell find domzero -name '*.py')
	@$(BIN)/python -m compileall -q domzero
	@touch $@

clean:
	rm -rf $(VENV) target domzero/*.so
