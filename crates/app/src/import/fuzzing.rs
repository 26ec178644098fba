//! What must hold of every glance-api.conf, whatever bytes it is.

use std::path::{Path, PathBuf};

use super::convert;
use crate::config::Config;

/// What a password would be, in options that hold one. It is the last file, so it wins.
const SECRETS: &str = "[DEFAULT]\ntransport_url = rabbit://user:s3cretpw@host/\n[glance_store]\n\
    s3_store_secret_key = s3cretpw\nswift_store_key = s3cretpw\n[keystone_authtoken]\npassword = s3cretpw\n";

/// What is written is TOML with none but known keys, and holds no secret unless that was asked for.
pub fn import(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let glances = (PathBuf::from("/nowhere/glance-api.conf"), text.to_owned());
    let secrets = (PathBuf::from("/nowhere/secrets.conf"), SECRETS.to_owned());
    for (sources, copied) in
        [(vec![glances.clone()], false), (vec![glances.clone()], true), (vec![glances, secrets], false)]
    {
        let Ok(written) = convert(&sources, copied) else { return };
        if let Err(mistakes) = Config::parse(Path::new("/nowhere/mimeo.toml"), &written.text, &|_| None) {
            let mistakes = mistakes.to_string();
            let is_written_right = !["this is no TOML", "unknown key"].iter().any(|wrong| mistakes.contains(wrong));
            assert!(is_written_right, "{mistakes}\n{}", written.text);
        }
        let told = written.notes.concat() + &written.text;
        // An option may name the one with the password.
        assert!(text.contains('$') || text.contains("s3cretpw") || !told.contains("s3cretpw"), "{told}");
    }
}
