-- What is due is read from the index alone: in the table the marks lie in the order of the images' ids, each at another place.
DROP INDEX dirty_by_due;
CREATE INDEX dirty_by_due ON dirty (due, image, seq);
