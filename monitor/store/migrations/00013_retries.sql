-- +goose Up
ALTER TABLE channels ADD COLUMN last_retry BIGINT NOT NULL DEFAULT 0; -- when something was put off: a clock that goes back behind it was wrong
ALTER TABLE outbox ADD COLUMN idle BIGINT NOT NULL DEFAULT 0; -- for how long nobody could have tried it, but for a day each time

-- +goose Down
ALTER TABLE outbox DROP COLUMN idle;
ALTER TABLE channels DROP COLUMN last_retry;
