//! An image's bits, read through Glance.

use async_trait::async_trait;
use futures::{StreamExt, stream};
use mimeo_core::{
    Error, ImageId, Reason, Result,
    ports::{ByteStream, Source},
};
use reqwest::{Method, StatusCode, header};

use super::{answer::refused, glance::Glance};
use crate::{http::range_start, stream::skipping};

pub(super) struct GlanceSource {
    pub(super) glance: Glance,
    pub(super) id: ImageId,
}

#[async_trait]
impl Source for GlanceSource {
    async fn open(&self, offset: u64) -> Result<ByteStream> {
        let path = format!("/v2/images/{}/file", self.id);
        let from = |request: reqwest::RequestBuilder| match offset {
            0 => request,
            offset => request.header(header::RANGE, format!("bytes={offset}-")),
        };
        let mut response = self.glance.send(&Method::GET, &path, from).await?;
        if offset > 0 && response.status() == StatusCode::BAD_REQUEST {
            // Glance reads nothing in part from rbd, s3 and swift.
            response = self.glance.send(&Method::GET, &path, |request| request).await?;
        }
        let skip = match response.status() {
            StatusCode::OK => offset,
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(offset) => 0,
            StatusCode::NO_CONTENT => {
                let message = format!("Glance has no bits of image {}: no store of its holds them", self.id);
                return Err(Error::new(Reason::SourceUnreadable, message));
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(stream::empty().boxed()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(refused(&Method::GET, Reason::NotAllowed, response).await);
            }
            _ => return Err(refused(&Method::GET, Reason::SourceUnreadable, response).await),
        };
        let id = self.id.clone();
        Ok(skipping(response.bytes_stream(), skip, move |cause| {
            let message = format!("Glance broke off while the bits of image {id} were read");
            Error::new(Reason::SourceUnreadable, message).caused_by(cause.without_url())
        }))
    }
}
