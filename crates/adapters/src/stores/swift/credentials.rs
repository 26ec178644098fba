use std::fmt;

use mimeo_core::ObjectName;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::stores::web::is_repaired;

/// Who may read the objects, and where they log in: what stands in the location that Glance reads.
#[derive(Clone)]
pub struct SwiftCredentials {
    auth_url: String,
    /// As in `project:user`, or `account:user`.
    user: String,
    key: SecretString,
}

/// A value that no location can carry. The text names the rule and its cure, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct InvalidCredentials {
    pub key: &'static str,
    pub rule: &'static str,
}

impl SwiftCredentials {
    /// For Keystone.
    pub fn new(auth_url: &str, project: &str, user: &str, password: SecretString) -> Result<Self, InvalidCredentials> {
        for (key, value) in [("project", project), ("user", user)] {
            if value.is_empty() || value.contains(':') {
                let rule = "must be a name without ':', by which Glance's driver takes project and user apart";
                return Err(InvalidCredentials { key, rule });
            }
        }
        Self::checked(auth_url, format!("{project}:{user}"), password)
    }

    /// For Swift's own login, where the user is `account:user`.
    pub fn tempauth(auth_url: &str, user: &str, key: SecretString) -> Result<Self, InvalidCredentials> {
        let well_formed = user
            .split_once(':')
            .is_some_and(|(account, user)| !account.is_empty() && !user.is_empty() && !user.contains(':'));
        if !well_formed {
            let rule = "must be written as account:user where auth_version is \"1\"";
            return Err(InvalidCredentials { key: "user", rule });
        }
        Self::checked(auth_url, user.to_owned(), key)
    }

    fn checked(auth_url: &str, user: String, key: SecretString) -> Result<Self, InvalidCredentials> {
        let invalid = |key, rule| Err(InvalidCredentials { key, rule });
        let Ok(url) = Url::parse(auth_url) else {
            return invalid("auth_url", "is no URL; write it like \"http://10.0.0.5:5000/v3\"");
        };
        if is_repaired(auth_url) {
            return invalid("auth_url", "has a space, a control character or a backslash");
        }
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !auth_url.contains("://") {
            return invalid("auth_url", "must be http://… or https://… with a host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("auth_url", "must not carry a user or password: give them as user and password");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return invalid("auth_url", "must end with its path, without '?' or '#'");
        }
        if key.expose_secret().is_empty() || key.expose_secret().contains(':') {
            return invalid("password", "must not be empty or contain ':', where Glance's driver splits the location");
        }
        Ok(Self { auth_url: auth_url.trim_end_matches('/').to_owned(), user, key })
    }

    pub(super) fn auth_url(&self) -> &str {
        &self.auth_url
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn key(&self) -> &SecretString {
        &self.key
    }

    /// Whether Glance's driver, as it writes them itself, would not find its backend by them.
    pub fn has_slash(&self) -> bool {
        self.user.contains('/') || self.key.expose_secret().contains('/')
    }

    /// The URL as Glance's driver writes it itself. It shows the key to whoever may see it.
    pub(super) fn location(&self, container: &str, object: &ObjectName) -> String {
        let (scheme, place) = self.auth_url.split_once("://").unwrap_or(("https", &self.auth_url));
        let (user, key) = (quoted(&self.user), quoted(self.key.expose_secret()));
        format!("swift+{}://{user}:{key}@{place}/{container}/{object}", scheme.to_ascii_lowercase())
    }

    /// Two that have it in common lead to one account.
    pub fn account(&self) -> String {
        let account = self.user.split_once(':').map_or(self.user.as_str(), |(account, _)| account);
        format!("{} {account}", self.auth_url)
    }
}

impl fmt::Debug for SwiftCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwiftCredentials")
            .field("auth_url", &self.auth_url)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// As Python quotes it, and `/` too: Glance's driver would take that for the end of the host.
fn quoted(text: &str) -> String {
    let letter = |byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use mimeo_core::ImageId;

    use super::*;

    fn object() -> ObjectName {
        let id: ImageId = "5f0c2a30-6f1c-4a2a-9a1e-6b8f5f0b4c11".parse().unwrap();
        ObjectName::new(&id, 7)
    }

    #[test]
    fn the_location_is_the_one_that_glances_driver_writes() {
        let name = object();
        let of = |url, key: &str| {
            SwiftCredentials::new(url, "service", "glance", key.into()).unwrap().location("images", &name)
        };
        assert_eq!(
            of("http://10.0.0.5:5000/v3/", "secret"),
            format!("swift+http://service%3Aglance:secret@10.0.0.5:5000/v3/images/{name}")
        );
        assert_eq!(
            of("https://keystone.example/identity/v3", "a/b@c d%ü~"),
            format!(
                "swift+https://service%3Aglance:a%2Fb%40c%20d%25%C3%BC~@keystone.example/identity/v3/images/{name}"
            )
        );
        let tempauth = SwiftCredentials::tempauth("http://h/auth/1.0", "test:tester", "testing".into()).unwrap();
        assert_eq!(tempauth.location("c", &name), format!("swift+http://test%3Atester:testing@h/auth/1.0/c/{name}"));
    }

    #[test]
    fn what_glances_driver_could_not_take_apart_is_refused_without_the_secret() {
        let of = |url, project, user, key: &str| SwiftCredentials::new(url, project, user, key.into()).unwrap_err();
        assert_eq!(of("http://h", "a:b", "u", "k").key, "project");
        assert_eq!(of("http://h", "p", "", "k").key, "user");
        assert_eq!(of("http://h", "p", "u", "s3:cret").key, "password");
        assert!(!of("http://h", "p", "u", "s3:cret").to_string().contains("s3"));
        for bad in ["", "h:5000", "ftp://h", "http://u:p@h/", "http://h/?a", "http://h/#a"] {
            assert_eq!(of(bad, "p", "u", "k").key, "auth_url", "{bad}");
        }
        for bad in ["", "tester", ":tester", "test:", "a:b:c"] {
            assert!(SwiftCredentials::tempauth("http://h", bad, "k".into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let credentials = SwiftCredentials::new("http://h/v3", "service", "glance", "s3cret".into()).unwrap();
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }
}
