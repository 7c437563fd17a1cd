# SPDX-License-Identifier: Apache-2.0
# The thin front of the project: Meson and Ninja build it, the scripts in scripts/ do the rest.
#   SANITIZE=1  build and check with ASan and UBSan, in build-asan/
#   WERROR=1    warnings are errors
.DEFAULT_GOAL := help
.PHONY: help all demo check bench bench-kernel sanitize threads fuzz live great install format clean deps
.NOTPARALLEL:
export SANITIZE WERROR

BUILD := build$(if $(SANITIZE),-asan)

help: ## this list
	@echo "NetStar: make GOAL"
	@sed -n 's/^\([a-z-]*\):.*## /\1 \t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 15 | sed 's/^/  /'

deps: ## install the missing Debian packages that building and checking need
	@scripts/deps build check

all: ## build the library, the netstar command, the tests
	@scripts/deps build
	@scripts/build $(BUILD)

demo: ## watch it work: real servers, live interfaces, an attack, a killed instance (under five minutes)
	@scripts/deps demo
	@/usr/bin/python3 scripts/demo

check: ## build and run every test; SANITIZE=1 and WERROR=1 as above
	@scripts/deps check
	@/usr/bin/python3 scripts/check

bench: ## measure ns per packet against a floor in plain DPDK; saves build/bench.json
	@scripts/deps bench
	@scripts/build build
	@/usr/bin/python3 bench/run build
	@/usr/bin/python3 bench/styles build

bench-kernel: ## nat, firewall and lb beside nftables on the same path: iperf3, nginx and wrk, eight minutes
	@scripts/deps bench
	@scripts/build build netstar
	@/usr/bin/python3 bench/kernel build

sanitize: ## make check with ASan and UBSan
	@$(MAKE) --no-print-directory check SANITIZE=1

# What crosses between cores. Whole NFs on several cores poll, and are too slow under TSan.
THREADED := runtime_call io_handoff

threads: ## the tests of calls and packets between cores, with TSan
	@scripts/deps check
	@THREADS=1 scripts/build build-tsan $(THREADED:%=tests/unit/%_test)
	@for t in $(THREADED); do TSAN_OPTIONS=halt_on_error=1 build-tsan/tests/unit/$${t}_test || exit 1; done

fuzz: ## run every fuzz target for a while (FUZZ_SECONDS=60)
	@scripts/deps fuzz
	@FUZZ=1 scripts/build build-fuzz
	@scripts/fuzz build-fuzz

live: ## real programs through an NF that edits, on two cores, for a minute (EDIT_SECONDS=60, EDIT_CORES=2)
	@scripts/deps check
	@scripts/build $(BUILD)
	@EDIT_SECONDS=$${EDIT_SECONDS:-60} NETSTAR_BUILD=$(CURDIR)/$(BUILD) /usr/bin/python3 -m pytest -q -s tests/live/test_edit_live.py

great: ## everything at once: a Redis cluster, two instances, 2000 connections, kills and pauses (GREAT_CONNECTIONS=2000, GREAT_NFS=nat,firewall,lb)
	@scripts/deps check
	@scripts/build $(BUILD)
	@GREAT_CONNECTIONS=$${GREAT_CONNECTIONS:-2000} NETSTAR_BUILD=$(CURDIR)/$(BUILD) /usr/bin/python3 -m pytest -q -s tests/live/test_great_live.py

install: ## install the library, its headers and the command (DESTDIR and PREFIX are respected)
	@scripts/deps build
	@scripts/build build
	@$(if $(PREFIX),meson configure build -Dprefix=$(PREFIX) &&) meson install -C build $(if $(DESTDIR),--destdir $(DESTDIR))

format: ## clang-format all sources in place
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean: ## remove what was built
	@rm -rf build build-asan build-tsan build-fuzz
