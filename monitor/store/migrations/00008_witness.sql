-- +goose Up
CREATE TABLE witness_mark ( -- the time of the newest cosignature, beside the witness's own file
    one INTEGER PRIMARY KEY CHECK (one = 1),
    at  BIGINT NOT NULL -- seconds since 1970
);

-- +goose Down
DROP TABLE witness_mark;
