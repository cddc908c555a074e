-- +goose Up
-- Pages of findings, newest first: whatever is asked for, one of these is read from its end
-- on until the page is full, and nothing else of a row is looked at before that.
CREATE INDEX findings_page ON findings (seen_at, log_id, idx, id, watch, log_name, verdict, state, severity);
CREATE INDEX findings_by_state ON findings (state, seen_at, log_id, idx, id, watch, log_name, verdict, severity);
CREATE INDEX findings_by_watch ON findings (watch, seen_at, log_id, idx, id, log_name, verdict, state, severity);
CREATE INDEX findings_by_verdict ON findings (verdict, seen_at, log_id, idx, id, watch, log_name, state, severity);
CREATE INDEX findings_by_log ON findings (log_name, seen_at, log_id, idx, id, watch, verdict, state, severity);
CREATE INDEX incidents_page ON incidents (opened_at, id);
DROP INDEX findings_seen;
DROP INDEX findings_state;
CREATE INDEX ledger_at ON ledger (at);
CREATE TABLE sessions ( -- logins to the page
    hash       TEXT PRIMARY KEY, -- SHA-256 of what the cookie holds
    name       TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE TABLE web_keys ( -- what cookies are signed with
    one INTEGER PRIMARY KEY CHECK (one = 1),
    key BLOB NOT NULL
);

-- +goose Down
DROP TABLE web_keys;
DROP TABLE sessions;
DROP INDEX ledger_at;
CREATE INDEX findings_state ON findings (state);
CREATE INDEX findings_seen ON findings (seen_at, log_id, idx, id);
DROP INDEX incidents_page;
DROP INDEX findings_by_log;
DROP INDEX findings_by_verdict;
DROP INDEX findings_by_watch;
DROP INDEX findings_by_state;
DROP INDEX findings_page;
