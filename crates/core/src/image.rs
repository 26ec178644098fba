use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ImageId, StoreName, Timestamp};

/// The key of a location's metadata that bears Mimeo's own name for the store. Glance overwrites its own key,
/// `store`, where several http backends exist. It is a label for people and never authority over bits.
pub const STORE_KEY: &str = "mimeo_store";

/// An image as the image service shows it.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "Glance's own attributes, which do not depend on each other")]
pub struct Image {
    pub id: ImageId,
    pub name: Option<String>,
    pub status: ImageStatus,
    pub visibility: Visibility,
    pub owner: Option<String>,
    /// Bytes; unknown until the bits are there.
    pub size: Option<u64>,
    pub hidden: bool,
    pub protected: bool,
    pub disk_format: Option<String>,
    pub container_format: Option<String>,
    pub tags: Vec<String>,
    /// The image's custom properties, without the ones that Glance keeps for itself (`os_glance_*`).
    pub properties: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// What the bits must hash to; none for some old images.
    pub hash: Option<ContentHash>,
    /// In the order in which Glance tries them.
    pub locations: Vec<Location>,
    /// Whether Glance shows locations at all: where it does not, none does not mean none.
    pub locations_shown: bool,
    /// An import or copy-image of Glance's own runs on it (`os_glance_import_task`).
    pub importing: bool,
    /// Glance's own stores that hold it, by their ids there; none where Glance has but one store.
    pub backends: BTreeSet<String>,
    /// Glance's own stores that its last import could not write.
    pub failed_backends: BTreeSet<String>,
}

impl Image {
    /// Whether the URL is among its locations. Glance cuts the credentials off an s3 URL before it keeps it.
    pub fn has_location(&self, url: &str) -> bool {
        let bare = bare(url);
        self.locations.iter().any(|location| location.url == url || location.url == bare)
    }

    /// Which of Mimeo's own locations stand before it already, to the letter: two writers at the same moment do that. Only where
    /// Glance leaves the bits alone when one is taken out.
    pub fn doubles(&self) -> impl Iterator<Item = usize> {
        let is_double = |at: &usize| {
            let location = &self.locations[*at];
            let is_ours = location.metadata.contains_key(STORE_KEY) && !is_removed_with_its_bits(&location.url);
            is_ours && self.locations[..*at].contains(location)
        };
        (0..self.locations.len()).filter(is_double)
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut tags = self.tags.clone();
        tags.sort_unstable();
        Snapshot {
            name: self.name.clone(),
            status: self.status,
            visibility: self.visibility,
            protected: self.protected,
            updated_at: self.updated_at,
            tags,
            properties: self.properties.clone(),
        }
    }
}

/// The part of an image's record that a location PATCH can undo for others.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub name: Option<String>,
    pub status: ImageStatus,
    pub visibility: Visibility,
    pub protected: bool,
    /// In whole seconds. Tells an event that was long on its way.
    pub updated_at: Timestamp,
    /// Sorted: Glance gives them in any order.
    pub tags: Vec<String>,
    pub properties: BTreeMap<String, String>,
}

/// One entry of an image's `locations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Location {
    pub url: String,
    #[serde(default)]
    pub metadata: BTreeMap<String, Value>,
}

impl Location {
    /// Whether it leads to the object that this URL leads to: a password in it may be another by now, and Glance cuts the
    /// credentials off an s3 URL.
    pub fn leads_to(&self, url: &str) -> bool {
        self.url == bare(url) || place(&self.url) == place(url)
    }

    /// The same, for Glance's own store of this id. Where none is named Glance goes by the URL alone.
    #[must_use]
    pub fn of_backend(mut self, backend: Option<&str>) -> Self {
        self.metadata.extend(backend.map(|backend| ("store".to_owned(), Value::from(backend))));
        self
    }

    /// Glance's own id of the store that it takes the location for.
    pub fn backend(&self) -> Option<&str> {
        self.metadata.get("store")?.as_str()
    }

    /// A location of Mimeo's own, labelled with the store's name.
    pub fn ours(url: impl Into<String>, store: &StoreName) -> Self {
        let metadata = BTreeMap::from([(STORE_KEY.to_owned(), Value::from(store.as_str()))]);
        Self { url: url.into(), metadata }
    }
}

/// Whether Glance removes the bits that a URL leads to when it is taken out of an image: its http store alone cannot.
pub fn is_removed_with_its_bits(url: &str) -> bool {
    !url.starts_with("http://") && !url.starts_with("https://")
}

/// Whether two URLs surely lead to other bits each, as far as they tell by themselves: in two clusters or pools of Ceph, two
/// buckets of one S3 server, two containers of one Swift account. Of two servers it cannot be told: they may be two names
/// of one.
pub fn are_surely_two(one: &str, other: &str) -> bool {
    match (home(one), home(other)) {
        (Some((within, one)), Some((same, other))) => within == same && one != other,
        _ => false,
    }
}

/// What tells two places apart, and within what it does.
fn home(url: &str) -> Option<(String, String)> {
    let scheme = url.split_once(':')?.0;
    if scheme == "rbd" {
        let (cluster, rest) = url.strip_prefix("rbd://")?.split_once('/')?;
        let (pool, _) = rest.split_once('/')?;
        return Some((scheme.to_owned(), format!("{cluster}/{pool}")));
    }
    if scheme.starts_with("s3") {
        let bare = bare(url);
        let (server, path) = bare.strip_prefix(scheme)?.strip_prefix("://")?.split_once('/')?;
        let bucket = path.split('/').next()?;
        let is_alias = ALIASES.iter().any(|alias| bucket.ends_with(alias));
        return (!is_alias).then(|| (format!("{scheme}://{server}"), path.to_owned()));
    }
    if scheme.starts_with("swift") {
        let place = place(url);
        let (account, container) = place.rsplit_once('/')?.0.rsplit_once('/')?;
        return Some((account.to_owned(), container.to_owned()));
    }
    None
}

/// How S3's other names of a bucket end, which no bucket's own name does.
const ALIASES: [&str; 3] = ["-s3alias", "--ol-s3", ".mrap"];

/// A URL without its credentials.
pub fn bare(url: &str) -> String {
    match userinfo(url) {
        Some((scheme, _, place)) => format!("{scheme}{place}"),
        None => url.to_owned(),
    }
}

/// A URL without its password: which place it is, whatever the password is now. S3's whole key is one: each new secret has
/// another name.
pub fn place(url: &str) -> String {
    match userinfo(url) {
        Some((scheme, _, place)) if scheme.starts_with("s3") => format!("{scheme}{place}"),
        Some((scheme, info, place)) => {
            let user = info.split_once(':').map_or(info, |(user, _)| user);
            format!("{scheme}{user}@{place}")
        }
        None => url.to_owned(),
    }
}

/// A URL as people are shown it. A location's may carry the credentials that Glance's driver needs, where the operator
/// allows that; and whatever somebody mistyped into a URL may be a password.
pub fn without_credentials(url: &str) -> String {
    match userinfo(url) {
        Some((scheme, _, place)) => format!("{scheme}***@{place}"),
        None => url.to_owned(),
    }
}

/// A URL's credentials, and what is before and behind them; none where it has none.
fn userinfo(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.find("//").map_or(("", url), |at| url.split_at(at + 2));
    // Glance writes a secret into s3 and swift URLs as it is, with any slash that it has.
    let host = rest.split('/').next().unwrap_or(rest);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = host.ends_with(']') || host.rsplit_once(':').is_none_or(|(_, port)| is_port(port));
    let is_plain = scheme.starts_with("http") && !host.contains('@') && is_host;
    let (info, place) = rest.rsplit_once('@').filter(|_| !is_plain)?;
    Some((scheme, info, place))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageStatus {
    Queued,
    Saving,
    Uploading,
    Importing,
    Active,
    Deactivated,
    Killed,
    Deleted,
    #[serde(rename = "pending_delete")]
    PendingDelete,
    /// One that this release of Mimeo does not know: looked at, never acted on.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    Public,
    Community,
    Shared,
    Private,
}

/// What an image's bits must hash to, as Glance tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentHash {
    pub algorithm: HashAlgorithm,
    /// Lower-case hexadecimal.
    pub value: String,
}

/// The algorithms that Glance releases have used for `os_hash_algo`, and `checksum`'s MD5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    Md5,
    Sha256,
    Sha512,
}

impl HashAlgorithm {
    /// Glance's own spelling (`os_hash_algo`).
    pub fn from_glance(name: &str) -> Option<Self> {
        match name {
            "md5" => Some(Self::Md5),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

macro_rules! as_glance_spells {
    ($($name:ident),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.serialize(f)
            }
        }
    )*};
}
as_glance_spells!(ImageStatus, Visibility);

#[cfg(test)]
mod tests {
    use super::{are_surely_two, place, without_credentials};

    #[test]
    fn no_credentials_of_a_url_are_shown() {
        let cases = [
            ("http://host:80/a@b/c", "http://host:80/a@b/c"),
            ("http://user:pw@host/a", "http://***@host/a"),
            ("http://user:p/w@host/a", "http://***@host/a"),
            ("s3+https://key:se/cret@host/bucket/key", "s3+https://***@host/bucket/key"),
            ("swift+https://a:u@b:pw@auth/v3/c/o", "swift+https://***@auth/v3/c/o"),
            ("user:pw@host", "***@host"),
            ("rbd://fsid/pool/image/snap", "rbd://fsid/pool/image/snap"),
        ];
        for (url, shown) in cases {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn of_two_urls_it_is_told_whether_they_surely_lead_to_other_bits() {
        let surely = |one: &str, other: &str| are_surely_two(one, other) && are_surely_two(other, one);
        assert!(surely("rbd://f/images/x/snap", "rbd://f/new/x/snap"), "a pool");
        assert!(surely("rbd://f/images/x/snap", "rbd://g/images/x/snap"), "a cluster");
        assert!(surely("s3+https://k:s/e@h/old/x", "s3+https://h/new/x"), "a bucket");
        assert!(surely("swift+https://p%3Au:a@h/v3/old/x", "swift+https://p%3Au:b@h/v3/new/x"), "a container");
        for (one, other) in [
            ("rbd://f/images/x/snap", "rbd://f/images/x/snap"),
            ("s3+https://h/old/x", "s3+https://h2/old/x"),
            ("s3+https://h/old/x", "s3+https://k:s@h/old/x"),
            ("s3+https://h/old/x", "s3+https://h/mine-abc-s3alias/x"),
            ("s3+https://h/old/x", "s3://h/new/x"),
            ("swift+https://p%3Au:a@h/v3/old/x", "swift+https://p%3Au:a@h2/v3/new/x"),
            ("swift+https://p%3Au:a@h/v3/old/x", "swift+https://p%3Av:a@h/v3/new/x"),
            ("swift+https://p%3Au:a@h/v3/old/x", "swift+https://p%3Au:a@h/v2.0/old/x"),
            ("http://h/old/x", "http://h/new/x"),
        ] {
            assert!(!surely(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_place_has_an_account_but_no_password() {
        let of = |info: &str| place(&format!("swift+https://{info}@keystone/v3/images/object"));
        assert_eq!(of("service%3Aglance:old"), of("service%3Aglance:new"));
        assert_ne!(of("service%3Aglance:pw"), of("other%3Aglance:pw"), "the container of another project");
        assert_eq!(place("rbd://fsid/pool/image/snap"), "rbd://fsid/pool/image/snap");
        let of = |info: &str| place(&format!("s3+https://{info}s3.example/images/object"));
        assert_eq!((of("OLD:a/b@"), of("NEW:c@")), (of(""), of("")), "an access key is exchanged with its secret");
    }
}
