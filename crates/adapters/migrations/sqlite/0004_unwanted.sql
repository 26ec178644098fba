-- Since when a copy is to go although its image is there.
ALTER TABLE replicas ADD COLUMN unwanted_since INTEGER;

CREATE INDEX replicas_unwanted ON replicas (image) WHERE unwanted_since IS NOT NULL;
