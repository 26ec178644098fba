//! What must hold of every answer of an S3 server, whatever bytes it is.

use reqwest::StatusCode;
use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload, ListParts, PartsContent};

use super::{
    answer::{elements, first, refused},
    api::Part,
    store::{size_of, without_gap},
};

/// Parts that are gone on with follow one another; an error names what was asked for.
pub fn answer(bytes: &[u8]) {
    let (status, body) = bytes.split_first().map_or((0, bytes), |(status, body)| (*status, body));
    let body = String::from_utf8_lossy(body);
    let status = StatusCode::from_u16(300 + u16::from(status)).unwrap_or_default();
    assert!(refused("s3: PUT http://h/b/k", status, &body).message.starts_with("s3: PUT http://h/b/k answered "));
    for upload in elements(&body, "Upload") {
        assert!(!upload.contains("</Upload>"));
        let _ = (first(upload, "Key"), first(upload, "UploadId"));
    }
    let _ = CreateMultipartUpload::parse_response(&*body);
    let _ = CompleteMultipartUploadResponse::parse(&body);
    let Ok(page) = ListParts::parse_response(&*body) else { return };
    let parts = page.parts.into_iter();
    let parts = parts.map(|PartsContent { number, size, etag, .. }| Part { number, size, etag, checksum: None });
    let parts = without_gap(parts.collect());
    let is_row = (1..).zip(&parts).all(|(number, part): (u16, _)| part.number == number);
    let is_even = parts.windows(2).all(|pair| pair[0].size == parts[0].size && pair[1].size <= parts[0].size);
    assert!(is_row && is_even, "{parts:?}");
    let _ = size_of(&parts);
}
