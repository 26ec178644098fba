//! As much of Swift as a store needs: version 1's login, containers, objects, listings by pages, dynamic large objects.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use bytes::Bytes;
use mimeo_adapters::stores::swift::{SwiftCredentials, SwiftLogin, SwiftStore, SwiftStoreConfig};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

pub(crate) const KEY: &str = "s3cret";

/// How many names a page of a listing has.
const PAGE: usize = 3;

#[derive(Default)]
pub(crate) struct Account {
    pub(crate) url: String,
    pub(crate) logins: u64,
    /// No token is good any more.
    pub(crate) ended: bool,
    pub(crate) objects: BTreeMap<String, Object>,
    pub(crate) has_container: bool,
    /// What PUTs of objects answer instead of taking them.
    pub(crate) refuses: Option<StatusCode>,
    /// So often a large object is told without its last segment.
    pub(crate) lags: usize,
    /// Bytes that the container, and the account, may have.
    pub(crate) quotas: (Option<u64>, Option<u64>),
    /// Instead of [`KEY`].
    pub(crate) key: Option<&'static str>,
}

#[derive(Default, Clone)]
pub(crate) struct Object {
    pub(crate) bits: Bytes,
    headers: HeaderMap,
}

#[derive(Clone, Default)]
pub(crate) struct Swift(Arc<Mutex<Account>>);

impl Swift {
    pub(crate) async fn serve() -> (Self, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let swift = Self::default();
        swift.with(|account| {
            account.url = format!("http://{}", listener.local_addr().unwrap());
            account.has_container = true;
        });
        let router = Router::new()
            .route("/auth/1.0", get(log_in))
            .route("/v1/AUTH_a", any(account))
            .route("/v1/AUTH_a/c", any(container))
            .route("/v1/AUTH_a/c/{name}", any(object))
            .with_state(swift.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        (swift, task)
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Account) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.with(|account| account.objects.keys().cloned().collect())
    }

    pub(crate) fn config(&self, segment_size: u64) -> SwiftStoreConfig {
        config(&self.with(|account| account.url.clone()), segment_size)
    }

    /// One that has just been made, as after a restart.
    pub(crate) fn store(&self, segment_size: u64) -> SwiftStore {
        SwiftStore::new(self.config(segment_size)).unwrap()
    }
}

pub(crate) fn config(url: &str, segment_size: u64) -> SwiftStoreConfig {
    with_key(url, segment_size, KEY)
}

pub(crate) fn with_key(url: &str, segment_size: u64, key: &str) -> SwiftStoreConfig {
    let credentials = SwiftCredentials::tempauth(&format!("{url}/auth/1.0"), "a:mimeo", key.into()).unwrap();
    SwiftStoreConfig {
        name: "swift1".parse().unwrap(),
        login: SwiftLogin::TempAuth(credentials),
        region: None,
        interface: None,
        container: "c".into(),
        segment_size,
        create_container: false,
        ca_file: None,
    }
}

async fn log_in(State(swift): State<Swift>, headers: HeaderMap) -> Response {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    if !is("X-Auth-User", "a:mimeo") || !is("X-Auth-Key", swift.with(|account| account.key.unwrap_or(KEY))) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    swift.with(|account| {
        account.logins += 1;
        account.ended = false;
        let (url, token) = (format!("{}/v1/AUTH_a", account.url), format!("token-{}", account.logins));
        [("X-Storage-Url", url), ("X-Auth-Token", token), ("X-Auth-Token-Expires", "86400".into())].into_response()
    })
}

impl Account {
    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let token = format!("token-{}", self.logins);
        !self.ended && headers.get("X-Auth-Token").is_some_and(|found| *found == token)
    }
}

/// HEAD alone.
async fn account(State(swift): State<Swift>, headers: HeaderMap) -> Response {
    swift.with(|account| match account.lets_in(&headers) {
        true => account.told("Account", account.quotas.1),
        false => StatusCode::FORBIDDEN.into_response(),
    })
}

async fn container(
    State(swift): State<Swift>,
    Query(query): Query<HashMap<String, String>>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    swift.with(|account| match method {
        _ if !account.lets_in(&headers) => StatusCode::UNAUTHORIZED.into_response(),
        Method::PUT => {
            account.has_container = true;
            StatusCode::CREATED.into_response()
        }
        _ if !account.has_container => StatusCode::NOT_FOUND.into_response(),
        Method::HEAD => account.told("Container", account.quotas.0),
        _ => {
            let names = account.objects.iter().filter(|(name, _)| {
                name.starts_with(&query["prefix"]) && query.get("marker").is_none_or(|marker| *name > marker)
            });
            let page = names.take(PAGE).map(|(name, object)| json!({"name": name, "bytes": object.bits.len()}));
            Json(page.collect::<Vec<_>>()).into_response()
        }
    })
}

async fn object(State(swift): State<Swift>, Path(name): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let (method, headers) = (parts.method, parts.headers);
    let refused = swift.with(|account| match () {
        () if !account.lets_in(&headers) => Some(StatusCode::UNAUTHORIZED),
        () if !account.has_container => Some(StatusCode::NOT_FOUND),
        () => account.refuses.filter(|_| method == Method::PUT),
    });
    if let Some(status) = refused {
        return status.into_response();
    }
    match method {
        Method::PUT => {
            let Ok(bits) = to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
            let kept = headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
            let headers = kept.filter(|(name, _)| name.as_str().starts_with("x-object-")).collect();
            swift.with(|account| account.objects.insert(name, Object { bits, headers }));
            StatusCode::CREATED.into_response()
        }
        Method::DELETE => match swift.with(|account| account.objects.remove(&name)) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => swift.with(|account| account.read(&name, headers.get("Range"))),
    }
}

impl Account {
    /// As a HEAD is answered; the container is the only one.
    fn told(&self, what: &str, quota: Option<u64>) -> Response {
        let used: usize = self.objects.values().map(|object| object.bits.len()).sum();
        let mut headers = vec![(format!("X-{what}-Bytes-Used"), used.to_string())];
        headers.extend(quota.map(|quota| (format!("X-{what}-Meta-Quota-Bytes"), quota.to_string())));
        let headers = headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        (StatusCode::NO_CONTENT, headers.collect::<HeaderMap>()).into_response()
    }

    fn read(&mut self, name: &str, range: Option<&HeaderValue>) -> Response {
        let Some(Object { mut bits, headers }) = self.objects.get(name).cloned() else {
            return StatusCode::NOT_FOUND.into_response();
        };
        if let Some(manifest) = headers.get("X-Object-Manifest") {
            let prefix = manifest.to_str().unwrap().strip_prefix("c/").unwrap();
            let mut segments: Vec<Bytes> = Vec::new();
            let all = self.objects.iter().filter(|(name, _)| name.starts_with(prefix));
            segments.extend(all.map(|(_, segment)| segment.bits.clone()));
            if self.lags > 0 {
                self.lags -= 1;
                segments.pop();
            }
            bits = segments.concat().into();
        }
        let Some(range) = range else { return (headers, Body::from(bits)).into_response() };
        let (from, to) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let from: usize = from.parse().unwrap();
        let to = to.parse::<usize>().map_or(bits.len(), |last| (last + 1).min(bits.len()));
        if from >= bits.len() {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        let told = [("Content-Range", format!("bytes {from}-{}/{}", to - 1, bits.len()))];
        (StatusCode::PARTIAL_CONTENT, told, headers, Body::from(bits.slice(from..to))).into_response()
    }
}
