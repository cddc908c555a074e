# make test passes on a fresh machine with Go, git and make.
GO ?= go
STATICCHECK = $(GO) tool -modfile=e2e/tools/staticcheck/go.mod staticcheck

.PHONY: build test vet lint vulncheck race simulate axe e2e bench fuzz corpus

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/sigwarden ./cmd/sigwarden

test:
	CGO_ENABLED=0 $(GO) test ./...

vet:
	$(GO) mod tidy -diff
	cd e2e && $(GO) mod tidy -diff
	$(GO) vet ./...
	cd e2e && $(GO) vet ./...

lint: vet
	$(STATICCHECK) ./...

# Weaknesses that are known of Go and of the dependencies, and that the program calls: it fails if there is
# one. Their database comes as a module too, the newest version of it, so that nothing but modules need be reachable.
VULNCHECK = $(GO) tool -modfile=e2e/tools/govulncheck/go.mod
vulncheck:
	db=$$(mktemp -d) && trap 'rm -rf "$$db"' EXIT && \
	at=$$(cd "$$db" && $(GO) mod download -json golang.org/x/vulndb@latest | sed -n 's/^.*"Dir": "\(.*\)".*/\1/p') && \
	echo "$$at" && $(VULNCHECK) indexdb -vulns "$$at/data/osv" -out "$$db" && \
	$(VULNCHECK) govulncheck -db "file://$$db" $(VULNFLAGS) ./cmd/sigwarden

# The race detector needs a C compiler. It does not look at what SQLite does by itself, which would
# take most of the time, nor at packages in which nothing runs beside anything else.
race:
	CGO_ENABLED=1 $(GO) test -race -short -timeout 20m -gcflags='modernc.org/sqlite/lib=-race=false' $$($(GO) list ./... | grep -vE '/(checkpoint/lanes|monitor/report|internal/bounds)$$')

# Worlds in which logs lie, and networks, disks and processes fail; docs/reliability.md says what is
# held against what.
SEEDS ?= 10000
FIRST ?= 1
simulate:
	CGO_ENABLED=0 $(GO) test ./monitor/simulation -run '^TestSeeds(V1|Listed)?$$' -count=1 -v -timeout 0 -first $(FIRST) -seeds $(SEEDS)

# What looks for barriers in pages.
axe:
	if command -v npm >/dev/null; then cd e2e/tools/axe && npm ci --ignore-scripts --no-audit --no-fund --silent; fi

# Against the real servers, which are built first: many minutes on a cold cache.
# Rekor v1 needs initdb, postgres, psql and redis-server, syslog needs rsyslogd with its TLS driver.
e2e: axe
	cd e2e && CGO_ENABLED=0 $(GO) test -count=1 -timeout 45m ./...

# Ratios of one run, with a fifth of tolerance for busy machines. `go run ./bench` in e2e measures more;
# docs/performance.md has what they are about.
bench:
	cd e2e && $(GO) run ./bench -runs 3 -large 3000000 -only scan,expressions,memory,v1-matches -require -tolerance 0.2
	cd e2e && $(GO) test -run '^$$' -bench . -benchtime 1x .
	$(GO) test -run '^$$' -bench . ./watchlist
	$(GO) test -run '^$$' -bench Flood -benchtime 1x ./monitor

# Every fuzzer for a while.
FUZZTIME ?= 30s
FUZZED ?= ./...
fuzz:
	for pkg in $$($(GO) list $(FUZZED)); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$pkg || exit 1; \
		done; \
	done

# Of what fuzzers have found interesting on this machine the smallest inputs, for everybody's tests.
corpus:
	cache=$$($(GO) env GOCACHE)/fuzz/$$($(GO) list -m); \
	for dir in $$(cd $$cache && find . -mindepth 1 -type d -name 'Fuzz*'); do \
		to=$$(dirname $$dir)/testdata/fuzz/$$(basename $$dir); \
		mkdir -p $$to && cp -n $$(ls -S -r $$cache/$$dir/* | head -24) $$to/; \
	done
