PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO _sqlx_migrations VALUES(1,'first','2026-05-01 10:00:00',1,X'6a6c45d4a2a4c7f20ab4f2ca45f0d87fa5272872a2d02c9366af83beaafaac46cd3058497163ab0cd4b6f8765b5bf85d',1000);
INSERT INTO _sqlx_migrations VALUES(2,'chunks','2026-05-01 10:00:00',1,X'451fc7d11b56fd574fb6bca219bf8333c378cc0c8acb922f654f85e35916f0e3b9a85da97db8a2a60d2c1edf85a80248',1000);
INSERT INTO _sqlx_migrations VALUES(3,'verify','2026-05-01 10:00:00',1,X'e58cfef1cff3622af3f63ca68e941837b0cca4c34e9da04c174b94bdc18317db3cf6e07acd88a70a5a0e522637b0992e',1000);
INSERT INTO _sqlx_migrations VALUES(4,'unwanted','2026-05-01 10:00:00',1,X'f22a3d5f6970cdea50997b892ac09390980e3d2dbe7914a3719a71561f0de01e66c42392e8cb30a8887ef92baf9510fe',1000);
INSERT INTO _sqlx_migrations VALUES(5,'history','2026-05-01 10:00:00',1,X'f6ed1d36e63f30ca96dd906c12ab54ce8b06cd13d7226c7e2bbfbcf38274951130c449b17c7b883a9cdbc4488778bcb0',1000);
INSERT INTO _sqlx_migrations VALUES(6,'queries','2026-11-28 12:00:00',1,X'4750d0768a11120df7af6e9f1952e0e9f9f2eb975588f0a7d244e5ef59cb70438f567e6ae6005f5232efeeee255cdb98',1000000);
INSERT INTO _sqlx_migrations VALUES(7,'objects','2026-11-29 12:00:00',1,X'7f75c3e69fbca08015c8cbb27e3ef0e212a4a446332dfba233505bb2f4dfd6290ede67a29739c4484ae75c9bd9083f2c',1000000);
INSERT INTO _sqlx_migrations VALUES(8,'rules','2026-11-29 18:00:00',1,X'f4125db2183c92382b0cec1e51fe0c0510259b8cd37a0e75e2c207ef6661b9da9683546f8e702fbf9b756d57674d225b',1000000);
INSERT INTO _sqlx_migrations VALUES(9,'regrets','2026-11-30 12:00:00',1,X'd6ea3a0d18cd3e577b3855e98ac755107fd1d1fc4ee3e9ff17553ca7481fdc448193a3a0bcac533f417f025358d17224',1000000);
CREATE TABLE bookmarks (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO bookmarks VALUES('scan','2026-01-01T00:00:00Z');
CREATE TABLE chunks (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (image, number)
) STRICT, WITHOUT ROWID;
INSERT INTO chunks VALUES('00000001-0000-4000-8000-000000000000',0,'cd');
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES('told',0);
CREATE TABLE dirty (
    image TEXT NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL,
    due INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO dirty VALUES('00000001-0000-4000-8000-000000000000',7,1767225609000);
CREATE TABLE history (
    image TEXT NOT NULL,
    -- Grows with each line of the image.
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    -- When it was so first, and how often in a row since.
    since INTEGER NOT NULL,
    times INTEGER NOT NULL,
    -- NULL: the image itself.
    store TEXT,
    state TEXT NOT NULL,
    reason TEXT,
    message TEXT, told INTEGER,
    PRIMARY KEY (image, number)
) STRICT, WITHOUT ROWID;
INSERT INTO history VALUES('00000001-0000-4000-8000-000000000000',1,1767225605000,1767225601000,3,'http2','failed','store-full','full',NULL);
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
, verify_asked INTEGER, owner TEXT, state TEXT, rules TEXT NOT NULL DEFAULT '[]') STRICT, WITHOUT ROWID;
INSERT INTO images VALUES('00000001-0000-4000-8000-000000000000','debian','active',1099511627776,'["http2","http1"]',1767225601000,NULL,NULL,'store-full','full',3,NULL,NULL,NULL,'degraded','[]');
INSERT INTO images VALUES('00000002-0000-4000-8000-000000000000',NULL,NULL,NULL,'[]',NULL,1767225602000,1767225603000,NULL,NULL,NULL,NULL,NULL,NULL,'retiring','[]');
CREATE TABLE IF NOT EXISTS "objects" (
    image TEXT NOT NULL REFERENCES images (id),
    name TEXT NOT NULL,
    store TEXT NOT NULL,
    url TEXT NOT NULL,
    state TEXT NOT NULL,
    since INTEGER NOT NULL, regretted INTEGER NOT NULL DEFAULT FALSE,
    PRIMARY KEY (image, name, store)
) STRICT, WITHOUT ROWID;
INSERT INTO objects VALUES('00000001-0000-4000-8000-000000000000','00000001-0000-4000-8000-000000000000.1','http1','http://http1.example/1','kept',1767225600000,0);
INSERT INTO objects VALUES('00000001-0000-4000-8000-000000000000','00000001-0000-4000-8000-000000000000.2','http2','http://http2.example/2','doomed',1767225605000,0);
CREATE TABLE places (
    store TEXT NOT NULL,
    root TEXT NOT NULL,
    objects INTEGER NOT NULL,
    -- Of those.
    doomed INTEGER NOT NULL,
    name TEXT NOT NULL,
    url TEXT NOT NULL,
    PRIMARY KEY (store, root)
) STRICT, WITHOUT ROWID;
INSERT INTO places VALUES('http1','http://http1.example/1',1,0,'00000001-0000-4000-8000-000000000000.1','http://http1.example/1');
INSERT INTO places VALUES('http2','http://http2.example/2',1,1,'00000001-0000-4000-8000-000000000000.2','http://http2.example/2');
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
    failure_next_try INTEGER, unwanted_since INTEGER,
    PRIMARY KEY (image, store)
) STRICT, WITHOUT ROWID;
INSERT INTO replicas VALUES('00000001-0000-4000-8000-000000000000','http1','registered','00000001-0000-4000-8000-000000000000.1','http://http1.example/1',1099511627776,'ab','readback',1767225603000,1767225604000,NULL,NULL,NULL,NULL,NULL);
INSERT INTO replicas VALUES('00000001-0000-4000-8000-000000000000','http2','failed',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'store-full','full',3,1767225607000,NULL);
CREATE TABLE tally (
    store TEXT NOT NULL,
    state TEXT NOT NULL,
    replicas INTEGER NOT NULL,
    PRIMARY KEY (store, state)
) STRICT, WITHOUT ROWID;
INSERT INTO tally VALUES('http1','registered',1);
INSERT INTO tally VALUES('http2','failed',1);
CREATE INDEX images_by_name ON images (name);
CREATE INDEX images_gone ON images (gone_at) WHERE gone_at IS NOT NULL;
CREATE INDEX dirty_by_due ON dirty (due, image);
CREATE INDEX replicas_unwanted ON replicas (image) WHERE unwanted_since IS NOT NULL;
CREATE INDEX history_forgotten ON history (at, image) WHERE state = 'forgotten';
CREATE INDEX images_by_state ON images (state);
CREATE INDEX images_by_owner ON images (owner);
CREATE INDEX images_hidden ON images (id) WHERE failure_reason = 'image-not-visible';
CREATE INDEX replicas_by_state ON replicas (store, state);
CREATE INDEX replicas_by_proof ON replicas (store, proof_at) WHERE state = 'registered';
CREATE INDEX replicas_lost ON replicas (image) WHERE failure_reason = 'location-lost';
CREATE TRIGGER replica_comes AFTER INSERT ON replicas BEGIN
    INSERT INTO tally (store, state, replicas) VALUES (new.store, new.state, 1)
    ON CONFLICT (store, state) DO UPDATE SET replicas = replicas + 1;
END;
CREATE TRIGGER replica_goes AFTER DELETE ON replicas BEGIN
    UPDATE tally SET replicas = replicas - 1 WHERE store = old.store AND state = old.state;
END;
CREATE TRIGGER replica_changes AFTER UPDATE OF state ON replicas WHEN old.state <> new.state BEGIN
    UPDATE tally SET replicas = replicas - 1 WHERE store = old.store AND state = old.state;
    INSERT INTO tally (store, state, replicas) VALUES (new.store, new.state, 1)
    ON CONFLICT (store, state) DO UPDATE SET replicas = replicas + 1;
END;
CREATE UNIQUE INDEX history_by_told ON history (told) WHERE told IS NOT NULL;
CREATE INDEX objects_doomed ON objects (image, since) WHERE state = 'doomed';
CREATE INDEX objects_found ON objects (image) WHERE state = 'found';
CREATE TRIGGER object_comes AFTER INSERT ON objects BEGIN
    INSERT INTO places (store, root, objects, doomed, name, url)
    VALUES (new.store, replace(new.url, new.name, ''), 1, new.state = 'doomed', new.name, new.url)
    ON CONFLICT (store, root) DO UPDATE SET objects = objects + 1, doomed = doomed + (new.state = 'doomed');
END;
CREATE TRIGGER object_goes AFTER DELETE ON objects BEGIN
    UPDATE places SET objects = objects - 1, doomed = doomed - (old.state = 'doomed')
    WHERE store = old.store AND root = replace(old.url, old.name, '');
END;
CREATE TRIGGER object_changes AFTER UPDATE OF state, url ON objects BEGIN
    UPDATE places SET objects = objects - 1, doomed = doomed - (old.state = 'doomed')
    WHERE store = old.store AND root = replace(old.url, old.name, '');
    INSERT INTO places (store, root, objects, doomed, name, url)
    VALUES (new.store, replace(new.url, new.name, ''), 1, new.state = 'doomed', new.name, new.url)
    ON CONFLICT (store, root) DO UPDATE SET objects = objects + 1, doomed = doomed + (new.state = 'doomed');
END;
COMMIT;
