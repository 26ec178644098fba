use mimeo_core::{ObjectName, bare, place, without_credentials};

/// No secret of a URL is shown, and what is shown stays so when it is shown again.
pub(crate) fn locations(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for show in [without_credentials, place, bare] {
        assert_eq!(show(&show(text)), show(text));
    }
    if let Ok(name) = text.parse::<ObjectName>() {
        assert_eq!(ObjectName::new(&name.image(), name.attempt()), name);
    }
    let (secret, path) = text.split_once('\n').unwrap_or((text, ""));
    let secret = format!("s3cret{secret}");
    if path.contains(['@', '\n']) || path.contains("s3cret") {
        return;
    }
    for scheme in ["s3+https", "swift+https", "swift+http", "http", "https"] {
        // For HTTP it would end the user and begin a path.
        if scheme.starts_with("http") && secret.contains('/') {
            continue;
        }
        let url = format!("{scheme}://user:{secret}@host/{path}");
        for shown in [without_credentials(&url), place(&url), bare(&url)] {
            assert!(!shown.contains("s3cret"), "{url} was shown as {shown}");
        }
    }
}
