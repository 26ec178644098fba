//! Plain values for tests: ids, times, images.

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{Image, ImageId, ImageStatus, Timestamp, Visibility};

/// The `n`-th sample image id. Ids order as their numbers do.
pub fn id(n: u32) -> ImageId {
    format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap()
}

/// So many seconds after the samples' epoch, which is 2026-01-01.
pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

/// An active, public, raw image called `image-<n>`, without hash or locations.
pub fn image(n: u32, size: u64) -> Image {
    Image {
        id: id(n),
        name: Some(format!("image-{n}")),
        status: ImageStatus::Active,
        visibility: Visibility::Public,
        owner: Some("owner".into()),
        size: Some(size),
        hidden: false,
        protected: false,
        disk_format: Some("raw".into()),
        container_format: Some("bare".into()),
        tags: Vec::new(),
        properties: BTreeMap::new(),
        created_at: time(0),
        updated_at: time(0),
        hash: None,
        locations: Vec::new(),
        locations_shown: true,
        importing: false,
        backends: BTreeSet::new(),
        failed_backends: BTreeSet::new(),
    }
}

/// `length` bytes that differ from each other in every window of a few.
pub fn bits(length: usize) -> bytes::Bytes {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}
