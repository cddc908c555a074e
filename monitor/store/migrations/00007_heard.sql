-- +goose Up
CREATE TABLE heard ( -- checkpoints that others have seen, and that are larger than what is known of the log
    log_id TEXT NOT NULL,
    size   BIGINT NOT NULL,
    root   TEXT NOT NULL,
    note   TEXT NOT NULL,
    source TEXT NOT NULL, -- where it was found
    since  BIGINT NOT NULL,
    PRIMARY KEY (log_id, size, root)
);

-- +goose Down
DROP TABLE heard;
