-- +goose Up
CREATE TABLE authorities ( -- certificate authorities that findings were judged with
    hash     TEXT PRIMARY KEY,
    document TEXT NOT NULL
);
ALTER TABLE findings ADD COLUMN authorities TEXT NOT NULL DEFAULT ''; -- their hash

-- +goose Down
ALTER TABLE findings DROP COLUMN authorities;
DROP TABLE authorities;
