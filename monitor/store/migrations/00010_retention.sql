-- +goose Up
CREATE INDEX audit_subject ON audit (subject);
CREATE TABLE reported ( -- how far the reports go that are made by a schedule
    name  TEXT PRIMARY KEY,
    until BIGINT NOT NULL
);

-- +goose Down
DROP TABLE reported;
DROP INDEX audit_subject;
