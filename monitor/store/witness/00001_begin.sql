-- +goose Up
CREATE TABLE promises ( -- what was co-signed last of each log
    origin TEXT PRIMARY KEY,
    size   BIGINT NOT NULL,
    root   TEXT NOT NULL, -- hex; empty: nothing was signed
    note   TEXT NOT NULL, -- the checkpoint as the log signed it
    at     BIGINT NOT NULL, -- of the newest cosignature, in seconds since 1970
    doubt  TEXT NOT NULL, -- why nothing is signed any more; empty: nothing speaks against it
    -- What was promised before, as is known from elsewhere: nothing smaller or earlier is
    -- to be signed when the doubt is over.
    floor_size BIGINT NOT NULL DEFAULT 0,
    floor_root TEXT NOT NULL DEFAULT '',
    floor_note TEXT NOT NULL DEFAULT '',
    floor_at   BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE rejected ( -- requests whose proof did not verify, the newest few of each log
    origin  TEXT NOT NULL,
    at      BIGINT NOT NULL, -- microseconds since 1970
    request BLOB NOT NULL,
    PRIMARY KEY (origin, at)
);

-- +goose Down
DROP TABLE rejected;
DROP TABLE promises;
