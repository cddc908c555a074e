-- +goose Up
CREATE TABLE trust_roots ( -- trusted roots that are, or were, in force
    hash       TEXT NOT NULL, -- SHA-256 of document
    source     TEXT NOT NULL,
    document   BLOB NOT NULL,
    provenance BLOB NOT NULL, -- JSON; empty for a pinned file
    first_seen BIGINT NOT NULL,
    PRIMARY KEY (hash, source)
);
CREATE TABLE trust_sources ( -- where trusted roots come from
    source       TEXT PRIMARY KEY,
    hash         TEXT NOT NULL, -- of the root in force
    first_hash   TEXT NOT NULL, -- of the first one ever seen
    signing      TEXT NOT NULL, -- JSON list of signing configurations, base64
    refreshed_at BIGINT, -- when it was last known to be the newest
    failures     BIGINT NOT NULL, -- refreshes that failed since
    failing_since BIGINT,
    error        TEXT NOT NULL
);
ALTER TABLE findings ADD COLUMN trust_root TEXT NOT NULL DEFAULT ''; -- hash and source, with a space
-- +goose Down
ALTER TABLE findings DROP COLUMN trust_root;
DROP TABLE trust_sources;
DROP TABLE trust_roots;
