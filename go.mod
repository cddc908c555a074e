module github.com/sigwarden/sigwarden

go 1.26.0

require (
	github.com/cenkalti/backoff/v5 v5.0.3
	github.com/transparency-dev/merkle v0.0.2
	golang.org/x/crypto v0.58.0
	golang.org/x/mod v0.42.0
	golang.org/x/sync v0.24.0
	golang.org/x/time v0.16.0
)
