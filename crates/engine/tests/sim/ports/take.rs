//! A copy that a store makes by itself, in the weather of both stores.

use std::sync::{Arc, atomic::AtomicU64};

use mimeo_core::{
    Result,
    ports::{Offer, Receipt, Store},
};

use super::store::{named, publish, untrue};
use crate::{
    weather::{Fate, Lie, Mood, Part},
    witness::Place,
    world::{Life, World, failure},
};

/// Dropped before its end, it may come to it all the same.
pub(super) struct Taking {
    life: Arc<Life>,
    place: Place,
    /// None once the store makes the object.
    from: Option<(Place, Offer)>,
}

impl Taking {
    pub(super) fn new(life: &Arc<Life>, (place, given): (Place, Place), offer: &Offer) -> Self {
        Self { life: Arc::clone(life), place, from: Some((given, offer.clone())) }
    }

    pub(super) async fn run(mut self, sent: &AtomicU64) -> Result<Receipt> {
        let life = Arc::clone(&self.life);
        let fate = life.begin(Part::Room(self.place.0)).await;
        let name = named(&life, "take", &self.place);
        life.world.tell(|| format!("{}: {fate:?}", name()));
        match fate {
            Fate::DiesBefore => life.die().await,
            Fate::Fails(reason) => {
                self.from = None;
                return Err(failure(reason));
            }
            _ => {}
        }
        let Some((given, offer)) = self.from.take() else { return Ok(Receipt::default()) };
        let receipt = make(&life.world, &self.place, &given, &offer, sent).await;
        match fate {
            Fate::DiesAfter => life.die().await,
            Fate::LosesAnswer(reason) => Err(failure(reason)),
            _ => receipt,
        }
    }
}

/// Makes the object of what the other store gives.
async fn make(world: &World, place: &Place, given: &Place, offer: &Offer, sent: &AtomicU64) -> Result<Receipt> {
    let store = &world.stores[place.0];
    let mood = world.lock().weather.stores[given.0].mood;
    let taking = async {
        let receipt = store.take(&place.1, offer, sent).await;
        if let (Mood::Lying(Lie::Misreads), Some(bits)) = (mood, store.bits(&place.1)) {
            store.tamper(&place.1, Some(untrue(&bits, Lie::Garbles)));
        }
        receipt
    };
    publish(world, place, taking).await
}

impl Drop for Taking {
    fn drop(&mut self) {
        let Some((given, offer)) = self.from.take() else { return };
        let world = Arc::clone(&self.life.world);
        let Some(wait) = world.ghost(4900) else { return };
        let place = self.place.clone();
        world.tell(|| format!("  {} {} will be taken in {wait:?}", world.store_name(place.0), place.1));
        let later = Arc::clone(&world);
        world.later(wait, async move {
            drop(make(&later, &place, &given, &offer, &AtomicU64::new(0)).await);
        });
    }
}
