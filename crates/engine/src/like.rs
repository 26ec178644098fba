//! An object that a store has already, and that is probably much like the one to be written: for stores that then need
//! only what differs.

use mimeo_core::{
    Image, ImageId, Object, ObjectName, ObjectState, Record, ReplicaState, Result, StoreName, likeness, place,
};

use crate::{Engine, StorePart};

/// How many images to either side of the name are looked at.
const NEAR: usize = 16;

/// What the store has of an earlier attempt for the image, right or not; else its proven copy of the nearest image of the
/// same name or family. It is only a hint, so a failure to find one is none.
pub(crate) async fn object(engine: &Engine, part: &StorePart, image: &Image, own: &ObjectName) -> Option<ObjectName> {
    if !part.store.compares() {
        return None;
    }
    match look(engine, part, image, own).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(error = error.chain(), "no object to compare with was looked for");
            None
        }
    }
}

async fn look(engine: &Engine, part: &StorePart, image: &Image, own: &ObjectName) -> Result<Option<ObjectName>> {
    let record = engine.ledger.load(&image.id).await?;
    if let Some(object) = record.and_then(|record| earlier(&record, part, own)) {
        return Ok(Some(object));
    }
    let Some(name) = &image.name else { return Ok(None) };
    let mut found = Vec::new();
    for id in engine.ledger.named_near(name, NEAR).await? {
        found.extend(proven_of(engine, part, &id, name).await?.filter(|_| id != image.id));
    }
    Ok(found.into_iter().max().map(|(_, _, object)| object))
}

/// The newest of the image's own objects that were closed, doomed ones too: of a copy that went bad most is right.
fn earlier(record: &Record, part: &StorePart, own: &ObjectName) -> Option<ObjectName> {
    let objects = record.objects.iter().filter(|object| object.state != ObjectState::Open && object.name != *own);
    let objects = objects.filter(|object| is_here(part, object));
    objects.map(|object| &object.name).max_by_key(|name| name.attempt()).cloned()
}

/// How near the other image is by its name, and how new its copy at the store.
async fn proven_of(
    engine: &Engine,
    part: &StorePart,
    id: &ImageId,
    name: &str,
) -> Result<Option<(usize, u64, ObjectName)>> {
    let Some(record) = engine.ledger.load(id).await? else { return Ok(None) };
    let near = record.image.name.as_deref().and_then(|other| likeness(name, other));
    let kept = kept(&record, part.store.name()).filter(|object| is_here(part, object));
    Ok(near.zip(kept).map(|(near, object)| (near, object.name.attempt(), object.name.clone())))
}

fn kept<'a>(record: &'a Record, store: &StoreName) -> Option<&'a Object> {
    let replica = record.replicas.get(store)?;
    let proven = matches!(replica.state, ReplicaState::Proven | ReplicaState::Registered);
    let object = record.object(store, replica.object.as_ref()?)?;
    (proven && object.state == ObjectState::Kept).then_some(object)
}

/// The store may have been elsewhere when it was written.
fn is_here(part: &StorePart, object: &Object) -> bool {
    let store = &part.store;
    object.store == *store.name() && place(&object.url) == place(&store.location(&object.name))
}
