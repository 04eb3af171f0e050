# Everything that people and CI run. Each target does the same on a laptop as in CI; the steps are scripts in tools/.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help build dist demo test soak check figures mutants bench bench-instructions bench-check proto fmt clean

help:
	@echo "make build   build $(TARGET)/release/eastway"
	@echo "make dist    build $(TARGET)/dist/eastway for packages: it takes longer, and runs a little faster"
	@echo "make demo    build it and run two regions on this machine: zone loss, region loss, return"
	@echo "make test    everything: unit tests, end-to-end scenarios with real processes and a real etcd, rules"
	@echo "make soak    three clusters under faults drawn from seeds, for DURATION=1h, from SEED=1 on; needs root"
	@echo "make check   formatting, lints, documentation, licences"
	@echo "make mutants change the decision core in small ways, to see that its tests notice (hours; ARGS=--shard=0/12 samples)"
	@echo "make figures compute what the decision core must reach, try membership under faults, and measure a cluster's state: $(TARGET)/figures.json"
	@echo "make bench   measure Eastway beside Envoy, HAProxy and nginx (20 minutes; BENCH=quick: 5): $(TARGET)/bench/results.md"
	@echo "make bench-instructions  count instructions per request, beside tests/bench/instructions.json (CHECK=1, RECORD=1)"
	@echo "make proto   write the committed code of the wire contracts anew, and the etcd client's contract"
	@echo "make fmt     format the code"

build:
	$(CARGO) build --release --locked -p eastway-cli

dist:
	$(CARGO) build --profile dist --locked -p eastway-cli

demo: build
	$(TARGET)/release/eastway demo --report $(TARGET)/demo-report.json

test:
	tools/install-test-packages
	tools/run-tests

soak:
	tools/install-test-packages
	$(CARGO) build --release --locked -p eastway-cli
	EASTWAY_BIN=$(abspath $(TARGET))/release/eastway $(CARGO) run --locked -p eastway-tests --example soak -- $(or $(DURATION),1h) $(SEED)

check:
	tools/run-checks

mutants:
	tools/run-mutants $(ARGS)

figures:
	tools/install-test-packages
	mkdir -p $(TARGET)
	$(CARGO) build --release --locked -p eastway-cli
	$(CARGO) bench --locked -p eastway-simulation --bench figures -- --json $(abspath $(TARGET))/figures.json
	$(CARGO) bench --locked -p eastway-model --bench schedules -- --json $(abspath $(TARGET))/figures.json
	$(CARGO) bench --locked -p eastway-registry --bench scale
	EASTWAY_BIN=$(abspath $(TARGET))/release/eastway $(CARGO) bench --locked -p eastway-tests --bench fleet -- --json $(abspath $(TARGET))/figures.json

bench:
	tools/install-bench-packages
	tools/run-bench run $(if $(CHECK),--check) $(ARGS)

bench-instructions:
	tools/install-bench-packages
	tools/run-bench instructions $(if $(CHECK),--check) $(if $(RECORD),--record) $(ARGS)

bench-check:
	PYTHONPATH=tests/bench PYTHONDONTWRITEBYTECODE=1 python3 -m unittest discover --start-directory tests/bench --top-level-directory tests/bench

proto:
	$(CARGO) run --locked -p eastway-tests --example protogen

fmt:
	$(CARGO) fmt --all

clean:
	$(CARGO) clean
