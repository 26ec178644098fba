//! What must hold of every URL and range, whatever bytes they are.

use crate::{http::start_of, stores::base_url};

/// A URL that was taken bears no password and gives itself again; and a mistake shows none.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(start) = start_of(text) {
        assert_eq!(start_of(&format!("bytes {start}-")), Some(start));
    }
    if let Ok(url) = base_url("url", text) {
        assert!(url.password().is_none() && url.path().ends_with('/'));
        assert_eq!(base_url("url", url.as_str()).ok().as_ref(), Some(&url));
    }
    // A user without a slash: such a one begins a path.
    if !text.contains(['/', '\\', '?', '#']) && !text.contains("s3cret") {
        let shown = base_url("url", &format!("http://{text}:s3cret@host/"))
            .map_or_else(|error| error.to_string(), String::from);
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
