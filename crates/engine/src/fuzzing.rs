//! What must hold of every location, whatever its URL is.

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{Image, ImageId, Location, ObjectName};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::names::named;

/// An object is found in a URL however it is written there, and none is found that was not asked for. `image` is any.
pub fn names(bytes: &[u8], image: &Image) {
    let Some((number, text)) = bytes.split_first_chunk() else { return };
    let text = String::from_utf8_lossy(text);
    let (before, after) = text.split_once('\n').unwrap_or((&text, ""));
    let object = ObjectName::new(&ImageId::nil(), u64::from_be_bytes(*number));
    let objects = BTreeSet::from([object.to_string()]);
    let found = |url: String| {
        let location = Location { url, metadata: BTreeMap::default() };
        named(&Image { locations: vec![location], ..image.clone() }, &objects)
    };
    assert!(found(text.to_string()).iter().all(|name| objects.contains(name)));
    // A digit behind it makes another name of it, and a % before it takes its first digits.
    let ends = after.chars().next().is_none_or(|letter| !letter.is_ascii_hexdigit() && letter != '%');
    if ends && !before.chars().rev().take(2).any(|letter| letter == '%') {
        let name = object.as_str();
        let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        for written in [name.to_owned(), name.to_uppercase(), encoded] {
            assert!(
                found(format!("{before}{written}{after}")).contains(&object.to_string()),
                "{before}{written}{after}"
            );
        }
    }
}
