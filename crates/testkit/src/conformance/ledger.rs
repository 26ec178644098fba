use std::collections::BTreeMap;

use mimeo_core::{
    Change, Digest, DirtyMark, Failure, HISTORY_LINES, HistoryLine, HistoryState, ImageFilter, ImageRow, Object,
    ObjectName, ObjectState, Proof, ProofKind, Reason, Record, Replica, ReplicaState, StoreName, Timestamp,
    ports::Ledger,
};

use super::query;
use crate::sample::{id, time};

/// Checks a ledger's whole contract; `make` gives a fresh, empty one each time.
pub async fn ledger<L: Ledger>(make: impl AsyncFn() -> L) {
    gives_back_what_was_committed(&make().await).await;
    commits_all_or_nothing(&make().await).await;
    makes_rows_for_what_hangs_on_them(&make().await).await;
    keeps_delete_seen_apart(&make().await).await;
    keeps_verify_asked_apart(&make().await).await;
    forgets_only_what_has_no_objects(&make().await).await;
    marks_keep_the_earlier_time(&make().await).await;
    settles_only_what_was_not_marked_again(&make().await).await;
    gives_marks_in_order_without_the_busy(&make().await).await;
    finds_by_name_and_by_id(&make().await).await;
    finds_names_near_a_name(&make().await).await;
    lists_in_pages(&make().await).await;
    query::ledger(&make).await;
    finds_what_is_to_be_swept(&make().await).await;
    drops_one_replica(&make().await).await;
    dooms_only_what_it_has(&make().await).await;
    regrets_only_what_is_doomed(&make().await).await;
    moves_the_next_try_and_nothing_else(&make().await).await;
    keeps_bookmarks(&make().await).await;
    keeps_chunks_without_a_gap(&make().await).await;
    forgets_chunks(&make().await).await;
    tells_what_became_of_an_image(&make().await).await;
    keeps_the_newest_lines(&make().await).await;
    keeps_the_history_of_what_is_forgotten(&make().await).await;
    numbers_the_lines_of_all_images(&make().await).await;
    tells_which_objects_it_does_not_have(&make().await).await;
}

async fn gives_back_what_was_committed(ledger: &impl Ledger) {
    assert_eq!(ledger.load(&id(1)).await.unwrap(), None);
    let record = full_record();
    let mut changes = vec![Change::Image(record.image.clone())];
    changes.extend(record.replicas.values().cloned().map(|replica| Change::Replica(id(1), replica)));
    changes.extend(record.objects.iter().cloned().map(Change::Object));
    ledger.commit(&changes).await.unwrap();
    assert_eq!(ledger.load(&id(1)).await.unwrap(), Some(record.clone()));

    let bare = Replica::wanted(store("http1"));
    let kept = Object { state: ObjectState::Kept, since: time(9), ..record.objects[0].clone() };
    let gone = Change::ObjectGone(store("http1"), object(2));
    let changes = [Change::Replica(id(1), bare.clone()), Change::Object(kept.clone()), gone.clone()];
    ledger.commit(&changes).await.unwrap();
    let replaced = ledger.load(&id(1)).await.unwrap().unwrap();
    assert_eq!((&replaced.replicas[&store("http1")], &replaced.objects), (&bare, &vec![kept]));
    ledger.commit(&[gone]).await.unwrap();
}

async fn commits_all_or_nothing(ledger: &impl Ledger) {
    ledger.commit(&[Change::Object(open_object(1))]).await.unwrap();
    let mark = Change::Dirty(DirtyMark { image: id(2), due: time(0) });
    let changes = [Change::Bookmark("a".into(), "b".into()), mark, Change::Forget(id(1))];
    let error = ledger.commit(&changes).await.unwrap_err();
    assert_eq!(error.reason, Reason::Ledger);
    assert_eq!(ledger.bookmark("a").await.unwrap(), None);
    assert_eq!(first_due(ledger).await, None);
}

async fn makes_rows_for_what_hangs_on_them(ledger: &impl Ledger) {
    let replica = Replica::wanted(store("http1"));
    ledger.commit(&[Change::Replica(id(1), replica.clone()), Change::DeleteSeen(id(2), time(1))]).await.unwrap();
    let replicas = BTreeMap::from([(replica.store.clone(), replica)]);
    assert_eq!(ledger.load(&id(1)).await.unwrap(), Some(Record { replicas, ..Record::new(id(1)) }));
    let seen = ledger.load(&id(2)).await.unwrap().unwrap();
    assert_eq!(seen.image, ImageRow { delete_seen: Some(time(1)), ..ImageRow::new(id(2)) });
}

async fn keeps_delete_seen_apart(ledger: &impl Ledger) {
    ledger.commit(&[Change::DeleteSeen(id(1), time(1))]).await.unwrap();
    let row = ImageRow { name: Some("a".into()), ..ImageRow::new(id(1)) };
    ledger.commit(&[Change::Image(row.clone())]).await.unwrap();
    let kept = ledger.load(&id(1)).await.unwrap().unwrap().image;
    assert_eq!(kept, ImageRow { delete_seen: Some(time(1)), ..row.clone() });
    ledger.commit(&[Change::DeleteUnseen(id(1)), Change::DeleteUnseen(id(2))]).await.unwrap();
    assert_eq!(ledger.load(&id(1)).await.unwrap().unwrap().image, row);
    assert_eq!(ledger.load(&id(2)).await.unwrap(), None);
}

async fn keeps_verify_asked_apart(ledger: &impl Ledger) {
    for seconds in [1, 2] {
        ledger.commit(&[Change::VerifyAsked(id(1), time(seconds))]).await.unwrap();
        let row = ImageRow { name: Some("a".into()), ..ImageRow::new(id(1)) };
        ledger.commit(&[Change::Image(row.clone())]).await.unwrap();
        let kept = ledger.load(&id(1)).await.unwrap().unwrap().image;
        assert_eq!(kept, ImageRow { verify_asked: Some(time(seconds)), ..row });
    }
}

async fn forgets_only_what_has_no_objects(ledger: &impl Ledger) {
    let mark = DirtyMark { image: id(1), due: time(0) };
    let replica = Change::Replica(id(1), Replica::wanted(store("http1")));
    ledger.commit(&[replica, Change::Object(open_object(1)), Change::Dirty(mark)]).await.unwrap();
    assert!(ledger.commit(&[Change::Forget(id(1))]).await.is_err());
    assert!(ledger.load(&id(1)).await.unwrap().is_some());
    let gone = Change::ObjectGone(store("http1"), object(1));
    ledger.commit(&[gone, Change::Forget(id(1)), Change::Forget(id(2))]).await.unwrap();
    assert_eq!(ledger.load(&id(1)).await.unwrap(), None);
    assert_eq!(first_due(ledger).await, Some(time(0)));
}

async fn marks_keep_the_earlier_time(ledger: &impl Ledger) {
    for (seconds, earliest) in [(10, 10), (20, 10), (5, 5)] {
        ledger.commit(&[Change::Dirty(DirtyMark { image: id(1), due: time(seconds) })]).await.unwrap();
        assert_eq!(first_due(ledger).await, Some(time(earliest)));
    }
    assert_eq!(ledger.marks(time(99), 9, &[]).await.unwrap()[0].seq, 3);
}

async fn settles_only_what_was_not_marked_again(ledger: &impl Ledger) {
    let mark = |seconds| Change::Dirty(DirtyMark { image: id(1), due: time(seconds) });
    ledger.commit(&[mark(0)]).await.unwrap();
    let first = ledger.marks(time(99), 9, &[]).await.unwrap().remove(0);
    ledger.settle(&first, Some(DirtyMark { image: id(1), due: time(60) })).await.unwrap();
    assert_eq!(first_due(ledger).await, Some(time(60)));
    ledger.commit(&[mark(30)]).await.unwrap();
    ledger.settle(&first, None).await.unwrap();
    ledger.settle(&first, Some(DirtyMark { image: id(1), due: time(90) })).await.unwrap();
    assert_eq!(first_due(ledger).await, Some(time(30)));
    let second = ledger.marks(time(99), 9, &[]).await.unwrap().remove(0);
    ledger.settle(&second, None).await.unwrap();
    assert_eq!(first_due(ledger).await, None);
}

async fn first_due(ledger: &impl Ledger) -> Option<Timestamp> {
    ledger.marks(time(0), 1, &[]).await.unwrap().first().map(|mark| mark.due)
}

async fn gives_marks_in_order_without_the_busy(ledger: &impl Ledger) {
    let marks = [(1, 30), (2, 10), (3, 20), (4, 99)];
    let marks = marks.map(|(n, seconds)| Change::Dirty(DirtyMark { image: id(n), due: time(seconds) }));
    ledger.commit(&marks).await.unwrap();
    let images = async |now, limit, busy: &[_]| {
        let marks = ledger.marks(time(now), limit, busy).await.unwrap();
        marks.into_iter().map(|mark| mark.image).collect::<Vec<_>>()
    };
    assert_eq!(images(99, 9, &[]).await, [id(2), id(3), id(1), id(4)]);
    assert_eq!(images(99, 1, &[id(2)]).await, [id(3)]);
    assert_eq!(images(30, 2, &[id(2), id(3)]).await, [id(1), id(4)]);
    assert_eq!(images(20, 9, &[]).await, [id(2), id(3), id(1)], "and the first that is not due");
    assert_eq!(images(20, 1, &[]).await, [id(2), id(1)], "as well if there are more that are due");
    assert_eq!(images(9, 9, &[id(2)]).await, [id(3)]);
}

async fn finds_by_name_and_by_id(ledger: &impl Ledger) {
    for (n, name) in [(2, "debian"), (1, "debian"), (3, "it's; DROP TABLE images --")] {
        let row = ImageRow { name: Some(name.into()), ..ImageRow::new(id(n)) };
        ledger.commit(&[Change::Image(row)]).await.unwrap();
    }
    assert_eq!(ledger.find("debian").await.unwrap(), [id(1), id(2)]);
    assert_eq!(ledger.find("it's; DROP TABLE images --").await.unwrap(), [id(3)]);
    assert_eq!(ledger.find(&id(2).as_str().to_uppercase()).await.unwrap(), [id(2)]);
    assert!(ledger.find("deb%").await.unwrap().is_empty());
}

async fn finds_names_near_a_name(ledger: &impl Ledger) {
    let names = [Some("deb-12"), Some("deb-11"), Some("deb-12"), None, Some("arch"), Some("deb-13"), Some("ubuntu")];
    for (n, name) in (1..).zip(names) {
        let row = ImageRow { name: name.map(Into::into), ..ImageRow::new(id(n)) };
        ledger.commit(&[Change::Image(row)]).await.unwrap();
    }
    assert_eq!(ledger.named_near("deb-12", 3).await.unwrap(), [id(1), id(3), id(2), id(6), id(7)]);
    assert_eq!(ledger.named_near("deb-12b", 1).await.unwrap(), [id(1), id(6)]);
    assert_eq!(ledger.named_near("Arch", 2).await.unwrap(), [id(5), id(2)]);
    assert!(ledger.named_near("deb%", 0).await.unwrap().is_empty());
}

async fn lists_in_pages(ledger: &impl Ledger) {
    let rows = [3, 1, 5, 2, 4].map(|n| Change::Image(ImageRow::new(id(n))));
    ledger.commit(&rows).await.unwrap();
    let list = async |after: Option<u32>, limit| {
        let records = ledger.page(&ImageFilter::default(), after.map(id).as_ref(), limit).await.unwrap();
        records.into_iter().map(|record| record.image.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 2).await, [id(1), id(2)]);
    assert_eq!(list(Some(2), 9).await, [id(3), id(4), id(5)]);
    assert!(list(Some(5), 9).await.is_empty());
}

async fn finds_what_is_to_be_swept(ledger: &impl Ledger) {
    let gone = ImageRow { gone_at: Some(time(2)), ..ImageRow::new(id(2)) };
    let doomed = Object { state: ObjectState::Doomed, since: time(1), ..open_object(1) };
    let kept = Object { name: ObjectName::new(&id(3), 1), state: ObjectState::Kept, ..open_object(1) };
    ledger.commit(&[Change::Image(gone), Change::Object(doomed), Change::Object(kept.clone())]).await.unwrap();
    let found = ledger.sweepable(None, 9).await.unwrap();
    let found: Vec<_> = found.iter().map(|record| (record.image.id.clone(), record.objects.len())).collect();
    assert_eq!(found, [(id(1), 1), (id(2), 0)]);
    assert_eq!(ledger.sweepable(None, 1).await.unwrap().len(), 1);
    assert_eq!(ledger.sweepable(Some(&id(1)), 9).await.unwrap().len(), 1);
    // A listing is late: what the ledger has come to know meanwhile stands.
    ledger.commit(&[Change::Object(Object { state: ObjectState::Found, ..kept.clone() })]).await.unwrap();
    assert_eq!(ledger.load(&id(3)).await.unwrap().unwrap().objects, std::slice::from_ref(&kept));
    let gone = Change::ObjectGone(kept.store.clone(), kept.name.clone());
    ledger.commit(&[gone, Change::Object(Object { state: ObjectState::Found, ..kept })]).await.unwrap();
    assert_eq!(ledger.sweepable(Some(&id(2)), 9).await.unwrap()[0].objects[0].state, ObjectState::Found);
    let kept = Object { name: ObjectName::new(&id(2), 1), state: ObjectState::Kept, ..open_object(1) };
    ledger.commit(&[Change::Object(kept)]).await.unwrap();
    assert_eq!(ledger.count().await.unwrap(), 3);
    let unwanted = Replica { unwanted_since: Some(time(3)), ..Replica::wanted(store("http1")) };
    ledger.commit(&[Change::Replica(id(3), unwanted)]).await.unwrap();
    assert_eq!(ledger.sweepable(Some(&id(2)), 9).await.unwrap()[0].image.id, id(3));
}

async fn drops_one_replica(ledger: &impl Ledger) {
    let replicas = ["http1", "http2"].map(|name| Change::Replica(id(1), Replica::wanted(store(name))));
    ledger.commit(&replicas).await.unwrap();
    let gone = |image, name| Change::ReplicaGone(image, store(name));
    ledger.commit(&[gone(id(1), "http1"), gone(id(1), "http3"), gone(id(2), "http2")]).await.unwrap();
    let left = ledger.load(&id(1)).await.unwrap().unwrap().replicas;
    assert_eq!(left.into_keys().collect::<Vec<_>>(), [store("http2")]);
    assert_eq!(ledger.load(&id(2)).await.unwrap(), None);
}

async fn dooms_only_what_it_has(ledger: &impl Ledger) {
    let (open, gone) = (open_object(1), open_object(2));
    let doom = |object: &Object| Change::Doom(object.store.clone(), object.name.clone(), time(9));
    ledger.commit(&[Change::Object(open.clone()), doom(&open), doom(&gone)]).await.unwrap();
    let found = ledger.load(&id(1)).await.unwrap().unwrap();
    assert_eq!(found.objects, [Object { state: ObjectState::Doomed, since: time(9), ..open }]);
}

async fn regrets_only_what_is_doomed(ledger: &impl Ledger) {
    let name = |object: &Object| (object.store.clone(), object.name.clone());
    let regret = |object: &Object| Change::Regret(object.store.clone(), object.name.clone());
    let doomed = |attempt| Object { state: ObjectState::Doomed, ..open_object(attempt) };
    let (gone, open, again, kept, left) = (doomed(1), open_object(2), doomed(3), doomed(4), doomed(5));
    let all = [&open, &again, &kept, &left].map(|object| Change::Object(object.clone()));
    ledger.commit(&all).await.unwrap();
    ledger.commit(&[&gone, &open, &again, &kept, &left].map(regret)).await.unwrap();
    let ((store, object), kept) = (name(&again), Object { state: ObjectState::Kept, ..kept });
    ledger.commit(&[Change::Doom(store, object, time(9)), Change::Object(kept)]).await.unwrap();
    let states = async || {
        let mut objects = ledger.load(&id(1)).await.unwrap().unwrap().objects;
        objects.sort_by_key(|object| object.name.attempt());
        objects.into_iter().map(|object| object.state).collect::<Vec<_>>()
    };
    let expected = [ObjectState::Open, ObjectState::Doomed, ObjectState::Kept, ObjectState::Regretted];
    assert_eq!(states().await, expected);
    assert_eq!(ledger.sweepable(None, 9).await.unwrap().len(), 1);
    assert_eq!(ledger.places().await.unwrap().iter().map(|place| place.doomed).sum::<u64>(), 2);
}

async fn moves_the_next_try_and_nothing_else(ledger: &impl Ledger) {
    let record = full_record();
    let changes = record.replicas.values().map(|replica| Change::Replica(id(1), replica.clone()));
    let fresh = Change::Replica(id(1), Replica::wanted(store("fresh")));
    let row = Change::Image(record.image.clone());
    ledger.commit(&changes.chain([fresh, row]).collect::<Vec<_>>()).await.unwrap();
    ledger.commit(&[Change::TryAt(id(1), time(99))]).await.unwrap();
    let found = ledger.load(&id(1)).await.unwrap().unwrap();
    for (store, before) in record.replicas {
        let failure = before.failure.clone().map(|failure| Failure { next_try: Some(time(99)), ..failure });
        assert_eq!(found.replicas[&store], Replica { failure, ..before });
    }
    assert_eq!(found.replicas[&store("fresh")].failure, None);
    let trouble = record.image.trouble.clone().map(|failure| Failure { next_try: Some(time(99)), ..failure });
    assert_eq!(found.image, ImageRow { trouble, ..record.image });
}

async fn keeps_bookmarks(ledger: &impl Ledger) {
    assert_eq!(ledger.bookmark("scan").await.unwrap(), None);
    for value in ["1", "2"] {
        ledger.commit(&[Change::Bookmark("scan".into(), value.into())]).await.unwrap();
        assert_eq!(ledger.bookmark("scan").await.unwrap().as_deref(), Some(value));
    }
}

async fn keeps_chunks_without_a_gap(ledger: &impl Ledger) {
    assert!(ledger.chunks(&id(1)).await.unwrap().is_empty());
    ledger.commit(&[chunks(1, 0, "ab"), chunks(1, 4, "e"), chunks(2, 1, "xy")]).await.unwrap();
    assert_eq!(ledger.load(&id(1)).await.unwrap(), Some(Record::new(id(1))), "they hang on a row");
    assert_eq!(found(ledger, 1).await, "ab");
    assert_eq!(found(ledger, 2).await, "");
    ledger.commit(&[chunks(1, 1, "BC")]).await.unwrap();
    assert_eq!(found(ledger, 1).await, "aBC");
    ledger.commit(&[chunks(1, 3, "d"), chunks(1, 5, "")]).await.unwrap();
    assert_eq!(found(ledger, 1).await, "aBCde");
}

async fn forgets_chunks(ledger: &impl Ledger) {
    ledger.commit(&[chunks(1, 0, "ab"), chunks(2, 0, "xy")]).await.unwrap();
    ledger.commit(&[Change::ChunksGone(id(1)), Change::ChunksGone(id(3))]).await.unwrap();
    assert_eq!((found(ledger, 1).await, found(ledger, 2).await), (String::new(), "xy".into()));
    assert!(ledger.load(&id(1)).await.unwrap().is_some());
    assert_eq!(ledger.load(&id(3)).await.unwrap(), None);
    ledger.commit(&[Change::Forget(id(2)), Change::Image(ImageRow::new(id(2)))]).await.unwrap();
    assert_eq!(found(ledger, 2).await, "");
}

async fn tells_what_became_of_an_image(ledger: &impl Ledger) {
    assert!(ledger.history(&id(1)).await.unwrap().is_empty());
    let row = ImageRow { status: Some("active".into()), wanted: vec![store("http1")], ..ImageRow::new(id(1)) };
    let failure = Failure { reason: Reason::StoreFull, message: "full".into(), tries: 1, next_try: None };
    let replica = |state, tries: u32| {
        let failure = (tries > 0).then(|| Failure { tries, ..failure.clone() });
        Change::Replica(id(1), Replica { state, failure, ..Replica::wanted(store("http1")) })
    };
    ledger.commit(&[Change::Image(row.clone()), replica(ReplicaState::Copying, 0)]).await.unwrap();
    for tries in 1..=3 {
        ledger.commit(&[replica(ReplicaState::Failed, tries)]).await.unwrap();
        ledger.commit(&[Change::Image(row.clone()), replica(ReplicaState::Copying, tries)]).await.unwrap();
    }
    let refused = [replica(ReplicaState::Stored, 0), Change::Object(open_object(1)), Change::Forget(id(1))];
    assert!(ledger.commit(&refused).await.is_err(), "and it leaves no line");
    ledger.commit(&[replica(ReplicaState::Stored, 0)]).await.unwrap();
    let lines = ledger.history(&id(1)).await.unwrap();
    let told = |line: &HistoryLine| {
        let what = line.what.clone();
        (what.store.map(String::from), what.state, what.reason, what.message.unwrap_or_default(), line.times)
    };
    let of_store = |state: &str| (Some("http1".to_owned()), state.to_owned(), None, String::new(), 1);
    let failed = (Some("http1".to_owned()), "failed".to_owned(), Some(Reason::StoreFull), "full".to_owned(), 3);
    let active = (None, "active".to_owned(), None, "wanted at http1".to_owned(), 1);
    let expected = [active, of_store("copying"), failed, of_store("copying"), of_store("stored")];
    assert_eq!(lines.iter().map(told).collect::<Vec<_>>(), expected);
    assert!(lines.is_sorted_by_key(|line| line.at) && lines.iter().all(|line| line.since <= line.at));
    assert!(ledger.history(&id(2)).await.unwrap().is_empty());
}

async fn keeps_the_newest_lines(ledger: &impl Ledger) {
    for n in 0..HISTORY_LINES + 5 {
        let row = ImageRow { status: Some(format!("status-{n}")), ..ImageRow::new(id(1)) };
        ledger.commit(&[Change::Image(row)]).await.unwrap();
    }
    let lines = ledger.history(&id(1)).await.unwrap();
    assert_eq!((lines.len(), lines[0].what.state.as_str()), (HISTORY_LINES, "status-5"));
}

async fn keeps_the_history_of_what_is_forgotten(ledger: &impl Ledger) {
    ledger.commit(&[Change::Image(ImageRow::new(id(1))), Change::Forget(id(1)), Change::Forget(id(2))]).await.unwrap();
    let lines = ledger.history(&id(1)).await.unwrap();
    assert_eq!(lines.last().unwrap().what, HistoryState::forgotten());
    assert!(ledger.history(&id(2)).await.unwrap().is_empty(), "nothing was known of it");
}

async fn numbers_the_lines_of_all_images(ledger: &impl Ledger) {
    assert_eq!((ledger.last_told().await.unwrap(), ledger.told(0, 9).await.unwrap()), (0, vec![]));
    let seen = |n, status: &str| Change::Image(ImageRow { status: Some(status.into()), ..ImageRow::new(id(n)) });
    let failed = |tries| {
        let failure = Failure { reason: Reason::StoreFull, message: "full".into(), tries, next_try: None };
        let replica = Replica { state: ReplicaState::Failed, ..Replica::wanted(store("http1")) };
        Change::Replica(id(2), Replica { failure: Some(failure), ..replica })
    };
    ledger.commit(&[seen(2, "queued"), seen(1, "active")]).await.unwrap();
    ledger.commit(&[failed(1)]).await.unwrap();
    let told = async |after, limit| {
        let lines = ledger.told(after, limit).await.unwrap();
        lines
            .into_iter()
            .map(|told| (told.number, told.image, told.line.what.state, told.line.times))
            .collect::<Vec<_>>()
    };
    let line = |number, n, state: &str, times| (number, id(n), state.to_owned(), times);
    let first = [line(1, 2, "queued", 1), line(2, 1, "active", 1), line(3, 2, "failed", 1)];
    assert_eq!(told(0, 9).await, first);
    assert_eq!(told(1, 1).await, [line(2, 1, "active", 1)]);
    // What came again has a number of its own, though it takes the place of what was the last.
    ledger.commit(&[failed(2)]).await.unwrap();
    assert_eq!(told(2, 9).await, [line(4, 2, "failed", 2)]);
    assert_eq!(ledger.last_told().await.unwrap(), 4);
    ledger.commit(&[failed(2), seen(2, "queued"), seen(1, "active")]).await.unwrap();
    assert_eq!(ledger.last_told().await.unwrap(), 4, "nothing new");
    let history = ledger.history(&id(2)).await.unwrap();
    assert_eq!(history.last().unwrap(), &ledger.told(3, 1).await.unwrap()[0].line);
}

async fn tells_which_objects_it_does_not_have(ledger: &impl Ledger) {
    let elsewhere = Object { store: store("http2"), state: ObjectState::Doomed, ..open_object(2) };
    ledger.commit(&[Change::Object(open_object(1)), Change::Object(elsewhere)]).await.unwrap();
    let others = ObjectName::new(&id(2), 1);
    let asked = [object(3), object(1), others.clone(), object(2)];
    assert_eq!(ledger.unknown(&asked).await.unwrap(), [object(3), others]);
    assert!(ledger.unknown(&[]).await.unwrap().is_empty());
}

/// Digests of one letter each.
fn chunks(image: u32, first: u64, letters: &str) -> Change {
    Change::Chunks { image: id(image), first, digests: letters.chars().map(Digest::from_hex).collect() }
}

async fn found(ledger: &impl Ledger, image: u32) -> String {
    ledger.chunks(&id(image)).await.unwrap().into_iter().map(String::from).collect()
}

/// Every field with a value of its own.
fn full_record() -> Record {
    let failure = Failure { reason: Reason::StoreFull, message: "full".into(), tries: 3, next_try: Some(time(7)) };
    let image = ImageRow {
        id: id(1),
        name: Some("debian".into()),
        status: Some("active".into()),
        size: Some(1 << 40),
        owner: Some("alpha".into()),
        wanted: vec![store("http2"), store("http1")],
        rules: vec!["everywhere".into(), "\"quoted\", and more".into()],
        trouble: Some(Failure { next_try: None, ..failure.clone() }),
        observed_at: Some(time(1)),
        delete_seen: None,
        verify_asked: None,
        gone_at: Some(time(2)),
    };
    let replica = Replica {
        store: store("http1"),
        state: ReplicaState::Proven,
        object: Some(object(1)),
        url: Some("http://http1.example/1".into()),
        size: Some(1 << 40),
        digest: Some(Digest::from_hex("ab")),
        proof: Some(Proof { kind: ProofKind::Readback, at: time(3) }),
        seen_at: Some(time(4)),
        unwanted_since: Some(time(5)),
        failure: Some(failure),
    };
    let bare = Replica::wanted(store("http2"));
    let objects = vec![open_object(1), open_object(2)];
    Record { image, replicas: [replica, bare].map(|replica| (replica.store.clone(), replica)).into(), objects }
}

fn open_object(attempt: u64) -> Object {
    let url = format!("http://http1.example/{attempt}");
    Object { store: store("http1"), name: object(attempt), url, state: ObjectState::Open, since: time(0) }
}

fn object(attempt: u64) -> ObjectName {
    ObjectName::new(&id(1), attempt)
}

fn store(name: &str) -> StoreName {
    name.parse().unwrap()
}
