//! The segments of a large object, as Glance's driver names them.

use mimeo_core::{
    Error, ObjectName, Reason, Result,
    ports::{Cursor, ObjectPage},
};
use reqwest::Method;
use serde::Deserialize;
use url::form_urlencoded;

use super::account::{Account, At};
use crate::stores::listing::distinct;

/// The largest number that its name has room for: names are read in their order.
const LAST: u32 = 99_999;

pub(super) fn prefix(object: &ObjectName) -> String {
    format!("{object}-")
}

pub(super) fn segment(object: &ObjectName, number: u32) -> Result<String> {
    if number > LAST {
        let message = format!("{object} would have more than {LAST} segments: raise segment_size");
        return Err(Error::new(Reason::StoreError, message));
    }
    Ok(format!("{object}-{number:05}"))
}

/// The number that an object's name in a listing says, where it is a segment of `object`.
fn number(object: &ObjectName, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(object.as_str())?.strip_prefix('-')?;
    (digits.len() == 5 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) bytes: u64,
}

#[derive(Deserialize)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// All segments of the object that the container lists, in their order.
pub(super) async fn list(account: &Account, object: &ObjectName) -> Result<Vec<Segment>> {
    let prefix = prefix(object);
    let (mut segments, mut marker) = (Vec::new(), String::new());
    loop {
        let query = query(&prefix, &marker);
        let response = account.send(&Method::GET, At::Container(&query), |get| get).await?;
        match response.status().as_u16() {
            200 => {}
            204 => return Ok(segments),
            _ => return Err(account.of_container(&Method::GET, &response)),
        }
        let unreadable = |cause: reqwest::Error| {
            Error::new(Reason::StoreError, format!("the listing of {prefix} cannot be read"))
                .caused_by(cause.without_url())
        };
        let page: Vec<Listed> = response.json().await.map_err(unreadable)?;
        match page.last() {
            Some(last) if last.name > marker => marker.clone_from(&last.name),
            _ => return Ok(segments),
        }
        segments.extend(known(object, &page));
    }
}

/// A page of what the container has of Mimeo's own, objects and segments, and where the next begins. None where there is
/// no container.
pub(super) async fn page(account: &Account, after: Option<&Cursor>) -> Result<ObjectPage> {
    let query = query("", after.map_or("", |Cursor(marker)| marker));
    let response = account.send(&Method::GET, At::Container(&query), |get| get).await?;
    match response.status().as_u16() {
        200 => {}
        204 | 404 => return Ok(ObjectPage::default()),
        _ => return Err(account.refused(&Method::GET, &response)),
    }
    let unreadable = |cause: reqwest::Error| {
        Error::new(Reason::StoreError, "the listing of the container cannot be read").caused_by(cause.without_url())
    };
    let page: Vec<Listed> = response.json().await.map_err(unreadable)?;
    let next = page.last().map(|last| Cursor(last.name.clone())).filter(|next| after != Some(next));
    Ok(ObjectPage { objects: distinct(page.iter().filter_map(|listed| of(&listed.name))), next })
}

/// The object that a name in a listing is of: its own, or a segment of it.
fn of(name: &str) -> Option<ObjectName> {
    name.parse().ok().or_else(|| {
        let object: ObjectName = name.rsplit_once('-')?.0.parse().ok()?;
        number(&object, name).map(|_| object)
    })
}

/// Those of a listing that are segments of the object.
pub(super) fn known(object: &ObjectName, page: &[Listed]) -> Vec<Segment> {
    let segment = |listed: &Listed| Some(Segment { number: number(object, &listed.name)?, bytes: listed.bytes });
    page.iter().filter_map(segment).collect()
}

fn query(prefix: &str, marker: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([("format", "json"), ("prefix", prefix), ("marker", marker)]).finish()
}

/// Those from the first on without a gap.
pub(super) fn unbroken(segments: &[Segment]) -> &[Segment] {
    let whole = segments.iter().zip(1..).take_while(|(segment, number)| segment.number == *number).count();
    &segments[..whole]
}

/// How many bytes the segments have together, as far as they can be counted: a server may list what it wants.
pub(super) fn total(segments: &[Segment]) -> u64 {
    segments.iter().fold(0, |total, segment| total.saturating_add(segment.bytes))
}

/// How many whole segments there are before `offset`, and how many bytes of the next one are. `None`: not so many
/// bytes are there.
pub(super) fn place(segments: &[Segment], offset: u64) -> Option<(u32, u64)> {
    let (mut whole, mut rest) = (0, offset);
    for segment in segments {
        if rest < segment.bytes {
            return Some((whole, rest));
        }
        whole = segment.number;
        rest -= segment.bytes;
    }
    (rest == 0).then_some((whole, 0))
}

#[cfg(test)]
mod tests {
    use mimeo_core::ImageId;

    use super::*;

    fn object() -> ObjectName {
        let id: ImageId = "5f0c2a30-6f1c-4a2a-9a1e-6b8f5f0b4c11".parse().unwrap();
        ObjectName::new(&id, 7)
    }

    fn segments(sizes: &[(u32, u64)]) -> Vec<Segment> {
        sizes.iter().map(|&(number, bytes)| Segment { number, bytes }).collect()
    }

    #[test]
    fn a_segment_is_known_by_its_exact_name() {
        let object = object();
        assert_eq!(number(&object, &segment(&object, 12).unwrap()), Some(12));
        for other in ["", "-", "-1", "-000001", "-0000a", "-+0001", "00001"] {
            assert_eq!(number(&object, &format!("{object}{other}")), None, "{other}");
        }
        assert_eq!(number(&object, "another-00001"), None);
        assert!(segment(&object, 100_000).is_err());
    }

    #[test]
    fn a_listed_name_is_of_an_object_or_of_none_of_mimeos() {
        let object = object();
        for name in [object.to_string(), segment(&object, 3).unwrap()] {
            assert_eq!(of(&name), Some(object.clone()));
        }
        for other in ["", "a-00001", &format!("{object}-x"), &format!("{object}/00001"), object.image().as_str()] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn what_follows_a_gap_is_not_kept() {
        assert_eq!(unbroken(&segments(&[(1, 5), (2, 5), (4, 5)])).len(), 2);
        assert!(unbroken(&segments(&[(2, 5)])).is_empty());
    }

    #[test]
    fn an_offset_has_its_place_in_a_segment() {
        let segments = segments(&[(1, 5), (2, 5), (3, 2)]);
        for (offset, found) in [(0, (0, 0)), (4, (0, 4)), (5, (1, 0)), (7, (1, 2)), (10, (2, 0)), (12, (3, 0))] {
            assert_eq!(place(&segments, offset), Some(found), "{offset}");
        }
        assert_eq!(place(&segments, 13), None);
    }

    #[test]
    fn sizes_that_no_segment_can_have_are_no_crash() {
        assert_eq!(total(&segments(&[(1, u64::MAX), (2, 1)])), u64::MAX);
    }
}
