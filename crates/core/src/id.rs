use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name that does not follow its rule. The text names the value and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {rule}")]
pub struct InvalidId {
    pub value: String,
    pub rule: &'static str,
}

/// Glance's image id. Glance lets the creator of an image choose it, but only as a UUID; so does Mimeo, because
/// the id becomes part of object names and URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// The id of no image: all zeros.
    pub fn nil() -> Self {
        Self("00000000-0000-0000-0000-000000000000".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageId {
    type Err = InvalidId;

    fn from_str(value: &str) -> Result<Self, InvalidId> {
        const DASHES: [usize; 4] = [8, 13, 18, 23];
        let well_formed = value.len() == 36
            && value.bytes().enumerate().all(|(at, byte)| match DASHES.contains(&at) {
                true => byte == b'-',
                false => byte.is_ascii_hexdigit(),
            });
        match well_formed {
            true => Ok(Self(value.to_ascii_lowercase())),
            false => Err(InvalidId { value: value.into(), rule: "an image id (a UUID with dashes)" }),
        }
    }
}

/// The name of a store in the configuration: letters, digits, `-`, `_` and `.`, at most 64 of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreName(String);

impl StoreName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StoreName {
    type Err = InvalidId;

    fn from_str(value: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match (1..=64).contains(&value.len()) && value.bytes().all(allowed) {
            true => Ok(Self(value.into())),
            false => {
                Err(InvalidId { value: value.into(), rule: "a store name (1 to 64 letters, digits, '-', '_' or '.')" })
            }
        }
    }
}

/// The name of one attempt's object at a store: `<image id>.<attempt>`, the attempt in lower-case hexadecimal.
///
/// Every attempt has an object of its own, so that a writer which comes late can never overwrite proven bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(String);

impl ObjectName {
    pub fn new(image: &ImageId, attempt: u64) -> Self {
        Self(format!("{image}.{attempt:x}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The image that this object was made for.
    pub fn image(&self) -> ImageId {
        ImageId(self.0[..36].to_owned())
    }

    pub fn attempt(&self) -> u64 {
        u64::from_str_radix(&self.0[37..], 16).unwrap_or_default()
    }
}

impl FromStr for ObjectName {
    type Err = InvalidId;

    fn from_str(value: &str) -> Result<Self, InvalidId> {
        let parsed = value.split_once('.').and_then(|(image, attempt)| {
            let image = image.parse::<ImageId>().ok()?;
            let attempt = u64::from_str_radix(attempt, 16).ok()?;
            Some(Self::new(&image, attempt))
        });
        match parsed {
            Some(name) if name.as_str() == value => Ok(name),
            _ => Err(InvalidId { value: value.into(), rule: "an object name of Mimeo's (<image id>.<attempt>)" }),
        }
    }
}

/// A BLAKE3 digest, as 64 lower-case hexadecimal digits. It proves copies; Glance's own hash proves the source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    pub fn from_hex(hex: impl Into<String>) -> Self {
        Self(hex.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    )*};
}
text!(ImageId, StoreName, ObjectName, Digest);

macro_rules! checked {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                value.parse()
            }
        }
    )*};
}
checked!(ImageId, StoreName, ObjectName);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: &str = "0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a";

    #[test]
    fn an_image_id_is_a_uuid_and_nothing_that_could_leave_a_directory() {
        assert_eq!(ID.parse::<ImageId>().unwrap().as_str(), ID);
        assert_eq!(ID.to_uppercase().parse::<ImageId>().unwrap().as_str(), ID);
        for bad in ["", "x", "../../../../../../../../../etc/passwd", &ID[1..], &ID.replace('-', "/")] {
            assert!(bad.parse::<ImageId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_object_name_gives_back_what_it_was_made_of() {
        let name = ObjectName::new(&ID.parse().unwrap(), 0x19_ab);
        assert_eq!(name.as_str(), format!("{ID}.19ab"));
        assert_eq!(name.as_str().parse::<ObjectName>().unwrap(), name);
        assert_eq!((name.image().as_str(), name.attempt()), (ID, 0x19_ab));
    }

    #[test]
    fn names_that_mimeo_would_not_make_are_not_object_names() {
        for bad in [ID, &format!("{ID}."), &format!("{ID}.XY"), &format!("{ID}.00ab"), &format!("{ID}.1/2")] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad:?} was taken");
        }
    }
}
