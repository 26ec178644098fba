//! Requests with a SHA-256 behind their body: the server refuses what did not arrive as it was sent, and keeps the checksum
//! with the object.
//!
//! The bytes pass as they come, so that their hash is known at the end only: the body is `aws-chunked`, in one chunk, and
//! the checksum its trailer. A signature in the URL knows no trailers: these requests are signed in a header.

use std::fmt::Write;

use aws_lc_rs::{
    digest::{Context, SHA256, digest},
    hmac,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    RequestBuilder,
    header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap},
};
use rusty_s3::Credentials;
use url::{Position, Url};

/// Where servers take and tell the checksum.
pub(super) const HEADER: &str = "x-amz-checksum-sha256";
/// What the signature says of the body.
const PAYLOAD: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
/// What a signature has otherwise than as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The hash of a body that is being sent.
pub(super) struct Checksum(Context);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn value(self) -> String {
        BASE64.encode(self.0.finish())
    }
}

/// What stands before the bytes of a body.
pub(super) fn begin(size: u64) -> Bytes {
    if size == 0 { Bytes::new() } else { format!("{size:x}\r\n").into() }
}

/// What stands behind them.
pub(super) fn end(size: u64, checksum: &str) -> Bytes {
    let after = if size == 0 { "" } else { "\r\n" };
    format!("{after}0\r\n{HEADER}:{checksum}\r\n\r\n").into()
}

/// How long a body is with what stands around its bytes.
pub(super) fn framed(size: u64) -> u64 {
    let checksum = BASE64.encode([0; 32]);
    size + (begin(size).len() + end(size, &checksum).len()) as u64
}

/// What the answer told is this very checksum.
pub(super) fn is_told(headers: &HeaderMap, checksum: &str) -> bool {
    headers.get(HEADER).is_some_and(|told| told.as_bytes() == checksum.as_bytes())
}

/// Of an object in parts with these checksums, as servers tell it. `None`: that of a part is not known.
pub(super) fn of_parts<'a>(parts: impl ExactSizeIterator<Item = Option<&'a str>>) -> Option<String> {
    let count = parts.len();
    let values: Option<Vec<Vec<u8>>> = parts.map(|part| BASE64.decode(part?).ok()).collect();
    Some(format!("{}-{count}", BASE64.encode(digest(&SHA256, &values?.concat()))))
}

/// The URL of a part of an upload.
pub(super) fn of_part(mut object: Url, upload: &str, number: u16) -> Url {
    let upload = utf8_percent_encode(upload, RESERVED);
    object.set_query(Some(&format!("partNumber={number}&uploadId={upload}")));
    object
}

/// A request to PUT so many bytes at `url`, signed.
pub(super) fn signed(
    request: RequestBuilder,
    url: &Url,
    size: u64,
    (region, credentials): (&str, &Credentials),
    now: Timestamp,
) -> RequestBuilder {
    let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let host = url[Position::BeforeHost..Position::AfterPort].to_owned();
    let mut headers = vec![
        ("host", host),
        ("x-amz-content-sha256", PAYLOAD.to_owned()),
        ("x-amz-date", time.clone()),
        ("x-amz-decoded-content-length", size.to_string()),
        ("x-amz-trailer", HEADER.to_owned()),
    ];
    if let Some(token) = credentials.token() {
        // In the order of the names, as the signature has them.
        headers.insert(4, ("x-amz-security-token", token.to_owned()));
    }
    let authorization = authorization("PUT", url, &headers, PAYLOAD, (region, credentials), &time);
    let request = headers.into_iter().skip(1).fold(request, |request, (name, value)| request.header(name, value));
    request.header(CONTENT_ENCODING, "aws-chunked").header(AUTHORIZATION, authorization)
}

/// By Signature Version 4. The headers are in the order of their names.
fn authorization(
    method: &str,
    url: &Url,
    headers: &[(&str, String)],
    payload: &str,
    (region, credentials): (&str, &Credentials),
    time: &str,
) -> String {
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines = headers.iter().fold(String::new(), |lines, (name, value)| lines + name + ":" + value + "\n");
    let (path, query) = (url.path(), url.query().unwrap_or_default());
    let asked = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");
    let day = time.get(..8).unwrap_or_default();
    let scope = format!("{day}/{region}/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(digest(&SHA256, asked.as_bytes()).as_ref()));
    let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let secret = format!("AWS4{}", credentials.secret());
    let mut key = sign(secret.as_bytes(), day);
    for text in [region, "s3", "aws4_request"] {
        key = sign(key.as_ref(), text);
    }
    let signature = hex(sign(key.as_ref(), &text).as_ref());
    format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", credentials.key())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    /// An example of AWS's own documentation, "Signature Calculations for the Authorization Header".
    #[test]
    fn a_signature_is_as_in_the_documentation() {
        let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let url = "https://examplebucket.s3.amazonaws.com/test.txt".parse().unwrap();
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com".to_owned()),
            ("range", "bytes=0-9".to_owned()),
            ("x-amz-content-sha256", nothing.to_owned()),
            ("x-amz-date", "20130524T000000Z".to_owned()),
        ];
        let made = authorization("GET", &url, &headers, nothing, ("us-east-1", &credentials), "20130524T000000Z");
        let signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(
            made.ends_with(&format!("SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature={signature}"))
        );
    }

    #[test]
    fn a_body_is_as_long_as_was_said() {
        for size in [0, 1, 15, 16, 70_000] {
            let checksum = Checksum::new().value();
            let whole = begin(size).len() as u64 + size + end(size, &checksum).len() as u64;
            assert_eq!(framed(size), whole, "{size}");
        }
        assert_eq!(begin(26), "1a\r\n");
    }

    #[test]
    fn the_checksum_of_an_object_is_known_where_those_of_all_its_parts_are() {
        let (one, two) =
            ("Q4cDjsy16rmTMkZWcvsLosrH9027F/cIc5DLGcshYEI=", "MB6LHXHEs9pXJZz2hszXnHc6vAImTJhYNVhuuXISYHw=");
        let told = "iVPeL022ZNl5+2zze2PFzUDeUTLe/aYuAmnmUAlj0aQ=-2";
        assert_eq!(of_parts([Some(one), Some(two)].into_iter()).as_deref(), Some(told));
        assert_eq!(of_parts([Some(one), None].into_iter()), None);
    }
}
