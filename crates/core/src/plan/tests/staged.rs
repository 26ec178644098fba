//! Copies that were made while the image's bits were staged.

use super::*;

/// Store `a` has what was staged; of what it is to be nothing is known.
fn staged() -> World {
    World::new().holds("a", ReplicaState::Stored).record(|record| {
        let replica = record.replicas.get_mut(&"a".parse().unwrap()).unwrap();
        (replica.digest, replica.proof) = (None, None);
    })
}

fn is_given_up(plan: &Plan) -> bool {
    plan.changes.iter().any(|change| matches!(change, Change::Doom(..)))
}

#[test]
fn a_copy_of_what_is_staged_waits_for_the_import_and_is_then_proven() {
    for status in [ImageStatus::Uploading, ImageStatus::Importing] {
        let plan = staged().image(|image| image.status = status).plan();
        assert!(!plan.has_work() && !plan.stop && !is_given_up(&plan), "{status}");
    }
    let plan = staged().plan();
    assert_eq!((names(&plan.prove), names(&plan.copy)), (vec!["a"], vec!["b"]));
    assert!(!is_given_up(&plan));
}

#[test]
fn a_copy_of_what_did_not_become_the_image_is_given_up() {
    let plan = staged().image(|image| (image.status, image.size) = (ImageStatus::Queued, None)).plan();
    assert!(is_given_up(&plan) && !plan.has_work());
    for other in [|image: &mut Image| image.size = Some(7), |image: &mut Image| image.hash = None] {
        let plan = staged().image(other).plan();
        assert!(is_given_up(&plan));
        assert_eq!((names(&plan.prove), names(&plan.copy)), (vec![], vec!["a", "b"]));
    }
}

#[test]
fn a_copy_that_was_seen_as_it_was_written_is_not_taken_for_a_staged_one() {
    let plan = World::new().holds("a", ReplicaState::Stored).image(|image| image.hash = None).plan();
    assert!(!is_given_up(&plan));
}
