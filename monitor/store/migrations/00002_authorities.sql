-- +goose Up
CREATE TABLE authorities ( -- certificate authorities that findings were judged with
    hash     TEXT PRIMARY KEY,
    document TEXT NOT NULL
);
ALTER TABLE findings ADD COLUMN authorities TEXT NOT NULL DEFAULT ''; -- their hash
DROP INDEX findings_seen;
CREATE INDEX findings_seen ON findings (seen_at, log_id, idx, id);

-- +goose Down
ALTER TABLE findings DROP COLUMN authorities;
DROP TABLE authorities;
