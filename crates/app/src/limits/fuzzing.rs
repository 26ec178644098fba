//! What must hold of every change of the limits, whatever bytes it is.

use mimeo_core::Limits;

use super::{check_memory, patched};

/// Limits that were taken are within their rules, and sent whole they change nothing.
pub fn limits(bytes: &[u8]) {
    let Ok(patch) = serde_json::from_slice(bytes) else { return };
    let text = r#"{"concurrency": 8, "memory": 67108864, "bandwidth": 1000, "hours": ["22:00-06:00"], "stores": {
        "far": {"concurrency": 2, "bandwidth": 500, "hours": []}}}"#;
    let Ok(now) = serde_json::from_str::<Limits>(text) else { return };
    let Ok(limits) = patched(now, &patch) else { return };
    assert_eq!(check_memory(&limits), Ok(()));
    let whole = serde_json::to_value(&limits).unwrap_or_default();
    assert_eq!(patched(limits.clone(), &whole), Ok(limits));
}
