-- +goose Up
-- What somebody may do is asked again each time, of the configuration of the day: a login
-- keeps what the provider has said of him. Those that there are end.
DELETE FROM sessions;
ALTER TABLE sessions DROP COLUMN scopes;
ALTER TABLE sessions ADD COLUMN claims TEXT NOT NULL DEFAULT '{}';
DROP INDEX ledger_at;
CREATE INDEX ledger_watched ON ledger (kind, at);

-- +goose Down
DROP INDEX ledger_watched;
CREATE INDEX ledger_at ON ledger (at);
DELETE FROM sessions;
ALTER TABLE sessions DROP COLUMN claims;
ALTER TABLE sessions ADD COLUMN scopes TEXT NOT NULL DEFAULT '';
