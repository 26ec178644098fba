//! Who names an object: read from the locations of all images, right before objects are removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mimeo_core::{
    Change, Error, Image, ImageId, ImageRow, ImageStatus, Location, ObjectName, Reason, Record, Result, Timestamp,
};
use percent_encoding::percent_decode_str;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Engine,
    walk::{Records, Walk},
};

/// Before it is read: Glance's clock need not be ours.
const LATELY: Duration = Duration::from_mins(5);

/// So long a service may go by what Keystone has told it of a token.
const CACHED: Duration = Duration::from_mins(5);

/// The bookmark that has the roles with which the token saw all images, each in a line.
const ROLES: &str = "roles that see all";

/// The images whose locations name one of certain objects.
#[derive(Clone)]
pub(crate) struct Names(BTreeMap<String, BTreeSet<ImageId>>);

impl Names {
    /// Reads every image's locations. An error where they are not all shown: then nothing may be concluded from them.
    pub(crate) async fn read(engine: &Engine, objects: BTreeSet<String>) -> Result<Self> {
        // A role that comes back while the pages are read leaves out what the first of them did not show.
        let before = Token::now(engine).await?;
        let (mut names, mut seen) = (BTreeMap::<String, BTreeSet<ImageId>>::new(), BTreeSet::new());
        // Shown and hidden images have a list each: one that goes from one to the other meanwhile is in neither, and changed.
        let lately = engine.clock.now().saturating_sub(LATELY).unwrap_or(Timestamp::MIN);
        for since in [None, Some(lately)] {
            let mut walk = Walk::new(engine.registry.as_ref(), since);
            while let Some(page) = walk.next().await? {
                for image in page {
                    if has_bits(&image) && !image.locations_shown {
                        return Err(blind("Glance does not show the locations of images (show_multiple_locations)"));
                    }
                    for name in named(&image, &objects) {
                        names.entry(name).or_default().insert(image.id.clone());
                    }
                    seen.insert(image.id);
                }
            }
        }
        if let Some(why) = before.min(Token::now(engine).await?).hides(engine, &seen).await? {
            return Err(blind(why));
        }
        Ok(Self(names))
    }

    /// An image that names the object, if one does.
    pub(crate) fn of(&self, object: &ObjectName) -> Option<&ImageId> {
        self.0.get(object.as_str())?.first()
    }

    /// An image other than this one that names the object, if one does.
    pub(crate) fn beside(&self, object: &str, image: &ImageId) -> Option<&ImageId> {
        self.0.get(object)?.iter().find(|other| *other != image)
    }
}

fn has_bits(image: &Image) -> bool {
    matches!(image.status, ImageStatus::Active | ImageStatus::Deactivated)
}

/// Reads the images once for all the turns that ask at the same time: a store that is drained may have ten thousand of
/// them ask.
#[derive(Default)]
pub(crate) struct Naming {
    asked: Mutex<Vec<Question>>,
    reading: tokio::sync::Mutex<()>,
    /// When the token was last seen to have lost a role.
    lost: Mutex<Option<Instant>>,
}

struct Question {
    objects: BTreeSet<String>,
    answer: oneshot::Sender<Arc<Result<Names>>>,
}

impl Naming {
    /// As [`Names::read`]: not from what was read before this was asked.
    pub(crate) async fn ask(&self, engine: &Engine, objects: BTreeSet<String>) -> Result<Names> {
        let (answer, mut answered) = oneshot::channel();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(Question { objects, answer });
        let answered = tokio::select! {
            biased;
            answered = &mut answered => answered,
            () = self.answer_all(engine) => answered.await,
        };
        // Who read for all was broken off.
        let cancelled = || Error::new(Reason::Cancelled, "the images were not read to their end");
        match answered.map_err(|_| cancelled())?.as_ref() {
            Ok(names) => Ok(names.clone()),
            Err(error) => Err(Error::new(error.reason, error.chain())),
        }
    }

    async fn answer_all(&self, engine: &Engine) {
        let _reading = self.reading.lock().await;
        let asked = mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        let objects = asked.iter().flat_map(|question| question.objects.iter().cloned()).collect();
        let names = Arc::new(Names::read(engine, objects).await);
        for question in asked {
            // Whoever asked may be gone.
            let _ = question.answer.send(Arc::clone(&names));
        }
    }
}

/// The objects, of these, that the image's locations name: however a URL is written, the object's name stands in it, and
/// no other object has that name.
pub(crate) fn named(image: &Image, objects: &BTreeSet<String>) -> Vec<String> {
    let found = image.locations.iter().flat_map(names_in);
    found.filter(|name| objects.contains(name)).collect()
}

/// What looks like an object's name in a location: an image's id, a dot, and the number of an attempt.
pub(crate) fn names_in(location: &Location) -> Vec<String> {
    const ID: usize = 36;
    let url = percent_decode_str(&location.url).decode_utf8_lossy().to_ascii_lowercase();
    let name_at = |at: usize| {
        let (id, rest) = url.get(at..)?.split_at_checked(ID)?;
        let attempt = rest.strip_prefix('.')?;
        let digits = attempt.find(|letter: char| !letter.is_ascii_hexdigit()).unwrap_or(attempt.len());
        id.parse::<ImageId>().ok()?;
        Some(url[at..=at + ID + digits].to_owned())
    };
    (0..url.len().saturating_sub(ID)).filter_map(name_at).collect()
}

/// What shows that Glance hides nothing from the token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    /// Nothing, and it has lost a role with which it saw all.
    HasLostARole,
    /// Known images alone: in a cloud without other projects' private images nothing else can.
    IsAsEver,
    /// It sees other projects' private images.
    SeesAll,
}

impl Token {
    async fn now(engine: &Engine) -> Result<Self> {
        if engine.registry.sees_all().await? {
            return Ok(Self::SeesAll);
        }
        let Some(noted) = engine.ledger.bookmark(ROLES).await? else { return Ok(Self::IsAsEver) };
        let roles = engine.registry.roles().await?;
        let has_all = roles.is_none_or(|roles| noted.lines().all(|role| roles.contains(role)));
        let mut lost = engine.naming.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_all {
            *lost = Some(Instant::now());
        }
        // Glance need not know yet that it has them again.
        Ok(if lost.is_none_or(|at| at.elapsed() >= CACHED) { Self::IsAsEver } else { Self::HasLostARole })
    }

    /// Why images may have been there that were not seen.
    async fn hides(self, engine: &Engine, seen: &BTreeSet<ImageId>) -> Result<Option<&'static str>> {
        Ok(match self {
            Self::SeesAll => None,
            Self::HasLostARole => Some(
                "Mimeo's user has lost a role with which it was shown all images: give it back, or make a private image in \
                 another project, which shows that it is not needed",
            ),
            Self::IsAsEver if shows_all_that_live(engine, seen).await? => None,
            Self::IsAsEver => {
                Some("images that are known are not among those that Glance shows to Mimeo: a lost role?")
            }
        })
    }
}

/// Notes with which roles the token sees all images. True: it need not be noted again.
pub(crate) async fn note_roles(engine: &Engine) -> Result<bool> {
    let Some(roles) = engine.registry.roles().await? else { return Ok(true) };
    // It had them before and after it was seen to see all.
    let is_sure = engine.registry.sees_all().await? && engine.registry.roles().await?.as_ref() == Some(&roles);
    if roles.is_empty() || !is_sure {
        return Ok(false);
    }
    let noted = roles.into_iter().collect::<Vec<_>>().join("\n");
    engine.ledger.commit(&[Change::Bookmark(ROLES.into(), noted)]).await?;
    Ok(true)
}

/// Whether every image that was there at its last look, or that others told of, is shown.
async fn shows_all_that_live(engine: &Engine, seen: &BTreeSet<ImageId>) -> Result<bool> {
    let mut walk = Records::all(engine.ledger.as_ref());
    while let Some(records) = walk.next().await? {
        // One without any copy counts too: another's object may be among its locations.
        let is_there = |row: &ImageRow| row.gone_at.is_none() && (row.status.is_some() || row.trouble.is_some());
        let lives = |record: &&Record| is_there(&record.image);
        let hidden = records.iter().filter(lives).any(|record| !seen.contains(&record.image.id));
        if hidden {
            return Ok(false);
        }
    }
    Ok(true)
}

fn blind(why: &str) -> Error {
    Error::new(Reason::ImageNotVisible, format!("nothing is removed: {why}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_however_the_url_is_written() {
        let object = "0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a.17";
        let names = |url: &str| {
            let location = Location { url: url.into(), metadata: BTreeMap::default() };
            let image = Image { locations: vec![location], ..mimeo_testkit::sample::image(1, 1) };
            named(&image, &BTreeSet::from([object.to_owned()]))
        };
        for url in [
            "http://host/images/0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a.17",
            "http://host/images//0B3F8A10-7a44-4f0e-9d57-1f2e3d4c5b6a.17/?x#y",
            "http://host/images/%30b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a%2e17",
            "rbd://fsid/images/0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a.17/snap",
            "s3+https://key:secret@host/bucket/mimeo-0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a.17",
            "s3+https://host/bucket/face0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a.17.part",
            "http://host/images%2F0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a.17",
        ] {
            assert_eq!(names(url), [object], "{url}");
        }
        for other in [".1/snap", ".171", ".17f", "", "17"] {
            assert!(names(&format!("http://host/0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a{other}")).is_empty(), "{other}");
        }
    }
}
