-- +goose Up
ALTER TABLE trust_sources ADD COLUMN provenance BLOB NOT NULL DEFAULT x''; -- of the last refresh, JSON
-- +goose Down
ALTER TABLE trust_sources DROP COLUMN provenance;
