//! What must hold of every configuration file, whatever bytes it is.

use std::path::Path;

use super::Config;

/// What a variable holds is never told; and a file that was taken is taken again, with no difference.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Devices can be read without end; and an escape can hide one.
    if text.contains("dev") || text.contains("proc") || text.contains('\\') {
        return;
    }
    let secret = |name: &str| (name == "SECRET").then(|| "s3cretpw".to_owned());
    let read = || Config::parse(Path::new("/nowhere/mimeo.toml"), text, &secret);
    match read() {
        Ok(config) => {
            let again = read().map(|again| config.written.differences(&again.written));
            assert!(again.is_ok_and(|differences| differences.is_empty()));
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(text.contains("s3cretpw") || !shown.contains("s3cretpw"), "{shown}");
        }
    }
}
