-- +goose Up
CREATE TABLE ledger ( -- what the program did, row behind row; only added to
    n    BIGINT PRIMARY KEY, -- from 0 on, without a gap
    at   BIGINT NOT NULL,
    kind TEXT NOT NULL,
    log  TEXT NOT NULL, -- origin; empty: none
    line TEXT NOT NULL -- what ledger.Row.Print makes of it
);
CREATE INDEX ledger_kind ON ledger (kind, log, n);
CREATE TABLE ledger_head (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    id       TEXT NOT NULL,
    size     BIGINT NOT NULL,
    last     TEXT NOT NULL, -- leaf hash of the last row, hex
    peaks    BLOB NOT NULL, -- of the tree over the rows
    watches  TEXT NOT NULL, -- JSON: the watchlist that was recorded last
    seen     BIGINT NOT NULL -- when the program wrote last
);
CREATE TABLE ledger_spans ( -- those that are still going on, one a log
    log_id TEXT PRIMARY KEY,
    span   TEXT NOT NULL -- JSON
);
CREATE TABLE ledger_signed ( -- heads of the ledger that were signed
    size      BIGINT PRIMARY KEY,
    at        BIGINT NOT NULL,
    note      TEXT NOT NULL,
    published TEXT NOT NULL, -- JSON of where it was put; empty: nowhere
    published_at BIGINT
);
CREATE TABLE rules ( -- what rules say that findings and the ledger refer to
    hash     TEXT PRIMARY KEY,
    document TEXT NOT NULL
);
ALTER TABLE findings ADD COLUMN promise TEXT NOT NULL DEFAULT ''; -- JSON of checkpoint.Promise

-- +goose Down
ALTER TABLE findings DROP COLUMN promise;
DROP TABLE rules;
DROP TABLE ledger_signed;
DROP TABLE ledger_spans;
DROP TABLE ledger_head;
DROP TABLE ledger;
