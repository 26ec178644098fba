//! What must hold of every listing of a container, whatever bytes it is.

use mimeo_core::{ImageId, ObjectName};

use super::segments::{Listed, known, place, segment, total, unbroken};

/// Only segments that Mimeo names so are taken; what is gone on with has no gap; and an offset's place is where it says.
pub fn listing(bytes: &[u8]) {
    let (offset, body) =
        bytes.split_first_chunk().map_or((0, bytes), |(offset, body)| (u64::from_be_bytes(*offset), body));
    let Ok(page) = serde_json::from_slice::<Vec<Listed>>(body) else { return };
    let object = ObjectName::new(&ImageId::nil(), 1);
    let mut segments = known(&object, &page);
    for each in &segments {
        let name = segment(&object, each.number).unwrap_or_default();
        assert!(page.iter().any(|listed| listed.name == name && listed.bytes == each.bytes));
    }
    segments.sort_by_key(|segment| segment.number);
    let kept = unbroken(&segments);
    assert!(kept.iter().zip(1..).all(|(segment, number)| segment.number == number));
    for offset in [offset, total(kept), 0] {
        if let Some((whole, head)) = place(kept, offset) {
            let before = total(&kept[..whole as usize]);
            assert!(before.checked_add(head) == Some(offset) || before == u64::MAX, "{whole} + {head} of {offset}");
        }
    }
}
