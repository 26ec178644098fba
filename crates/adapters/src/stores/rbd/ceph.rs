//! The store's connection to its pool: made at the first use, and anew after it was lost. Blocking calls have threads
//! of their own; what Ceph answers becomes an error with a reason.

use std::{future::Future, io, sync::Arc, time::Duration};

use mimeo_core::{Error, Reason, Result};
use tokio::{runtime::Handle, sync::Mutex, task::spawn_blocking, time::timeout};

use super::{
    RbdStoreConfig,
    ffi::{Answer, Cluster, Pool, api},
};
use crate::http::CONNECT_TIMEOUT;

/// How long a request to an OSD may go unanswered. Longer than Ceph itself takes to give an OSD up.
const OSD_TIMEOUT: Duration = Duration::from_secs(30);

/// `ESHUTDOWN`: the cluster has shut this client out.
const SHUT_OUT: i32 = 108;

/// Clones share the connection.
#[derive(Clone)]
pub(super) struct Ceph {
    pub(super) config: Arc<RbdStoreConfig>,
    pool: Arc<Mutex<Option<Arc<Pool>>>>,
}

impl Ceph {
    pub(super) fn new(config: RbdStoreConfig) -> Self {
        Self { config: Arc::new(config), pool: Arc::default() }
    }

    /// Does blocking work with the pool; `what` as in `opening images/NAME`.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Arc<Pool>) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let pool = self.pool().await?;
        blocking(move || work(&pool)).await.map_err(|cause| self.failed(what, cause))
    }

    /// As [`work`](Self::work), for a few short questions: a cluster that takes longer over them is not there.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Arc<Pool>) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.in_time(what, self.work(what, work)).await?
    }

    pub(super) async fn in_time<T>(&self, what: &str, answer: impl Future<Output = T>) -> Result<T> {
        timeout(CONNECT_TIMEOUT, answer).await.map_err(|_| {
            self.forget();
            let store = &self.config.name;
            let message = format!("{store}: {what}: no answer within {CONNECT_TIMEOUT:?}; see `ceph status`");
            Error::new(Reason::StoreUnreachable, message)
        })
    }

    /// The pool, connected.
    async fn pool(&self) -> Result<Arc<Pool>> {
        let config = Arc::clone(&self.config);
        self.in_time("connecting", async {
            let mut pool = self.pool.lock().await;
            if let Some(pool) = &*pool {
                return Ok(Arc::clone(pool));
            }
            let runtime = Handle::current();
            let connected = spawn_blocking(move || connect(&config, runtime)).await;
            let connected = connected.map_err(|cause| self.failed("connecting", io::Error::other(cause)))??;
            Ok(Arc::clone(pool.insert(connected)))
        })
        .await?
    }

    /// The next use connects anew, and tells soon if it cannot. What goes on over the old connection may.
    pub(super) fn forget(&self) {
        if let Ok(mut pool) = self.pool.try_lock() {
            *pool = None;
        }
    }

    pub(super) fn failed(&self, what: &str, cause: io::Error) -> Error {
        if cause.kind() == io::ErrorKind::TimedOut || cause.raw_os_error() == Some(SHUT_OUT) {
            self.forget();
        }
        failed(&self.config, what, cause)
    }
}

/// Runs on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Waits for a request; dropping it loses nothing but the answer.
pub(super) async fn answered(answer: &mut Answer) -> io::Result<bytes::Bytes> {
    answer.await.map_err(io::Error::other)?
}

fn connect(config: &RbdStoreConfig, runtime: Handle) -> Result<Arc<Pool>> {
    let RbdStoreConfig { name: store, pool, user, conf_file, .. } = config;
    let api = api().map_err(|cause| {
        let message = format!("{store}: librbd.so.1 cannot be loaded: install librbd1 and librados2");
        Error::new(Reason::StoreError, message).caused_by(cause)
    })?;
    let cluster = Cluster::new(api, user).map_err(|cause| failed(config, "connecting", cause))?;
    cluster.read_conf(&conf_file.to_string_lossy()).map_err(|cause| {
        let message = format!("{store}: {} cannot be read: correct conf_file", conf_file.display());
        Error::new(Reason::StoreError, message).caused_by(cause)
    })?;
    settings(config, &cluster).map_err(|cause| failed(config, "configuring Ceph's client", cause))?;
    cluster.connect().map_err(|cause| unconnected(config, cause))?;
    let fsid = cluster.fsid().map_err(|cause| failed(config, "asking for the cluster's fsid", cause))?;
    if fsid != config.fsid {
        let file = conf_file.display();
        let message = format!(
            "{store}: {file} leads to the cluster {fsid}, but the store's locations name {}: correct conf_file or fsid",
            config.fsid
        );
        return Err(Error::new(Reason::StoreError, message));
    }
    let opened = cluster.pool(pool, runtime).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => {
            let cure = format!("`ceph osd pool create {pool}` and `rbd pool init {pool}`, or correct pool");
            Error::new(Reason::StoreError, format!("{store}: the cluster has no pool {pool}: {cure}")).caused_by(cause)
        }
        _ => failed(config, &format!("opening the pool {pool}"), cause),
    })?;
    Ok(Arc::new(opened))
}

/// What must hold whatever the configuration file says.
fn settings(config: &RbdStoreConfig, cluster: &Cluster) -> io::Result<()> {
    let seconds = |time: Duration| time.as_secs().to_string();
    cluster.set("client_mount_timeout", &seconds(CONNECT_TIMEOUT))?;
    cluster.set("rados_mon_op_timeout", &seconds(CONNECT_TIMEOUT))?;
    cluster.set("rados_osd_op_timeout", &seconds(OSD_TIMEOUT))?;
    // A cache would only hold more memory: nothing is read or written twice.
    cluster.set("rbd_cache", "false")?;
    // Else starting a request may block the thread that does.
    cluster.set("rbd_non_blocking_aio", "true")?;
    match &config.keyring {
        Some(keyring) => cluster.set("keyring", &keyring.to_string_lossy()),
        None => Ok(()),
    }
}

fn unconnected(config: &RbdStoreConfig, cause: io::Error) -> Error {
    let RbdStoreConfig { name: store, user, conf_file, .. } = config;
    let (reason, why) = match cause.kind() {
        io::ErrorKind::NotFound => (
            Reason::StoreRefused,
            format!("no key of client.{user} was found: write its file in keyring, readable for mimeo"),
        ),
        io::ErrorKind::PermissionDenied => (
            Reason::StoreRefused,
            format!(
                "the cluster refused client.{user}: compare the key in its keyring with `ceph auth get client.{user}`, and \
                 allow it the pool: {}",
                caps(config)
            ),
        ),
        _ => (
            Reason::StoreUnreachable,
            format!("no monitor of {} let Mimeo in within {CONNECT_TIMEOUT:?}", conf_file.display()),
        ),
    };
    Error::new(reason, format!("{store}: {why}")).caused_by(cause)
}

/// `what` as in `opening images/NAME`.
fn failed(config: &RbdStoreConfig, what: &str, cause: io::Error) -> Error {
    use io::ErrorKind::{NotConnected, PermissionDenied, QuotaExceeded, StorageFull, TimedOut};
    let (reason, cure) = match cause.kind() {
        PermissionDenied => (Reason::StoreRefused, format!(": {}", caps(config))),
        StorageFull => (Reason::StoreFull, ": the cluster has no room left; see `ceph df`".into()),
        QuotaExceeded => {
            let quota = format!(": the pool's quota is used up; see `ceph osd pool get-quota {}`", config.pool);
            (Reason::StoreFull, quota)
        }
        TimedOut | NotConnected => (Reason::StoreUnreachable, ": no answer in time; see `ceph status`".into()),
        _ if cause.raw_os_error() == Some(SHUT_OUT) => {
            (Reason::StoreUnreachable, ": the cluster has shut Mimeo out; see `ceph osd blocklist ls`".into())
        }
        _ => (Reason::StoreError, String::new()),
    };
    Error::new(reason, format!("{}: {what} failed{cure}", config.name)).caused_by(cause)
}

fn caps(config: &RbdStoreConfig) -> String {
    let RbdStoreConfig { user, pool, .. } = config;
    format!("`ceph auth caps client.{user} mon 'profile rbd' osd 'profile rbd pool={pool}'`")
}
