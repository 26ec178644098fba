use mimeo_core::{Error, Reason};
use russh::{
    Preferred, cipher,
    client::Handler,
    keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate, known_hosts::known_host_keys_path},
};
use tokio::{fs, task::spawn_blocking};

use super::SftpStoreConfig;
use crate::stores::ssh::keyscan_cure;

/// The keys that a host may have, from `known_hosts`, and the check of the one that it shows.
pub(super) struct HostKeys {
    keys: Vec<(usize, PublicKey)>,
    revoked: String,
}

/// Of what the library numbers, which passes over comments: the lines' numbers in the file.
fn numbered(keys: Vec<(usize, PublicKey)>, text: &str) -> Vec<(usize, PublicKey)> {
    let counted: Vec<usize> =
        (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#')).map(|(n, _)| n).collect();
    keys.into_iter().map(|(n, key)| (counted.get(n - 1).copied().unwrap_or(n), key)).collect()
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    Ssh(russh::Error),
    /// The key that was shown, and the line that has another of its kind.
    HostKey(Box<PublicKey>, Option<usize>),
    Revoked,
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl HostKeys {
    pub(super) async fn read(config: &SftpStoreConfig) -> Result<Self, Error> {
        let unreadable = |cause: String| {
            let message = format!(
                "{}: {} cannot be read, so that the server's key is not known ({cause}); {}",
                config.name,
                config.known_hosts.display(),
                keyscan_cure(&config.host, Some(config.port), &config.known_hosts)
            );
            Error::new(Reason::StoreRefused, message)
        };
        let text = fs::read_to_string(&config.known_hosts).await.map_err(|cause| unreadable(cause.to_string()))?;
        let revoked = text.lines().filter(|line| line.starts_with("@revoked")).collect::<Vec<_>>().join("\n");
        let (host, port, path) = (config.host.clone(), config.port, config.known_hosts.clone());
        let keys = spawn_blocking(move || known_host_keys_path(&host, port, path)).await;
        let keys =
            keys.map_err(|cause| unreadable(cause.to_string()))?.map_err(|cause| unreadable(cause.to_string()))?;
        Ok(Self { keys: numbered(keys, &text), revoked })
    }

    /// The algorithms in our order. Of the host's keys it is to show one that is known; AES is done by the processor.
    pub(super) fn preferred(&self) -> Preferred {
        let mut preferred = Preferred::DEFAULT;
        let is_known = |algorithm: &Algorithm| {
            self.keys.iter().any(|(_, key)| match algorithm {
                Algorithm::Rsa { hash: Some(HashAlg::Sha256 | HashAlg::Sha512) } => key.algorithm().is_rsa(),
                other => key.algorithm() == *other,
            })
        };
        preferred.key.to_mut().sort_by_key(|algorithm| !is_known(algorithm));
        preferred.cipher.to_mut().sort_by_key(|name| *name != cipher::AES_256_GCM);
        preferred
    }

    fn check(&self, shown: &PublicKey) -> Result<(), Failure> {
        if shown.to_openssh().is_ok_and(|line| line.split(' ').nth(1).is_some_and(|key| self.revoked.contains(key))) {
            return Err(Failure::Revoked);
        }
        // A host may have several keys of a kind.
        if self.keys.iter().any(|(_, known)| known.key_data() == shown.key_data()) {
            return Ok(());
        }
        let other = self.keys.iter().find(|(_, known)| known.algorithm() == shown.algorithm());
        Err(Failure::HostKey(Box::new(shown.clone()), other.map(|(line, _)| *line)))
    }
}

impl Handler for HostKeys {
    type Error = Failure;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.check(key).map(|()| true),
            // None was asked for.
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }
}

impl Failure {
    pub(super) fn into_error(self, config: &SftpStoreConfig) -> Error {
        let (store, address) = (&config.name, config.address());
        let file = config.known_hosts.display();
        let cure = keyscan_cure(&config.host, Some(config.port), &config.known_hosts);
        let fingerprint = |key: &PublicKey| format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256));
        let refused = |message| Error::new(Reason::StoreRefused, message);
        match self {
            Self::HostKey(key, None) => refused(format!(
                "{store}: {address} shows a key that {file} does not have, {}; {cure}",
                fingerprint(&key)
            )),
            Self::HostKey(key, Some(line)) => refused(format!(
                "{store}: {address} shows another key than line {line} of {file} has, {}: somebody may pretend to be the \
                 server. Only if it was set up anew, remove that line and {cure}",
                fingerprint(&key)
            )),
            Self::Revoked => refused(format!("{store}: {address} shows a key that {file} calls revoked")),
            Self::Ssh(cause @ russh::Error::NoCommonAlgo { .. }) => {
                refused(format!("{store}: {address} and Mimeo share no algorithm")).caused_by(cause)
            }
            Self::Ssh(cause) => {
                Error::new(Reason::StoreUnreachable, format!("{store}: no SSH connection to {address}"))
                    .caused_by(cause)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn keys(known: &str) -> HostKeys {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("known_hosts");
        std::fs::write(&file, known).unwrap();
        let keys = known_host_keys_path("host", 2222, &file).unwrap();
        let revoked = known.lines().filter(|line| line.starts_with("@revoked")).collect();
        HostKeys { keys: numbered(keys, known), revoked }
    }

    fn key() -> PublicKey {
        PublicKey::from_openssh(KEY).unwrap()
    }

    #[test]
    fn a_key_is_taken_only_if_the_file_has_it_for_the_host_and_port() {
        assert!(keys(&format!("[host]:2222 {OTHER}\n[host]:2222 {KEY}\n")).check(&key()).is_ok());
        let changed = keys(&format!("# one\n\n[other]:2222 {KEY}\n# two\n[host]:2222 {OTHER}\n")).check(&key());
        assert!(matches!(changed, Err(Failure::HostKey(_, Some(5)))), "{changed:?}");
        for unknown in ["", &format!("host {KEY}\n"), &format!("[host]:2223 {KEY}\n"), &format!("[other]:2222 {KEY}\n")]
        {
            let found = keys(unknown).check(&key());
            assert!(matches!(found, Err(Failure::HostKey(_, None))), "{unknown}: {found:?}");
        }
    }

    #[test]
    fn a_revoked_key_is_refused_though_it_is_known() {
        let known = format!("[host]:2222 {KEY}\n@revoked * {KEY}\n");
        assert!(matches!(keys(&known).check(&key()), Err(Failure::Revoked)));
    }

    #[test]
    fn the_kind_of_key_that_is_known_is_asked_for_first() {
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5\
            YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=";
        let first = keys(&format!("[host]:2222 {ecdsa}\n")).preferred().key[0].clone();
        assert_eq!(first.as_str(), "ecdsa-sha2-nistp256");
        assert_eq!(keys("").preferred().key[0], Algorithm::Ed25519);
    }
}
