//! The demo's plain HTTP store: one directory, served as a WebDAV-less web server would: PUT, HEAD, GET, DELETE.
//!
//! It owns the directory and knows nothing of images. An object appears under its name only when all of its bytes have
//! arrived; until then they lie under a name that no request can spell.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::{self, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};
use futures::StreamExt;
use tokio::{
    fs::{self, File},
    io::AsyncWriteExt,
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use super::web::{self, Wanted};
use crate::lifetime;

/// The longest name of an object, in bytes.
const NAME_LIMIT: usize = 200;

/// Serves the files of `directory` (made if missing) as `http://<listener>/<name>` until `stop` is cancelled.
///
/// A name is one path component of ASCII letters, digits, `.`, `_` and `-`, and does not begin with a dot.
///
/// # Errors
/// When the directory cannot be made, or the listener fails.
pub(crate) async fn serve(listener: TcpListener, directory: PathBuf, stop: CancellationToken) -> anyhow::Result<()> {
    fs::create_dir_all(&directory).await?;
    let methods = routing::put(put).head(head).get(get).delete(delete);
    let router = Router::new().route("/{name}", methods).with_state(Store(directory.into()));
    lifetime::serve_until(listener, router, stop).await
}

#[derive(Clone)]
struct Store(Arc<Path>);

type Answer = Result<Response, Refusal>;

async fn put(
    State(store): State<Store>,
    extract::Path(name): extract::Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let path = store.path(&name)?;
    let announced = content_length(&headers);
    let incoming = Incoming::in_directory(&store.0);
    let received = receive(&incoming.0, body).await?;
    if announced.is_some_and(|announced| announced != received) {
        return Err(Refusal(StatusCode::BAD_REQUEST));
    }
    let replaced = fs::try_exists(&path).await?;
    fs::rename(&incoming.0, &path).await?;
    let status = if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
    Ok(status.into_response())
}

async fn head(State(store): State<Store>, extract::Path(name): extract::Path<String>) -> Answer {
    let (_, size) = open(&store.path(&name)?).await?;
    Ok(described(StatusCode::OK, size, Body::empty()))
}

async fn get(State(store): State<Store>, extract::Path(name): extract::Path<String>, headers: HeaderMap) -> Answer {
    let (file, size) = open(&store.path(&name)?).await?;
    match web::wanted(&headers, size) {
        Wanted::All => {
            let body = web::part_of(file, 0..size).await?;
            Ok(described(StatusCode::OK, size, body))
        }
        Wanted::Part(range) => {
            let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let length = range.end - range.start;
            let body = web::part_of(file, range).await?;
            let answer = described(StatusCode::PARTIAL_CONTENT, length, body);
            Ok(([(header::CONTENT_RANGE, shown)], answer).into_response())
        }
        Wanted::Nothing => {
            let shown = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            Ok((StatusCode::RANGE_NOT_SATISFIABLE, shown).into_response())
        }
    }
}

async fn delete(State(store): State<Store>, extract::Path(name): extract::Path<String>) -> Answer {
    fs::remove_file(store.path(&name)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl Store {
    fn path(&self, name: &str) -> Result<PathBuf, Refusal> {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let accepted = !name.starts_with('.') && name.len() <= NAME_LIMIT && name.bytes().all(safe);
        if accepted { Ok(self.0.join(name)) } else { Err(Refusal(StatusCode::BAD_REQUEST)) }
    }
}

/// The aside name of an object that is being written. What still bears it at the end is removed, also when the client
/// goes away and the request is dropped.
struct Incoming(PathBuf);

impl Incoming {
    fn in_directory(directory: &Path) -> Self {
        Self(directory.join(format!(".{}.part", uuid::Uuid::new_v4())))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Already renamed in the good case, so "not found" is expected.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes the body to `path` and tells how many bytes came. A body that breaks off is an error.
async fn receive(path: &Path, body: Body) -> Result<u64, Refusal> {
    let mut file = File::create(path).await?;
    let mut chunks = body.into_data_stream();
    let mut received = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_broken_off| Refusal(StatusCode::BAD_REQUEST))?;
        file.write_all(&chunk).await?;
        received += chunk.len() as u64;
    }
    file.flush().await?;
    Ok(received)
}

async fn open(path: &Path) -> Result<(File, u64), Refusal> {
    let file = File::open(path).await?;
    let metadata = file.metadata().await?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(Refusal(StatusCode::NOT_FOUND)) }
}

fn described(status: StatusCode, length: u64, body: Body) -> Response {
    let headers = [
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    (status, headers, body).into_response()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A request that is answered with a bare status.
struct Refusal(StatusCode);

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self(StatusCode::NOT_FOUND),
            io::ErrorKind::StorageFull => Self(StatusCode::INSUFFICIENT_STORAGE),
            _ => {
                tracing::warn!(%error, "the embedded store failed");
                Self(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

#[cfg(test)]
mod tests;
