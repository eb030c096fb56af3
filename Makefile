# make demo   watch a simulated WidowX in one scene, with the plain policy and steered
# make test   every test of every package
# Everything stays inside this folder; `make clean` removes it again.
SHELL := /bin/bash
ACTIVATE := . vgps_bringup/workspace/activate.sh
.DEFAULT_GOAL := help

.PHONY: help setup demo test test-fast test-long test-lowest test-newest style lint lock bench clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## install into .venv and build (both only when something changed)
	@vgps_bringup/workspace/setup.sh
	@$(ACTIVATE) && python vgps_bringup/workspace/bytecode.py

demo: setup ## the same seed with the plain policy and steered, recorded, with a report
	@$(ACTIVATE) && vgps-demo

test: setup style ## style, imports and every test but those of test-long; needs no network and no robot
	@$(ACTIVATE) && vgps_bringup/workspace/test.sh

test-fast: setup ## the tests that need neither ROS nor patience
	@$(ACTIVATE) && vgps_bringup/workspace/test.sh fast

test-long: setup ## the tests that take minutes each: killed and hung nodes, the fuzzer, a study killed and resumed
	@$(ACTIVATE) && vgps_bringup/workspace/test.sh long

test-lowest test-newest: test-%: ## the fast tests, without ROS, with the lowest or the newest versions that are allowed
	@vgps_bringup/workspace/other_versions.sh $*

lock: setup ## resolve the newest versions for every supported set into workspace/requirements/locked
	@vgps_bringup/workspace/lock.sh

style: setup ## ruff over the whole workspace, and who may import whom
	@$(ACTIVATE) && ruff check --quiet . && echo "ruff: clean"
	@$(ACTIVATE) && { out=$$(lint-imports --no-cache 2>&1) && echo "imports: clean" || { echo "$$out"; exit 1; }; }

# apart from the tests: every release of numpy brings other types, and a stranger's tests must not fail by them
lint: style ## style, and the types of what runs on the robot
	@$(ACTIVATE) && { out=$$(mypy 2>&1) && echo "types: clean" || { echo "$$out"; exit 1; }; }

bench: setup ## the benchmarks the README quotes
	@$(ACTIVATE) && vgps_bringup/workspace/bench.sh

clean: ## remove everything that was made
	rm -rf .venv .venv-lowest .venv-newest build install log runs .pytest_cache .ruff_cache .mypy_cache .hypothesis
