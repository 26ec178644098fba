use std::path::PathBuf;

use mimeo_core::StoreName;
use secrecy::SecretString;
use url::Url;

/// One store's section, checked.
#[derive(Debug, Clone)]
pub struct SftpStoreConfig {
    pub name: StoreName,
    pub host: String,
    pub port: u16,
    pub user: String,
    /// The directory at the server, without a slash at its end. One that is not absolute counts from the user's home.
    pub path: String,
    /// The web server that exports the directory: the location, and what Mimeo probes and reads back.
    pub read_url: Url,
    /// The ways to log in, tried in this order: at least one of them.
    pub key_file: Option<PathBuf>,
    pub key_passphrase: Option<SecretString>,
    /// The agent at `SSH_AUTH_SOCK`.
    pub agent: bool,
    pub password: Option<SecretString>,
    /// A server whose key is not in it is refused.
    pub known_hosts: PathBuf,
}

impl SftpStoreConfig {
    /// The directory, for messages.
    pub fn address(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        let home = if self.path.starts_with('/') { "" } else { "/~/" };
        format!("sftp://{}@{open}{}{close}:{}{home}{}", self.user, self.host, self.port, self.path)
    }
}
