-- The BLAKE3 digests of an image's chunks of 16 MiB, for copies that were interrupted.
CREATE TABLE chunks (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (image, number)
) STRICT, WITHOUT ROWID;
