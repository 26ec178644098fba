use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::{
    Error, Reason, Result, StoreName,
    ports::{Receipt, Sink},
};
use reqwest::{RequestBuilder, StatusCode};
use url::Url;

use super::store::Directory;
use crate::upload::Upload;

/// One PUT while its body is sent. No server publishes one that was broken off.
pub(super) struct HttpSink {
    store: StoreName,
    url: Url,
    directory: Directory,
    upload: Upload,
}

impl HttpSink {
    /// Sends `put`, which is for this URL in this directory, with a body of this size.
    pub(super) fn start(
        put: RequestBuilder,
        store: StoreName,
        url: Url,
        directory: Directory,
        size: Option<u64>,
    ) -> Self {
        let upload = Upload::start(put, format!("{store}: PUT {url}"), size);
        Self { store, url, directory, upload }
    }

    /// The server answered while bytes were still to come: no copy, whatever it says.
    fn too_early(&self, status: StatusCode) -> Error {
        let (store, url) = (&self.store, &self.url);
        match is_done(status) {
            true => {
                let message = format!("{store}: PUT {url} answered {status} before it had the whole body");
                Error::new(Reason::StoreError, message)
            }
            false => self.directory.refused(store, url, status),
        }
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match self.upload.write(bytes).await? {
            Some(response) => Err(self.too_early(response.status())),
            None => Ok(()),
        }
    }

    async fn close(self: Box<Self>) -> Result<Receipt> {
        let Self { store, url, directory, upload } = *self;
        match upload.finish().await?.status() {
            status if is_done(status) => Ok(Receipt::default()),
            status => Err(directory.refused(&store, &url, status)),
        }
    }

    async fn abort(self: Box<Self>) {}
}

pub(super) fn is_done(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT)
}
