//! What comes in: identifiers in paths, queries and bodies; what is wrong is told with its name.

use std::str::FromStr;

use axum::{
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};
use mimeo_core::InvalidId;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};

use super::problem::Problem;

/// An image's id, or a store's name, from the path.
pub(super) struct Id<T>(pub(super) T);

impl<T: FromStr<Err = InvalidId>, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_: PathRejection| Problem::bad_request("the path is not UTF-8"))?;
        text.parse().map(Self).map_err(|error: InvalidId| Problem::bad_request(error.to_string()))
    }
}

/// The query, of which every key is known.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asked = Query::<T>::from_request_parts(parts, state).await;
        asked
            .map(|Query(asked)| Self(asked))
            .map_err(|rejection: QueryRejection| Problem::bad_request(plainly(&rejection.body_text())))
    }
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = axum::Json::<T>::from_request(request, state).await;
        body.map(|axum::Json(body)| Self(body))
            .map_err(|rejection: JsonRejection| Problem::unreadable(rejection.status(), unreadable(&rejection)))
    }
}

fn unreadable(rejection: &JsonRejection) -> String {
    let text = rejection.body_text();
    match rejection {
        JsonRejection::JsonDataError(_) => plainly(&text),
        JsonRejection::JsonSyntaxError(_) => format!("the body is not JSON: {}", after_colon(&text)),
        JsonRejection::MissingJsonContentType(_) => "Content-Type does not say that the body is JSON".into(),
        _ if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => "the body is larger than 2 MiB".into(),
        _ => "the body did not come whole".into(),
    }
}

/// A number of a query; serde's own words would not say which one was given.
pub(super) fn number<'a, D: Deserializer<'a>, T: FromStr>(deserializer: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| D::Error::custom(format!("\"{text}\" is not a whole number")))
}

/// What serde tells of a value behind axum's words, as an operator would say it: the name comes first.
fn plainly(text: &str) -> String {
    let text = after_colon(text);
    for (theirs, ours) in [("missing field `", "missing"), ("duplicate field `", "given twice")] {
        if let Some((path, name)) = text.split_once(theirs) {
            return format!("{path}{}: {ours}", name.split('`').next().unwrap_or_default());
        }
    }
    if let Some((before, rest)) = text.split_once("unknown field `") {
        let (name, known) = rest.split_once("`, expected ").unwrap_or((rest, ""));
        let parent = before.strip_suffix(&format!("{name}: ")).unwrap_or(before);
        return format!("{parent}{name}: no such key; known: {}", known.trim_start_matches("one of "));
    }
    [
        ("unknown variant", "no such value"),
        (", expected one of ", "; known: "),
        ("invalid type: ", "found "),
        ("invalid value: ", "found "),
        ("expected usize", "expected a whole number"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

fn after_colon(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, after)| after)
}
