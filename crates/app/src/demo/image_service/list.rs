//! `GET /v2/images`: filters, sorting and pages, in the grammar of Glance's query strings.

mod filter;
mod order;

use std::{cmp::Ordering, fmt::Write};

use serde_json::{Value, json};

use self::{filter::Filter, order::Order};
use super::{fault::Fault, image::Image};

/// Glance's `limit_param_default` and `api_limit_max`.
const DEFAULT_LIMIT: usize = 25;
const MAX_LIMIT: usize = 1000;

/// A query string's pairs, in its order; a name may come more than once.
pub(super) type Pairs = Vec<(String, String)>;

/// A list request that was understood.
#[derive(Debug)]
pub(super) struct Query {
    filters: Vec<Filter>,
    order: Order,
    marker: Option<String>,
    limit: usize,
}

impl Query {
    pub(super) fn parse(pairs: &Pairs) -> Result<Self, Fault> {
        let mut query = Self { filters: Vec::new(), order: Order::parse(pairs)?, marker: None, limit: DEFAULT_LIMIT };
        for (name, value) in pairs {
            match name.as_str() {
                "limit" => query.limit = limit(value)?,
                "marker" => query.marker = Some(value.clone()),
                "sort" | "sort_key" | "sort_dir" | "member_status" => {}
                _ => query.filters.extend(Filter::parse(name, value)?),
            }
        }
        if !query.filters.iter().any(Filter::is_about_hidden) {
            query.filters.push(Filter::NOT_HIDDEN);
        }
        Ok(query)
    }

    /// The page of `images` that is asked for, and the marker of the next one if there may be one.
    pub(super) fn page(&self, mut images: Vec<Image>) -> Result<(Vec<Image>, Option<String>), Fault> {
        let marker = match &self.marker {
            None => None,
            Some(id) => Some(
                images
                    .iter()
                    .find(|image| image.id == *id)
                    .cloned()
                    .ok_or_else(|| Fault::bad_request(format!("No image found with ID {id}")))?,
            ),
        };
        images.retain(|image| {
            let behind = |marker| self.order.compare(image, marker) == Ordering::Greater;
            self.filters.iter().all(|filter| filter.accepts(image)) && marker.as_ref().is_none_or(behind)
        });
        images.sort_by(|a, b| self.order.compare(a, b));
        images.truncate(self.limit);
        let next = images.last().filter(|_| images.len() == self.limit);
        let next = next.map(|image| image.id.clone());
        Ok((images, next))
    }
}

/// The answer's body, with links that repeat the request's own query.
pub(super) fn body(pairs: &Pairs, page: &[Image], next: Option<String>) -> Value {
    let mut rest: Pairs = pairs.clone();
    rest.retain(|(name, _)| name != "marker");
    let mut body = json!({
        "images": page.iter().map(Image::view).collect::<Vec<_>>(),
        "first": link(&rest),
        "schema": "/v2/schemas/images",
    });
    if let Some(marker) = next {
        rest.push(("marker".to_owned(), marker));
        body["next"] = json!(link(&rest));
    }
    body
}

fn limit(value: &str) -> Result<usize, Fault> {
    let limit: i64 = value.parse().map_err(|_| Fault::bad_request("limit param must be an integer"))?;
    let limit = usize::try_from(limit).map_err(|_| Fault::bad_request("limit param must be positive"))?;
    Ok(limit.min(MAX_LIMIT))
}

fn link(pairs: &Pairs) -> String {
    if pairs.is_empty() {
        return "/v2/images".to_owned();
    }
    let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    format!("/v2/images?{}", query.join("&"))
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
