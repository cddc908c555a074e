# make test passes on a fresh machine with Go, git and make.
GO ?= go
STATICCHECK = $(GO) tool -modfile=e2e/tools/staticcheck/go.mod staticcheck

.PHONY: build test vet lint race e2e bench fuzz

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/sigwarden ./cmd/sigwarden

test:
	CGO_ENABLED=0 $(GO) test ./...

vet:
	$(GO) mod tidy -diff
	$(GO) vet ./...

lint: vet
	$(STATICCHECK) ./...

# The race detector needs a C compiler.
race:
	CGO_ENABLED=1 $(GO) test -race -short ./...
