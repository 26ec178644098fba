//! Uploads that pass a gateway: their bits pass the engine on their way to Glance, which may not take them, or change them;
//! and the client may go away.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mimeo_core::{ContentHash, HashAlgorithm, Image, ImageId, ImageStatus};
use mimeo_engine::{Becomes, Engine, Upload};
use mimeo_testkit::sample;
use sha2::{Digest, Sha512};
use tokio::time::Instant;

use crate::{
    ports::registry::changed,
    setup::PIECE,
    story::{Story, image_id},
    tenants::MOST,
    world::{Truth, World},
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Taken,
    /// Glance keeps other bits than were sent.
    Converted,
    /// The client goes away in the middle, or Glance does.
    BrokenOff,
    /// Glance never says that it takes it.
    Refused,
}

/// One client's upload.
struct Client {
    id: ImageId,
    bits: Bytes,
    ending: Ending,
    /// Before Glance says that it takes it.
    hesitates: Duration,
    /// Between two pieces.
    pause: Duration,
    /// Whether the client says how much it will be.
    is_announced: bool,
}

/// Somebody begins to upload an image's bits through the gateway.
pub(crate) fn begin(story: &mut Story) {
    let Some(id) = queued(&story.world) else { return };
    let world = Arc::clone(&story.world);
    let client = story.dice(|dice| {
        let length = dice.pick(&[1, 600, 3000, 9000]);
        let endings =
            [Ending::Taken, Ending::Taken, Ending::Taken, Ending::Converted, Ending::BrokenOff, Ending::Refused];
        let (ending, hesitates) = (dice.pick(&endings), dice.millis(0..4000));
        let pause = if dice.falls(7000) { Duration::ZERO } else { dice.millis(1..900) };
        Client { id, bits: dice.bytes(length).into(), ending, hesitates, pause, is_announced: dice.falls(5000) }
    });
    world.tell(|| {
        format!("upload through the gateway of {}, {} bytes: {:?}", client.id, client.bits.len(), client.ending)
    });
    let Some(serving) = &mut story.serving else { return };
    let engine = Arc::clone(&serving.engine);
    serving.clients.spawn(async move { client.uploads(&world, &engine).await });
}

/// An image that waits for its bits.
fn queued(world: &Arc<World>) -> Option<ImageId> {
    let living: Vec<ImageId> =
        world.lock().truths.iter().filter(|(_, it)| !it.gone).map(|(id, _)| id.clone()).collect();
    let is_queued = |id: &ImageId| world.image(id).is_some_and(|image| image.status == ImageStatus::Queued);
    if let Some(id) = living.into_iter().find(is_queued) {
        return Some(id);
    }
    let count = world.lock().truths.len();
    let number = u32::try_from(count).ok().filter(|_| count < MOST)? + 1;
    let image = Image { status: ImageStatus::Queued, size: None, hash: None, ..sample::image(number, 0) };
    world.lock().truths.insert(image.id.clone(), Truth { bits: Bytes::new(), changed: Instant::now(), gone: false });
    world.registry.insert(image, Bytes::new());
    let id = image_id(number);
    changed(world, &id);
    Some(id)
}

impl Client {
    async fn uploads(self, world: &Arc<World>, engine: &Arc<Engine>) {
        let size = self.is_announced.then_some(self.bits.len() as u64);
        let Ok(Some(Upload { mut bits, outcome, copying, .. })) = engine.upload(&self.id, Becomes::Image, size).await
        else {
            // Nobody copies it as it passes.
            return self.ends(world);
        };
        let passing = async {
            let halfway = self.bits.len() / 2;
            for (at, piece) in self.bits.chunks(PIECE).enumerate() {
                if at == 1 {
                    self.is_taken(world).await;
                }
                if self.ending == Ending::BrokenOff && at * PIECE >= halfway {
                    break;
                }
                bits.pass(Bytes::copy_from_slice(piece)).await;
                tokio::time::sleep(self.pause).await;
            }
            if self.bits.len() <= PIECE {
                self.is_taken(world).await;
            }
            drop(bits);
            self.ends(world);
            if matches!(self.ending, Ending::Taken | Ending::Converted) {
                outcome.taken();
            }
        };
        tokio::join!(passing, copying.run());
    }

    /// Glance shows that it takes it, if it does.
    async fn is_taken(&self, world: &Arc<World>) {
        tokio::time::sleep(self.hesitates).await;
        if self.ending != Ending::Refused && world.image(&self.id).is_some_and(|it| it.status == ImageStatus::Queued) {
            world.registry.change(&self.id, |image| image.status = ImageStatus::Saving);
            changed(world, &self.id);
        }
    }

    /// What Glance makes of it.
    fn ends(&self, world: &Arc<World>) {
        let waits = |image: &Image| matches!(image.status, ImageStatus::Queued | ImageStatus::Saving);
        let Some(image) = world.image(&self.id).filter(waits) else { return };
        world.tell(|| format!("the upload of {} ends: {:?}", self.id, self.ending));
        let bits: Bytes = match self.ending {
            Ending::Taken => self.bits.clone(),
            Ending::Converted => self.bits.iter().map(|byte| byte ^ 0x0f).collect(),
            Ending::BrokenOff | Ending::Refused => {
                world.registry.change(&self.id, |image| image.status = ImageStatus::Queued);
                changed(world, &self.id);
                return;
            }
        };
        let value = Sha512::digest(&bits).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let hash = Some(ContentHash { algorithm: HashAlgorithm::Sha512, value });
        let image = Image { status: ImageStatus::Active, size: Some(bits.len() as u64), hash, ..image };
        if let Some(truth) = world.lock().truths.get_mut(&self.id) {
            (truth.bits, truth.changed) = (bits.clone(), Instant::now());
        }
        world.registry.insert(image, bits);
        // Glance's time of the change is now.
        world.registry.change(&self.id, |_| {});
        changed(world, &self.id);
    }
}
