# AetherTunnel. `make demo` shows it working, `make test` proves it; both need only Go, git and make.
SHELL := /bin/bash
GO ?= go
export CGO_ENABLED ?= 0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL := $(GO) tool -modfile=packaging/tools/go.mod
# Runs per fuzz target, or a duration such as 10s. With a duration Go 1.26 sometimes reports its own end as a failure
# ("context deadline exceeded", go.dev/issue/75804), so counts are the default.
FUZZTIME ?= 100000x
# Systems other than the one we run on must compile, their tests included.
CROSS := linux/arm64 windows/amd64 darwin/arm64

.PHONY: build demo test race soak fuzz bench lint vuln check fmt cross generate clean help

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

build: ## build bin/aetherd
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/aetherd ./cmd/aetherd

demo: build ## a laptop, a gateway and a LAN on this machine, with measured results
	@bin/aetherd demo

test: ## all tests, end to end included (as root, or in a user namespace)
	$(GO) test -count=1 -shuffle=on -timeout 20m ./...

race: ## all tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -count=1 -shuffle=on -timeout 30m ./...

soak: ## the long forms: 20,000 simulated lanes, 200 cycles of up and kill -9, 30 s of blackout
	$(GO) test -count=1 -timeout 60m ./dataplane/netsim -netsim.schedules=5000
	AETHER_SOAK=200 $(GO) test -count=1 -timeout 60m -run 'KilledDaemons|ConnectionsSurvive' -v ./cmd/internal/e2e

fuzz: ## every fuzz target, FUZZTIME (100000x) runs or seconds each
	@set -e; $(GO) list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go 2>/dev/null | cut -c6-); do \
	    echo "fuzz $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) \
	        -timeout 30m "$$pkg" || exit 1; \
	  done; \
	done

bench: build ## this build against the bare link
	@bin/aetherd bench

fmt: ## format the tree
	$(TOOL) gofumpt -w .

generate: ## rewrite docs/configuration.md from the code
	$(GO) test -count=1 ./cmd/internal/tidy -run Document -update

lint: ## linters, for every system
	@lint=$$($(TOOL) -n golangci-lint) || exit 1; for t in linux windows darwin; do \
	  echo "lint $$t"; GOOS=$$t $$lint run -c .golangci.yml ./... || exit 1; done

vuln: ## known vulnerabilities, with the Go that go.mod names (VULNDB: a database other than vuln.go.dev)
	GOTOOLCHAIN=auto $(TOOL) govulncheck $(if $(VULNDB),-db $(VULNDB)) ./...

cross: ## compile programs and tests for the other systems
	@for t in $(CROSS); do echo "compile $$t"; \
	  GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) vet ./... || exit 1; done

check: ## what a change must pass before review: format, tidy, vet, lint, cross builds, short tests
	@test -z "$$($(TOOL) gofumpt -l .)" || { echo "not gofumpt-clean:"; $(TOOL) gofumpt -l .; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(MAKE) --no-print-directory cross lint
	$(GO) test -short -count=1 -shuffle=on ./...

clean: ## remove what was built
	rm -rf bin dist
