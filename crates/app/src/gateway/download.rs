//! A download that glance-api has granted is read from the nearest proven copy.

use std::ops::Range;

use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::Frame,
    header::{CONTENT_LENGTH, CONTENT_RANGE},
};
use mimeo_core::ImageId;

use super::{Gateway, upstream::AnyBody};

impl Gateway {
    /// `granted` is glance-api's answer to this very client: only it says who may have the bits, and which. Its body is
    /// given where no copy can be read.
    pub(super) async fn nearest(&self, id: &ImageId, granted: Response<AnyBody>) -> Response<AnyBody> {
        let Some((range, size)) = span(granted.status(), granted.headers()) else { return granted };
        let bits = match self.engine.read_copy(id, range, size).await {
            Ok(Some(bits)) => bits,
            Ok(None) => return granted,
            Err(error) => {
                tracing::warn!(image = %id, error = error.chain(), "no copy can be read; glance-api gives the image");
                return granted;
            }
        };
        let frames = bits.map_ok(|bytes: Bytes| Frame::data(bytes)).map_err(Into::into);
        granted.map(|_| BodyExt::boxed_unsync(StreamBody::new(frames)))
    }
}

/// Which bytes an answer has, and of how many.
fn span(status: StatusCode, headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match status {
        StatusCode::OK => {
            let size = text(CONTENT_LENGTH)?.parse().ok()?;
            Some((0..size, size))
        }
        StatusCode::PARTIAL_CONTENT => {
            let (range, size) = text(CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            Some((first..last.checked_add(1).filter(|end| *end > first)?, size.trim().parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_bytes_were_granted_is_read_from_the_answer() {
        let of = |status, name, value: &'static str| {
            span(status, &HeaderMap::from_iter([(name, hyper::header::HeaderValue::from_static(value))]))
        };
        assert_eq!(of(StatusCode::OK, CONTENT_LENGTH, "100"), Some((0..100, 100)));
        assert_eq!(of(StatusCode::PARTIAL_CONTENT, CONTENT_RANGE, "bytes 10-19/100"), Some((10..20, 100)));
        for bad in
            ["bytes 19-10/100", "bytes */100", "bytes 10-19/*", "items 1-2/3", "bytes 0-18446744073709551615/100"]
        {
            assert_eq!(of(StatusCode::PARTIAL_CONTENT, CONTENT_RANGE, bad), None, "{bad}");
        }
        assert_eq!(of(StatusCode::FORBIDDEN, CONTENT_LENGTH, "100"), None);
    }
}
