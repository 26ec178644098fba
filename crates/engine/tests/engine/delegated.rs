//! Stores that only Glance can write: asked for once, never beside a PATCH of Mimeo's, believed when shown.

use mimeo_core::{ImageId, Reason, ReplicaState};
use mimeo_testkit::{RegistryFault, StoreFault, sample};

use crate::world::{Options, World};

const SIZE: u64 = 1 << 20;

fn world() -> World {
    World::start(Options { stores: 2, glances: &["ceph"], ..Options::default() })
}

async fn asked(world: &World, id: &ImageId, times: usize) {
    let count = || world.registry.copies_asked().iter().filter(|(image, _)| image == id).count();
    world.until("Glance is asked", async || count() == times).await;
}

async fn replica(world: &World, id: &ImageId) -> mimeo_engine::status::ReplicaReport {
    world.report(id).await.unwrap().replicas.pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn glance_copies_to_its_own_store_once_mimeos_are_registered() {
    let world = world();
    let id = world.create(sample::image(1, SIZE));
    asked(&world, &id, 1).await;
    assert_eq!(world.locations(&id).len(), 2, "before Glance was asked");
    assert_eq!(world.registry.copies_asked(), [(id.clone(), vec!["ceph".to_owned()])]);
    assert_eq!(replica(&world, &id).await.state, ReplicaState::Copying);
    world.registry.end_copying(&id, &[]);
    world.registered(&id).await;
    let replica = replica(&world, &id).await;
    assert_eq!(replica.proof.unwrap().to_string(), "glance");
    asked(&world, &id, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_of_mimeos_that_hangs_does_not_keep_glance_waiting() {
    let world = world();
    world.stores[1].inject(StoreFault::WriteStalls);
    let id = world.create(sample::image(1, SIZE));
    asked(&world, &id, 1).await;
    world.registry.end_copying(&id, &[]);
    world.until("Glance's copy counts", async || replica(&world, &id).await.state == ReplicaState::Registered).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_failed_or_was_refused_has_its_reason_and_is_asked_for_again() {
    let world = world();
    world.registry.inject(RegistryFault::CopyFails(Reason::NotAllowed));
    let id = world.create(sample::image(1, SIZE));
    let reason = async || replica(&world, &id).await.reason.map(|reason| reason.code);
    world.until("the refusal shows", async || reason().await == Some(Reason::NotAllowed.code().into())).await;
    world.registry.heal();
    asked(&world, &id, 1).await;
    world.registry.end_copying(&id, &["ceph"]);
    world.until("the failure shows", async || reason().await == Some(Reason::GlanceCopyFailed.code().into())).await;
    asked(&world, &id, 2).await;
    world.registry.end_copying(&id, &[]);
    world.registered(&id).await;
}

#[tokio::test(start_paused = true)]
async fn no_patch_is_sent_while_glance_copies() {
    let world = world();
    world.stores[1].inject(StoreFault::WriteFails(Reason::StoreUnreachable));
    let id = world.create(sample::image(1, SIZE));
    asked(&world, &id, 1).await;
    world.stores[1].heal();
    let proven = async || world.report(&id).await.unwrap().replicas[1].state == ReplicaState::Proven;
    world.until("the other copy is proven", proven).await;
    let before = world.registry.adds().len();
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    assert_eq!(world.registry.adds().len(), before);
    world.registry.end_copying(&id, &[]);
    world.registered(&id).await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_deleted_leaves_nothing_to_do_at_glances_store() {
    let world = world();
    let id = world.create(sample::image(1, SIZE));
    asked(&world, &id, 1).await;
    world.registry.end_copying(&id, &[]);
    world.registered(&id).await;
    world.delete(&id);
    world.until("everything is forgotten", async || world.report(&id).await.is_none()).await;
    assert_eq!(world.objects(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_glance_does_not_know_keeps_no_other_from_its_copy() {
    let world = World::start(Options { stores: 1, glances: &["ceph", "gone"], ..Options::default() });
    world.registry.inject(RegistryFault::NoSuchBackend("gone"));
    let id = world.create(sample::image(1, SIZE));
    tokio::time::sleep(std::time::Duration::from_hours(10)).await;
    assert_eq!(world.registry.copies_asked().len(), 1, "in ten hours `ceph` was never asked for alone");
    let _ = id;
}

#[tokio::test(start_paused = true)]
async fn glance_is_not_flooded_with_copies() {
    let world = world();
    for number in 1..=40 {
        world.create(sample::image(number, 1 << 10));
    }
    tokio::time::sleep(std::time::Duration::from_mins(1)).await;
    // None has ended. Each holds the image's import lock, so that nothing of it can be registered, while Glance's few
    // workers come to it.
    let asked = world.registry.copies_asked().len();
    assert!(asked <= 16, "{asked} copy-image tasks at once");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_glance_imports_is_not_looked_at_every_second() {
    let world = world();
    let id = world.create(sample::image(1, SIZE));
    asked(&world, &id, 1).await;
    let before = world.registry.looks();
    tokio::time::sleep(std::time::Duration::from_hours(1)).await;
    // The longest wait of this world is 10 s. Each look is a GET at Glance and a commit in the ledger.
    let looks = world.registry.looks() - before;
    assert!(looks <= 60 * 6 + 100, "{looks} looks at one image in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_plan_tells_of_glances_store_from_the_first_look_on() {
    let world = World::start(Options { stores: 1, glances: &["ceph"], observe: true, ..Options::default() });
    let id = world.create(sample::image(1, SIZE));
    let plan = world.engine.plan(Some(&id)).await.unwrap();
    let told = plan.iter().find(|action| action.store == Some("glance1".parse().unwrap())).unwrap();
    assert_eq!(told.action, "ask", "{}", told.why);
}
