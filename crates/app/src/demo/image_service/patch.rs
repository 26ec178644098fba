//! JSON patch as Glance takes it: both of its media types, and of JSON pointers only what names a field, a property or
//! a place in the locations.

use serde_json::{Map, Value};

use super::{
    attributes,
    fault::Fault,
    image::Image,
    locations::{self, Offer, Sizes},
};

/// The two forms of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draft {
    /// `{"add": "/name", "value": …}`
    Four,
    /// `{"op": "add", "path": "/name", "value": …}`
    Ten,
}

/// The changes of one PATCH, checked as far as that goes without the image.
#[derive(Debug)]
pub(super) struct Patch(Vec<Change>);

#[derive(Debug)]
enum Change {
    Add(String, Value),
    /// As `Add`, but refused if it is there already.
    AddNew(String, Value),
    Replace(String, Value),
    Remove(String),
    AddLocation(String, Offer),
    ReplaceLocations(Vec<Offer>),
    RemoveLocation(String),
}

impl Patch {
    pub(super) fn parse(media_type: &str, body: &[u8]) -> Result<Self, Fault> {
        let draft = match media_type.split(';').next().unwrap_or_default().trim() {
            "application/openstack-images-v2.1-json-patch" => Draft::Ten,
            "application/openstack-images-v2.0-json-patch" => Draft::Four,
            _ => {
                return Err(Fault::unsupported(
                    "Image PATCH expects Content-Type one of: \
                     application/openstack-images-v2.0-json-patch, \
                     application/openstack-images-v2.1-json-patch",
                ));
            }
        };
        let Value::Array(operations) = json(body)? else {
            return Err(Fault::bad_request("Request body must be a JSON array of operation objects."));
        };
        operations.iter().map(|operation| Change::parse(draft, operation)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The URLs that this patch would bring to `image`: they are tried before.
    pub(super) fn new_urls<'a>(&'a self, image: &'a Image) -> impl Iterator<Item = &'a str> {
        let is_new = |offer: &&Offer| image.locations.iter().all(|known| known.url != offer.url());
        let offers = self.0.iter().flat_map(move |change| match change {
            Change::AddLocation(_, offer) => vec![offer],
            Change::ReplaceLocations(offers) => offers.iter().filter(is_new).collect(),
            _ => Vec::new(),
        });
        offers.map(Offer::url)
    }

    pub(super) fn apply(self, image: &mut Image, sizes: &Sizes) -> Result<(), Fault> {
        self.0.into_iter().try_for_each(|change| change.apply(image, sizes))
    }
}

impl Change {
    fn parse(draft: Draft, operation: &Value) -> Result<Self, Fault> {
        let operation = operation.as_object().ok_or_else(|| Fault::bad_request("Operations must be JSON objects."))?;
        let (verb, pointer) = match draft {
            Draft::Ten => draft_ten(operation)?,
            Draft::Four => draft_four(operation)?,
        };
        let path = decode(pointer)?;
        let value = || {
            operation
                .get("value")
                .cloned()
                .ok_or_else(|| Fault::bad_request(format!("Operation \"{verb}\" requires a member named \"value\".")))
        };
        let [root, place @ ..] = path.as_slice() else {
            return Err(misplaced(&path));
        };
        if root == "locations" {
            return Self::of_locations(verb, place, value).ok_or_else(|| misplaced(&path))?;
        }
        if !place.is_empty() {
            return Err(misplaced(&path));
        }
        attributes::check_writable(root)?;
        let name = root.clone();
        match (verb, draft) {
            ("add", Draft::Ten) => Ok(Self::Add(name, value()?)),
            ("add", Draft::Four) => Ok(Self::AddNew(name, value()?)),
            ("replace", _) => Ok(Self::Replace(name, value()?)),
            _ => Ok(Self::Remove(name)),
        }
    }

    /// `None` when the pointer does not fit the operation.
    fn of_locations(
        verb: &str,
        place: &[String],
        value: impl Fn() -> Result<Value, Fault>,
    ) -> Option<Result<Self, Fault>> {
        match (verb, place) {
            ("add", [position]) => Some(
                value().and_then(|value| Offer::parse(&value).map(|offer| Self::AddLocation(position.clone(), offer))),
            ),
            ("replace", []) => Some(value().and_then(|value| {
                let offers = value.as_array().map_or(&[][..], Vec::as_slice);
                let offers = offers.iter().map(Offer::parse).collect::<Result<_, _>>();
                offers.map(Self::ReplaceLocations)
            })),
            ("remove", [position]) => Some(Ok(Self::RemoveLocation(position.clone()))),
            _ => None,
        }
    }

    fn apply(self, image: &mut Image, sizes: &Sizes) -> Result<(), Fault> {
        match self {
            Self::AddNew(name, _) if attributes::has(image, &name) => {
                Err(Fault::conflict(format!("Property {name} already present.")))
            }
            Self::Replace(name, _) if !attributes::has(image, &name) => Err(attributes::missing(&name)),
            Self::Add(name, value) | Self::AddNew(name, value) | Self::Replace(name, value) => {
                attributes::set(image, &name, value)
            }
            Self::Remove(name) => attributes::remove(image, &name),
            Self::AddLocation(position, offer) => locations::add(image, &position, offer, sizes),
            Self::ReplaceLocations(offers) => locations::replace(image, offers, sizes),
            Self::RemoveLocation(position) => locations::remove(image, &position),
        }
    }
}

/// A request's body, whatever it says of its media type.
pub(super) fn json(body: &[u8]) -> Result<Value, Fault> {
    serde_json::from_slice(body).map_err(|error| Fault::bad_request(format!("Malformed JSON in request body: {error}")))
}

const VERBS: [&str; 3] = ["add", "remove", "replace"];

fn draft_ten(operation: &Map<String, Value>) -> Result<(&'static str, &str), Fault> {
    let member = |name: &str| {
        operation
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| Fault::bad_request(format!("Unable to find '{name}' in JSON Schema change")))
    };
    let op = member("op")?;
    let verb = VERBS.into_iter().find(|verb| *verb == op).ok_or_else(|| {
        Fault::bad_request(format!("Invalid operation: `{op}`. It must be one of the following: add, remove, replace."))
    })?;
    Ok((verb, member("path")?))
}

fn draft_four(operation: &Map<String, Value>) -> Result<(&'static str, &str), Fault> {
    let mut found = VERBS.into_iter().filter_map(|verb| Some((verb, operation.get(verb)?.as_str()?)));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(Fault::bad_request(
            "Operation objects must contain exactly one member named \"add\", \"remove\", or \
             \"replace\".",
        )),
    }
}

/// The parts of a JSON pointer, with `~1` and `~0` read as `/` and `~`.
fn decode(pointer: &str) -> Result<Vec<String>, Fault> {
    let parts = pointer
        .strip_prefix('/')
        .ok_or_else(|| Fault::bad_request(format!("Pointer `{pointer}` does not start with \"/\".")))?;
    parts
        .split('/')
        .map(|part| {
            let part = part.trim();
            let escapes = part.matches('~').count();
            let known = part.matches("~0").count() + part.matches("~1").count();
            if part.is_empty() || escapes != known {
                return Err(Fault::bad_request(format!("Pointer `{pointer}` is not one that can be followed here.")));
            }
            Ok(part.replace("~1", "/").replace("~0", "~"))
        })
        .collect()
}

fn misplaced(path: &[String]) -> Fault {
    Fault::bad_request(format!("Invalid JSON pointer for this resource: '/{}'", path.join("/")))
}
