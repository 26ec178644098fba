use std::{path::Path, sync::Arc, time::Duration};

use mimeo_core::{Error, Reason, Result};
use russh::{
    client::{self, Handle},
    keys::{
        HashAlg, PrivateKey, PrivateKeyWithHashAlg,
        agent::{AgentIdentity, client::AgentClient},
        load_secret_key,
    },
};
use russh_sftp::{
    client::{Config, RawSftpSession, error::Error as SftpError},
    extensions::Statvfs,
    protocol::{FileAttributes, OpenFlags, Packet, Status, StatusCode},
};
use secrecy::ExposeSecret;
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};

use super::{
    SftpStoreConfig,
    host_key::{Failure, HostKeys},
};
use crate::http::CONNECT_TIMEOUT;

/// A server that is gone is noticed after three of them. How long one that is there may take is the engine's to decide.
const KEEPALIVE: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_hours(24);

/// What every server takes in one request.
const LEAST_REQUEST: u32 = 32 << 10;

/// A disk with less room than this is full.
const FULL: u64 = 1 << 20;

const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// One SSH connection with an SFTP session. Dropping it breaks it off.
pub(super) struct Connection {
    config: Arc<SftpStoreConfig>,
    pub(super) sftp: RawSftpSession,
    _session: Handle<HostKeys>,
    /// Bytes that the server takes, or gives, in one request.
    pub(super) request: u32,
    syncs: bool,
    renames_over: bool,
}

impl Connection {
    /// `most` bytes are asked for, or sent, in one request.
    pub(super) async fn new(config: Arc<SftpStoreConfig>, most: u32) -> Result<Self> {
        let slow = |_| {
            let message = format!("{}: {} had no answer in time", config.name, config.address());
            Error::new(Reason::StoreUnreachable, message)
        };
        let connecting = TcpStream::connect((config.host.as_str(), config.port));
        let tcp = timeout(CONNECT_TIMEOUT, connecting).await.map_err(slow)?;
        let tcp = tcp.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp)).map_err(|cause| {
            let message = format!("{}: no connection to {}", config.name, config.address());
            Error::new(Reason::StoreUnreachable, message).caused_by(cause)
        })?;
        timeout(CONNECT_TIMEOUT, Self::over(config.clone(), tcp, most)).await.map_err(slow)?
    }

    async fn over(config: Arc<SftpStoreConfig>, tcp: TcpStream, most: u32) -> Result<Self> {
        let host_keys = HostKeys::read(&config).await?;
        let ssh = client::Config {
            preferred: host_keys.preferred(),
            keepalive_interval: Some(KEEPALIVE),
            ..Default::default()
        };
        let failed = |cause: Failure| cause.into_error(&config);
        let mut session = client::connect_stream(Arc::new(ssh), tcp, host_keys).await.map_err(failed)?;
        log_in(&config, &mut session).await?;
        let channel = session.channel_open_session().await.map_err(|cause| failed(cause.into()))?;
        channel.request_subsystem(true, "sftp").await.map_err(|cause| failed(cause.into()))?;
        let limits = Config { request_timeout_secs: REQUEST_TIMEOUT.as_secs(), ..Config::default() };
        let sftp = RawSftpSession::new_with_config(channel.into_stream(), limits);
        let no_sftp = |cause| {
            let message = format!(
                "{}: {} speaks no SFTP (\"Subsystem sftp internal-sftp\" in sshd_config)",
                config.name,
                config.address()
            );
            Error::new(Reason::StoreError, message).caused_by(cause)
        };
        let extensions = sftp.init().await.map_err(no_sftp)?.extensions;
        let has = |name| extensions.contains_key(name);
        let taken = match has("limits@openssh.com") {
            true => sftp.limits().await.map_err(no_sftp)?.max_write_len,
            false => 0,
        };
        let request = most.min(u32::try_from(taken).unwrap_or(u32::MAX).max(LEAST_REQUEST));
        let (syncs, renames_over) = (has("fsync@openssh.com"), has(POSIX_RENAME));
        Ok(Self { config, sftp, _session: session, request, syncs, renames_over })
    }

    pub(super) async fn open(&self, path: &str, flags: OpenFlags) -> Result<String> {
        let opened = self.sftp.open(path, flags, FileAttributes::default()).await;
        match opened {
            Ok(handle) => Ok(handle.handle),
            Err(cause) => Err(self.failed("open", path, cause).await),
        }
    }

    /// `None`: there is no such file.
    pub(super) async fn size(&self, path: &str) -> Result<Option<u64>> {
        match self.sftp.stat(path).await {
            Ok(stat) => Ok(stat.attrs.size),
            Err(SftpError::Status(Status { status_code: StatusCode::NoSuchFile, .. })) => Ok(None),
            Err(cause) => Err(self.failed("stat", path, cause).await),
        }
    }

    /// Cuts the open file off at this size, or fills it up with zeros.
    pub(super) async fn resize(&self, handle: &str, path: &str, size: u64) -> Result<()> {
        let attributes = FileAttributes { size: Some(size), ..FileAttributes::default() };
        match self.sftp.fsetstat(handle, attributes).await {
            Ok(_) => Ok(()),
            Err(cause) => Err(self.failed("resize", path, cause).await),
        }
    }

    /// Closes what was written, and gives its size. Where the server can, it is on its disk then.
    pub(super) async fn finish(&self, handle: String, path: &str) -> Result<Option<u64>> {
        let finished = async {
            if self.syncs {
                self.sftp.fsync(handle.as_str()).await?;
            }
            let size = self.sftp.fstat(handle.as_str()).await?.attrs.size;
            self.sftp.close(handle).await.map(|_| size)
        };
        match finished.await {
            Ok(size) => Ok(size),
            Err(cause) => Err(self.failed("close", path, cause).await),
        }
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let renamed = match self.renames_over {
            true => {
                let names = [from, to]
                    .map(|name| [&u32::try_from(name.len()).unwrap_or(0).to_be_bytes(), name.as_bytes()].concat());
                match self.sftp.extended(POSIX_RENAME, names.concat()).await {
                    Ok(Packet::Status(Status { status_code: StatusCode::Ok, .. })) => Ok(()),
                    Ok(Packet::Status(status)) => Err(SftpError::Status(status)),
                    Ok(_) => Err(SftpError::UnexpectedPacket),
                    Err(cause) => Err(cause),
                }
            }
            false => self.sftp.rename(from, to).await.map(drop),
        };
        match renamed {
            Ok(()) => Ok(()),
            Err(cause) => Err(self.failed("rename", from, cause).await),
        }
    }

    /// That the directory is there: where it is away a file that is not there tells nothing.
    pub(super) async fn has_directory(&self) -> Result<()> {
        let path = directory(&self.config.path);
        match self.sftp.stat(path).await {
            Ok(_) => Ok(()),
            Err(cause) => Err(self.failed("stat", path, cause).await),
        }
    }

    /// The names of the files in the directory.
    pub(super) async fn list(&self) -> Result<Vec<String>> {
        let path = directory(&self.config.path);
        let listed = async {
            let (handle, mut names) = (self.sftp.opendir(path).await?.handle, Vec::new());
            loop {
                match self.sftp.readdir(handle.as_str()).await {
                    Ok(page) => names.extend(page.files.into_iter().map(|file| file.filename)),
                    Err(SftpError::Status(Status { status_code: StatusCode::Eof, .. })) => break,
                    Err(cause) => return Err(cause),
                }
            }
            self.sftp.close(handle).await.map(|_| names)
        };
        match listed.await {
            Ok(names) => Ok(names),
            Err(cause) => Err(self.failed("list", path, cause).await),
        }
    }

    /// Whether it was there; a file that was not is no error.
    pub(super) async fn remove(&self, path: &str) -> Result<bool> {
        match self.sftp.remove(path).await {
            Ok(_) => Ok(true),
            Err(SftpError::Status(Status { status_code: StatusCode::NoSuchFile, .. })) => Ok(false),
            Err(cause) => Err(self.failed("remove", path, cause).await),
        }
    }

    /// What a request that was not done means. A full disk is told as a failure like any other, so it is asked for.
    pub(super) async fn failed(&self, what: &str, path: &str, cause: SftpError) -> Error {
        let SftpError::Status(status) = &cause else {
            let message =
                format!("{}: {what} {path} at {}: the connection broke", self.config.name, self.config.address());
            return Error::new(Reason::StoreError, message).caused_by(cause);
        };
        let (reason, cure) = match status.status_code {
            StatusCode::NoSuchFile => (
                Reason::StoreError,
                "the directory is not there; make or mount it, or correct the store's path".to_owned(),
            ),
            StatusCode::PermissionDenied => {
                (Reason::StoreRefused, format!("let {} write in the directory", self.config.user))
            }
            StatusCode::Failure if self.is_full().await => {
                (Reason::StoreFull, "it has no room left; make room".to_owned())
            }
            StatusCode::Failure => (
                Reason::StoreError,
                "is the quota used up, the disk full, or read-only? The server tells no more".to_owned(),
            ),
            code => (Reason::StoreError, code.to_string()),
        };
        let said = Some(status.error_message.as_str()).filter(|said| !said.is_empty()).unwrap_or("no");
        let message = format!("{}: {what} {path} at {}: \"{said}\": {cure}", self.config.name, self.config.address());
        Error::new(reason, message)
    }

    async fn is_full(&self) -> bool {
        let asked = self.disk().await;
        asked.is_some_and(|disk| free(&disk) < FULL || (disk.inodes > 0 && disk.inodes_avail == 0))
    }

    /// How many more bytes fit, where the server tells.
    pub(super) async fn room(&self) -> Option<u64> {
        self.disk().await.filter(|disk| disk.blocks > 0).map(|disk| free(&disk))
    }

    /// `None` where the server has no such extension, or does not look at the directory.
    async fn disk(&self) -> Option<Statvfs> {
        self.sftp.statvfs(directory(&self.config.path)).await.ok()
    }
}

fn free(disk: &Statvfs) -> u64 {
    disk.blocks_avail.saturating_mul(disk.fragment_size)
}

/// What the server understands: an empty path would be its own affair.
fn directory(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

async fn log_in(config: &SftpStoreConfig, session: &mut Handle<HostKeys>) -> Result<()> {
    let broke = |cause: russh::Error| Failure::from(cause).into_error(config);
    let mut tried = Vec::new();
    if let Some(file) = &config.key_file {
        let key = Arc::new(private_key(config, file).await?);
        let hash = rsa_hash(session, key.algorithm().is_rsa()).await.map_err(broke)?;
        let key = PrivateKeyWithHashAlg::new(key, hash);
        if session.authenticate_publickey(&config.user, key).await.map_err(broke)?.success() {
            return Ok(());
        }
        tried.push(format!("the key in {}", file.display()));
    }
    if config.agent {
        if by_agent(config, session).await? {
            return Ok(());
        }
        tried.push("any key of the agent".to_owned());
    }
    if let Some(password) = &config.password {
        let answer = session.authenticate_password(&config.user, password.expose_secret()).await;
        if answer.map_err(broke)?.success() {
            return Ok(());
        }
        tried.push("the password".to_owned());
    }
    let (store, address, tried) = (&config.name, config.address(), tried.join(" nor "));
    let cure = "add the key to the user's authorized_keys there, or correct user and password";
    Err(Error::new(Reason::StoreRefused, format!("{store}: {address} does not take {tried}; {cure}")))
}

async fn private_key(config: &SftpStoreConfig, file: &Path) -> Result<PrivateKey> {
    let (path, passphrase) = (file.to_owned(), config.key_passphrase.clone());
    let read = move || load_secret_key(path, passphrase.as_ref().map(ExposeSecret::expose_secret));
    let unreadable = |cause: String| {
        let message = format!(
            "{}: the key in {} cannot be read ({cause}); correct key_file or key_passphrase, and let Mimeo read the file",
            config.name,
            file.display()
        );
        Error::new(Reason::StoreRefused, message)
    };
    match spawn_blocking(read).await {
        Ok(key) => key.map_err(|cause| unreadable(cause.to_string())),
        Err(cause) => Err(unreadable(cause.to_string())),
    }
}

/// Whether one of the agent's keys was taken.
async fn by_agent(config: &SftpStoreConfig, session: &mut Handle<HostKeys>) -> Result<bool> {
    let failed = |cause: russh::keys::Error| {
        let message = format!("{}: no answer from the SSH agent; start it, and let SSH_AUTH_SOCK name it", config.name);
        Error::new(Reason::StoreRefused, message).caused_by(cause)
    };
    let mut agent = AgentClient::connect_env().await.map_err(failed)?;
    for identity in agent.request_identities().await.map_err(failed)? {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        let hash = rsa_hash(session, key.algorithm().is_rsa()).await;
        let hash = hash.map_err(|cause| Failure::from(cause).into_error(config))?;
        let answer = session.authenticate_publickey_with(&config.user, key, hash, &mut agent).await;
        // A key that the agent does not sign with is passed over.
        if answer.is_ok_and(|answer| answer.success()) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn rsa_hash(session: &Handle<HostKeys>, is_rsa: bool) -> std::result::Result<Option<HashAlg>, russh::Error> {
    match is_rsa {
        true => Ok(session.best_supported_rsa_hash().await?.unwrap_or(Some(HashAlg::Sha256))),
        false => Ok(None),
    }
}
