-- +goose Up
CREATE TABLE logs (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    version BIGINT NOT NULL,
    state   TEXT NOT NULL -- JSON of monitor.State
);
CREATE TABLE polls (
    log_id       TEXT PRIMARY KEY,
    at           BIGINT NOT NULL, -- all times are microseconds since 1970
    last_success BIGINT,
    failures     BIGINT NOT NULL,
    failing_since BIGINT,
    error        TEXT
);
CREATE TABLE own_tiles (
    log_id TEXT NOT NULL,
    level  INTEGER NOT NULL,
    idx    BIGINT NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (log_id, level, idx)
);
CREATE TABLE watch_sets (
    set_hash   TEXT NOT NULL,
    watch_hash TEXT NOT NULL,
    PRIMARY KEY (set_hash, watch_hash)
);
CREATE TABLE coverage (
    log_id   TEXT NOT NULL,
    set_hash TEXT NOT NULL,
    from_idx BIGINT NOT NULL,
    to_idx   BIGINT NOT NULL,
    PRIMARY KEY (log_id, set_hash, from_idx)
);
CREATE TABLE gaps (
    log_id   TEXT NOT NULL,
    from_idx BIGINT NOT NULL,
    to_idx   BIGINT NOT NULL,
    reason   TEXT NOT NULL,
    polls    BIGINT NOT NULL,
    since    BIGINT NOT NULL,
    PRIMARY KEY (log_id, from_idx)
);
CREATE TABLE pending_checkpoints (
    log_id TEXT NOT NULL,
    size   BIGINT NOT NULL,
    root   TEXT NOT NULL,
    note   TEXT NOT NULL,
    tiles  TEXT NOT NULL, -- JSON
    since  BIGINT NOT NULL,
    PRIMARY KEY (log_id, size, root)
);
CREATE TABLE notes ( -- signed checkpoints that findings refer to
    log_id TEXT NOT NULL,
    size   BIGINT NOT NULL,
    root   TEXT NOT NULL,
    note   TEXT NOT NULL,
    PRIMARY KEY (log_id, size, root)
);
CREATE TABLE findings (
    id       TEXT PRIMARY KEY,
    log_id   TEXT NOT NULL,
    log_name TEXT NOT NULL,
    idx      BIGINT NOT NULL,
    watch    TEXT NOT NULL,
    verdict  TEXT NOT NULL,
    severity TEXT NOT NULL,
    state    TEXT NOT NULL,
    note     TEXT NOT NULL,
    seen_at  BIGINT NOT NULL,
    size     BIGINT NOT NULL,
    root     TEXT NOT NULL,
    document TEXT NOT NULL, -- JSON of monitor.Finding
    leaf     BLOB NOT NULL,
    proof    BLOB NOT NULL
);
CREATE INDEX findings_seen ON findings (seen_at, id);
CREATE INDEX findings_state ON findings (state);
CREATE TABLE incidents (
    id          TEXT PRIMARY KEY,
    log_id      TEXT NOT NULL,
    log_name    TEXT NOT NULL,
    class       TEXT NOT NULL,
    kind        TEXT NOT NULL,
    severity    TEXT NOT NULL,
    state       TEXT NOT NULL,
    opened_at   BIGINT NOT NULL,
    resolved_at BIGINT,
    summary     TEXT NOT NULL,
    details     TEXT NOT NULL,
    note        TEXT NOT NULL
);
CREATE INDEX incidents_log ON incidents (log_id, state);
CREATE TABLE evidence (
    incident_id TEXT NOT NULL REFERENCES incidents (id),
    name        TEXT NOT NULL,
    position    BIGINT NOT NULL,
    data        BLOB NOT NULL,
    PRIMARY KEY (incident_id, name)
);
CREATE TABLE outbox (
    channel    TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    event      TEXT NOT NULL, -- JSON of notify.Event
    created_at BIGINT NOT NULL,
    attempts   BIGINT NOT NULL,
    due_at     BIGINT NOT NULL,
    state      TEXT NOT NULL, -- pending or failed; what was delivered is gone
    error      TEXT NOT NULL,
    PRIMARY KEY (channel, event_id)
);
CREATE INDEX outbox_due ON outbox (state, channel, due_at);
CREATE TABLE channels (
    name         TEXT PRIMARY KEY,
    last_success BIGINT NOT NULL
);

-- +goose Down
DROP TABLE channels;
DROP TABLE outbox;
DROP TABLE evidence;
DROP TABLE incidents;
DROP TABLE findings;
DROP TABLE notes;
DROP TABLE pending_checkpoints;
DROP TABLE gaps;
DROP TABLE coverage;
DROP TABLE watch_sets;
DROP TABLE own_tiles;
DROP TABLE polls;
DROP TABLE logs;
