//! What operators do, and what befalls the ledger that they look after.

use std::{sync::Arc, time::Duration};

use mimeo_core::{
    ImageFilter, ImageId, StoreName,
    ports::{Ledger, Store},
};
use mimeo_engine::{Engine, came_back};
use mimeo_testkit::LedgerBackup;

use crate::{promises::Step, story::Story, tenants};

/// An engine may die under the operator's hands, and an answer may not come.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn act(story: &mut Story) {
    let (drains, loses) = (story.world.setup.drains, story.world.setup.loses_ledger);
    match story.dice(|dice| dice.of(0..10)) {
        0..4 if drains => drain(story).await,
        4..6 if loses => {
            story.world.tell(|| "a backup of the ledger".into());
            story.backup = story.world.ledger.backup();
        }
        6..8 if loses => lose_the_ledger(story).await,
        _ => replicate(story).await,
    }
}

async fn replicate(story: &Story) {
    let images: Vec<ImageId> = story.world.lock().truths.keys().cloned().collect();
    let Some(serving) = &story.serving else { return };
    let Some(id) = (!images.is_empty()).then(|| story.dice(|dice| images[dice.below(images.len())].clone())) else {
        return;
    };
    story.world.tell(|| format!("replicate {id}"));
    tenants::touch(&story.world, &id);
    let engine = Arc::clone(&serving.engine);
    let _ = tokio::time::timeout(PATIENCE, engine.replicate(&id)).await;
    if let Ok(Ok(reports)) = tokio::time::timeout(PATIENCE, engine.list(&ImageFilter::default(), None, 100)).await {
        story.world.step(&Step::Told { text: &format!("{reports:?}") });
    }
}

/// A store is to become empty, or not any more.
async fn drain(story: &mut Story) {
    let at = story.dice(|dice| dice.below(story.world.stores.len()));
    let begins = story.dice(|dice| dice.falls(6000));
    let Some(serving) = &story.serving else { return };
    let engine = Arc::clone(&serving.engine);
    story.ever_drained.insert(at);
    let _ = tokio::time::timeout(PATIENCE, say(story, &engine, at, begins)).await;
}

async fn say(story: &Story, engine: &Engine, at: usize, begins: bool) -> bool {
    let drained: &StoreName = story.world.stores[at].name();
    story.world.tell(|| format!("drain {drained}: {begins}"));
    match begins {
        true => engine.drain(drained).await.is_ok_and(|said| said.is_ok()),
        false => engine.cancel_drain(drained).await.is_ok_and(|said| said.is_ok()),
    }
}

/// What is drained in the end.
pub(crate) async fn decide(story: &mut Story) {
    if !story.world.setup.drains {
        return;
    }
    // The engine is to know what was said before.
    story.pass(Duration::from_secs(1)).await;
    for at in story.configuration.enabled.clone() {
        let Some(serving) = &story.serving else { return };
        let engine = Arc::clone(&serving.engine);
        let begins = story.dice(|dice| dice.falls(3000));
        if say(story, &engine, at, begins).await && begins {
            story.configuration.drained.insert(at);
        }
        story.ever_drained.insert(at);
    }
}

/// The ledger is lost, or becomes again what it was once.
async fn lose_the_ledger(story: &mut Story) {
    story.halt().await;
    // What was sent has its effect before anybody puts a ledger back; and nobody is so quick that the clock stands still.
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if story.world.has_no_ghosts() {
            break;
        }
    }
    let is_old = story.dice(|dice| dice.falls(5000));
    story.world.tell(|| format!("the ledger is lost; an old one comes back: {is_old}"));
    story.world.ledger.set_down(false);
    story.world.ledger.restore(&if is_old { story.backup.clone() } else { LedgerBackup::default() });
    let _ = story.world.ledger.commit(&[came_back()]).await;
    let everything = |at: usize| story.world.stores[at].everything().into_iter().map(move |object| (at, object));
    let forgotten = (0..story.world.stores.len()).flat_map(everything).filter(|place| !story.world.is_known(place));
    let forgotten: Vec<_> = forgotten.collect();
    story.world.lock().witness.loses_ledger(forgotten);
    story.serve();
}
