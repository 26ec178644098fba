//! What must hold of whatever rsync says.

use super::{
    RsyncStoreConfig, RsyncTarget,
    program::{failed, progress},
};

/// The last whole line of progress counts, whatever stands before it; and no complaint repeats the password.
pub fn output(bytes: &[u8]) {
    let told = progress(bytes);
    let more = told.unwrap_or_default() / 2 + 1;
    let said = [bytes, format!("\r  {more}  50%    1.00MB/s    0:00:00").as_bytes()].concat();
    assert_eq!(progress(&said), Some(more));

    let (code, text) = bytes.split_first().map_or((None, bytes), |(code, text)| (Some(i32::from(*code)), text));
    let (complaint, target) = (String::from_utf8_lossy(text), "rsync://user@host/images/");
    let (Ok(target), Ok(read_url), Ok(name)) = (RsyncTarget::parse(target), "http://host/".parse(), "far".parse())
    else {
        return;
    };
    let (spool, password) = ("/nowhere".into(), Some("s3cretpw".into()));
    let (key_file, known_hosts, bandwidth, port, spool_size) = (None, None, None, None, 1);
    let config = RsyncStoreConfig {
        name,
        target,
        read_url,
        spool,
        spool_size,
        password,
        key_file,
        known_hosts,
        bandwidth,
        port,
    };
    let shown = failed(&config, code, &format!("{complaint} s3cretpw")).chain();
    assert!(!shown.contains("s3cretpw"), "{shown}");
}

/// A target that was taken is written as one that is taken, and is the same.
pub fn target(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(target) = RsyncTarget::parse(text) {
        let again = RsyncTarget::parse(&target.to_string());
        assert_eq!(again.map(|again| again.to_string()), Ok(target.to_string()));
    }
}
