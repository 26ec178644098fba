//! What the stores behind an SSH server share.

use std::path::Path;

/// How to make a host's key known. `port` where it is not the usual one.
pub(super) fn keyscan_cure(host: &str, port: Option<u16>, known_hosts: &Path) -> String {
    let port = port.filter(|port| *port != SSH_PORT).map_or(String::new(), |port| format!("-p {port} "));
    let file = known_hosts.display();
    format!("add it to {file} (ssh-keyscan {port}{host} >> {file}) after comparing it with the server's own")
}

pub(super) const SSH_PORT: u16 = 22;
