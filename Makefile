# Thin: each target is one command, or a script in deploy/. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The targets before another are its steps, one after the other; each uses all cores by itself.
.NOTPARALLEL:

export LLMFLEET_CACHE ?= $(HOME)/.cache/llm-fleet

# The lab's program, which also builds the Go tools that it needs.
LAB := cargo run --quiet --locked --package e2e --bin lab --
# The first build takes minutes, which nobody should watch in silence.
BUILD_LAB := cargo build --locked --package e2e --bin lab
# Helm of the lab's tools, built at the first use.
HELM_PATH = $$($(LAB) tools helm)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup-demo model images ## From nothing to a model that answers, on a cluster of its own (DEMO_EXIT=1: tear down, report)
	@$(LAB) demo

.PHONY: demo-down
demo-down: ## Remove what the demo made (with the same DEMO_CLUSTER)
	@$(LAB) demo --down

.PHONY: check
check: setup ## Format, lints, licences, generated files, documentation, tidiness
	@deploy/check.sh

.PHONY: deny
deny: ## Licences, bans and sources of all dependencies
	@deploy/deny.sh

.PHONY: test
test: setup-node tools model images ## Every test, with real components; the last line counts them
	@deploy/test.sh

.PHONY: upgrade
upgrade: setup-node tools model images ## Live models from another state (FROM=<git ref>) to this one and back
	@deploy/upgrade.sh "$(FROM)"

.PHONY: faults
faults: setup tools ## Kill the operator at each of its writes, fail its API server; target/reports/faults.json
	@deploy/faults.sh

.PHONY: conformance
conformance: setup-conformance model ## Clients' usual calls against the served model; target/reports/conformance.json
	@deploy/conformance.sh

.PHONY: bench
bench: setup-bench model ## Measure the runtime beside llama.cpp and mistral.rs (75 minutes; BENCH_QUICK=1: some); target/reports/bench.json
	@deploy/bench.sh bench

.PHONY: soak
soak: setup model ## Ten minutes of everything that clients do; target/reports/soak.json
	@deploy/bench.sh soak

.PHONY: oracle-smollm2
oracle-smollm2: setup model ## What SmolLM2 answers here against what llama.cpp says, into target/reports
	@cargo test --quiet --locked --workspace --test oracle -- --nocapture --test-threads 1

.PHONY: oracle-golden
oracle-golden: setup model ## Ask llama.cpp anew; building it takes a quarter of an hour
	@deploy/oracle-golden.sh

.PHONY: setup
setup: ## Install the Debian packages that are missing
	@deploy/setup.sh

# What is wanting to go on is said before anything is built: root for a node, settings for somebody's cluster.
.PHONY: setup-node setup-demo setup-bench setup-conformance
setup-conformance:
	@deploy/setup.sh conformance
setup-bench:
	@deploy/setup.sh bench
setup-node:
	@deploy/setup.sh root
setup-demo:
	@deploy/setup.sh $(if $(filter-out lab,$(DEMO_CLUSTER)),,root)
	@$(BUILD_LAB)
	@$(LAB) demo --check

.PHONY: images
images: ## Both images, into target/images, with what is in them and under which licences
	@deploy/images.sh

.PHONY: reproducible
reproducible: setup images ## Build them again elsewhere, from nothing, and compare (minutes)
	@deploy/reproducible.sh

.PHONY: model
model: ## Fetch the model of demo and tests into the cache
	@deploy/model.sh

.PHONY: crds
crds: ## Generate crds/ and the chart that carries them
	@deploy/crds.sh

.PHONY: chart
chart: ## Render the chart into deploy/rendered
	@HELM=$(HELM_PATH) deploy/render.sh

.PHONY: tools
tools: ## Build the lab's Go programs into the cache
	@$(BUILD_LAB)
	@$(LAB) tools

.PHONY: lab-up
lab-up: setup-node ## Start a real Kubernetes on this machine, in a network of its own
	@$(BUILD_LAB)
	@$(LAB) up

.PHONY: lab-down
lab-down: ## Stop it and leave nothing behind
	@$(LAB) down
