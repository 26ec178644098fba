-- What people ask for at a glance must not cost a walk over everything.

ALTER TABLE images ADD COLUMN owner TEXT;
-- The image's own state, as core derives it from the row and its replicas; kept by every commit. NULL: not derived yet, of a
-- ledger from before.
ALTER TABLE images ADD COLUMN state TEXT;

CREATE INDEX images_by_state ON images (state);
CREATE INDEX images_by_owner ON images (owner);
CREATE INDEX images_hidden ON images (id) WHERE failure_reason = 'image-not-visible';

CREATE INDEX replicas_by_state ON replicas (store, state);
CREATE INDEX replicas_by_proof ON replicas (store, proof_at) WHERE state = 'registered';
CREATE INDEX replicas_lost ON replicas (image) WHERE failure_reason = 'location-lost';

-- How many replicas there are. Kept by the triggers alone.
CREATE TABLE tally (
    store TEXT NOT NULL,
    state TEXT NOT NULL,
    replicas INTEGER NOT NULL,
    PRIMARY KEY (store, state)
) STRICT, WITHOUT ROWID;

INSERT INTO tally (store, state, replicas) SELECT store, state, count(*) FROM replicas GROUP BY store, state;

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

-- The order in which lines were written, over all images. NULL: before this was numbered.
ALTER TABLE history ADD COLUMN told INTEGER;

CREATE UNIQUE INDEX history_by_told ON history (told) WHERE told IS NOT NULL;

-- A number is never given twice, also when the line that had it is gone.
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('told', 0);

-- Where each store's objects are: their URLs without their names, and one of them as a sample. Kept by the triggers alone.
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

INSERT INTO places (store, root, objects, doomed, name, url)
SELECT store, replace(url, name, ''), count(*), sum(state = 'doomed'), name, url FROM objects
GROUP BY store, replace(url, name, '');

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
