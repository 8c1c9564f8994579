# The front door. Everything is built by CMake presets into build/<preset>; `make setup` says what
# it installs and why, and a second run finds it done.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

JOBS ?= $(shell nproc)
DEMO_ARGS ?=
CLANG_FORMAT ?= $(firstword $(shell command -v clang-format clang-format-14) clang-format)
CLANG_TIDY ?= $(firstword $(shell command -v clang-tidy clang-tidy-14) clang-tidy)
DEMO := build/release/examples/trainers/mnist/mnist
OUR_CPP = $(shell git ls-files -co --exclude-standard '*.h' '*.cc')

.PHONY: help setup demo test bench lint tidy format asan tsan clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z ]+:.*## / { sub(/ /, "|", $$1); printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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
	@ctest --test-dir build/release --output-on-failure -j $(JOBS)

asan tsan: ## the part without LibTorch and its tests under a sanitizer
	@cmake/setup.sh run test
	@cmake --preset $@ -DMILLRACE_TESTS=ON
	@cmake --build build/$@ -j $(JOBS)
	@ctest --test-dir build/$@ --output-on-failure

bench: ## build and run the benchmarks; raw JSON goes to build/bench/results
	@cmake/setup.sh run bench
	@cmake --preset bench
	@cmake --build build/bench --target millrace_benchmarks -j $(JOBS)
	@mkdir -p build/bench/results
	@. build/deps/env.sh; shopt -s nullglob; \
	for program in build/bench/benchmarks/*; do \
	  name=$$(basename $$program); echo "== $$name"; \
	  $$program build/bench/results/$$name.json; \
	done

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
