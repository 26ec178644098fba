//! What the demo's two embedded servers share: answering with a part of a file.
//!
//! Owns no state and knows neither images nor stores.

use std::{io, ops::Range};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};
use tokio_util::io::ReaderStream;

#[cfg(test)]
pub(crate) mod test_client;

/// The size of the pieces in which a file is read.
const PIECE: usize = 256 * 1024;

/// What a request wants of a resource of a known size.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Part(Range<u64>),
    /// A range that begins behind the end: 416.
    Nothing,
}

/// Reads the `Range` header (RFC 9110, 14.2).
///
/// Several ranges, other units and malformed values are ignored, as the RFC allows: the answer is the whole.
pub(super) fn wanted(headers: &HeaderMap, size: u64) -> Wanted {
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes="))
        .and_then(|value| value.split_once('-'));
    let Some((first, last)) = range else {
        return Wanted::All;
    };
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => within(size.saturating_sub(suffix), size, size),
        (Some(first), None) if last.is_empty() => within(first, size, size),
        (Some(first), Some(last)) if first <= last => within(first, last.saturating_add(1), size),
        _ => Wanted::All,
    }
}

/// The bytes of `range` as a body, read in pieces.
pub(super) async fn part_of(mut file: File, range: Range<u64>) -> io::Result<Body> {
    file.seek(io::SeekFrom::Start(range.start)).await?;
    let part = file.take(range.end - range.start);
    Ok(Body::from_stream(ReaderStream::with_capacity(part, PIECE)))
}

fn within(start: u64, end: u64, size: u64) -> Wanted {
    if start < size { Wanted::Part(start..end.min(size)) } else { Wanted::Nothing }
}

/// Digits only: `u64::from_str` would also take a sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(range: &str) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        wanted(&headers, 10)
    }

    #[test]
    fn no_range_is_everything() {
        assert_eq!(wanted(&HeaderMap::new(), 10), Wanted::All);
    }

    #[test]
    fn one_range_is_a_part() {
        assert_eq!(ask("bytes=0-3"), Wanted::Part(0..4));
        assert_eq!(ask("bytes=4-"), Wanted::Part(4..10));
        assert_eq!(ask("bytes=-3"), Wanted::Part(7..10));
        assert_eq!(ask("bytes=-30"), Wanted::Part(0..10));
        assert_eq!(ask("bytes=8-99999999999999999999999"), Wanted::Part(8..10));
    }

    #[test]
    fn a_range_behind_the_end_is_unsatisfiable() {
        assert_eq!(ask("bytes=10-"), Wanted::Nothing);
        assert_eq!(ask("bytes=-0"), Wanted::Nothing);
        assert_eq!(ask("bytes=99999999999999999999999-"), Wanted::Nothing);
    }

    #[test]
    fn what_is_not_one_range_of_bytes_is_ignored() {
        for range in ["bytes=0-1,3-4", "lines=1-2", "bytes=", "bytes=-", "bytes=5-2", "bytes=+1-2"] {
            assert_eq!(ask(range), Wanted::All, "{range}");
        }
    }
}
