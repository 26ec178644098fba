-- The objects of one image stand together, as its replicas do: a look reads one place, however many stores there are.
CREATE TABLE objects_of_images (
    image TEXT NOT NULL REFERENCES images (id),
    name TEXT NOT NULL,
    store TEXT NOT NULL,
    url TEXT NOT NULL,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (image, name, store)
) STRICT, WITHOUT ROWID;

INSERT INTO objects_of_images (image, name, store, url, state, since)
SELECT image, name, store, url, state, since FROM objects;

DROP TABLE objects;
ALTER TABLE objects_of_images RENAME TO objects;

CREATE INDEX objects_doomed ON objects (image, since) WHERE state = 'doomed';
CREATE INDEX objects_found ON objects (image) WHERE state = 'found';

-- A table takes its triggers with it; these are the same as before.
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
