//! Which images a page of the matrix shows.

use mimeo_core::{ImageId, Result};
use mimeo_engine::{Engine, status::ImageReport};
use serde::Deserialize;

/// Rows of one page: as many as a person looks through, and no more than a browser shows at once.
pub(super) const ROWS: usize = 100;
/// Images that are read of the ledger at once.
const PAGE: usize = 1000;

/// As in the page's address. "" is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    /// A part of the name, or of the id.
    pub q: String,
    pub state: String,
    pub store: String,
    /// The state of the copy: at `store`, or at any.
    pub copy: String,
    /// Behind which image the page begins.
    pub after: String,
}

impl Filter {
    pub(super) fn is_empty(&self) -> bool {
        [&self.q, &self.state, &self.store, &self.copy].into_iter().all(String::is_empty)
    }

    /// The address of the page behind this image.
    pub(super) fn address(&self, path: &str, after: &str) -> String {
        let fields = [("q", self.q.as_str()), ("state", &self.state), ("store", &self.store), ("copy", &self.copy), ("after", after)];
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields.into_iter().filter(|(_, value)| !value.is_empty()))
            .finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    fn takes(&self, image: &ImageReport) -> bool {
        let q = self.q.trim().to_lowercase();
        let is_named = || image.name.as_ref().is_some_and(|name| name.to_lowercase().contains(&q));
        let is_there = |replica: &mimeo_engine::status::ReplicaReport| {
            (self.store.is_empty() || replica.store.as_str() == self.store)
                && (self.copy.is_empty() || replica.state.to_string() == self.copy)
        };
        (q.is_empty() || is_named() || image.id.as_str().starts_with(&q))
            && (self.state.is_empty() || image.state.to_string() == self.state)
            && ((self.store.is_empty() && self.copy.is_empty()) || image.replicas.iter().any(is_there))
    }
}

pub(super) struct Found {
    pub images: Vec<ImageReport>,
    /// Whether there are more behind the last.
    pub more: bool,
}

pub(super) async fn images(engine: &Engine, filter: &Filter) -> Result<Found> {
    let (mut images, mut after) = (Vec::new(), filter.after.parse::<ImageId>().ok());
    loop {
        let page = engine.list(after.as_ref(), PAGE).await?;
        after = page.last().map(|image| image.id.clone());
        images.extend(page.into_iter().filter(|image| filter.takes(image)));
        if after.is_none() || images.len() > ROWS {
            let more = images.len() > ROWS;
            images.truncate(ROWS);
            return Ok(Found { images, more });
        }
    }
}
