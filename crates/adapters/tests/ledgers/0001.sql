BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'first','2026-05-01 10:00:00',1,X'6A6C45D4A2A4C7F20AB4F2CA45F0D87FA5272872A2D02C9366AF83BEAAFAAC46CD3058497163AB0CD4B6F8765B5BF85D',1000);
CREATE TABLE bookmarks (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "bookmarks" VALUES('scan','2026-01-01T00:00:00Z');
CREATE TABLE dirty (
    image TEXT NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL,
    due INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "dirty" VALUES('00000001-0000-4000-8000-000000000000',7,1767225609000);
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
INSERT INTO "images" VALUES('00000001-0000-4000-8000-000000000000','debian','active',1099511627776,'["http2","http1"]',1767225601000,NULL,NULL,'store-full','full',3,NULL);
INSERT INTO "images" VALUES('00000002-0000-4000-8000-000000000000',NULL,NULL,NULL,'[]',NULL,1767225602000,1767225603000,NULL,NULL,NULL,NULL);
CREATE TABLE objects (
    store TEXT NOT NULL,
    name TEXT NOT NULL,
    image TEXT NOT NULL REFERENCES images (id),
    url TEXT NOT NULL,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (store, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "objects" VALUES('http1','00000001-0000-4000-8000-000000000000.1','00000001-0000-4000-8000-000000000000','http://http1.example/1','kept',1767225600000);
INSERT INTO "objects" VALUES('http2','00000001-0000-4000-8000-000000000000.2','00000001-0000-4000-8000-000000000000','http://http2.example/2','doomed',1767225605000);
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
INSERT INTO "replicas" VALUES('00000001-0000-4000-8000-000000000000','http1','registered','00000001-0000-4000-8000-000000000000.1','http://http1.example/1',1099511627776,'ab','readback',1767225603000,1767225604000,NULL,NULL,NULL,NULL);
INSERT INTO "replicas" VALUES('00000001-0000-4000-8000-000000000000','http2','failed',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'store-full','full',3,1767225607000);
CREATE INDEX images_by_name ON images (name);
CREATE INDEX images_gone ON images (gone_at) WHERE gone_at IS NOT NULL;
CREATE INDEX objects_by_image ON objects (image);
CREATE INDEX objects_doomed ON objects (image, since) WHERE state = 'doomed';
CREATE INDEX dirty_by_due ON dirty (due, image);
COMMIT;
