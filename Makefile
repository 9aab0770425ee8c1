# SPDX-License-Identifier: Apache-2.0
# make demo    the main job on a real image, from nothing
# make check   all tests, lint and types
# make bench   the benchmarks
PY := .venv/bin/python
CTEST := ctest --output-on-failure --no-tests=error -j2

SOAK := soak-crash soak-nodes soak-fault soak-kill

.PHONY: help demo check bench soak $(SOAK) setup lint types test test-c test-asan test-tsan \
	test-python test-wheel clean

help:
	@echo "make demo   import an image, clone it 1,000 times, use two clones over NBD"
	@echo "make check  all tests, lint and types"
	@echo "make bench  the benchmarks, against qemu-nbd and nbdkit"
	@echo "make soak   the random tests for much longer"
	@echo "make clean  remove what was built here"

demo:
	@scripts/setup.sh demo
	@$(PY) scripts/demo.py

bench:
	@scripts/setup.sh check
	@$(PY) -m benchmarks.run

# Every part runs to its end, two at a time.
soak: setup
	@$(MAKE) --no-print-directory --keep-going -j2 $(SOAK)
	@echo "soak: all passed"

soak-nodes: export NODES_ROUNDS ?= 1000
soak-nodes: TESTS = tests/nodes
soak-crash: export CRASH_STATES ?= 200000
soak-crash: export CRASH_PER_WORKLOAD ?= 5000
soak-crash: TESTS = tests/crash
soak-fault: export FAULT_ALL ?= 1
soak-fault: TESTS = tests/fault
soak-kill: export KILL_ROUNDS ?= 100
soak-kill: TESTS = tests/integration

$(SOAK):
	@mkdir -p build/soak
	@echo "$@: begun, see build/soak/$@.log"
	@$(PY) -m pytest -q -s $(TESTS) >build/soak/$@.log 2>&1 || \
		{ tail -n 40 build/soak/$@.log; echo "$@: failed"; false; }
	@echo "$@: $$(tail -n 1 build/soak/$@.log)"

check: setup lint types test
	@echo "check: all passed"

setup:
	@scripts/setup.sh check

lint:
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	find src tests benchmarks \( -name '*.c' -o -name '*.h' \) -print0 | \
		xargs -0 clang-format --dry-run -Werror

types:
	$(PY) -m mypy

test: test-c test-asan test-tsan test-python test-wheel

test-c:
	cmake -S . -B build/c -G Ninja -DARCHIPELAGO_WERROR=ON
	cmake --build build/c
	$(CTEST) --test-dir build/c

test-asan:
	cmake -S . -B build/asan -G Ninja -DARCHIPELAGO_SANITIZE=address,undefined
	cmake --build build/asan
	$(CTEST) --test-dir build/asan

test-tsan:
	cmake -S . -B build/tsan -G Ninja -DARCHIPELAGO_SANITIZE=thread
	cmake --build build/tsan
	$(CTEST) --test-dir build/tsan

test-python:
	$(PY) -m pytest -q

test-wheel:
	scripts/test-wheel.sh

clean:
	rm -rf build .venv dist *.egg-info xseg/_lib
	find xseg archipelago -name '*.so' -delete
