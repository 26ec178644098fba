//! Who names an object: read from the locations of all images, right before objects are removed.

use std::collections::{BTreeMap, HashSet};

use mimeo_core::{Error, Image, ImageId, ImageStatus, ObjectName, Reason, ReplicaState, Result};

use crate::{
    Engine,
    walk::{Records, Walk},
};

/// The images whose locations name one of certain objects.
pub(crate) struct Names(BTreeMap<String, ImageId>);

impl Names {
    /// Reads every image's locations. An error where they are not all shown: then nothing may be concluded from them.
    pub(crate) async fn read(engine: &Engine, objects: HashSet<String>) -> Result<Self> {
        let (mut names, mut seen) = (BTreeMap::new(), HashSet::new());
        let mut walk = Walk::new(engine.registry.as_ref(), None);
        while let Some(page) = walk.next().await? {
            for image in page {
                if image.status == ImageStatus::Active && !image.locations_shown {
                    return Err(blind("Glance does not show the locations of images (show_multiple_locations)"));
                }
                names.extend(named(&image, &objects).map(|name| (name, image.id.clone())));
                seen.insert(image.id);
            }
        }
        if !engine.registry.sees_all().await? && !shows_all_that_live(engine, &seen).await? {
            return Err(blind("images that are known are not among those that Glance shows to Mimeo: a lost role?"));
        }
        Ok(Self(names))
    }

    /// An image that names the object, if one does.
    pub(crate) fn of(&self, object: &ObjectName) -> Option<&ImageId> {
        self.0.get(object.as_str())
    }
}

/// The objects, of these, that the image's locations name. However a URL is written, an object's name is the last part
/// of its path, and no other object has it.
fn named(image: &Image, objects: &HashSet<String>) -> impl Iterator<Item = String> {
    let last_part = |url: &str| {
        let path = url.split(['?', '#']).next().unwrap_or(url).trim_end_matches('/');
        path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase()
    };
    let names: Vec<String> = image.locations.iter().map(|location| last_part(&location.url)).collect();
    names.into_iter().filter(|name| objects.contains(name))
}

/// Whether every image that was there at its last look is still shown. In a cloud without other projects' private
/// images that is the only sign that the token sees what it should.
async fn shows_all_that_live(engine: &Engine, seen: &HashSet<ImageId>) -> Result<bool> {
    let mut walk = Records::all(engine.ledger.as_ref());
    while let Some(records) = walk.next().await? {
        let lives = |state: &ReplicaState| matches!(state, ReplicaState::Registered | ReplicaState::Suspect);
        let hidden = records.iter().filter(|record| record.image.gone_at.is_none()).any(|record| {
            record.replicas.values().any(|replica| lives(&replica.state)) && !seen.contains(&record.image.id)
        });
        if hidden {
            return Ok(false);
        }
    }
    Ok(true)
}

fn blind(why: &str) -> Error {
    Error::new(Reason::ImageNotVisible, format!("nothing is removed: {why}"))
}
