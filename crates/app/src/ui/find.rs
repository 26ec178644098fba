//! Which images a page of the matrix shows.

use mimeo_core::{ImageFilter, ImageId};
use mimeo_engine::{Engine, status::ImageReport};
use serde::{
    Deserialize,
    de::{IntoDeserializer, value::Error as Unknown},
};

use super::fault::Fault;
use crate::api::{known_rule, known_store};

/// Rows of one page: as many as a person looks through, and no more than a browser shows at once.
const ROWS: usize = 100;

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
    /// Glance's id of a project.
    pub owner: String,
    pub rule: String,
    /// Behind which image the page begins.
    pub after: String,
}

impl Filter {
    pub(super) fn is_empty(&self) -> bool {
        self.fields().into_iter().map(|(_, value)| value).all(str::is_empty)
    }

    /// The address of the page behind this image.
    pub(super) fn address(&self, path: &str, after: &str) -> String {
        let fields = self.fields().into_iter().chain([("after", after)]).filter(|(_, value)| !value.is_empty());
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    fn fields(&self) -> [(&'static str, &str); 6] {
        let Self { q, state, store, copy, owner, rule, .. } = self;
        [("q", q.as_str()), ("state", state), ("store", store), ("copy", copy), ("owner", owner), ("rule", rule)]
    }

    fn read(&self) -> Result<ImageFilter, Fault> {
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let store = text(&self.store).map(|store| store.parse()).transpose();
        let store = store.map_err(|error: mimeo_core::InvalidId| Fault::bad_request(error.to_string()))?;
        let (state, replica) = (state("state", &self.state)?, state("copy", &self.copy)?);
        let rule = Some(self.rule.clone()).filter(|rule| !rule.is_empty());
        Ok(ImageFilter { text: text(&self.q), state, owner: text(&self.owner), rule, store, replica })
    }
}

/// "": any.
fn state<'a, T: Deserialize<'a>>(key: &str, text: &'a str) -> Result<Option<T>, Fault> {
    let state = |text: &'a str| T::deserialize(text.into_deserializer());
    let state = Some(text).filter(|text| !text.is_empty()).map(state).transpose();
    state.map_err(|error: Unknown| Fault::bad_request(format!("{key}: {error}")))
}

pub(super) struct Found {
    pub images: Vec<ImageReport>,
    /// Whether there are more behind the last.
    pub more: bool,
}

pub(super) async fn images(engine: &Engine, filter: &Filter) -> Result<Found, Fault> {
    let (after, wanted) = (filter.after.parse::<ImageId>().ok(), filter.read()?);
    if let Some(store) = &wanted.store {
        known_store(engine, store).await?;
    }
    if let Some(rule) = &wanted.rule {
        known_rule(engine, rule)?;
    }
    let mut images = engine.list(&wanted, after.as_ref(), ROWS + 1).await?;
    let more = images.len() > ROWS;
    images.truncate(ROWS);
    Ok(Found { images, more })
}
