//! An image's locations, and the part of a PATCH that is about them. Knows Glance's rules for which are accepted.

use std::collections::BTreeMap;

use futures::future;
use serde_json::{Map, Value};

use super::{
    Probe,
    attributes::invalid,
    bits::OWN_STORE,
    fault::Fault,
    image::{HASH_ALGORITHM, Hash, Image, Location, Status},
};

/// Glance's name for its HTTP store, which it writes over `metadata.store` of every location with an http(s) URL.
pub(super) const HTTP_STORE: &str = "http";

const MD5_DIGITS: usize = 32;
const SHA512_DIGITS: usize = 128;

/// A location as a client gave it, of the right shape, but not yet accepted.
#[derive(Debug)]
pub(super) struct Offer {
    location: Location,
    /// What the client says of the bits, for an image that has none yet.
    claim: Option<Claim>,
}

#[derive(Debug)]
struct Claim {
    checksum: Option<String>,
    hash: Hash,
}

/// The URLs that were tried and how many bytes each one announced.
pub(super) type Sizes = BTreeMap<String, u64>;

/// Tries URLs at once. Those that do not answer, are empty, or are not http(s) are missing from the answer.
///
/// Done before the change and outside of the lock: a slow URL must not hold up other images.
pub(super) async fn try_all(probe: &Probe, urls: impl Iterator<Item = &str>) -> Sizes {
    let tries = urls
        .filter(|url| store_for(url) == Some(HTTP_STORE))
        .map(|url| async { (url.to_owned(), probe(url.to_owned()).await) });
    future::join_all(tries)
        .await
        .into_iter()
        .filter_map(|(url, size)| Some((url, size.filter(|size| *size > 0)?)))
        .collect()
}

impl Offer {
    /// Reads `{"url": …, "metadata": {…}, "validation_data": {…}}`.
    pub(super) fn parse(value: &Value) -> Result<Self, Fault> {
        let shape = || invalid("locations", value);
        let url = value["url"].as_str().ok_or_else(shape)?.to_owned();
        let mut metadata = value["metadata"].as_object().ok_or_else(shape)?.clone();
        if !metadata.values().all(is_plain) {
            return Err(Fault::bad_request("Location metadata may hold strings, lists and dictionaries only"));
        }
        if let Some(store) = store_for(&url) {
            metadata.insert("store".to_owned(), store.into());
        }
        let claim = value.get("validation_data").map(Claim::parse).transpose()?;
        Ok(Self { location: Location { url, metadata }, claim })
    }

    /// The offer of a bare URL, from `POST /v2/images/{id}/locations`.
    pub(super) fn of_url(url: &Value, validation_data: Option<&Value>) -> Result<Self, Fault> {
        let mut value = Map::new();
        value.insert("url".to_owned(), url.clone());
        value.insert("metadata".to_owned(), Map::new().into());
        if let Some(data) = validation_data.filter(|data| data["os_hash_value"].is_string()) {
            value.insert("validation_data".to_owned(), data.clone());
        }
        Self::parse(&value.into())
    }

    pub(super) fn url(&self) -> &str {
        &self.location.url
    }
}

/// `add /locations/POSITION`; a queued image becomes active by it.
pub(super) fn add(image: &mut Image, position: &str, offer: Offer, sizes: &Sizes) -> Result<(), Fault> {
    check_status(image, "add", &[Status::Active, Status::Queued])?;
    let claim = confirmed(image, offer.claim)?;
    let url = &offer.location.url;
    if image.locations.iter().any(|known| known.url == *url) {
        return Err(Fault::bad_request(format!("The location {url} already exists")));
    }
    let size = accepted(&offer.location, sizes)?;
    let place = match position {
        "-" => image.locations.len(),
        digits => digits
            .parse::<usize>()
            .map_err(|_| Fault::bad_request("Invalid position for adding a location."))?
            .min(image.locations.len()),
    };
    image.locations.insert(place, offer.location);
    activate(image, claim, size);
    Ok(())
}

/// The location of an image that has none yet.
pub(super) fn add_first(image: &mut Image, offer: Offer, sizes: &Sizes) -> Result<(), Fault> {
    check_status(image, "add", &[Status::Queued])?;
    add(image, "-", offer, sizes)
}

/// `replace /locations`: the same URLs in another order or with other metadata; on a queued image, the first ones.
pub(super) fn replace(image: &mut Image, offers: Vec<Offer>, sizes: &Sizes) -> Result<(), Fault> {
    if offers.is_empty() {
        return Err(Fault::forbidden("Cannot set locations to empty list."));
    }
    check_status(image, "replace", &[Status::Active, Status::Queued])?;
    if image.locations.is_empty() {
        return offers.into_iter().try_for_each(|offer| add(image, "-", offer, sizes));
    }
    let known = sorted_urls(&image.locations);
    let offered: Vec<_> = offers.into_iter().map(|offer| offer.location).collect();
    if sorted_urls(&offered) != known {
        let urls = known.join(", ");
        return Err(Fault::bad_request(format!("Original locations is not empty: {urls}")));
    }
    image.locations = offered;
    Ok(())
}

/// `remove /locations/POSITION`.
pub(super) fn remove(image: &mut Image, position: &str) -> Result<(), Fault> {
    check_status(image, "remove", &[Status::Active])?;
    if image.locations.len() == 1 {
        return Err(Fault::forbidden("Cannot remove last location in the image."));
    }
    let place = match position {
        "-" => image.locations.len().checked_sub(1),
        digits => digits.parse().ok(),
    };
    let place = place
        .filter(|place| *place < image.locations.len())
        .ok_or_else(|| Fault::bad_request("Invalid position for removing a location."))?;
    image.locations.remove(place);
    Ok(())
}

fn check_status(image: &Image, verb: &str, allowed: &[Status]) -> Result<(), Fault> {
    if allowed.contains(&image.status) {
        return Ok(());
    }
    Err(Fault::conflict(format!("It's not allowed to {verb} locations if image status is {}.", image.status.as_str())))
}

/// The size that the location announced when it was tried; that there is one is all that Glance asks of it.
fn accepted(location: &Location, sizes: &Sizes) -> Result<u64, Fault> {
    sizes.get(&location.url).copied().ok_or_else(|| Fault::bad_request("The Store URI was malformed: Invalid location"))
}

/// A claim is only for an image without bits; what is set already may be repeated, but not contradicted.
fn confirmed(image: &Image, claim: Option<Claim>) -> Result<Option<Claim>, Fault> {
    let Some(claim) = claim else {
        return Ok(None);
    };
    if image.status == Status::Queued {
        return Ok(Some(claim));
    }
    let same_checksum = claim.checksum.is_none() || claim.checksum == image.checksum;
    if same_checksum && image.hash.as_ref() == Some(&claim.hash) {
        return Ok(None);
    }
    Err(Fault::conflict("os_hash_value is already set with a different value"))
}

fn activate(image: &mut Image, claim: Option<Claim>, size: u64) {
    image.status = Status::Active;
    image.size = image.size.filter(|known| *known > 0).or(Some(size));
    if let Some(claim) = claim {
        image.checksum = claim.checksum;
        image.hash = Some(claim.hash);
    }
}

impl Claim {
    fn parse(value: &Value) -> Result<Self, Fault> {
        let checksum = value["checksum"].as_str().map(str::to_owned);
        let hash = Hash {
            algorithm: value["os_hash_algo"].as_str().unwrap_or_default().to_owned(),
            value: value["os_hash_value"].as_str().unwrap_or_default().to_owned(),
        };
        if hash.algorithm != HASH_ALGORITHM {
            let got = &hash.algorithm;
            return Err(Fault::conflict(format!("os_hash_algo must be {HASH_ALGORITHM}, not {got}")));
        }
        if !is_hexadecimal(&hash.value, SHA512_DIGITS) {
            return Err(Fault::conflict(format!(
                "os_hash_value ({}) is not a valid {HASH_ALGORITHM} digest",
                hash.value
            )));
        }
        match checksum {
            Some(checksum) if !is_hexadecimal(&checksum, MD5_DIGITS) => {
                Err(Fault::conflict(format!("checksum ({checksum}) is not a valid md5 digest")))
            }
            checksum => Ok(Self { checksum, hash }),
        }
    }
}

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What `glance_store` stores as location metadata.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Array(values) => values.iter().all(is_plain),
        Value::Object(values) => values.values().all(is_plain),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The store of Glance that answers for URLs of this scheme.
fn store_for(url: &str) -> Option<&'static str> {
    match url.split_once("://")?.0 {
        "http" | "https" => Some(HTTP_STORE),
        "file" => Some(OWN_STORE),
        _ => None,
    }
}

fn sorted_urls(locations: &[Location]) -> Vec<String> {
    let mut urls: Vec<_> = locations.iter().map(|location| location.url.clone()).collect();
    urls.sort();
    urls
}
