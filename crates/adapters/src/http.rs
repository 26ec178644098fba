//! The HTTP client as every adapter here wants it.

use std::time::Duration;

use reqwest::{Client, ClientBuilder};

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Shorter than any common server's keep-alive (Apache's is 5 s): a streamed body cannot be sent twice, so it should
/// never meet a connection that the server is just closing.
const IDLE: Duration = Duration::from_secs(4);

/// Bounds the connect and nothing else. It asks for no compression: bytes are counted and hashed as they are.
pub(crate) fn client() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("mimeo/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .tcp_keepalive(Duration::from_secs(30))
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
}

/// The first byte that a `Content-Range` header names.
pub(crate) fn range_start(response: &reqwest::Response) -> Option<u64> {
    start_of(response.headers().get(reqwest::header::CONTENT_RANGE)?.to_str().ok()?)
}

/// As in `bytes 5-9/10`.
pub(crate) fn start_of(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}
