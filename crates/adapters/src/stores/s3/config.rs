use mimeo_core::{ObjectName, StoreName};
use reqwest::Certificate;
use rusty_s3::{Bucket, UrlStyle};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// One store's section, checked.
#[derive(Debug, Clone)]
pub struct S3StoreConfig {
    pub name: StoreName,
    /// Ends with `/`. Glance's `s3_store_host` must lead to the same server.
    pub endpoint: Url,
    /// The same as it was written: so Glance compares it with its own.
    pub written: String,
    /// As [`bucket`] gives it.
    pub bucket: Bucket,
    /// Before each object's name in its key; as [`prefix`] gives it.
    pub prefix: String,
    pub credentials: S3Credentials,
    /// Trusted beside the system's; as [`certificates`] gives them.
    pub authorities: Vec<Certificate>,
    /// Whether locations carry the access and the secret key, for a Glance that reads no others.
    pub location_credentials: bool,
    /// Whether bodies are sent with their SHA-256, which not all servers know.
    pub checksum: bool,
}

#[derive(Debug, Clone)]
pub struct S3Credentials {
    pub access_key: String,
    pub secret_key: SecretString,
    /// Of temporary credentials.
    pub session_token: Option<SecretString>,
}

impl S3Credentials {
    /// Whether Glance's driver, as it takes a location apart, finds these keys in it.
    pub fn fit_a_location(&self) -> Result<(), InvalidS3Value> {
        let keys = [&self.access_key, self.secret_key.expose_secret()];
        match () {
            () if self.session_token.is_some() => {
                Err(InvalidS3Value("a location cannot carry temporary credentials; give an access key that lasts"))
            }
            () if keys.iter().any(|key| key.contains([':', '@', '?', '#'])) => {
                Err(InvalidS3Value("a key with ':', '@', '?' or '#' cannot be in a location; give another access key"))
            }
            () => Ok(()),
        }
    }
}

impl S3StoreConfig {
    pub(super) fn key(&self, object: &ObjectName) -> String {
        format!("{}{object}", self.prefix)
    }

    /// As Glance's driver writes it itself: it takes a location for its own by what it begins with. The scheme `s3`
    /// stands for plain HTTP, and the bucket is in the path, whatever the requests do.
    pub(super) fn location(&self, object: &ObjectName) -> String {
        let scheme = if self.endpoint.scheme() == "https" { "s3+https" } else { "s3" };
        let server = self.written.split_once("://").map_or(self.written.as_str(), |(_, server)| server);
        let server = server.trim_end_matches('/');
        let user = match &self.credentials {
            S3Credentials { access_key, secret_key, .. } if self.location_credentials => {
                format!("{access_key}:{}@", secret_key.expose_secret())
            }
            _ => String::new(),
        };
        format!("{scheme}://{user}{server}/{}/{}", self.bucket.name(), self.key(object))
    }
}

/// A value that cannot be an S3 store's. The text is the rule, with a cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidS3Value(&'static str);

/// `endpoint` as [`base_url`](crate::stores::base_url) gives it.
pub fn bucket(endpoint: Url, style: UrlStyle, name: &str, region: &str) -> Result<Bucket, InvalidS3Value> {
    if name.len() < 3 || !is_plain(name) {
        return Err(InvalidS3Value("is no name of a bucket: three or more letters, digits, '-', '_' or '.'"));
    }
    let unfit = "cannot be part of a host name; name the bucket in the path (bucket_url_format = \"path\")";
    Bucket::new(endpoint, style, name.to_owned(), region.to_owned()).map_err(|_| InvalidS3Value(unfit))
}

/// What the key of each object begins with.
pub fn prefix(text: &str) -> Result<String, InvalidS3Value> {
    let may_belong_to_a_name = |letter: char| letter.is_ascii_hexdigit() || letter == '-';
    match () {
        () if !is_plain(text) => Err(InvalidS3Value(
            "may have letters, digits, '-', '_' and '.' only: for Glance the bucket ends, and the key begins, at the \
             last '/'",
        )),
        () if text.ends_with(may_belong_to_a_name) => Err(InvalidS3Value(
            "must not end with '-' or a hexadecimal digit (0-9, a-f), as an object's name behind it could then not be \
             told from it; end it with '.' or '_'",
        )),
        () => Ok(text.to_owned()),
    }
}

/// The certificates of a PEM file.
pub fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, InvalidS3Value> {
    match Certificate::from_pem_bundle(pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(InvalidS3Value("holds no certificate; write there the authority's own, in PEM form")),
    }
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    fn location(endpoint: &str, style: UrlStyle, location_credentials: bool) -> String {
        let written = endpoint.to_owned();
        let endpoint: Url = endpoint.parse().unwrap();
        let config = S3StoreConfig {
            name: "s3".parse().unwrap(),
            written,
            bucket: bucket(endpoint.clone(), style, "images", "us-east-1").unwrap(),
            endpoint,
            prefix: prefix("mimeo.").unwrap(),
            credentials: S3Credentials { access_key: "AK".into(), secret_key: "a/b+c".into(), session_token: None },
            authorities: Vec::new(),
            location_credentials,
            checksum: false,
        };
        config.location(&ObjectName::new(&"6f2b8c1e-0a3d-4d57-9d0e-3a1f5b7c9e11".parse().unwrap(), 5))
    }

    #[test]
    fn the_location_is_as_glances_driver_writes_its_own() {
        let key = "images/mimeo.6f2b8c1e-0a3d-4d57-9d0e-3a1f5b7c9e11.5";
        let https = location("https://s3.example/", UrlStyle::VirtualHost, false);
        assert_eq!(https, format!("s3+https://s3.example/{key}"));
        let http = location("http://10.0.0.5:7480/s3/", UrlStyle::Path, false);
        assert_eq!(http, format!("s3://10.0.0.5:7480/s3/{key}"));
        let as_written = location("HTTP://RGW.example:80", UrlStyle::Path, false);
        assert_eq!(as_written, format!("s3://RGW.example:80/{key}"), "Glance compares it letter by letter");
        let with_keys = location("https://s3.example:8443/", UrlStyle::Path, true);
        assert_eq!(with_keys, format!("s3+https://AK:a/b+c@s3.example:8443/{key}"));
    }
}
