//! Locations that are to go and have to stay for now. With one at a store that it can write itself Glance removes the bits,
//! so it is taken out only when the sweeper might remove them: when nothing else names them, and when they are not the
//! last.

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{Image, Location, Record, Replica, Result, are_surely_two, is_removed_with_its_bits};

use crate::{
    Engine,
    names::{Names, names_in},
    sabotage::{self, Bug},
    sweep,
};

/// Those of the image's locations at `urls`, all of which are to go, that have to stay, and why.
pub(crate) async fn withheld(engine: &Engine, image: &Image, urls: &[String]) -> Result<BTreeMap<String, String>> {
    let goes = |location: &&Location| urls.contains(&location.url);
    let with_bits = |location: &&Location| is_removed_with_its_bits(&location.url);
    let concerned: Vec<&Location> = image.locations.iter().filter(goes).filter(with_bits).collect();
    if concerned.is_empty() || sabotage::is(Bug::BitsGoWithTheirLocation) {
        return Ok(BTreeMap::new());
    }
    let objects: BTreeSet<String> = concerned.iter().flat_map(|location| names_in(location)).collect();
    let names = engine.naming.ask(engine, objects).await;
    let record = engine.ledger.load(&image.id).await?.unwrap_or_else(|| Record::new(image.id.clone()));
    let mut withheld = BTreeMap::new();
    for location in concerned {
        let others = image.locations.iter().filter(|other| !urls.contains(&other.url));
        let why = match &names {
            Ok(names) => named(names, image, location, others),
            Err(error) => Some(format!("it cannot be known who else names its bits: {}", error.chain())),
        };
        let why = match why {
            None if is_last(engine, &record, location).await? => Some("it is the last proven copy that answers".into()),
            why => why,
        };
        withheld.extend(why.map(|why| (location.url.clone(), why)));
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
