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
CREATE TABLE listed ( -- logs that lists have named; the first to name one says what it is
    origin   TEXT PRIMARY KEY,
    key      TEXT NOT NULL,
    per_day  BIGINT NOT NULL,
    contact  TEXT NOT NULL,
    source   TEXT NOT NULL,
    added_at BIGINT NOT NULL, -- microseconds since 1970
    disabled TEXT NOT NULL -- why a person has taken it out; empty: nobody has
);

-- +goose Down
DROP TABLE listed;
DROP TABLE rejected;
DROP TABLE promises;
