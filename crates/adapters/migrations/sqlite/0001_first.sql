-- Times are milliseconds since 1970 (UTC), ids and states are text as core spells them. Migrations are append-only.

CREATE TABLE images (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    status TEXT,
    size INTEGER,
    -- JSON: the stores' names, in order.
    wanted TEXT NOT NULL DEFAULT '[]',
    observed_at INTEGER,
    delete_seen INTEGER,
    gone_at INTEGER,
    -- What stands in the way of the whole image.
    failure_reason TEXT,
    failure_message TEXT,
    failure_tries INTEGER,
    failure_next_try INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX images_by_name ON images (name);
CREATE INDEX images_gone ON images (gone_at) WHERE gone_at IS NOT NULL;

CREATE TABLE replicas (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    store TEXT NOT NULL,
    state TEXT NOT NULL,
    object TEXT,
    url TEXT,
    size INTEGER,
    digest TEXT,
    proof_kind TEXT,
    proof_at INTEGER,
    seen_at INTEGER,
    failure_reason TEXT,
    failure_message TEXT,
    failure_tries INTEGER,
    failure_next_try INTEGER,
    PRIMARY KEY (image, store)
) STRICT, WITHOUT ROWID;

-- No cascade: an image whose bits may still be somewhere cannot be forgotten.
CREATE TABLE objects (
    store TEXT NOT NULL,
    name TEXT NOT NULL,
    image TEXT NOT NULL REFERENCES images (id),
    url TEXT NOT NULL,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (store, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX objects_by_image ON objects (image);
CREATE INDEX objects_doomed ON objects (image, since) WHERE state = 'doomed';

-- Apart from the images: a mark outlives the image that it is for, until it is settled.
CREATE TABLE dirty (
    image TEXT NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL,
    due INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX dirty_by_due ON dirty (due, image);

CREATE TABLE bookmarks (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
