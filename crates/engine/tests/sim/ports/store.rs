//! A store behind the weather: it may fail, stall, lose answers, lie, and finish what was broken off.

use std::sync::{Arc, atomic::AtomicU64};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use mimeo_core::{
    ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Cursor, ObjectPage, Offer, Receipt, Sink, Store},
};
use mimeo_testkit::FakeStore;

use super::{Hand, counted, take};
use crate::{
    promises::Step,
    setup::PIECE,
    weather::{Fate, Lie, Mood, Part},
    witness::Place,
    world::{Life, World, at_once, failure},
};

pub(crate) struct SimStore {
    life: Arc<Life>,
    at: usize,
    store: FakeStore,
}

impl SimStore {
    pub(crate) fn new(life: &Arc<Life>, at: usize) -> Self {
        Self { life: Arc::clone(life), at, store: life.world.stores[at].clone() }
    }

    fn named(&self, what: &'static str, object: &ObjectName) -> impl FnOnce() -> String + use<> {
        named(&self.life, what, &self.place(object))
    }

    fn place(&self, object: &ObjectName) -> Place {
        (self.at, object.clone())
    }

    /// Which store the area is, and with it the object's place.
    fn given(&self, offer: &Offer) -> Option<Place> {
        let at = self.life.world.stores.iter().position(|store| store.area().as_ref() == Some(&offer.area))?;
        Some((at, offer.object.clone()))
    }

    fn sink(&self, object: &ObjectName, sink: Box<dyn Sink>) -> Box<dyn Sink> {
        let (life, place) = (Arc::clone(&self.life), self.place(object));
        let hand = Hand::new(&life.world.open);
        life.world.lock().witness.writing.push(place.clone());
        Box::new(SimSink { life, place, sink: Some(sink), closing: false, _hand: hand })
    }

    /// The bytes from `offset` on, in pieces, as the store gives them now.
    async fn stream(&self, object: &ObjectName, offset: u64, is_whole: bool) -> Result<ByteStream> {
        let chunks: Vec<Result<Bytes>> = self.store.read(object, offset).await?.collect().await;
        let bytes = chunks.into_iter().collect::<Result<Vec<_>>>()?.concat();
        let lies = self.life.world.lock().weather.stores[self.at].mood == Mood::Lying(Lie::Misreads);
        // In another way than what garbles them: both together must not make them right.
        let bytes: Vec<u8> = if lies { bytes.iter().map(|byte| byte.wrapping_add(1)).collect() } else { bytes };
        let (life, place, hand) = (Arc::clone(&self.life), self.place(object), Hand::new(&self.life.world.open));
        let reading = Reading { life, place, bytes, given: 0, is_whole, _hand: hand };
        Ok(stream::unfold(reading, Reading::next).boxed())
    }
}

#[async_trait]
impl Store for SimStore {
    fn name(&self) -> &StoreName {
        self.store.name()
    }

    fn location(&self, object: &ObjectName) -> String {
        self.life.world.store_location(self.at, object)
    }

    fn is_sparse(&self) -> bool {
        self.store.is_sparse()
    }

    fn resumes(&self) -> Option<bool> {
        self.store.resumes()
    }

    fn compares(&self) -> bool {
        self.store.compares()
    }

    fn reopens(&self) -> bool {
        self.store.reopens()
    }

    fn area(&self) -> Option<String> {
        self.store.area()
    }

    fn takes_from(&self, area: &str) -> bool {
        self.store.takes_from(area)
    }

    /// First the other store is asked for its object, then this one makes its own.
    async fn take(&self, object: &ObjectName, offer: &Offer, sent: &AtomicU64) -> Result<Receipt> {
        let (place, given) = (self.place(object), self.given(offer).ok_or_else(|| failure(Reason::StoreError))?);
        let give = async {
            self.life.world.step(&Step::Reads { place: &given });
            Ok(())
        };
        self.life.call(Part::Store(given.0), named(&self.life, "give", &given), give).await?;
        self.life.world.step(&Step::Opens { place: &place, resumes: false });
        take::Taking::new(&self.life, (place, given), offer).run(sent).await
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        let act = async {
            self.life.world.step(&Step::Opens { place: &self.place(object), resumes: false });
            self.store.open(object, size).await
        };
        let sink = self.life.call(Part::Room(self.at), self.named("open", object), act).await?;
        Ok(self.sink(object, sink))
    }

    async fn kept(&self, object: &ObjectName) -> Result<u64> {
        self.life.call(Part::Store(self.at), self.named("kept", object), self.store.kept(object)).await
    }

    async fn read_kept(&self, object: &ObjectName) -> Result<Option<ByteStream>> {
        let act = self.stream(object, 0, false);
        self.life.call(Part::Store(self.at), self.named("read kept", object), act).await.map(Some)
    }

    async fn resume(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        let act = async {
            let place = self.place(object);
            self.life.world.step(&Step::Opens { place: &place, resumes: true });
            self.life.world.lock().witness.written(&place);
            self.store.resume(object, size, offset).await
        };
        let sink = self.life.call(Part::Room(self.at), self.named("resume", object), act).await?;
        Ok(self.sink(object, sink))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        let act = async {
            self.life.world.step(&Step::Reads { place: &self.place(object) });
            self.stream(object, offset, offset == 0).await
        };
        let read = self.life.call(Part::Store(self.at), self.named("read", object), act).await;
        if read.as_ref().is_err_and(|error| error.reason == Reason::ObjectMissing) {
            self.life.world.lock().witness.missed(&self.place(object));
        }
        read
    }

    async fn list(&self, after: Option<&Cursor>) -> Result<Option<ObjectPage>> {
        let name = || format!("{} list", self.store.name());
        self.life.call(Part::Store(self.at), name, self.store.list(after)).await
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        let probed = self.life.call(Part::Store(self.at), self.named("probe", object), self.store.probe(object)).await;
        let mut state = self.life.world.lock();
        let size = state.truths.get(&object.image()).map(|truth| truth.bits.len() as u64);
        let is_right = probed.as_ref().ok().map(|found| found.is_some() && *found == size);
        state.witness.probed(&self.place(object), is_right);
        probed
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        let act = async {
            self.life.world.step(&Step::Deletes { place: &self.place(object) });
            self.life.world.lock().witness.written(&self.place(object));
            self.store.delete(object).await
        };
        self.life.call(Part::Store(self.at), self.named("delete", object), act).await
    }
}

/// For the trace.
pub(super) fn named(life: &Arc<Life>, what: &'static str, place: &Place) -> impl FnOnce() -> String + use<> {
    let (life, place) = (Arc::clone(life), place.clone());
    move || format!("{} {what} {}", life.world.store_name(place.0), place.1)
}

/// A read under way.
struct Reading {
    life: Arc<Life>,
    place: Place,
    bytes: Vec<u8>,
    given: usize,
    /// From the beginning: a proof, if it comes to its end.
    is_whole: bool,
    _hand: Hand,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Bytes>, Self)> {
        let world = Arc::clone(&self.life.world);
        if self.given == self.bytes.len() {
            let mut state = world.lock();
            // Or left by its writer, at a store that writes in place.
            let is_closed = world.stores[self.place.0].bits(&self.place.1).is_some()
                || !state.witness.writing.contains(&self.place);
            if self.is_whole && is_closed {
                let truth = state.truths.get(&self.place.1.image());
                let is_right = truth.is_some_and(|truth| truth.bits == self.bytes);
                state.witness.read_back(&self.place, is_right);
            }
            return None;
        }
        match self.life.begin(Part::Store(self.place.0)).await {
            Fate::Fails(reason) | Fate::LosesAnswer(reason) => return Some((Err(failure(reason)), self)),
            Fate::DiesBefore | Fate::DiesAfter => self.life.die().await,
            Fate::Goes => {}
        }
        let end = self.bytes.len().min(self.given + PIECE);
        let piece = counted(&self.bytes[self.given..end], &world.held);
        self.given = end;
        world.step(&Step::Gives);
        Some((Ok(piece), self))
    }
}

struct SimSink {
    life: Arc<Life>,
    place: Place,
    /// None once it was closed, or handed on.
    sink: Option<Box<dyn Sink>>,
    closing: bool,
    _hand: Hand,
}

impl SimSink {
    fn name(&self, what: &'static str) -> impl FnOnce() -> String + use<> {
        named(&self.life, what, &self.place)
    }

    /// The engine hears nothing more, but what was sent may still be published.
    fn outlives(&mut self) {
        let world = Arc::clone(&self.life.world);
        let Some(wait) = world.ghost(4900) else { return };
        let (place, Some(sink)) = (self.place.clone(), self.sink.take()) else { return };
        world.tell(|| format!("  {} {} will be published in {wait:?}", world.stores[place.0].name(), place.1));
        let later = Arc::clone(&world);
        world.later(wait, async move { drop(publish(&later, &place, sink.close()).await) });
    }
}

/// Closes the object, as truly as the store's mood has it.
pub(super) async fn publish(
    world: &World,
    place: &Place,
    closing: impl Future<Output = Result<Receipt>>,
) -> Result<Receipt> {
    let store = &world.stores[place.0];
    let before = store.bits(&place.1);
    let receipt = closing.await;
    let (mood, bits) = (world.lock().weather.stores[place.0].mood, store.bits(&place.1));
    // Where the same bits are already nothing is written: a request that was cut off, and is carried out behind the next.
    if let (Mood::Lying(lie), Some(bits)) = (mood, bits.filter(|bits| before.as_ref() != Some(bits))) {
        store.tamper(&place.1, Some(untrue(&bits, lie)));
    }
    if store.bits(&place.1) != before {
        world.lock().witness.written(place);
    }
    world.tell(|| format!("  published {} {}", store.name(), place.1));
    world.step(&Step::Published { place });
    receipt
}

pub(super) fn untrue(bits: &Bytes, lie: Lie) -> Bytes {
    match lie {
        Lie::Truncates => bits.slice(..bits.len() / 2),
        Lie::Garbles => bits.iter().map(|byte| !byte).collect(),
        Lie::Misreads => bits.clone(),
    }
}

#[async_trait]
impl Sink for SimSink {
    fn like(&mut self, other: &ObjectName) {
        if let Some(sink) = &mut self.sink {
            sink.like(other);
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let (life, name) = (Arc::clone(&self.life), self.name("write"));
        let Some(sink) = &mut self.sink else { return Ok(()) };
        life.call(Part::Room(self.place.0), name, sink.write(bytes)).await
    }

    async fn skip(&mut self, length: u64) -> Result<()> {
        let (life, name) = (Arc::clone(&self.life), self.name("skip"));
        let Some(sink) = &mut self.sink else { return Ok(()) };
        life.call(Part::Room(self.place.0), name, sink.skip(length)).await
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        let (life, name) = (Arc::clone(&self.life), self.name("close"));
        self.closing = true;
        let fate = life.begin(Part::Room(self.place.0)).await;
        life.world.tell(|| format!("{}: {fate:?}", name()));
        match fate {
            Fate::DiesBefore => life.die().await,
            Fate::Fails(reason) => Err(failure(reason)),
            _ => {
                let (place, Some(sink)) = (self.place.clone(), self.sink.take()) else {
                    return Ok(Receipt::default());
                };
                let receipt = publish(&life.world, &place, sink.close()).await;
                match fate {
                    Fate::DiesAfter => life.die().await,
                    Fate::LosesAnswer(reason) => Err(failure(reason)),
                    _ => receipt,
                }
            }
        }
    }

    async fn abort(self: Box<Self>) {}
}

impl Drop for SimSink {
    fn drop(&mut self) {
        self.life.world.lock().witness.left(&self.place);
        if self.closing && self.sink.is_some() {
            self.outlives();
        }
        if self.sink.take().is_none() {
            return;
        }
        // Where the store can go on with objects, something of this one is left; a liar kept other bytes.
        let world = &self.life.world;
        let (store, mood) = (&world.stores[self.place.0], world.lock().weather.stores[self.place.0].mood);
        let kept = at_once(store.kept(&self.place.1)).unwrap_or(0);
        if let (Mood::Lying(lie), true) = (mood, kept > 0) {
            let bits = at_once(async { store.read(&self.place.1, 0).await.ok()?.next().await?.ok() });
            store.tamper(&self.place.1, bits.map(|bits| untrue(&bits, lie)));
        }
        world.step(&Step::Published { place: &self.place });
    }
}
