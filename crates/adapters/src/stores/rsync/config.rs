use std::{fmt, num::NonZeroU64, path::PathBuf};

use mimeo_core::StoreName;
use secrecy::SecretString;
use url::Url;

/// One store's section, checked.
#[derive(Debug, Clone)]
pub struct RsyncStoreConfig {
    pub name: StoreName,
    pub target: RsyncTarget,
    /// The web server that exports the target: the location, and what Mimeo probes and reads back.
    pub read_url: Url,
    /// A directory of this machine, in which the store has one of its own.
    pub spool: PathBuf,
    /// Bytes of all objects together that wait in the spool.
    pub spool_size: u64,
    /// What rsync may send, in bytes per second.
    pub bandwidth: Option<NonZeroU64>,
    /// For a daemon.
    pub password: Option<SecretString>,
    /// For SSH, as the other two.
    pub key_file: Option<PathBuf>,
    /// Where not ssh's own.
    pub known_hosts: Option<PathBuf>,
    pub port: Option<u16>,
}

/// The directory that rsync writes to. Shown as rsync takes it, with a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RsyncTarget {
    Ssh {
        login: String,
        directory: String,
    },
    /// The URL's path is as rsync takes it: nothing is encoded there.
    Daemon {
        host: String,
        url: String,
    },
}

/// A text that is no target of rsync. The message has the rule, and the text without any password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" {rule}")]
pub struct InvalidTarget {
    text: String,
    rule: &'static str,
}

impl RsyncTarget {
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        let refuse = |rule| Err(InvalidTarget { text: shown(text), rule });
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return refuse("must be one word");
        }
        if text.starts_with("rsync:") {
            return match Url::parse(text) {
                Ok(url) if url.query().is_some() || url.fragment().is_some() => refuse("must have no '?' or '#'"),
                Ok(_) => Self::daemon(text).map_or_else(refuse, Ok),
                Err(_) => refuse("is not a URL; write it as rsync://user@host/module/"),
            };
        }
        match text.split_once(":/") {
            Some((login, directory)) if is_login(login) && !directory.starts_with('/') => match path(directory) {
                Ok(directory) => Ok(Self::Ssh { login: login.to_owned(), directory }),
                Err(rule) => refuse(rule),
            },
            _ => refuse("is no target; write it as user@host:/dir/ or rsync://user@host/module/"),
        }
    }

    /// Of a URL's path nothing is changed but its slashes: rsync takes it as it is written.
    fn daemon(text: &str) -> Result<Self, &'static str> {
        let missing = "has no host or no module; write it as rsync://user@host/module/";
        let (authority, directory) =
            text.strip_prefix("rsync://").and_then(|rest| rest.split_once('/')).ok_or(missing)?;
        let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
        if user.contains(':') {
            return Err("must not carry the password: write it in `password`");
        }
        // As one place is written in one way, it can be told from others.
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix(":873").unwrap_or(&host);
        let (module, at) = (path(directory)?, if user.is_empty() { "" } else { "@" });
        if host.is_empty() || module == "/" || directory.starts_with('/') {
            return Err(missing);
        }
        let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
        Ok(Self::Daemon { host: name.to_owned(), url: format!("rsync://{user}{at}{host}{module}") })
    }

    /// What tells it from others: ssh knows its hosts by the name as it is written.
    pub fn place(&self) -> String {
        match self {
            Self::Ssh { login, directory } => {
                let (user, _) = login.rsplit_once('@').unwrap_or_default();
                format!("{user}@{}:{directory}", self.host().to_ascii_lowercase())
            }
            Self::Daemon { url, .. } => url.clone(),
        }
    }

    /// Without the user.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Ssh { login, .. } => login.rsplit_once('@').map_or(login.as_str(), |(_, host)| host),
            Self::Daemon { host, .. } => host,
        }
    }
}

/// With one slash before each part and one at the end.
fn path(text: &str) -> Result<String, &'static str> {
    let parts = text.split('/').filter(|part| !matches!(*part, "" | "."));
    match parts.clone().any(|part| part == "..") {
        true => Err("must have no '..' in its path"),
        false => Ok(parts.fold("/".to_owned(), |path, part| path + part + "/")),
    }
}

/// A text that may be no target, without what may be meant for a password.
fn shown(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((user, rest)) if user.contains(':') => {
            let scheme = if user.starts_with("rsync:") { "rsync://" } else { "" };
            format!("{scheme}***@{rest}")
        }
        _ => text.to_owned(),
    }
}

/// `user@host` or `host`; an IPv6 address has brackets. No option for ssh, no second protocol.
fn is_login(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').unwrap_or(("user", text));
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain =
        |part: &str| !part.is_empty() && !part.starts_with('-') && !part.contains(['/', '@', '[', ']', '\'', '"']);
    plain(user) && !user.contains(':') && bare.map_or_else(|| plain(host) && !host.contains(':'), plain)
}

impl fmt::Display for RsyncTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh { login, directory } => write!(f, "{login}:{directory}"),
            Self::Daemon { url, .. } => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_directory_behind_ssh_or_in_a_module() {
        let cases = [
            ("mimeo@host:/srv/images", "mimeo@host:/srv/images/"),
            ("host:/srv/images/", "host:/srv/images/"),
            ("host:/srv///./images/.", "host:/srv/images/"),
            ("mimeo@[fe80::1]:/", "mimeo@[fe80::1]:/"),
            ("rsync://mimeo@host/images", "rsync://mimeo@host/images/"),
            ("rsync://host:8730/images/deep/", "rsync://host:8730/images/deep/"),
            ("rsync://mimeo@HOST:873/images//deep", "rsync://mimeo@host/images/deep/"),
            ("rsync://[fe80::1]:8730/images", "rsync://[fe80::1]:8730/images/"),
            ("rsync://host/images/ü{1}%41", "rsync://host/images/ü{1}%41/"),
        ];
        for (text, expected) in cases {
            assert_eq!(RsyncTarget::parse(text).map(|target| target.to_string()), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn what_may_be_a_password_is_not_shown() {
        for text in [
            "mimeo:s3cret@10.0.0.1:/srv/images/",
            "rsync:mimeo:s3cret@h/m/",
            "rsync:/mimeo:s3cret@h/m/",
            "rsync://mimeo:s3cret@h/m/",
            "rsync://mimeo:s3c@ret@h/m/",
        ] {
            let error = RsyncTarget::parse(text).unwrap_err().to_string();
            assert!(error.contains("***@") && !error.contains("s3c"), "{error}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_by_its_rule() {
        let cases = [
            ("", "is no target"),
            ("/srv/images/", "is no target"),
            ("host::images/", "is no target"),
            ("-oProxyCommand=x:/srv/", "is no target"),
            ("user@-x:/srv/", "is no target"),
            ("http://host:/srv/", "is no target"),
            ("host:/a b/", "must be one word"),
            ("rsync://host/", "has no host or no module"),
            ("rsync://host//images", "has no host or no module"),
            ("rsync:/host/images", "has no host or no module"),
            ("rsync://host/images/../x", "must have no '..'"),
            ("host:/srv/../x", "must have no '..'"),
            ("rsync://host/.", "has no host or no module"),
            ("rsync://host/images/?a", "must have no '?'"),
        ];
        for (text, rule) in cases {
            let error = RsyncTarget::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("\"{text}\" {rule}")), "{error}");
        }
        for password in ["s3cret", ""] {
            let text = format!("rsync://user:{password}@host/images/");
            let error = RsyncTarget::parse(&text).unwrap_err().to_string();
            assert!(error.contains("must not carry the password") && !error.contains("s3cret"), "{error}");
        }
    }
}
