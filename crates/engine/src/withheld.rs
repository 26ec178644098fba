//! Locations that are to go and have to stay for now: that of the last proven copy that answers, without which nobody could
//! read the image; and, since Glance removes the bits with one at a store that it can write itself, those whose bits something
//! else names.

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{Image, Location, Record, Replica, Result, are_surely_two, is_removed_with_its_bits};

use crate::{
    Engine,
    names::{Names, names_in},
    sabotage::{self, Bug},
    sweep,
};

/// Why a location stays.
pub(crate) struct Stay {
    pub(crate) why: String,
    /// It is the last copy that can be read, and keeps its place; any other is the last one to be tried.
    pub(crate) is_last_copy: bool,
}

/// Those of the image's locations at `urls`, all of which are to go, that have to stay.
pub(crate) async fn withheld(engine: &Engine, image: &Image, urls: &[String]) -> Result<BTreeMap<String, Stay>> {
    if sabotage::is(Bug::BitsGoWithTheirLocation) {
        return Ok(BTreeMap::new());
    }
    let goes = |location: &&Location| urls.contains(&location.url);
    let with_bits = |location: &&Location| is_removed_with_its_bits(&location.url);
    let concerned: Vec<&Location> = image.locations.iter().filter(goes).collect();
    let objects: BTreeSet<String> =
        concerned.iter().filter(|location| with_bits(location)).flat_map(|location| names_in(location)).collect();
    let names = match objects.is_empty() {
        true => None,
        false => Some(engine.naming.ask(engine, objects).await),
    };
    let record = engine.ledger.load(&image.id).await?.unwrap_or_else(|| Record::new(image.id.clone()));
    let mut withheld = BTreeMap::new();
    for location in concerned {
        let others = image.locations.iter().filter(|other| !urls.contains(&other.url));
        let why = match names.as_ref().filter(|_| with_bits(&location)) {
            None => None,
            Some(Ok(names)) => named(names, image, location, others),
            Some(Err(error)) => Some(format!("it cannot be known who else names its bits: {}", error.chain())),
        };
        let stay = match why {
            Some(why) => Some(Stay { why, is_last_copy: false }),
            None if is_last(engine, &record, location).await? => {
                Some(Stay { why: "it is the last proven copy that answers".into(), is_last_copy: true })
            }
            None => None,
        };
        withheld.extend(stay.map(|stay| (location.url.clone(), stay)));
    }
    Ok(withheld)
}

/// What else names the location's bits.
fn named<'a>(
    names: &Names,
    image: &Image,
    location: &Location,
    others: impl Iterator<Item = &'a Location>,
) -> Option<String> {
    let objects = names_in(location);
    if let Some(other) = objects.iter().find_map(|object| names.beside(object, &image.id)) {
        return Some(format!("image {other} names its bits too"));
    }
    // A copy whose store was moved bears its name at both places.
    let mut others = others.filter(|other| !are_surely_two(&location.url, &other.url));
    let is_named = others.any(|other| names_in(other).iter().any(|name| objects.contains(name)));
    is_named.then(|| "another of the image's locations names its bits".to_owned())
}

async fn is_last(engine: &Engine, record: &Record, location: &Location) -> Result<bool> {
    let Some(object) = record.objects.iter().find(|object| location.leads_to(&object.url)) else { return Ok(false) };
    match sweep::replica_of(record, object).is_some_and(Replica::is_proven) {
        true => sweep::is_last(engine, record, object).await,
        false => Ok(false),
    }
}
