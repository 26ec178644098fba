//! A walk over all the images that the image service shows, page by page.

use mimeo_core::{
    Image, Result, Timestamp,
    ports::{Cursor, Registry},
};

pub(crate) struct Walk<'a> {
    registry: &'a dyn Registry,
    since: Option<Timestamp>,
    /// `None` once the last page was given.
    place: Option<Place>,
}

enum Place {
    Start,
    At(Cursor),
}

impl<'a> Walk<'a> {
    pub(crate) fn new(registry: &'a dyn Registry, since: Option<Timestamp>) -> Self {
        Self { registry, since, place: Some(Place::Start) }
    }

    /// The next page; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Image>>> {
        let cursor = match &self.place {
            None => return Ok(None),
            Some(Place::Start) => None,
            Some(Place::At(cursor)) => Some(cursor),
        };
        let page = self.registry.changed_since(self.since, cursor).await?;
        self.place = page.next.map(Place::At);
        Ok(Some(page.images))
    }
}
