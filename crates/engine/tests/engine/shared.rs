//! Copies at stores that Glance can write: it removes the bits with a location, whoever else names them.

use std::{collections::BTreeMap, time::Duration};

use mimeo_core::{ImageId, Location, Reason, ReplicaState, ports::Ledger};
use mimeo_testkit::{RegistryFault, StoreFault, sample};

use crate::{
    healing::doom,
    world::{Options, World},
};

fn world() -> World {
    World::start(Options { reached: true, ..Options::default() })
}

async fn created(world: &World, number: u32) -> ImageId {
    let id = world.create(sample::image(number, 1 << 20));
    world.registered(&id).await;
    id
}

/// A tenant gives an image the location of another's copy.
fn name(world: &World, id: &ImageId, url: &str) {
    let location = Location { url: url.into(), metadata: BTreeMap::new() };
    world.registry.change(id, |image| image.locations.push(location));
    world.changed(id);
}

async fn trouble(world: &World, id: &ImageId) -> Option<(Reason, String)> {
    let trouble = world.ledger.load(id).await.unwrap().unwrap().image.trouble;
    trouble.map(|trouble| (trouble.reason, trouble.message))
}

#[tokio::test(start_paused = true)]
async fn the_bits_of_a_copy_that_is_to_go_are_gone_with_its_location() {
    let world = world();
    let id = created(&world, 1).await;
    let old = world.locations(&id)[1].clone();
    doom(&world, &id, 1).await;
    world.until("it is withdrawn", async || !world.locations(&id).contains(&old)).await;
    world.registered(&id).await;
    world.until("it is known to be gone", async || world.ledger_objects(&id).await == 3).await;
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn what_another_image_names_is_not_withdrawn_but_read_last_and_that_is_said() {
    let world = world();
    let (id, other) = (created(&world, 1).await, created(&world, 2).await);
    let shared = world.locations(&id)[0].clone();
    name(&world, &other, &shared);
    doom(&world, &id, 0).await;
    world.registered(&id).await;
    let told = async || trouble(&world, &id).await.is_some_and(|(reason, _)| reason == Reason::NotWithdrawn);
    world.until("it is said why it stays", told).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(trouble(&world, &id).await.unwrap().1.contains(other.as_str()), "the other image is named");
    assert_eq!((world.locations(&id).len(), world.locations(&id).last()), (4, Some(&shared)));
    assert_eq!(world.objects(), 7, "its bits are there for the other image");
    world.registry.change(&other, |image| image.locations.retain(|location| location.url != shared));
    world.until("it goes when nobody else names it", async || world.objects() == 6).await;
    world.assert_good_copies(&id, 3);
    assert_eq!(trouble(&world, &id).await, None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_withdrawn_with_its_bits_while_it_cannot_be_known_who_names_them() {
    let world = world();
    let id = created(&world, 1).await;
    world.registry.inject(RegistryFault::ListFails(Reason::ImageServiceError));
    doom(&world, &id, 0).await;
    world.registered(&id).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!((world.locations(&id).len(), world.objects()), (4, 4));
    assert_eq!(trouble(&world, &id).await.map(|(reason, _)| reason), Some(Reason::NotWithdrawn));
    world.registry.heal();
    world.until("it goes when that is known", async || world.objects() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_nothing_wants_stays_while_no_other_answers() {
    let mut world = world();
    let id = created(&world, 1).await;
    world.restart(|world| world.options.rules = &[(&["store0"], None)]).await;
    let retiring =
        async || world.report(&id).await.unwrap().replicas.iter().any(|it| it.state == ReplicaState::Retiring);
    world.until("two copies are wanted no more", retiring).await;
    // Before anybody notices it is time for them to go.
    tokio::time::sleep(Duration::from_secs(98)).await;
    world.stores[0].inject(StoreFault::ProbeFails(Reason::StoreUnreachable));
    let told = async || trouble(&world, &id).await.is_some_and(|(reason, _)| reason == Reason::NotWithdrawn);
    world.until("it is said why they stay", told).await;
    assert_eq!((world.locations(&id).len(), world.objects()), (3, 3));
    world.stores[0].heal();
    world.until("they go when it answers", async || world.objects() == 1).await;
    world.registered(&id).await;
}
