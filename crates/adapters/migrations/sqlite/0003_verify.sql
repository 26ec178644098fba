-- When somebody asked for all copies of the image to be read again.
ALTER TABLE images ADD COLUMN verify_asked INTEGER;
