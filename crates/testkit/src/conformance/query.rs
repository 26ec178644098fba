//! What people ask of a ledger: pages of images, and numbers.

use std::collections::BTreeMap;

use mimeo_core::{
    Backlog, Change, DirtyMark, Failure, ImageFilter, ImageRow, ImageState, Object, ObjectName, ObjectState, Place,
    Proof, ProofKind, Reason, Replica, ReplicaState, StoreName, Tally, ports::Ledger,
};

use crate::sample::{id, time};

pub(super) async fn ledger<L: Ledger>(make: &impl AsyncFn() -> L) {
    gives_the_images_that_fit(&make().await).await;
    knows_the_state_of_each_image_after_every_change(&make().await).await;
    counts_what_it_holds(&make().await).await;
    tells_what_waits(&make().await).await;
    tells_where_the_objects_are(&make().await).await;
}

fn store(name: &str) -> StoreName {
    name.parse().unwrap()
}

fn row(n: u32, name: &str, wanted: &[&str]) -> ImageRow {
    let wanted = wanted.iter().map(|name| store(name)).collect();
    ImageRow { name: Some(name.into()), wanted, ..ImageRow::new(id(n)) }
}

fn replica(n: u32, name: &str, state: ReplicaState) -> Change {
    Change::Replica(id(n), Replica { state, ..Replica::wanted(store(name)) })
}

async fn fitting(ledger: &impl Ledger, filter: ImageFilter) -> Vec<u32> {
    let records = ledger.page(&filter, None, 9).await.unwrap();
    let number = |n: &u32| records.iter().any(|record| record.image.id == id(*n));
    let found: Vec<u32> = (0..9).filter(number).collect();
    assert_eq!(found.len(), records.len());
    assert!(records.is_sorted_by_key(|record| record.image.id.clone()));
    assert!(records.iter().all(|record| filter.fits(record)), "{filter:?}");
    found
}

async fn gives_the_images_that_fit(ledger: &impl Ledger) {
    use ReplicaState as R;
    let own = |name: &str| Some(name.to_owned());
    let rules = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    ledger
        .commit(&[
            Change::Image(ImageRow { owner: own("alpha"), ..row(1, "Debian 12", &["a", "b"]) }),
            Change::Image(ImageRow { owner: own("beta"), rules: rules(&["gold"]), ..row(2, "debian_%", &["a"]) }),
            Change::Image(ImageRow { rules: rules(&["the \"gold\" ones", "x"]), ..row(3, "O'Brien", &[]) }),
            Change::Image(ImageRow::new(id(4))),
            replica(1, "a", R::Registered),
            replica(1, "b", R::Failed),
            replica(2, "a", R::Failed),
            replica(3, "b", R::Retiring),
        ])
        .await
        .unwrap();
    let all = ImageFilter::default();
    let text = |text: &str| ImageFilter { text: Some(text.into()), ..ImageFilter::default() };
    assert_eq!(fitting(ledger, all.clone()).await, [1, 2, 3, 4]);
    assert_eq!(fitting(ledger, text("DEB")).await, [1, 2]);
    assert_eq!(fitting(ledger, text("%")).await, [2]);
    assert_eq!(fitting(ledger, text("'")).await, [3]);
    assert_eq!(fitting(ledger, text(id(4).as_str())).await, [4]);
    assert_eq!(fitting(ledger, text(&id(4).as_str()[..7].to_uppercase())).await, [1, 2, 3, 4]);
    assert_eq!(fitting(ledger, ImageFilter { owner: own("beta"), ..all.clone() }).await, [2]);
    for (rule, expected) in [("gold", vec![2]), ("the \"gold\" ones", vec![3]), ("x", vec![3]), ("ones", vec![])] {
        assert_eq!(fitting(ledger, ImageFilter { rule: own(rule), ..all.clone() }).await, expected, "{rule}");
    }
    let states = [(ImageState::Degraded, vec![1]), (ImageState::Failed, vec![2]), (ImageState::Unmanaged, vec![3, 4])];
    for (state, expected) in states {
        assert_eq!(fitting(ledger, ImageFilter { state: Some(state), ..all.clone() }).await, expected, "{state}");
    }
    let at = |name: Option<&str>, replica| ImageFilter { store: name.map(store), replica, ..ImageFilter::default() };
    assert_eq!(fitting(ledger, at(Some("b"), None)).await, [1, 3]);
    assert_eq!(fitting(ledger, at(None, Some(R::Failed))).await, [1, 2]);
    assert_eq!(fitting(ledger, at(Some("a"), Some(R::Failed))).await, [2], "failed there, and not elsewhere");
    assert_eq!(fitting(ledger, at(Some("c"), None)).await, [0; 0]);
    let several = ImageFilter { text: Some("debian".into()), ..at(Some("a"), Some(R::Registered)) };
    assert_eq!(fitting(ledger, several.clone()).await, [1]);
    assert!(ledger.page(&several, Some(&id(1)), 9).await.unwrap().is_empty());
    assert_eq!(ledger.page(&text("deb"), None, 1).await.unwrap().len(), 1);
    assert_eq!(ledger.page(&at(Some("a"), Some(R::Failed)), Some(&id(1)), 9).await.unwrap().len(), 1);
}

async fn knows_the_state_of_each_image_after_every_change(ledger: &impl Ledger) {
    use ReplicaState as R;
    let is_now = async |changes: &[Change], state| {
        ledger.commit(changes).await.unwrap();
        assert_eq!(
            fitting(ledger, ImageFilter { state, ..ImageFilter::default() }).await,
            [1],
            "{state:?} {changes:?}"
        );
        assert_eq!(ledger.tally().await.unwrap().images, BTreeMap::from([(state.unwrap(), 1)]));
    };
    is_now(&[Change::DeleteSeen(id(1), time(1))], Some(ImageState::Unmanaged)).await;
    is_now(&[Change::Image(row(1, "x", &["a", "b"]))], Some(ImageState::Pending)).await;
    is_now(&[replica(1, "a", R::Copying)], Some(ImageState::Replicating)).await;
    is_now(&[replica(1, "a", R::Registered), replica(1, "b", R::Copying)], Some(ImageState::Replicating)).await;
    is_now(&[replica(1, "b", R::Failed)], Some(ImageState::Degraded)).await;
    is_now(&[Change::Image(row(1, "x", &["a"]))], Some(ImageState::Registered)).await;
    is_now(&[Change::ReplicaGone(id(1), store("a"))], Some(ImageState::Pending)).await;
    is_now(&[Change::Image(ImageRow { gone_at: Some(time(2)), ..row(1, "x", &["a"]) })], Some(ImageState::Retiring))
        .await;
    ledger.commit(&[Change::Forget(id(1))]).await.unwrap();
    assert_eq!(ledger.tally().await.unwrap(), Tally::default());
}

async fn tells_what_waits(ledger: &impl Ledger) {
    use ReplicaState as R;
    let backlog = async || ledger.backlog(time(10)).await.unwrap();
    assert_eq!(backlog().await, Backlog::default());
    let marked = |n, seconds| Change::Dirty(DirtyMark { image: id(n), due: time(seconds) });
    ledger.commit(&[marked(1, 4), marked(2, 10), marked(3, 11)]).await.unwrap();
    assert_eq!(backlog().await, Backlog { due: 2, oldest_due: Some(time(4)), later: 1, unregistered_since: None });
    let since = async || backlog().await.unregistered_since;
    let first_line = async |n, state: &str| {
        let lines = ledger.history(&id(n)).await.unwrap();
        Some(lines.iter().find(|line| line.what.state == state).unwrap().since)
    };
    // An empty image is never tried again, what is not wanted waits for nothing, and the store's hours are as wished.
    let failure = |reason, next_try| Some(Failure { reason, message: "no".into(), tries: 1, next_try });
    let failed = |n, reason, next_try| {
        let replica = Replica { state: R::Failed, ..Replica::wanted(store("a")) };
        Change::Replica(id(n), Replica { failure: failure(reason, next_try), ..replica })
    };
    let (unwanted, empty) = (replica(1, "b", R::Copying), failed(2, Reason::EmptyImage, None));
    ledger.commit(&[Change::Image(row(1, "x", &["a"])), Change::Image(row(2, "y", &["a"]))]).await.unwrap();
    ledger.commit(&[unwanted, empty, replica(1, "a", R::Registered)]).await.unwrap();
    assert_eq!(since().await, None);
    ledger.commit(&[failed(2, Reason::OutsideHours, Some(time(20)))]).await.unwrap();
    assert_eq!(since().await, None);
    ledger.commit(&[replica(2, "a", R::Copying)]).await.unwrap();
    assert_eq!(since().await, first_line(2, "copying").await, "from when it might be copied");
    ledger.commit(&[failed(2, Reason::StoreFull, Some(time(20)))]).await.unwrap();
    assert_eq!(since().await, first_line(2, "copying").await);
    ledger.commit(&[replica(2, "a", R::Registered)]).await.unwrap();
    assert_eq!(since().await, None);
    // Only what came after the last registration counts.
    ledger.commit(&[replica(2, "a", R::Suspect)]).await.unwrap();
    ledger.commit(&[replica(2, "a", R::Copying)]).await.unwrap();
    assert_eq!(since().await, first_line(2, "suspect").await);
    let gone = ImageRow { gone_at: Some(time(9)), ..row(2, "y", &["a"]) };
    ledger.commit(&[Change::Image(gone)]).await.unwrap();
    assert_eq!(since().await, None);
}

async fn counts_what_it_holds(ledger: &impl Ledger) {
    use ReplicaState as R;
    assert_eq!(ledger.tally().await.unwrap(), Tally::default());
    let failure = |reason, tries| Failure { reason, message: "as told".into(), tries, next_try: None };
    let lost = |n: u32, tries| {
        let failure = Some(failure(Reason::LocationLost, tries));
        Change::Replica(id(n), Replica { failure, ..Replica::wanted(store("b")) })
    };
    let proven = |n: u32, state, seconds| {
        let proof = Some(Proof { kind: ProofKind::Readback, at: time(seconds) });
        Change::Replica(id(n), Replica { state, proof, ..Replica::wanted(store("a")) })
    };
    let trouble = |n: u32, reason| ImageRow { trouble: Some(failure(reason, 1)), ..row(n, "x", &["a"]) };
    ledger
        .commit(&[
            Change::Image(trouble(1, Reason::ImageImporting)),
            Change::Image(trouble(2, Reason::ImageNotVisible)),
            Change::Image(row(3, "y", &["a"])),
            proven(1, R::Registered, 5),
            proven(2, R::Registered, 4),
            proven(3, R::Suspect, 3),
            lost(1, 2),
            lost(2, 3),
            lost(3, 4),
        ])
        .await
        .unwrap();
    let tally = ledger.tally().await.unwrap();
    let expected = Tally {
        images: BTreeMap::from([(ImageState::Degraded, 1), (ImageState::Registered, 2)]),
        replicas: BTreeMap::from([
            (store("a"), BTreeMap::from([(R::Registered, 2), (R::Suspect, 1)])),
            (store("b"), BTreeMap::from([(R::Wanted, 3)])),
        ]),
        oldest_proofs: BTreeMap::from([(store("a"), time(4))]),
        contested: 2,
        hidden: Some(failure(Reason::ImageNotVisible, 1)),
    };
    assert_eq!(tally, expected);
    // The same again, another state, a copy that goes, an image that goes.
    let changes = [proven(1, R::Registered, 5), proven(2, R::Failed, 4), Change::ReplicaGone(id(3), store("b"))];
    ledger.commit(&changes).await.unwrap();
    ledger.commit(&[Change::Forget(id(1)), Change::Image(row(2, "x", &["a"]))]).await.unwrap();
    let tally = ledger.tally().await.unwrap();
    let left = BTreeMap::from([
        (store("a"), BTreeMap::from([(R::Failed, 1), (R::Suspect, 1)])),
        (store("b"), BTreeMap::from([(R::Wanted, 1)])),
    ]);
    assert_eq!((tally.replicas, tally.contested, tally.hidden), (left, 1, None));
    assert!(tally.oldest_proofs.is_empty());
}

async fn tells_where_the_objects_are(ledger: &impl Ledger) {
    use ObjectState as O;
    let object = |at: &str, n: u32, attempt, state| {
        let name = ObjectName::new(&id(n), attempt);
        Object { store: store(at), url: format!("http://{at}/{name}?x"), name, state, since: time(0) }
    };
    let elsewhere = |object: Object| Object { url: format!("http://old/{}", object.name), ..object };
    let changes = [
        object("a", 1, 1, O::Open),
        object("a", 1, 2, O::Kept),
        object("a", 2, 1, O::Doomed),
        elsewhere(object("a", 3, 1, O::Kept)),
        object("b", 1, 1, O::Found),
    ];
    ledger.commit(&changes.map(Change::Object)).await.unwrap();
    let places = async || {
        let mut places = Vec::new();
        for Place { store, objects, doomed, name, url } in ledger.places().await.unwrap() {
            assert!(url.contains(name.as_str()));
            places.push((store.to_string(), url.replace(name.as_str(), "*"), objects, doomed));
        }
        places.sort();
        places
    };
    let place = |store: &str, url: &str, objects, doomed| (store.to_owned(), url.to_owned(), objects, doomed);
    let (a, b) = ("http://a/*?x", "http://b/*?x");
    assert_eq!(places().await, [place("a", a, 3, 1), place("a", "http://old/*", 1, 0), place("b", b, 1, 0)]);
    // Replaced by itself and by one elsewhere, doomed, gone.
    let last = object("a", 1, 2, O::Kept);
    let changes = [
        Change::Object(object("a", 1, 1, O::Kept)),
        Change::Object(elsewhere(object("a", 2, 1, O::Doomed))),
        Change::Doom(last.store, last.name, time(1)),
        Change::ObjectGone(store("b"), ObjectName::new(&id(1), 1)),
    ];
    ledger.commit(&changes).await.unwrap();
    assert_eq!(places().await, [place("a", a, 2, 1), place("a", "http://old/*", 2, 1)]);
}
