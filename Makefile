# Provisionr. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN      := bin
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X github.com/provisionr/provisionr/internal/version.Version=$(VERSION)
GOBUILD  := CGO_ENABLED=0 go build -trimpath -ldflags='$(LDFLAGS)'
GOARCH   := $(shell go env GOARCH)
TOOL     := go tool -modfile=$(CURDIR)/tools/go.mod

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: prerequisites
prerequisites: ## Install what building and the demo need (Debian packages)
	@tools/prerequisites

.PHONY: test-prerequisites
test-prerequisites: ## Install what the tests need besides
	@tools/prerequisites test

.PHONY: build
build: agent ## Build the server and CLI, the agent and its helper, into bin/
	@echo "building bin/provisionr (the first time takes a few minutes)"
	@$(GOBUILD) -o $(BIN)/provisionr ./cmd/provisionr
	@$(GOBUILD) -o $(BIN)/provisionr-wireguard-$(GOARCH) ./cmd/provisionr-wireguard

# Every machine downloads the agent: it is built for size. Nothing is inlined but what the runtime and cryptography are made of,
# and gRPC's tracing page is left out.
SMALL := $(foreach m,github.com google.golang.org golang.org/x net encoding text regexp archive log vendor html,-gcflags='$(m)/...=-l')

.PHONY: agent
agent: ## Build the agent alone
	@echo "building the agent"
	@CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags='$(LDFLAGS) -funcalign=16' $(SMALL) \
		-o $(BIN)/provisionr-agent-$(GOARCH) ./cmd/provisionr-agent

.PHONY: demo
demo: prerequisites build ## Boot a proven three-machine ZooKeeper pool on this host
	@tools/demo up

.PHONY: demo-down
demo-down: ## Remove every trace of the demo; caches stay and are listed
	@tools/demo down

.PHONY: clean-cache
clean-cache: ## Remove the cached packages, root file systems, images and control planes
	@tools/demo clean-cache

.PHONY: test
test: test-prerequisites build lint test-unit test-race test-machine ## Run all the tests, fast to slow

.PHONY: test-unit
test-unit: ## Run the tests that need nothing but Go
	go test -p 1 ./...

.PHONY: test-race
test-race: ## Run the concurrent packages under the race detector
	go test -race -p 1 ./server/... ./agent/... ./dnsserver/... ./internal/...

.PHONY: test-machine
test-machine: build ## Run the tests that boot real machines (root)
	go test -count=1 -tags machine -timeout 60m -p 1 ./dnsserver/interop ./agent/resource/pkg ./server/provider/local ./server/provider/qemu/... ./e2e

.PHONY: test-power
test-power: build ## Take the power from a virtual machine while packages are installed (root, long)
	go test -count=1 -tags machine,power -timeout 40m -run TestPowerCut ./e2e

.PHONY: test-openstack
test-openstack: prerequisites ## Test the openstack provider on a real control plane, in namespaces (root)
	@tools/openstack test

.PHONY: lint
lint: ## Check formatting, vet, staticcheck, and that generated files are current
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt"; exit 1; }
	go vet -tags machine,openstack,power ./...
	$(TOOL) staticcheck -tags machine,openstack,power ./...
	@tools/generated-is-current

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in what is linked (needs the vulnerability database)
	$(TOOL) govulncheck ./...

.PHONY: generate
generate: ## Generate Go, gRPC, REST, OpenAPI, JSON Schema and the manifest reference from proto/
	cd tools && go run ./protogen ..
	go run ./internal/spec/schemagen .

.PHONY: bench
bench: bench-agent bench-boot bench-raft bench-launch bench-dns ## Run every benchmark

.PHONY: bench-boot
bench-boot: prerequisites build ## Time from apply to a ready and proven pool, beside a shell script (root)
	@tools/bench-boot

.PHONY: bench-agent
bench-agent: prerequisites build ## Measure the agent's size, idle cost and second converge run (root)
	@tools/bench-agent

.PHONY: bench-converge
bench-converge: prerequisites build ## Measure converging beside Puppet, Ansible, CFEngine and apt, and how long drift lasts (root)
	@tools/bench-converge/run
	@[ ! -x tools/bench-first-converge ] || tools/bench-first-converge
	@tools/bench-drift

.PHONY: bench-raft
bench-raft: ## Measure the log stores, committed writes per second and failover
	@tools/bench-raft

.PHONY: bench-dns
bench-dns: prerequisites build ## Measure the DNS server beside NSD, Knot and CoreDNS, and how soon changes are answered (root, long)
	@tools/bench-dns/run

.PHONY: bench-launch
bench-launch: ## Measure launches against EC2's token buckets, and the polling of many machines, on a simulated cloud
	@tools/bench-launch

.PHONY: fault-runs
fault-runs: ## Have FAULT_RUNS pools (default 2000) live through seeded faults at the test servers of the clouds
	@tools/fault-runs $${FAULT_RUNS:-2000}

.PHONY: fuzz
fuzz: ## Fuzz every parser of outside bytes for FUZZTIME each (default 30s)
	@tools/fuzz $${FUZZTIME:-30s}

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN)
