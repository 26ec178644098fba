//! A copy within the cluster, which Ceph makes: a clone, which its manager then parts from what it was cloned from. So
//! the bits go from OSD to OSD by way of the manager. (`rbd_deep_copy` reads and writes them all through its caller.)

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mimeo_core::{
    Error, ObjectName, Reason, Result,
    ports::{Offer, Receipt},
};
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};

use super::{
    ceph::Ceph,
    ffi::Pool,
    store::{SNAPSHOT, found},
};

/// How often the manager is asked how far it is.
const BEAT: Duration = Duration::from_millis(500);

/// How long copies are not given to a manager that refused one.
const REFUSED: Duration = Duration::from_hours(1);

/// What a store's copies within the cluster share.
pub(super) struct Taking {
    /// The manager makes one after the other.
    turn: Semaphore,
    /// Grows as long as anything moves.
    moves: AtomicU64,
    refused: Mutex<Option<Instant>>,
}

impl Default for Taking {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), moves: AtomicU64::new(0), refused: Mutex::default() }
    }
}

impl Taking {
    pub(super) fn is_able(&self) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|at| at.elapsed() > REFUSED)
    }

    /// Makes the object from the one that another pool has.
    pub(super) async fn take(
        &self,
        ceph: &Ceph,
        object: &ObjectName,
        (pool, offer): (&str, &Offer),
        sent: &AtomicU64,
    ) -> Result<Receipt> {
        let _turn = self.turn(sent).await;
        let spec = format!("{}/{object}", ceph.config.pool);
        self.clone(ceph, object, pool, offer).await?;
        let mut job = self.begin(ceph, &spec).await?;
        while let Some(done) = job.progress().await? {
            // A share of the object, between 0 and 1.
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let bytes = (offer.size as f64 * done) as u64;
            if sent.swap(bytes, Ordering::Relaxed) != bytes {
                self.moves.fetch_add(1, Ordering::Relaxed);
            }
            sleep(BEAT).await;
        }
        publish(ceph, &spec, object).await
    }

    /// Waits for the others, of which each step is a sign of life for this one too.
    async fn turn(&self, sent: &AtomicU64) -> Option<SemaphorePermit<'_>> {
        loop {
            if let Ok(turn) = timeout(BEAT, self.turn.acquire()).await {
                return turn.ok();
            }
            sent.store(self.moves.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    async fn clone(&self, ceph: &Ceph, object: &ObjectName, pool: &str, offer: &Offer) -> Result<()> {
        let (name, from, order) = (object.to_string(), offer.object.to_string(), ceph.config.order.cast_signed());
        let what = format!("cloning {pool}/{from}");
        let pool = pool.to_owned();
        let cloned = ceph.ask(&what, move |own| own.clone_image((&pool, &from, SNAPSHOT), &name, order)).await;
        cloned.map_err(|error| match error.reason {
            Reason::StoreRefused => self.refused(ceph, &error),
            _ => error,
        })
    }

    async fn begin(&self, ceph: &Ceph, spec: &str) -> Result<Job> {
        let command = json!({"prefix": "rbd task add flatten", "image_spec": spec}).to_string();
        let begun = ceph.ask(&format!("giving {spec} to the manager"), move |pool| pool.ask_manager(&command)).await;
        let begun = begun.map_err(|error| self.refused(ceph, &error))?;
        let told: Value = serde_json::from_slice(&begun).unwrap_or_default();
        let Some(id) = told["id"].as_str() else {
            let message = format!("{}: the manager named no task for {spec}: {told}", ceph.config.name);
            return Err(self.refused(ceph, &Error::new(Reason::StoreError, message)));
        };
        Ok(Job { ceph: ceph.clone(), spec: spec.to_owned(), id: id.to_owned(), is_over: false })
    }

    /// The next try copies the bits, and so do those of other images for a while: none waits for a person.
    fn refused(&self, ceph: &Ceph, cause: &Error) -> Error {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let (store, pool, user) = (&ceph.config.name, &ceph.config.pool, &ceph.config.user);
        let message = format!(
            "{store}: Ceph does not copy within the cluster, so Mimeo does ({}); for Ceph to do it, client.{user} needs mgr \
             'profile rbd pool={pool}', and osd 'profile rbd-read-only' for the pool that is copied from",
            cause.chain()
        );
        Error::new(Reason::StoreError, message)
    }
}

/// A task of the manager's. Dropped before its end it is taken back.
struct Job {
    ceph: Ceph,
    spec: String,
    id: String,
    is_over: bool,
}

impl Job {
    /// How far it is; `None`: it is over. A manager that does not answer may be another one soon, which goes on with it.
    async fn progress(&mut self) -> Result<Option<f64>> {
        let command = json!({"prefix": "rbd task list", "task_id": self.id}).to_string();
        let asked = move |pool: &Arc<Pool>| found(pool.ask_manager(&command));
        let what = format!("asking the manager for {}", self.spec);
        let told = match self.ceph.ask(&what, asked).await {
            Ok(Some(told)) => serde_json::from_slice::<Value>(&told).unwrap_or_default(),
            Ok(None) => {
                self.is_over = true;
                return Ok(None);
            }
            Err(error) if error.reason == Reason::StoreUnreachable => Value::Null,
            Err(error) => return Err(error),
        };
        if let Some(why) = told["retry_message"].as_str() {
            let message =
                format!("{}: the manager cannot part {} from its parent: {why}", self.ceph.config.name, self.spec);
            return Err(Error::new(Reason::StoreError, message));
        }
        Ok(Some(told["progress"].as_f64().unwrap_or_default()))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let (false, Ok(runtime)) = (self.is_over, Handle::try_current()) else { return };
        let command = json!({"prefix": "rbd task cancel", "task_id": self.id}).to_string();
        let ceph = self.ceph.clone();
        // Nobody waits for it: until it has ended the sweeper cannot remove the image, and tries again.
        drop(
            runtime.spawn(async move { ceph.ask("taking back a task", move |pool| pool.ask_manager(&command)).await }),
        );
    }
}

/// Of what has all its bits itself.
async fn publish(ceph: &Ceph, spec: &str, object: &ObjectName) -> Result<Receipt> {
    let name = object.to_string();
    let publish = move |pool: &Arc<Pool>| {
        let image = pool.open(&name)?;
        if image.overlap()? > 0 {
            return Err(io::Error::other("the manager has given it up"));
        }
        image.snapshot(SNAPSHOT)?;
        image.protect(SNAPSHOT)?;
        let size = image.size()?;
        image.close().map(|()| size)
    };
    let size = ceph.work(&format!("publishing {spec}"), publish).await?;
    Ok(Receipt { size: Some(size) })
}
