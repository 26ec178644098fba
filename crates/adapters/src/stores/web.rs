//! Where objects are read by HTTP, as Glance's driver reads them: the location, the size, the bits.

use std::time::Duration;

use futures::{StreamExt, stream};
use mimeo_core::{Error, ObjectName, Reason, Result, StoreName, ports::ByteStream, without_credentials};
use reqwest::{Client, ClientBuilder, Method, Response, StatusCode, header, redirect};
use url::Url;

use crate::{
    http::{client, range_start},
    stream::skipping,
    upload::unanswered,
};

/// A probe answers at once or not at all: a URL that is slow now must not be given to Glance.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// As many as Glance's HTTP driver follows.
const REDIRECTS: usize = 5;

/// The web server that gives a store's objects to Glance, and to whoever proves them.
#[derive(Debug, Clone)]
pub(super) struct Web {
    store: StoreName,
    url: Url,
    client: Client,
}

impl Web {
    /// `url` as [`base_url`] gives it.
    #[cfg(any(feature = "file", feature = "sftp", feature = "rsync"))]
    pub(super) fn new(store: StoreName, url: Url) -> Result<Self> {
        Self::reached_by(plain_client(), store, url)
    }

    /// As [`new`](Self::new), by a client that is given: one that sends no credentials, because Glance sends none.
    pub(super) fn reached_by(client: ClientBuilder, store: StoreName, url: Url) -> Result<Self> {
        let client = built(&store, client.redirect(as_glance_follows()))?;
        Ok(Self { store, url, client })
    }

    pub(super) fn location(&self, object: &ObjectName) -> Url {
        append(&self.url, object)
    }

    pub(super) async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        let url = self.location(object);
        let mut request = self.client.get(url.clone());
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let response = request.send().await.map_err(|cause| self.failed(&Method::GET, &url, cause))?;
        let skip = match response.status() {
            StatusCode::OK => offset,
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(offset) => 0,
            // Nothing from there on: how much there should be is the reader's to know.
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(stream::empty().boxed()),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let message = format!("{}: GET {url} answered {}: the object is gone", self.store, response.status());
                return Err(Error::new(Reason::ObjectMissing, message));
            }
            status => return Err(self.refused(&Method::GET, &url, status)),
        };
        let store = self.store.clone();
        Ok(skipping(response.bytes_stream(), skip, move |cause| {
            let message = format!("{store}: the connection broke while {url} was read");
            Error::new(Reason::StoreError, message).caused_by(cause.without_url())
        }))
    }

    pub(super) async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        let url = self.location(object);
        let asked = self.client.head(url.clone()).timeout(PROBE_TIMEOUT).send().await;
        let response = asked.map_err(|cause| self.failed(&Method::HEAD, &url, cause))?;
        match response.status() {
            StatusCode::OK => {
                let untold = || {
                    let message = format!("{}: HEAD {url} tells no Content-Length, which Glance needs", self.store);
                    Error::new(Reason::StoreError, message)
                };
                content_length(&response).map(Some).ok_or_else(untold)
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status => Err(self.refused(&Method::HEAD, &url, status)),
        }
    }

    /// After a removal that found nothing: an object that the server still shows is not gone. Where a directory is away,
    /// with its mount say, there is nothing to remove, and later it is back. (What was found and removed was there.)
    /// `key` is that of the place in the store's section.
    pub(super) async fn shown_gone(&self, object: &ObjectName, key: &str) -> Result<()> {
        if self.probe(object).await?.is_none() {
            return Ok(());
        }
        let (store, location) = (&self.store, self.location(object));
        let message = format!(
            "{store}: {object} is not there, but {location} still shows it: do {key} and read_url show the same files?"
        );
        Err(Error::new(Reason::StoreError, message))
    }

    /// As [`read`](Self::read); what the server does not show must be missing where it was written too, which `is_there`
    /// finds out. `key` as in [`shown_gone`](Self::shown_gone).
    pub(super) async fn read_unless_there(
        &self,
        object: &ObjectName,
        offset: u64,
        key: &str,
        is_there: impl Future<Output = Result<bool>>,
    ) -> Result<ByteStream> {
        let read = self.read(object, offset).await;
        let is_missing = read.as_ref().err().is_some_and(|error| error.reason == Reason::ObjectMissing);
        if is_missing && is_there.await? { Err(self.not_shown(object, key)) } else { read }
    }

    /// As [`probe`](Self::probe), in the same way.
    pub(super) async fn probe_unless_there(
        &self,
        object: &ObjectName,
        key: &str,
        is_there: impl Future<Output = Result<bool>>,
    ) -> Result<Option<u64>> {
        let found = self.probe(object).await?;
        if found.is_none() && is_there.await? { Err(self.not_shown(object, key)) } else { Ok(found) }
    }

    fn not_shown(&self, object: &ObjectName, key: &str) -> Error {
        let (store, location) = (&self.store, self.location(object));
        let message = format!(
            "{store}: {object} is there, but {location} says that it is not: do {key} and read_url show the same files?"
        );
        Error::new(Reason::StoreError, message)
    }

    fn failed(&self, method: &Method, url: &Url, cause: reqwest::Error) -> Error {
        unanswered(&format!("{}: {method} {url}", self.store), cause)
    }

    fn refused(&self, method: &Method, url: &Url, status: StatusCode) -> Error {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let cure =
                    "Glance reads without credentials; let it and Mimeo read there, or name a read_url where they may";
                Error::new(Reason::StoreRefused, format!("{}: {method} {url} answered {status}: {cure}", self.store))
            }
            _ => refused(&self.store, method, url, status),
        }
    }
}

/// HTTP/1.1 alone: there a connection that breaks off is an upload that no server takes for complete. A proxy of the
/// environment is not for stores, as it is not for Glance's driver.
pub(super) fn plain_client() -> ClientBuilder {
    client().http1_only().no_proxy()
}

pub(super) fn built(store: &StoreName, builder: ClientBuilder) -> Result<Client> {
    builder.build().map_err(|cause| {
        Error::new(Reason::StoreUnreachable, format!("{store}: no HTTP client can be made")).caused_by(cause)
    })
}

/// An answer that is none of those hoped for.
pub(super) fn refused(store: &StoreName, method: &Method, url: &Url, status: StatusCode) -> Error {
    let (reason, cure) = match status {
        StatusCode::UNAUTHORIZED => {
            (Reason::StoreRefused, ": write the user and password, or the token, that it wants in the store's section")
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            (Reason::StoreRefused, ": write the user and password that the proxy wants in the store's proxy")
        }
        StatusCode::FORBIDDEN => {
            (Reason::StoreRefused, ": allow Mimeo's address, and let the server's user write there")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            (Reason::StoreRefused, ": enable the method there (nginx: dav_methods PUT DELETE; Apache: Dav On)")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            (Reason::StoreFull, ": raise the server's limit (nginx: client_max_body_size; Apache: LimitRequestBody)")
        }
        StatusCode::INSUFFICIENT_STORAGE => (Reason::StoreFull, ": it has no room left"),
        StatusCode::NOT_FOUND | StatusCode::CONFLICT if method == Method::PUT => {
            (Reason::StoreError, ": the directory is not there; make it, or correct the store's url")
        }
        status if status.is_redirection() => (Reason::StoreError, ": redirected; write the final address in url"),
        _ => (Reason::StoreError, ""),
    };
    Error::new(reason, format!("{store}: {method} {url} answered {status}{cure}"))
}

/// Glance's driver follows these two statuses and no other.
fn as_glance_follows() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let followed = matches!(attempt.status(), StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND);
        match followed && attempt.previous().len() <= REDIRECTS {
            true => attempt.follow(),
            false => attempt.stop(),
        }
    })
}

/// The configured URL ends with a slash, and an object's name needs no escaping.
pub(super) fn append(base: &Url, object: &ObjectName) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{object}", base.path()));
    url
}

/// Not the body's length, which is 0 for a HEAD.
pub(super) fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A URL that cannot be a store's. The text names key, value and rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value:?}: {rule}")]
pub struct InvalidStoreUrl {
    pub key: &'static str,
    /// As written, without any password.
    pub value: String,
    pub rule: &'static str,
}

/// Whether a parser of URLs takes it for another text than it is, which others may read otherwise.
pub(super) fn is_repaired(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_whitespace() || c.is_ascii_control() || c == '\\')
}

/// What the names of objects are appended to; it ends with `/`.
pub fn base_url(key: &'static str, text: &str) -> Result<Url, InvalidStoreUrl> {
    let refuse = |rule| Err(InvalidStoreUrl { key, value: without_credentials(text), rule });
    if is_repaired(text) {
        return refuse("has a space, a control character or a backslash; write those in its path as %20, say");
    }
    let Ok(mut url) = Url::parse(text) else {
        return refuse("is not a URL; write it as http://host/path/");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("must start with http:// or https://");
    }
    // The URL standard takes `http:///images/` for the host `images`: nobody means that.
    let authority = text.split_once("://").map_or("", |(_, rest)| rest);
    if authority.is_empty() || authority.starts_with('/') {
        return refuse("has no host; write it as http://host/path/");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not carry a user or password: a location is shown to whoever sees the image");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must end with its path, without '?' or '#': Mimeo appends the object's name");
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<Url, InvalidStoreUrl> {
        base_url("url", url)
    }

    #[test]
    fn a_url_ends_with_a_slash_whether_written_or_not() {
        for url in ["http://10.0.0.11/images", "http://10.0.0.11/images/"] {
            assert_eq!(parsed(url).unwrap().as_str(), "http://10.0.0.11/images/");
        }
        assert_eq!(parsed("https://host:8443").unwrap().as_str(), "https://host:8443/");
    }

    #[test]
    fn urls_that_no_store_can_have_are_refused_by_name_and_rule() {
        for bad in [
            "",
            "images",
            "ftp://host/",
            "http://",
            "http:///images/",
            "http:h//images/",
            "http:h/",
            "http://h/?a=b",
            "http://h/#a",
            " http://h/",
            "http://h/a b/",
            "http://h\\images/",
        ] {
            let error = parsed(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("url = {bad:?}: ")), "{error}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        let error = parsed("http://user:s3cret@host/").unwrap_err().to_string();
        assert!(error.contains("***@host") && !error.contains("s3cret"), "{error}");
        assert!(!parsed("user:s3cret@host").unwrap_err().to_string().contains("s3cret"));
    }
}
