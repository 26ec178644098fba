use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use md5::Md5;
use mimeo_core::{
    HashAlgorithm, Image, ImageId, ImageStatus, Location, Reason, Result, STORE_KEY, StoreName, Timestamp, Visibility,
    ports::{Cursor, Registry, Undone},
};
use sha2::{Digest, Sha256, Sha512};

use crate::sample;

/// What others do at the image service while its registry is checked: it has to be done behind the port's back.
#[async_trait]
pub trait Backstage: Sync {
    /// An active, private image with these bits, of another project than the registry's own: seeing those is its task.
    async fn create(&self, bits: Bytes) -> ImageId;

    async fn hide(&self, id: &ImageId);

    /// The image is not protected.
    async fn delete(&self, id: &ImageId);

    /// A URL that no image has yet, and that answers the image service with so many bytes.
    async fn fresh_url(&self, size: usize) -> String;

    /// A URL on which the image service finds nothing.
    async fn dead_url(&self) -> String;

    /// The id of a store of the image service's own that new images are not in.
    fn backend(&self) -> String;

    /// Returns when the image service has ended its copying of the image.
    async fn copied(&self, id: &ImageId);
}

/// How many images are walked over at the least: two pages of three and one more.
const WALKED: usize = 7;

/// Checks a registry's whole contract, and leaves no image behind. The registry must be allowed to see and change the
/// images of all projects, and its pages must hold no more than three images, or no cursor would be checked.
pub async fn registry(registry: &dyn Registry, backstage: &impl Backstage) {
    tells_what_an_image_is(registry, backstage).await;
    reads_the_bits_from_an_offset_as_often_as_asked(registry, backstage).await;
    adds_all_locations_or_none(registry, backstage).await;
    arranges_the_locations_that_there_are_or_none(registry, backstage).await;
    copies_to_a_store_of_its_own_once(registry, backstage).await;
    walks_over_shown_and_hidden_images(registry, backstage).await;
    walks_over_what_changed_since(registry, backstage).await;
    goes_on_behind_a_deleted_marker_or_says_that_it_cannot(registry, backstage).await;
    puts_back_and_takes_no_location_while_deactivated(registry, backstage).await;
    knows_nothing_of_what_is_gone(registry, backstage).await;
}

async fn tells_what_an_image_is(registry: &dyn Registry, backstage: &impl Backstage) {
    let bits = sample::bits(1000);
    let id = backstage.create(bits.clone()).await;
    let image = look(registry, &id).await;
    assert_eq!((&image.id, image.status, image.size), (&id, ImageStatus::Active, Some(1000)));
    assert_eq!((image.visibility, image.hidden, image.protected), (Visibility::Private, false, false));
    assert!(image.locations_shown && !image.importing, "{image:?}");
    let name = image.name.as_deref().unwrap_or_default();
    assert!(registry.named(name).await.unwrap().iter().any(|found| found.id == id), "{name} is not found by its name");
    for nobodys in [format!("{name}, which nobody bears"), format!("in:{name}"), format!("like:{name}")] {
        assert!(registry.named(&nobodys).await.unwrap().is_empty(), "{nobodys}");
    }
    assert!(image.created_at <= image.updated_at, "{image:?}");
    if let Some(hash) = image.hash {
        let expected = match hash.algorithm {
            HashAlgorithm::Md5 => format!("{:x}", Md5::digest(&bits)),
            HashAlgorithm::Sha256 => format!("{:x}", Sha256::digest(&bits)),
            HashAlgorithm::Sha512 => format!("{:x}", Sha512::digest(&bits)),
        };
        assert_eq!(hash.value, expected);
    }
    assert!(registry.sees_all().await.unwrap(), "another project's private image is there to be seen");
    let roles = registry.roles().await.unwrap();
    assert!(roles.is_none_or(|roles| !roles.is_empty()), "the token has no role");
    backstage.hide(&id).await;
    assert!(look(registry, &id).await.hidden);
    backstage.delete(&id).await;
}

async fn reads_the_bits_from_an_offset_as_often_as_asked(registry: &dyn Registry, backstage: &impl Backstage) {
    let bits = sample::bits(200_000);
    let id = backstage.create(bits.clone()).await;
    let source = registry.source(&id);
    for offset in [0, 1, 65_536, 199_999, 200_000] {
        let read: Vec<Bytes> = source.open(offset as u64).await.unwrap().try_collect().await.unwrap();
        assert!(read.concat() == bits.slice(offset..), "other bits from {offset} on");
    }
    let (first, second) = (source.open(0).await.unwrap(), source.open(100_000).await.unwrap());
    let second: Vec<Bytes> = second.try_collect().await.unwrap();
    let first: Vec<Bytes> = first.try_collect().await.unwrap();
    assert!(first.concat() == bits && second.concat() == bits.slice(100_000..), "two reads disturb each other");
    backstage.delete(&id).await;
}

async fn adds_all_locations_or_none(registry: &dyn Registry, backstage: &impl Backstage) {
    let id = backstage.create(sample::bits(1000)).await;
    let before = look(registry, &id).await;
    let good = ours(backstage.fresh_url(1000).await, "http1");
    let dead = ours(backstage.dead_url().await, "http2");
    for locations in [[good.clone(), dead.clone()], [dead, good.clone()]] {
        assert_eq!(refusal(registry, &id, &locations).await, Reason::LocationRefused);
        assert_eq!(look(registry, &id).await.locations, before.locations);
    }

    let other = ours(backstage.fresh_url(1000).await, "http2");
    registry.add_locations(&id, &[good.clone(), other.clone()]).await.unwrap();
    let after = look(registry, &id).await;
    assert_eq!(labels(&after), [label(&good), label(&other)], "in the order in which they were given");
    assert_eq!(after.locations.len(), before.locations.len() + 2);
    let without = Image { locations: before.locations.clone(), backends: before.backends.clone(), ..after };
    assert_eq!(Image { updated_at: before.updated_at, ..without }, before);

    let third = ours(backstage.fresh_url(1000).await, "http3");
    assert_eq!(refusal(registry, &id, &[third, good.clone()]).await, Reason::LocationRefused, "it is there already");
    assert_eq!(labels(&look(registry, &id).await), [label(&good), label(&other)]);
    backstage.delete(&id).await;
}

async fn arranges_the_locations_that_there_are_or_none(registry: &dyn Registry, backstage: &impl Backstage) {
    let id = backstage.create(sample::bits(1000)).await;
    let mut added = Vec::new();
    for store in ["http1", "http2", "http3"] {
        added.push(ours(backstage.fresh_url(1000).await, store));
    }
    registry.add_locations(&id, &added).await.unwrap();
    let before = look(registry, &id).await;
    let [one, two, three] = [0, 1, 2].map(|at| label(&added[at]));
    let of = |wanted: &[&(String, String)]| -> Vec<Location> {
        let find = |wanted: &&&(String, String)| before.locations.iter().find(|it| it.url == wanted.0).unwrap().clone();
        wanted.iter().map(|wanted| find(&wanted)).collect()
    };
    let others: Vec<Location> =
        before.locations.iter().filter(|location| !location.metadata.contains_key(STORE_KEY)).cloned().collect();
    let with_others = |wanted: &[&(String, String)]| [of(wanted), others.clone()].concat();

    registry.arrange_locations(&id, &with_others(&[&three, &one, &two]), &[]).await.unwrap();
    assert_eq!(labels(&look(registry, &id).await), [three.clone(), one.clone(), two.clone()], "another order");

    let stranger = ours(backstage.fresh_url(1000).await, "http4");
    let misfits = [
        (with_others(&[&one, &two]), Vec::new()),
        (with_others(&[&one]), of(&[&two])),
        (with_others(&[&one, &two, &three]), vec![stranger.clone()]),
        ([with_others(&[&one, &two, &three]), vec![stranger]].concat(), Vec::new()),
    ];
    for (keep, remove) in misfits {
        assert_eq!(misfit(registry, &id, &keep, &remove).await, Reason::Conflict, "{keep:?} {remove:?}");
    }
    let everything = with_others(&[&one, &two, &three]);
    assert_eq!(misfit(registry, &id, &[], &everything).await, Reason::LastLocation);
    assert_eq!(labels(&look(registry, &id).await), [three.clone(), one.clone(), two.clone()], "nothing has changed");

    registry.arrange_locations(&id, &with_others(&[&one]), &of(&[&three, &two])).await.unwrap();
    let after = look(registry, &id).await;
    assert_eq!((labels(&after), after.locations.len()), (vec![one], others.len() + 1));
    let mut again = added[0].clone();
    again.metadata.insert("note".into(), "again".into());
    registry.add_locations(&id, std::slice::from_ref(&again)).await.unwrap();
    let doubled = look(registry, &id).await.locations;
    assert_eq!(doubled.len(), after.locations.len() + 1, "the same URL with other metadata stands twice");
    let (last, kept) = doubled.split_last().unwrap();
    registry.arrange_locations(&id, kept, std::slice::from_ref(last)).await.unwrap();
    assert_eq!(look(registry, &id).await.locations, after.locations, "one of the two is there");
    let arranged = Image { locations: before.locations.clone(), updated_at: before.updated_at, ..after };
    assert_eq!(Image { backends: before.backends.clone(), ..arranged }, before, "nothing else has changed");
    assert_eq!(misfit(registry, &id, &everything, &[]).await, Reason::Conflict, "what was removed is not put back");
    backstage.delete(&id).await;
    assert_eq!(misfit(registry, &id, &everything, &[]).await, Reason::ImageNotVisible);
}

async fn copies_to_a_store_of_its_own_once(registry: &dyn Registry, backstage: &impl Backstage) {
    let (id, backend) = (backstage.create(sample::bits(1000)).await, backstage.backend());
    let before = look(registry, &id).await;
    assert!(!before.backends.contains(&backend) && !before.importing, "{before:?}");
    let backends = [backend.clone()];
    registry.copy_to(&id, &backends).await.unwrap();
    backstage.copied(&id).await;
    let after = look(registry, &id).await;
    assert!(!after.importing && after.failed_backends.is_empty(), "{after:?}");
    assert!(after.backends.contains(&backend), "{after:?}");
    assert!(after.locations.iter().any(|location| location.backend() == Some(&backend)), "{after:?}");
    let again = registry.copy_to(&id, &backends).await.unwrap_err();
    assert_eq!(again.reason, Reason::GlanceCopyFailed, "it is there already");
    backstage.delete(&id).await;
}

/// Images that are shown or hidden all the time are met exactly once, although others change them on the way.
async fn walks_over_shown_and_hidden_images(registry: &dyn Registry, backstage: &impl Backstage) {
    let mut hidden = BTreeMap::new();
    for n in 0..WALKED {
        let id = backstage.create(sample::bits(10)).await;
        if n % 3 == 0 {
            backstage.hide(&id).await;
        }
        hidden.insert(id, n % 3 == 0);
    }
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = registry.changed_since(None, cursor.as_ref()).await.unwrap();
        for image in page.images.iter().filter(|image| hidden.contains_key(&image.id)) {
            let met = found.iter().any(|found: &Image| found.id == image.id);
            assert!(!met, "{} was met twice: the walk may have no end", image.id);
            put_back(registry, &image.id, Undone { visibility: Some(Visibility::Community), ..Undone::default() })
                .await;
        }
        found.extend(page.images);
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert!(
        pages > 1,
        "{} images came in one page: no cursor was checked; give the service smaller pages",
        found.len()
    );
    found.retain(|image| hidden.contains_key(&image.id));
    let once: BTreeMap<_, _> = found.iter().map(|image| (image.id.clone(), image.hidden)).collect();
    assert_eq!((found.len(), once), (WALKED, hidden.clone()));
    for image in &found {
        assert_eq!((image.status, image.size, image.locations_shown), (ImageStatus::Active, Some(10), true));
    }
    for id in hidden.keys() {
        backstage.delete(id).await;
    }
}

async fn walks_over_what_changed_since(registry: &dyn Registry, backstage: &impl Backstage) {
    let old = backstage.create(sample::bits(10)).await;
    let young = backstage.create(sample::bits(10)).await;
    let before = look(registry, &old).await.updated_at;
    let since = touch_until_later(registry, &young, before).await;
    assert_eq!(changed(registry, since, &[&old, &young]).await, [(young.clone(), false)]);
    let mut both = changed(registry, before, &[&old, &young]).await;
    both.sort_unstable();
    let mut expected = [(old.clone(), false), (young.clone(), false)];
    expected.sort_unstable();
    assert_eq!(both, expected);
    backstage.hide(&old).await;
    assert!(changed(registry, since, &[&old]).await.contains(&(old.clone(), true)), "hiding is a change");
    for id in [&old, &young] {
        backstage.delete(id).await;
    }
}

/// Real Glance keeps deleted records for a while, and goes on behind them for an admin; where it does not, it must say
/// so, and never pass over what comes behind.
async fn goes_on_behind_a_deleted_marker_or_says_that_it_cannot(registry: &dyn Registry, backstage: &impl Backstage) {
    let mut ids = Vec::new();
    for _ in 0..WALKED {
        ids.push(backstage.create(sample::bits(10)).await);
    }
    let mut page = registry.changed_since(None, None).await.unwrap();
    while !page.images.iter().all(|image| ids.contains(&image.id)) {
        assert!(page.next.is_some(), "no page has these images alone; give the service smaller pages");
        page = registry.changed_since(None, page.next.as_ref()).await.unwrap();
    }
    assert!(page.next.is_some(), "the rest does not come on later pages; give the service smaller ones");
    let others = page.images.iter().map(|image| &image.id);
    for id in others.clone() {
        backstage.delete(id).await;
    }
    ids.retain(|id| !others.clone().any(|other| other == id));
    match walk(registry, None, page.next).await {
        Ok(found) => assert!(ids.iter().all(|id| found.iter().any(|image| image.id == *id)), "images were passed over"),
        Err(error) => assert_eq!(error.reason, Reason::Conflict, "{error}"),
    }
    for id in &ids {
        backstage.delete(id).await;
    }
}

async fn puts_back_and_takes_no_location_while_deactivated(registry: &dyn Registry, backstage: &impl Backstage) {
    let id = backstage.create(sample::bits(1000)).await;
    let before = look(registry, &id).await;
    for visibility in [Visibility::Public, Visibility::Community, Visibility::Shared, Visibility::Private] {
        put_back(registry, &id, Undone { visibility: Some(visibility), ..Undone::default() }).await;
        assert_eq!(look(registry, &id).await.visibility, visibility);
    }
    for protected in [true, false] {
        put_back(registry, &id, Undone { protected: Some(protected), ..Undone::default() }).await;
        assert_eq!(look(registry, &id).await.protected, protected);
    }
    // What is so already is no error: the answer to an earlier request may have been lost.
    let all = |visibility, set| Undone { visibility: Some(visibility), protected: Some(set), deactivated: Some(set) };
    let location = ours(backstage.fresh_url(1000).await, "http1");
    for _ in 0..2 {
        put_back(registry, &id, all(Visibility::Public, true)).await;
        let image = look(registry, &id).await;
        let state = (image.visibility, image.protected, image.status);
        assert_eq!(state, (Visibility::Public, true, ImageStatus::Deactivated));
        assert_eq!(refusal(registry, &id, std::slice::from_ref(&location)).await, Reason::Conflict);
        if !image.locations.is_empty() {
            assert_eq!(misfit(registry, &id, &image.locations, &[]).await, Reason::Conflict);
        }
    }
    for _ in 0..2 {
        put_back(registry, &id, all(Visibility::Private, false)).await;
        let after = look(registry, &id).await;
        assert_eq!(Image { updated_at: before.updated_at, ..after }, before, "nothing else has changed");
    }
    registry.add_locations(&id, &[location]).await.unwrap();
    backstage.delete(&id).await;
}

async fn knows_nothing_of_what_is_gone(registry: &dyn Registry, backstage: &impl Backstage) {
    let deleted = backstage.create(sample::bits(1000)).await;
    let location = ours(backstage.fresh_url(1000).await, "http1");
    backstage.delete(&deleted).await;
    for id in [deleted, sample::id(0xDEAD_BEEF)] {
        assert_eq!(registry.look(&id).await.unwrap(), None);
        assert_eq!(refusal(registry, &id, std::slice::from_ref(&location)).await, Reason::ImageNotVisible);
        let undoings = [
            Undone { visibility: Some(Visibility::Public), ..Undone::default() },
            Undone { deactivated: Some(true), ..Undone::default() },
        ];
        for undone in undoings {
            assert_eq!(registry.put_back(&id, &undone).await.unwrap_err().reason, Reason::ImageNotVisible);
        }
        assert_eq!(registry.source(&id).open(0).await.err().unwrap().reason, Reason::SourceUnreadable);
    }
}

async fn look(registry: &dyn Registry, id: &ImageId) -> Image {
    registry.look(id).await.unwrap().expect("an image that was just made is shown")
}

async fn put_back(registry: &dyn Registry, id: &ImageId, undone: Undone) {
    registry.put_back(id, &undone).await.unwrap();
}

async fn refusal(registry: &dyn Registry, id: &ImageId, locations: &[Location]) -> Reason {
    registry.add_locations(id, locations).await.expect_err("locations were taken").reason
}

async fn misfit(registry: &dyn Registry, id: &ImageId, keep: &[Location], remove: &[Location]) -> Reason {
    registry.arrange_locations(id, keep, remove).await.expect_err("locations were arranged").reason
}

/// The service may count in whole seconds, so the clock has to move on first.
async fn touch_until_later(registry: &dyn Registry, id: &ImageId, than: Timestamp) -> Timestamp {
    for protected in [true, false].into_iter().cycle() {
        put_back(registry, id, Undone { protected: Some(protected), ..Undone::default() }).await;
        let now = look(registry, id).await.updated_at;
        if now > than && !protected {
            return now;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    unreachable!("the cycle has no end")
}

/// Which of `ids` changed at or after `since`, and whether they are hidden.
async fn changed(registry: &dyn Registry, since: Timestamp, ids: &[&ImageId]) -> Vec<(ImageId, bool)> {
    let found = walk(registry, Some(since), None).await.unwrap();
    found.into_iter().filter(|image| ids.contains(&&image.id)).map(|image| (image.id, image.hidden)).collect()
}

/// All images from `cursor` on.
async fn walk(registry: &dyn Registry, since: Option<Timestamp>, mut cursor: Option<Cursor>) -> Result<Vec<Image>> {
    let mut found = Vec::new();
    loop {
        let page = registry.changed_since(since, cursor.as_ref()).await?;
        found.extend(page.images);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

fn ours(url: String, store: &str) -> Location {
    Location::ours(url, &store.parse::<StoreName>().unwrap())
}

/// The locations that bear Mimeo's label, with it; the service may have others, and metadata of its own on all.
fn labels(image: &Image) -> Vec<(String, String)> {
    image.locations.iter().filter(|location| location.metadata.contains_key(STORE_KEY)).map(label).collect()
}

fn label(location: &Location) -> (String, String) {
    (location.url.clone(), location.metadata[STORE_KEY].as_str().unwrap().to_owned())
}
