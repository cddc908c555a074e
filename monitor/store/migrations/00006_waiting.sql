-- +goose Up
ALTER TABLE findings ADD COLUMN waiting TEXT NOT NULL DEFAULT ''; -- JSON of what a pending one is judged by in the end
ALTER TABLE outbox ADD COLUMN subject TEXT NOT NULL DEFAULT ''; -- finding or incident: what is told of one keeps its order
CREATE INDEX outbox_subject ON outbox (channel, subject, created_at) WHERE subject <> '';
ALTER TABLE channels ADD COLUMN last_failure BIGINT NOT NULL DEFAULT 0; -- when something was given up
-- What was reopened may escalate again.
ALTER TABLE rolls RENAME TO rolls_before;
CREATE TABLE rolls (
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
    PRIMARY KEY (channel, telling, watch, verdict, severity, from_n, mark)
);
INSERT INTO rolls (channel, telling, watch, verdict, severity, from_n, to_n, count, created_at, due_at, digest, mark) SELECT channel, telling, watch, verdict, severity, from_n, to_n, count, created_at, due_at, digest, mark FROM rolls_before;
DROP TABLE rolls_before;

-- +goose Down
ALTER TABLE rolls RENAME TO rolls_before;
CREATE TABLE rolls (
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
INSERT INTO rolls (channel, telling, watch, verdict, severity, from_n, to_n, count, created_at, due_at, digest, mark) SELECT channel, telling, watch, verdict, severity, from_n, to_n, count, created_at, due_at, digest, mark FROM rolls_before;
DROP TABLE rolls_before;
ALTER TABLE channels DROP COLUMN last_failure;
DROP INDEX outbox_subject;
ALTER TABLE outbox DROP COLUMN subject;
ALTER TABLE findings DROP COLUMN waiting;
