//! Walks, page by page: over the images that the image service shows, and over the ledger's records.

use mimeo_core::{
    Image, ImageFilter, ImageId, Record, Result, Timestamp,
    ports::{Cursor, Ledger, Registry},
};

/// Records that are read at once.
const PAGE: usize = 500;
/// Of records with something to sweep: what is read of Glance between two pages must not grow old.
const SWEEP_PAGE: usize = 200;

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

/// The ledger's records in the order of their ids: all, or those with something to sweep.
pub(crate) struct Records<'a> {
    ledger: &'a dyn Ledger,
    sweepable: bool,
    after: Option<ImageId>,
}

impl<'a> Records<'a> {
    pub(crate) fn all(ledger: &'a dyn Ledger) -> Self {
        Self { ledger, sweepable: false, after: None }
    }

    pub(crate) fn sweepable(ledger: &'a dyn Ledger) -> Self {
        Self { ledger, sweepable: true, after: None }
    }

    /// The next page; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Record>>> {
        let after = self.after.as_ref();
        let records = match self.sweepable {
            true => self.ledger.sweepable(after, SWEEP_PAGE).await?,
            false => self.ledger.page(&ImageFilter::default(), after, PAGE).await?,
        };
        self.after = records.last().map(|record| record.image.id.clone());
        Ok((!records.is_empty()).then_some(records))
    }
}
