//! A registered copy is read again. It stays registered while it is, and while it merely cannot be read.

use mimeo_core::{
    Change, Digest, DirtyMark, Error, ImageId, ObjectName, Proof, ProofKind, Reason, Record, Replica, ReplicaState,
    Result, StoreName,
};
use tokio::time::Instant;

use crate::{
    Engine, StorePart,
    note::update,
    progress::Phase,
    prove::{self, Expected, Haste, Known},
    sabotage::{self, Bug},
};

/// What came of it.
pub(crate) struct Verified {
    pub(crate) store: StoreName,
    outcome: Result<(ObjectName, Result<Proof>)>,
}

/// Reads the store's copy again.
pub(crate) async fn read_again(engine: &Engine, id: &ImageId, store: &StoreName, haste: Haste) -> Verified {
    Verified { store: store.clone(), outcome: try_read(engine, id, store, haste).await }
}

async fn try_read(
    engine: &Engine,
    id: &ImageId,
    store: &StoreName,
    haste: Haste,
) -> Result<(ObjectName, Result<Proof>)> {
    let lost = || Error::new(Reason::Cancelled, format!("{store}: the copy is no longer one that can be read again"));
    let record = engine.ledger.load(id).await?.ok_or_else(lost)?;
    let replica = record.replicas.get(store).ok_or_else(lost)?;
    let (Some(object), Some(size), Some(digest)) = (replica.object.clone(), replica.size, &replica.digest) else {
        return Err(lost());
    };
    let part = engine.stores.get(store).ok_or_else(lost)?;
    // Who scrubs has a place of its own for it.
    let _turn = match haste {
        Haste::Scrub => None,
        Haste::Normal => Some(engine.gates(store).proofs.acquire().await.map_err(|_| lost())?),
    };
    let mut outcome = read(engine, id, part, (&object, size, digest), haste).await;
    if outcome.as_ref().is_err_and(is_bad) {
        // Once more, before anything is done about it: what broke may have been the reading.
        outcome = read(engine, id, part, (&object, size, digest), haste).await;
    }
    let proof = outcome.map(|()| Proof { kind: ProofKind::Readback, at: engine.clock.now() });
    Ok((object, proof))
}

async fn read(
    engine: &Engine,
    id: &ImageId,
    part: &StorePart,
    (object, size, digest): (&ObjectName, u64, &Digest),
    haste: Haste,
) -> Result<()> {
    if sabotage::is(Bug::ProofIsRenewedUnread) {
        return Ok(());
    }
    let line = engine.board.show(id, part.store.name(), Phase::Proving, Some(size));
    let began = Instant::now();
    let expected = Expected { object, size, bytes: Known::Digest(digest) };
    prove::read_back(part, &expected, &line, &engine.paces, haste).await?;
    if haste == Haste::Normal {
        engine.health.read(part.store.name(), size, began.elapsed());
    }
    Ok(())
}

/// The copy is not what it should be, or not there.
fn is_bad(error: &Error) -> bool {
    matches!(error.reason, Reason::ProofMismatch | Reason::ObjectMissing)
}

/// Keeps what came of it: a new proof; or a copy that is to go, and is made anew; or why it could not be read, and when that
/// is tried again.
pub(crate) async fn note(engine: &Engine, id: &ImageId, Verified { store, outcome }: &Verified) {
    let noted = match outcome {
        Ok((object, outcome)) => keep(engine, id, store, object, outcome).await,
        Err(error) if error.reason == Reason::Cancelled => Ok(()),
        Err(error) => Err(Error::new(error.reason, error.chain())),
    };
    if let Err(error) = noted {
        tracing::error!(%store, error = error.chain(), "what reading a copy again has shown is not kept");
    }
}

async fn keep(
    engine: &Engine,
    id: &ImageId,
    store: &StoreName,
    object: &ObjectName,
    outcome: &Result<Proof>,
) -> Result<()> {
    if let Err(error) = outcome {
        if is_bad(error) {
            tracing::error!(%store, error = error.chain(), "a registered copy is bad: it is withdrawn and made anew");
            engine.health.failed(store, error);
        } else {
            tracing::warn!(%store, error = error.chain(), "a registered copy could not be read again");
        }
        engine.breakers.suspect(store, error.reason);
        mimeo_crash::point("bad-copy-found");
    }
    let (now, backoff) = (engine.clock.now(), engine.settings.policy.backoff);
    update(engine, id, store, |replica, changes| match outcome {
        // It is another copy by now, or given up.
        _ if replica.object.as_ref() != Some(object) || replica.state == ReplicaState::Failed => replica,
        Ok(proof) => {
            let failure = replica.failure.filter(|failure| !failure.reason.is_the_stores());
            Replica { proof: Some(*proof), failure, ..replica }
        }
        Err(error) if is_bad(error) => {
            changes.push(Change::Doom(store.clone(), object.clone(), now));
            Replica { proof: None, ..replica.failed(ReplicaState::Failed, error, backoff, now) }
        }
        Err(error) => {
            let state = replica.state;
            replica.failed(state, error, backoff, now)
        }
    })
    .await?;
    mimeo_crash::point("copy-verified");
    Ok(())
}

/// What the image's bits are where only its copies tell: what each was when it was found right, unless it was found wrong since.
/// They are to be one.
pub(crate) fn known_digests(engine: &Engine, record: &Record) -> Vec<Digest> {
    use ReplicaState as R;
    let doubted = engine.doubts.of(&record.image.id);
    let was_right = |replica: &&Replica| {
        let stands = matches!(replica.state, R::Proven | R::Registered | R::Suspect | R::Retiring);
        stands && replica.is_proven() && !doubted.contains(&replica.store)
    };
    record.replicas.values().filter(was_right).filter_map(|replica| replica.digest.clone()).collect()
}

/// Has all copies of the image read again; what has failed waits for its time.
pub(crate) async fn ask(engine: &Engine, id: &ImageId) {
    let now = engine.clock.now();
    let mark = DirtyMark { image: id.clone(), due: now };
    if let Err(error) = engine.ledger.commit(&[Change::VerifyAsked(id.clone(), now), Change::Dirty(mark)]).await {
        tracing::error!(error = error.chain(), "the ledger did not take that the copies are to be read again");
    }
}
