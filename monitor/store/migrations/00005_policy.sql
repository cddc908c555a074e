-- +goose Up
ALTER TABLE findings ADD COLUMN cause TEXT NOT NULL DEFAULT '';
ALTER TABLE findings ADD COLUMN event_at BIGINT NOT NULL DEFAULT 0; -- when it happened
ALTER TABLE findings ADD COLUMN opened_at BIGINT; -- since when it is to be told
ALTER TABLE findings ADD COLUMN opened_n BIGINT; -- in which order those were opened, from 1 on
ALTER TABLE findings ADD COLUMN event_id TEXT NOT NULL DEFAULT ''; -- of the event that tells of it
ALTER TABLE findings ADD COLUMN pending_until BIGINT; -- of those that may still come on a list
ALTER TABLE findings ADD COLUMN escalated_at BIGINT;
ALTER TABLE findings ADD COLUMN resolution TEXT NOT NULL DEFAULT '';
ALTER TABLE findings ADD COLUMN changed_by TEXT NOT NULL DEFAULT ''; -- who acknowledged or resolved it last
ALTER TABLE findings ADD COLUMN changed_at BIGINT;
ALTER TABLE incidents ADD COLUMN resolution TEXT NOT NULL DEFAULT '';
ALTER TABLE incidents ADD COLUMN changed_by TEXT NOT NULL DEFAULT '';
ALTER TABLE incidents ADD COLUMN changed_at BIGINT;
CREATE INDEX findings_pending ON findings (pending_until) WHERE state = 'pending';
CREATE INDEX findings_unheard ON findings (opened_at) WHERE state = 'open' AND severity = 'critical' AND escalated_at IS NULL;
CREATE INDEX findings_opened ON findings (opened_n) WHERE opened_n IS NOT NULL;
CREATE INDEX findings_expected ON findings (watch, event_at) WHERE verdict = 'expected';
ALTER TABLE outbox ADD COLUMN finding TEXT NOT NULL DEFAULT ''; -- its event is made when it is needed
ALTER TABLE outbox ADD COLUMN digest INTEGER NOT NULL DEFAULT 0; -- is to become a part of a digest
ALTER TABLE channels ADD COLUMN window_start BIGINT NOT NULL DEFAULT 0;
ALTER TABLE channels ADD COLUMN window_sent BIGINT NOT NULL DEFAULT 0;
ALTER TABLE channels ADD COLUMN window_folded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channels ADD COLUMN window_over INTEGER NOT NULL DEFAULT 0;
CREATE TABLE rolls ( -- findings that wait for a channel, one row for many of them
    channel    TEXT NOT NULL,
    telling    TEXT NOT NULL, -- finding or escalation
    watch      TEXT NOT NULL,
    verdict    TEXT NOT NULL,
    severity   TEXT NOT NULL,
    from_n     BIGINT NOT NULL, -- of their opened_n, the first
    to_n       BIGINT NOT NULL, -- the last
    count      BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    due_at     BIGINT NOT NULL,
    digest     INTEGER NOT NULL,
    mark       BIGINT NOT NULL, -- escalated_at of all of them; 0: none
    PRIMARY KEY (channel, telling, watch, verdict, severity, from_n)
);
CREATE TABLE admissions ( -- events that items of expect have let in, as far as they count
    log_id  TEXT NOT NULL,
    counter TEXT NOT NULL,
    key     TEXT NOT NULL, -- of once_per; empty for none
    idx     BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (log_id, counter, key, idx)
);
CREATE INDEX admissions_at ON admissions (log_id, counter, at);
CREATE TABLE watches (
    name  TEXT PRIMARY KEY,
    since BIGINT NOT NULL -- when it was there first
);
CREATE TABLE announcements ( -- artifacts that somebody said would be signed
    id         TEXT PRIMARY KEY,
    watch      TEXT NOT NULL,
    digest     TEXT NOT NULL,
    announcer  TEXT NOT NULL,
    note       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX announcements_digest ON announcements (watch, digest);
CREATE TABLE audit ( -- every change that a person, or the program on its own, made; only added to
    n       BIGINT PRIMARY KEY, -- from 1 on, without a gap
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL, -- JSON
    hash    TEXT NOT NULL -- over the row and the hash before it
);
CREATE TABLE audit_head ( -- how long the trail is: its end cannot be cut off unnoticed
    one  INTEGER PRIMARY KEY,
    n    BIGINT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE tokens (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    scopes     TEXT NOT NULL, -- with spaces between them
    watches    TEXT NOT NULL, -- JSON list; null: all
    hash       TEXT NOT NULL, -- SHA-256 of the token
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE UNIQUE INDEX tokens_hash ON tokens (hash);

-- +goose Down
DROP TABLE tokens;
DROP TABLE audit_head;
DROP TABLE audit;
DROP TABLE announcements;
DROP TABLE watches;
DROP TABLE admissions;
DROP TABLE rolls;
ALTER TABLE channels DROP COLUMN window_over;
ALTER TABLE channels DROP COLUMN window_folded;
ALTER TABLE channels DROP COLUMN window_sent;
ALTER TABLE channels DROP COLUMN window_start;
ALTER TABLE outbox DROP COLUMN digest;
ALTER TABLE outbox DROP COLUMN finding;
DROP INDEX findings_expected;
DROP INDEX findings_opened;
DROP INDEX findings_unheard;
DROP INDEX findings_pending;
ALTER TABLE incidents DROP COLUMN changed_at;
ALTER TABLE incidents DROP COLUMN changed_by;
ALTER TABLE incidents DROP COLUMN resolution;
ALTER TABLE findings DROP COLUMN changed_at;
ALTER TABLE findings DROP COLUMN changed_by;
ALTER TABLE findings DROP COLUMN resolution;
ALTER TABLE findings DROP COLUMN escalated_at;
ALTER TABLE findings DROP COLUMN pending_until;
ALTER TABLE findings DROP COLUMN event_id;
ALTER TABLE findings DROP COLUMN opened_n;
ALTER TABLE findings DROP COLUMN opened_at;
ALTER TABLE findings DROP COLUMN event_at;
ALTER TABLE findings DROP COLUMN cause;
