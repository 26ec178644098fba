-- What became of each image and its copies. No reference to the images: it outlives them for a while.
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
    message TEXT,
    PRIMARY KEY (image, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX history_forgotten ON history (at, image) WHERE state = 'forgotten';

-- Objects that a listing of their store showed, and that nobody has agreed to remove.
CREATE INDEX objects_found ON objects (image) WHERE state = 'found';
