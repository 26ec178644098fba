//! A small web server that keeps its objects in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use futures::StreamExt;

use crate::{object, server};

pub(crate) type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// As nginx does it, but for `ranges` and `in_ranges`.
#[derive(Clone, Default)]
pub(crate) struct Dav {
    pub(crate) objects: Objects,
    pub(crate) ranges: bool,
    pub(crate) in_ranges: InRanges,
    pub(crate) puts: Arc<Mutex<Vec<Put>>>,
}

/// Its `Content-Range`, and how many bytes came where that was heeded.
pub(crate) type Put = (Option<String>, usize);

/// What is done with a PUT that has a `Content-Range`.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum InRanges {
    /// It replaces the whole object.
    #[default]
    PassedOver,
    /// As nginx and others do.
    Refused(StatusCode),
    /// As Apache does: what is broken off stays, but only of an object that was there before.
    Taken,
}

impl Dav {
    pub(crate) fn taking(in_ranges: InRanges) -> Self {
        Self { in_ranges, ..Self::default() }
    }

    pub(crate) async fn served(&self) -> server::Server {
        server::serve(Router::new().route("/images/{name}", any(dav)).with_state(self.clone())).await
    }

    pub(crate) fn puts(&self) -> Vec<Put> {
        self.puts.lock().unwrap().clone()
    }

    pub(crate) fn bits(&self) -> Option<Bytes> {
        self.objects.lock().unwrap().get(object().as_str()).cloned()
    }

    async fn put(&self, name: String, range: Option<String>, body: Body) -> StatusCode {
        let place = self.puts.lock().unwrap().len();
        self.puts.lock().unwrap().push((range.clone(), 0));
        let mut at = match (range, self.in_ranges) {
            (Some(_), InRanges::Refused(status)) => return status,
            (Some(range), InRanges::Taken) => range["bytes ".len()..].split('-').next().unwrap().parse().unwrap(),
            _ => return self.replace(name, body).await,
        };
        let mut aside = match self.objects.lock().unwrap().contains_key(&name) {
            true => None,
            false => Some(Vec::new()),
        };
        let mut body = body.into_data_stream();
        while let Some(chunk) = body.next().await {
            let Ok(chunk) = chunk else { return StatusCode::BAD_REQUEST };
            self.puts.lock().unwrap()[place].1 += chunk.len();
            match &mut aside {
                Some(aside) => aside.extend_from_slice(&chunk),
                None => self.write_at(&name, at, &chunk),
            }
            at += chunk.len();
        }
        match aside {
            Some(aside) => drop(self.objects.lock().unwrap().insert(name, aside.into())),
            None => return StatusCode::NO_CONTENT,
        }
        StatusCode::CREATED
    }

    async fn replace(&self, name: String, body: Body) -> StatusCode {
        match to_bytes(body, usize::MAX).await {
            Ok(bits) => {
                self.objects.lock().unwrap().insert(name, bits);
                StatusCode::CREATED
            }
            Err(_) => StatusCode::BAD_REQUEST,
        }
    }

    fn write_at(&self, name: &str, at: usize, chunk: &[u8]) {
        let mut objects = self.objects.lock().unwrap();
        let mut bits = objects[name].to_vec();
        bits.resize(bits.len().max(at + chunk.len()), 0);
        bits[at..at + chunk.len()].copy_from_slice(chunk);
        objects.insert(name.to_owned(), bits.into());
    }
}

pub(crate) async fn dav(
    State(dav): State<Dav>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let found = dav.objects.lock().unwrap().get(&name).cloned();
    match (method, found) {
        (Method::PUT, _) => {
            let range = headers.get(header::CONTENT_RANGE).map(|range| range.to_str().unwrap().to_owned());
            dav.put(name, range, body).await.into_response()
        }
        (_, None) => StatusCode::NOT_FOUND.into_response(),
        (Method::DELETE, Some(_)) => {
            dav.objects.lock().unwrap().remove(&name);
            StatusCode::NO_CONTENT.into_response()
        }
        (_, Some(bits)) => get(&bits, headers.get(header::RANGE).filter(|_| dav.ranges)),
    }
}

fn get(bits: &Bytes, range: Option<&header::HeaderValue>) -> Response {
    let Some(range) = range else { return bits.clone().into_response() };
    let (from, to) = range.to_str().unwrap().trim_start_matches("bytes=").split_once('-').unwrap();
    let from = from.parse::<usize>().unwrap();
    let end = to.parse::<usize>().map_or(bits.len(), |to| bits.len().min(to + 1));
    if from >= bits.len() {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let told = format!("bytes {from}-{}/{}", end - 1, bits.len());
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, told)], bits.slice(from..end)).into_response()
}
