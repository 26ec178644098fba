-- Whether a doomed object was proven, and its image is wanted at the store again: it goes only if another copy is right.
ALTER TABLE objects ADD COLUMN regretted INTEGER NOT NULL DEFAULT FALSE;
