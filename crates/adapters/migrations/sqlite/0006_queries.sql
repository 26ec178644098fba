-- What people ask for at a glance must not cost a walk over everything.

ALTER TABLE images ADD COLUMN owner TEXT;
-- The image's own state, as core derives it from the row and its replicas; kept by every commit. NULL: not derived yet, of a
-- ledger from before.
ALTER TABLE images ADD COLUMN state TEXT;

CREATE INDEX images_by_state ON images (state);
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
