-- +goose Up
ALTER TABLE channels ADD COLUMN last_retry BIGINT NOT NULL DEFAULT 0; -- when something was put off: a clock that goes back behind it was wrong

-- +goose Down
ALTER TABLE channels DROP COLUMN last_retry;
