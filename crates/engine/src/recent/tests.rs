#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{
    Error,
    Visibility::{Private, Public},
};

use super::*;

fn image() -> Image {
    let epoch = mimeo_core::Timestamp::UNIX_EPOCH;
    Image {
        id: ImageId::nil(),
        name: Some("before".into()),
        status: ImageStatus::Active,
        visibility: Public,
        owner: None,
        size: Some(1),
        hidden: false,
        protected: false,
        disk_format: None,
        container_format: None,
        tags: Vec::new(),
        properties: BTreeMap::new(),
        created_at: epoch,
        updated_at: epoch,
        hash: None,
        locations: Vec::new(),
        locations_shown: true,
        importing: false,
        backends: BTreeSet::new(),
        failed_backends: BTreeSet::new(),
    }
}

fn with(change: impl FnOnce(&mut Image)) -> Image {
    let mut image = image();
    change(&mut image);
    image
}

/// One PATCH of ours, with these events while it runs; then the image is looked at as `now`.
async fn after_patch(events: &[Image], now: &Image) -> Findings {
    after_patch_of(&image(), events, now).await
}

async fn after_patch_of(before: &Image, events: &[Image], now: &Image) -> Findings {
    let recent = Recent::default();
    let open = recent.open(before);
    for event in events {
        recent.note(&event.id, event.snapshot());
    }
    recent.close(&open, &Ok(()));
    tokio::time::advance(LATE).await;
    recent.findings(now)
}

#[tokio::test(start_paused = true)]
async fn a_change_that_an_event_told_and_the_image_no_longer_shows_was_undone() {
    let private = with(|image| image.visibility = Private);
    let findings = after_patch(&[private, image()], &image()).await;
    assert_eq!(findings.undone.visibility, Some(Private));
    let deactivated = with(|image| image.status = ImageStatus::Deactivated);
    assert_eq!(after_patch(&[deactivated, image()], &image()).await.undone.deactivated, Some(true));
    let protected = with(|image| image.protected = true);
    assert_eq!(after_patch(&[protected, image()], &image()).await.undone.protected, Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_stands_was_not_undone_nor_is_it_when_its_owner_takes_it_back_later() {
    let private = with(|image| image.visibility = Private);
    let recent = Recent::default();
    let open = recent.open(&image());
    recent.close(&open, &Ok(()));
    recent.note(&private.id, private.snapshot());
    assert_eq!(recent.findings(&private), Findings::default());
    recent.note(&private.id, image().snapshot());
    assert_eq!(recent.findings(&image()), Findings::default());
}

#[tokio::test(start_paused = true)]
async fn our_own_event_alone_is_nothing() {
    assert_eq!(after_patch(&[image()], &image()).await, Findings::default());
}

#[tokio::test(start_paused = true)]
async fn names_tags_and_properties_are_told_not_put_back() {
    let renamed = with(|image| {
        image.name = Some("after".into());
        image.tags.push("new".into());
        image.properties.insert("key".into(), "value".into());
    });
    let findings = after_patch(&[renamed, image()], &image()).await;
    assert_eq!(findings.undone, Undone::default());
    assert_eq!(findings.reports, ["name=\"after\"", "tags=[\"new\"]", "the properties [\"key\"]"]);
}

#[tokio::test(start_paused = true)]
async fn in_doubt_the_stricter_value_wins() {
    let private = with(|image| image.visibility = Private);
    let crowd = [private, image(), image(), image()];
    assert_eq!(after_patch(&crowd, &image()).await.undone.visibility, Some(Private));

    let before = with(|image| image.visibility = Private);
    let crowd = [image(), before.clone(), before.clone(), before.clone()];
    let findings = after_patch_of(&before, &crowd, &before).await;
    assert_eq!((findings.undone.visibility, findings.reports.len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_its_owner_opened_and_closed_again_while_the_patch_ran_stays_closed() {
    // The event of our own PATCH, which was the last to write, is late: the one after the opening is the owner's.
    let at =
        |visibility, seconds| with(|image| (image.visibility, image.updated_at) = (visibility, epoch_plus(seconds)));
    let findings = after_patch_of(&at(Private, 1), &[at(Public, 2), at(Private, 3)], &at(Private, 4)).await;
    assert_eq!((findings.undone.visibility, findings.reports.len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn nor_is_it_opened_when_the_event_of_its_opening_was_overtaken_by_that_of_its_closing() {
    let at =
        |visibility, seconds| with(|image| (image.visibility, image.updated_at) = (visibility, epoch_plus(seconds)));
    // Glance's times are whole seconds.
    for opened in [2, 3] {
        let own = at(Private, 4);
        let findings = after_patch_of(&at(Private, 1), &[at(Private, 3), at(Public, opened), own.clone()], &own).await;
        assert_eq!((findings.undone.visibility, findings.reports.len()), (None, 1), "opened at {opened}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_found_is_told_once_and_old_patches_are_forgotten() {
    let private = with(|image| image.visibility = Private);
    let recent = Recent::default();
    let open = recent.open(&image());
    recent.note(&private.id, private.snapshot());
    recent.close(&open, &Ok(()));
    assert_ne!(recent.findings(&image()), Findings::default());
    assert_eq!(recent.findings(&image()), Findings::default());

    let recent = Recent::default();
    let open = recent.open(&image());
    recent.close(&open, &Ok(()));
    tokio::time::advance(LATE * 2).await;
    recent.note(&private.id, private.snapshot());
    assert_eq!(recent.findings(&image()), Findings::default());
}

#[tokio::test(start_paused = true)]
async fn a_second_change_is_found_though_its_event_comes_when_the_first_was_told() {
    let (renamed, protected) = (with(|image| image.name = Some("new".into())), with(|image| image.protected = true));
    let recent = Recent::default();
    let open = recent.open(&image());
    recent.note(&renamed.id, renamed.snapshot());
    recent.close(&open, &Ok(()));
    assert_eq!(recent.findings(&image()).reports, ["name=\"new\""]);
    tokio::time::advance(LATE / 2).await;
    recent.note(&protected.id, protected.snapshot());
    let undone = Undone { protected: Some(true), ..Undone::default() };
    assert_eq!(recent.findings(&image()), Findings { undone, ..Findings::default() });
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_long_on_its_way_is_no_evidence() {
    let (recent, before) = (Recent::default(), with(|image| image.updated_at = epoch_plus(100)));
    let open = recent.open(&before);
    for stale in [with(|image| image.visibility = Private), with(|image| image.status = ImageStatus::Deactivated)] {
        recent.note(&stale.id, stale.snapshot());
    }
    recent.close(&open, &Ok(()));
    assert_eq!(recent.findings(&before), Findings::default());
}

fn epoch_plus(seconds: i64) -> mimeo_core::Timestamp {
    mimeo_core::Timestamp::from_second(seconds).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_patch_that_was_refused_has_undone_nothing_and_one_without_an_answer_has_no_event_for_sure() {
    // Its owner opens the image for a moment while our PATCH runs.
    let at =
        |visibility, seconds| with(|image| (image.visibility, image.updated_at) = (visibility, epoch_plus(seconds)));
    for reason in [Reason::Conflict, Reason::ImageServiceError, Reason::ImageServiceUnreachable] {
        let recent = Recent::default();
        let open = recent.open(&at(Private, 1));
        for event in [at(Public, 2), at(Private, 3)] {
            recent.note(&event.id, event.snapshot());
        }
        recent.close(&open, &Err(Error::new(reason, "no")));
        let findings = recent.findings(&at(Private, 3));
        let reports = usize::from(reason != Reason::Conflict);
        assert_eq!((findings.undone.visibility, findings.reports.len()), (None, reports), "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_patch_without_an_answer_may_still_undo_what_was_seen_to_stand() {
    let private = with(|image| image.visibility = Private);
    let recent = Recent::default();
    let open = recent.open(&image());
    recent.close(&open, &Err(Error::new(Reason::ImageServiceUnreachable, "no answer")));
    recent.note(&private.id, private.snapshot());
    assert_eq!(recent.findings(&private), Findings::default());
    assert_eq!(recent.findings(&image()).undone.visibility, Some(Private));
}

#[tokio::test(start_paused = true)]
async fn what_a_patch_of_the_process_before_undoes_is_found_too() {
    let private = with(|image| image.visibility = Private);
    for (late, found) in [(Duration::ZERO, Some(Private)), (MEMORY, None)] {
        let recent = Recent::default();
        tokio::time::advance(late).await;
        recent.inherit(&image(), true);
        recent.inherit(&private, true);
        recent.note(&private.id, private.snapshot());
        recent.note(&private.id, image().snapshot());
        assert_eq!(recent.findings(&image()).undone.visibility, found, "{late:?} after the start");
    }
    // Closed before the first look: what the image was before it, nobody knows.
    for events in [vec![private.clone()], vec![private.clone(), image()]] {
        let recent = Recent::default();
        recent.note(&private.id, events[0].snapshot());
        tokio::time::advance(Duration::from_secs(1)).await;
        recent.inherit(&private, true);
        events[1..].iter().for_each(|event| recent.note(&event.id, event.snapshot()));
        assert!(recent.looks_in(&private.id).is_some());
        assert_eq!(recent.findings(&image()).undone.visibility, Some(Private), "{} events", events.len());
        tokio::time::advance(MEMORY).await;
        assert_eq!(recent.looks_in(&private.id), None);
    }
    // What an owner changes before the first look is not lost, and hides nothing that is.
    let recent = Recent::default();
    recent.note(&private.id, with(|image| image.name = Some("once".into())).snapshot());
    recent.note(&private.id, private.snapshot());
    recent.inherit(&private, true);
    assert_eq!(recent.findings(&private), Findings::default());
    assert_eq!(recent.findings(&image()).undone.visibility, Some(Private));
    // One that waits only since this process looked at it has no such PATCH.
    let recent = Recent::default();
    recent.inherit(&image(), false);
    recent.note(&private.id, private.snapshot());
    recent.inherit(&private, true);
    assert_eq!(recent.findings(&image()), Findings::default());
    // Whether there was one nobody knows: its owner may have opened the image for a moment.
    let recent = Recent::default();
    recent.inherit(&private, true);
    recent.note(&private.id, image().snapshot());
    assert_eq!(recent.findings(&private).undone.visibility, None);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_our_own_patch_that_ended_late_opens_no_image() {
    let private = with(|image| image.visibility = Private);
    let recent = Recent::default();
    // It loads the image while it is public, and is answered by nobody. Then the owner closes the image.
    let late = recent.open(&image());
    recent.close(&late, &Err(Error::new(Reason::ImageServiceUnreachable, "no answer")));
    let next = recent.open(&private);
    recent.note(&private.id, image().snapshot());
    recent.close(&next, &Ok(()));
    recent.note(&private.id, private.snapshot());
    tokio::time::advance(LATE).await;
    let findings = recent.findings(&private);
    assert_eq!((findings.undone, findings.reports), (Undone::default(), vec!["visibility=public".to_owned()]));
    // It is not forgotten when something was found and told.
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(recent.findings(&private), Findings::default());
    let third = recent.open(&private);
    recent.note(&private.id, image().snapshot());
    recent.close(&third, &Ok(()));
    recent.note(&private.id, private.snapshot());
    assert_eq!(recent.findings(&private).undone, Undone::default());
}

#[tokio::test(start_paused = true)]
async fn what_was_put_back_is_its_owners_again_from_then_on() {
    let closed = with(|image| {
        image.visibility = Private;
        image.protected = true;
        image.status = ImageStatus::Deactivated;
    });
    for outcome in [Some(Ok(())), Some(Err(Reason::ImageServiceUnreachable)), None] {
        let recent = Recent::default();
        match outcome {
            // Of the process before.
            None => recent.inherit(&image(), true),
            Some(outcome) => {
                let open = recent.open(&image());
                recent.close(&open, &outcome.map_err(|reason| Error::new(reason, "no answer")));
            }
        }
        recent.note(&closed.id, closed.snapshot());
        let undone = recent.findings(&image()).undone;
        let all = Undone { visibility: Some(Private), protected: Some(true), deactivated: Some(true) };
        assert_eq!(undone, all, "{outcome:?}");
        let open = recent.open(&image());
        recent.close(&open, &Ok(()));
        recent.has_put_back(&closed.id, &undone);
        let moment = Duration::from_millis(1);
        tokio::time::advance(moment).await;
        // Our own event; then the owner opens the image again, or that PATCH does.
        recent.note(&closed.id, closed.snapshot());
        recent.note(&closed.id, image().snapshot());
        let findings = recent.findings(&image());
        assert_eq!(findings.undone, Undone::default(), "{outcome:?}");
        for told in ["visibility=private", "protected=true", "status=deactivated"] {
            assert!(findings.reports.iter().any(|report| report == told), "{outcome:?}: {:?}", findings.reports);
        }
        assert_eq!(recent.findings(&image()), Findings::default(), "{outcome:?}");
        // What else a PATCH undoes is found still.
        let renamed = with(|image| image.name = Some("after".into()));
        tokio::time::advance(moment).await;
        recent.note(&renamed.id, renamed.snapshot());
        assert_eq!(recent.findings(&image()).reports, ["name=\"after\""], "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_patch_without_an_answer_may_undo_what_was_put_back() {
    let private = with(|image| image.visibility = Private);
    let recent = Recent::default();
    for _ in 0..2 {
        let open = recent.open(&image());
        recent.close(&open, &Err(Error::new(Reason::ImageServiceUnreachable, "no answer")));
    }
    recent.note(&private.id, private.snapshot());
    for put_back in [Some(Private), Some(Private), None] {
        let undone = recent.findings(&image()).undone;
        assert_eq!(undone.visibility, put_back);
        recent.has_put_back(&private.id, &undone);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_opened_before_events_have_had_time_to_come() {
    let private = with(|image| image.visibility = Private);
    // Its owner does both at once.
    let opened = with(|image| image.name = Some("open".into()));
    let named = ["name=\"open\"".to_owned()];
    for (more, found, told) in [
        // Our own PATCH's.
        (vec![&private], Some(Public), vec![]),
        // Its owner has closed it again.
        (vec![&private, &private], None, vec!["visibility=public"]),
        // Our own is lost.
        (vec![], None, vec!["visibility=public"]),
    ] {
        let recent = Recent::default();
        let open = recent.open(&private);
        recent.note(&opened.id, opened.snapshot());
        recent.close(&open, &Ok(()));
        let first = more.first().inspect(|event| recent.note(&event.id, event.snapshot()));
        let findings = recent.findings(&private);
        assert_eq!((&findings.undone, &*findings.reports), (&Undone::default(), &named[..]), "{first:?}");
        assert!(recent.looks_in(&private.id).is_some());
        tokio::time::advance(LATE).await;
        for event in more.iter().skip(1) {
            recent.note(&event.id, event.snapshot());
        }
        let findings = recent.findings(&private);
        assert_eq!(findings.undone.visibility, found, "{} events", more.len());
        assert_eq!(findings.reports[1..], told, "{} events", more.len());
        assert_eq!(recent.looks_in(&private.id), None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_patch_undoes_long_after_it_was_given_up_is_found() {
    let seconds = Duration::from_secs;
    let private = with(|image| image.visibility = Private);
    let recent = Recent::default();
    let open = recent.open(&image());
    tokio::time::advance(seconds(10)).await;
    recent.note(&private.id, private.snapshot());
    tokio::time::advance(seconds(20)).await;
    recent.close(&open, &Err(Error::new(Reason::ImageServiceUnreachable, "no answer in 30 s")));
    // What its owner made it still stands, for long, and others' images change meanwhile.
    for _ in 0..20 {
        tokio::time::advance(seconds(5)).await;
        assert_eq!(recent.findings(&private), Findings::default());
        recent.note(&"00000001-0000-4000-8000-000000000000".parse().unwrap(), image().snapshot());
        assert!(recent.looks_in(&private.id).is_some());
    }
    assert_eq!(recent.looks_in(&private.id), Some(WATCHED_LATER));
    assert_eq!(recent.findings(&image()).undone.visibility, Some(Private));
    tokio::time::advance(UNANSWERED).await;
    assert_eq!(recent.looks_in(&private.id), None);
}

#[tokio::test(start_paused = true)]
async fn a_patch_that_was_never_sent_has_undone_nothing() {
    let recent = Recent::default();
    let open = recent.open(&image());
    recent.close(&open, &Err(Error::new(Reason::ImageServiceUnreachable, "no connection").unsent()));
    // Its owner closes the image, and opens it again.
    let private = with(|image| image.visibility = Private);
    recent.note(&private.id, private.snapshot());
    assert_eq!((recent.findings(&private), recent.looks_in(&private.id)), (Findings::default(), None));
    recent.note(&private.id, image().snapshot());
    assert_eq!(recent.findings(&image()), Findings::default());
}

#[tokio::test(start_paused = true)]
async fn what_an_owner_changed_while_nobody_ran_is_no_patchs() {
    for (minutes, found) in [(0, Some(Private)), (20, None)] {
        let later = |seconds| mimeo_core::Timestamp::UNIX_EPOCH.saturating_add(Duration::from_secs(seconds)).unwrap();
        let closed = with(|image| (image.visibility, image.updated_at) = (Private, later(1)));
        let opened = with(|image| image.updated_at = later(2 + 60 * minutes));
        let recent = Recent::default();
        recent.inherit(&opened, true);
        for event in [&closed, &opened] {
            recent.note(&event.id, event.snapshot());
        }
        assert_eq!(recent.findings(&opened).undone.visibility, found, "{minutes} minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_outlived_the_patch_hides_no_other_that_was_undone() {
    let protected = with(|image| image.protected = true);
    let deactivated = with(|image| (image.protected, image.status) = (true, ImageStatus::Deactivated));
    let recent = Recent::default();
    let open = recent.open(&image());
    recent.note(&image().id, protected.snapshot());
    recent.close(&open, &Ok(()));
    assert_eq!(recent.findings(&protected), Findings::default());
    // Its event comes when the image was looked at already.
    recent.note(&image().id, deactivated.snapshot());
    assert_eq!(recent.findings(&protected).undone, Undone { deactivated: Some(true), ..Undone::default() });
}
