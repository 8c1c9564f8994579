# The front door. Everything is built by CMake presets into build/<preset>; `make setup` says what
# it installs and why, and a second run finds it done.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

JOBS ?= $(shell nproc)
DEMO_ARGS ?=
ONLY ?=
RESULTS := build/bench/results
FUZZ_SECONDS ?= 60
# The time limit of a stress test's share: a run that hangs fails while the rest can still run.
STRESS_SECONDS := 600
CLANG_FORMAT ?= $(firstword $(shell command -v clang-format clang-format-14) clang-format)
CLANG_TIDY ?= $(firstword $(shell command -v clang-tidy clang-tidy-14) clang-tidy)
DEMO := build/release/examples/trainers/mnist/mnist
WITH_COUNTS = awk -v tests=build/release/Testing/Temporary/LastTest.log \
  -f tests/support/with_stress_counts.awk
OUR_CPP = $(shell git ls-files -co --exclude-standard '*.h' '*.cc' '*.cu')

.PHONY: help setup demo test stress fuzz cpu bench gpu-test gpu-bench lint tidy format asan tsan clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## / { sub(/ /, "|", $$1); printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building, testing and the examples need
	@cmake/setup.sh run test

demo: ## train on 5,000 MNIST digits (DEMO_ARGS="..." is passed on)
	@cmake/setup.sh run
	@cmake --preset release --log-level=WARNING
	@cmake --build build/release --target mnist -j $(JOBS)
	@. build/deps/env.sh && $(DEMO) $(DEMO_ARGS)

test: ## build everything and run all tests
	@cmake/setup.sh run test
	@cmake --preset release -DMILLRACE_TESTS=ON
	@cmake --build build/release -j $(JOBS)
	@ctest --test-dir build/release --output-on-failure -j $(JOBS) \
	  --timeout $(STRESS_SECONDS) | $(WITH_COUNTS)

stress: ## the whole of the stress tests, of which `make test` runs a share (hours)
	@cmake/setup.sh run test
	@cmake --preset release -DMILLRACE_TESTS=ON --log-level=WARNING
	@cmake --build build/release -j $(JOBS)
	@MILLRACE_STRESS=1 ctest --test-dir build/release --output-on-failure -L stress \
	  --timeout 20000 | $(WITH_COUNTS)

fuzz: ## libFuzzer on every decoder, FUZZ_SECONDS (60) each; what breaks one stays in build/fuzz/found
	@cmake/setup.sh run fuzz
	@cmake --preset fuzz
	@cmake --build build/fuzz --target millrace_fuzzers -j $(JOBS)
	@failed=0; for corpus in tests/fuzz/corpus/*; do \
	  what=$$(basename $$corpus); echo "== fuzz_$$what"; \
	  mkdir -p build/fuzz/found/$$what build/fuzz/grown/$$what; \
	  build/fuzz/tests/fuzz/fuzz_$$what -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/found/$$what/ build/fuzz/grown/$$what $$corpus || failed=1; \
	done; exit $$failed

asan tsan: ## the part without LibTorch and its tests under a sanitizer
	@cmake/setup.sh run test
	@cmake --preset $@ -DMILLRACE_TESTS=ON
	@cmake --build build/$@ -j $(JOBS)
	@ctest --test-dir build/$@ --output-on-failure -j $(JOBS) --timeout $(STRESS_SECONDS)

cpu: ## build everything as on a machine without CUDA; the trainer then refuses --device cuda
	@cmake/setup.sh run
	@cmake --preset cpu
	@cmake --build build/cpu -j $(JOBS)
	@. build/deps/env.sh; said=$$(build/cpu/examples/trainers/mnist/mnist --device cuda 2>&1 || true); \
	echo "$$said"; grep -q 'this build has no CUDA support' <<< "$$said"

gpu-test: ## build and run the tests that need a GPU; those that cannot run say why
	@cmake/setup.sh run test
	@cmake --preset release -DMILLRACE_TESTS=ON --log-level=WARNING
	@cmake --build build/release --target millrace_gpu_tests -j $(JOBS)
	@log=build/release/Testing/Temporary/LastTest.log; rm -f $$log; status=0; \
	ctest --test-dir build/release -L gpu --output-on-failure || status=$$?; \
	touch $$log; awk -f tests/support/gpu_summary.awk $$log; exit $$status

bench: ## build and run the benchmarks, then their table; ONLY=<name> runs one, BENCH_QUICK=1 is short
	@cmake/setup.sh run bench
	@cmake --preset bench
	@cmake --build build/bench --target millrace_benchmarks -j $(JOBS)
	@mkdir -p $(RESULTS) build/bench/tmp
	@. build/deps/env.sh; export TMPDIR=$$PWD/build/bench/tmp; failed=; \
	export MILLRACE_REVISION=$$(git describe --always --dirty 2>/dev/null); \
	for program in build/bench/benchmarks/* tests/bench/peers_*.py; do \
	  name=$$(basename $$program .py); [[ -z "$(ONLY)" || $$name == "$(ONLY)" ]] || continue; \
	  echo "== $$name"; rm -f $(RESULTS)/$$name.json; run=; \
	  [[ $$program != *.py ]] || run="$$MILLRACE_PYTHON -B"; \
	  $$run $$program $(RESULTS)/$$name.json || failed+=" $$name"; \
	done; \
	rm -rf $$TMPDIR; $$MILLRACE_PYTHON -B tests/bench/report.py $(RESULTS) || failed+=" report"; \
	[[ -z $$failed ]] || { echo "failed:$$failed"; exit 1; }

gpu-bench: ## on a GPU: snapshots against plain copies, and their overlap with training
	@cmake/setup.sh run test
	@cmake --preset release -DMILLRACE_TESTS=ON --log-level=WARNING
	@cmake --build build/release --target gpu_bench -j $(JOBS)
	@mkdir -p build/release/results
	@. build/deps/env.sh; build/release/tests/torch/gpu_bench build/release/results/gpu_bench.json

lint: ## layout, include arrows, names, and what GCC 12 miscompiles
	@cmake/setup.sh lint
	@failed=0; \
	for rule in include_rules style_rules co_await_rule; do \
	  echo "== $$rule"; python3 -B tests/lint/$$rule.py . || failed=1; done; \
	echo "== clang-format"; $(CLANG_FORMAT) --dry-run --Werror $(OUR_CPP) || failed=1; \
	exit $$failed

tidy: ## clang-tidy over the part without LibTorch (slow)
	@cmake/setup.sh run test lint
	@cmake --preset lean --log-level=WARNING
	@printf '%s\n' $(filter runtime/% events/% io/% hooks/%, \
	  $(filter-out runtime/torch/%, $(filter %.cc, $(OUR_CPP)))) | \
	  xargs -P $(JOBS) -n 1 $(CLANG_TIDY) --quiet -p build/lean \
	    --extra-arg=-DASIO_HAS_CO_AWAIT=1 --extra-arg=-DASIO_HAS_STD_COROUTINE=1 \
	    --extra-arg=-Wno-unknown-warning-option

format: ## lay out all sources
	@$(CLANG_FORMAT) -i $(OUR_CPP)

clean: ## remove build/; what set-up fetched stays in its shared folder
	@rm -rf build
