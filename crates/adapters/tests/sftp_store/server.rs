//! An SSH server with SFTP 3 and none of its extensions, and the web server that shows its files.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode as HttpStatus},
    response::{IntoResponse, Response},
    routing::get,
};
use russh::{
    Channel, ChannelId,
    keys::{
        PrivateKey,
        ssh_key::private::{Ed25519Keypair, KeypairData},
    },
    server::{Auth, ChannelOpenHandle, Msg, Session},
};
use russh_sftp::{
    protocol::{Attrs, Data, ExtendedReply, File, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode},
    server::Handler,
};
use tokio::{net::TcpListener, task::JoinSet};

pub(crate) const DIRECTORY: &str = "/srv/images";
pub(crate) const PASSWORD: &str = "s3cret";

#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    pub(crate) all: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// What a kind of request is answered with instead.
    pub(crate) faults: Arc<Mutex<HashMap<&'static str, StatusCode>>>,
    /// Whether its disk has no room.
    pub(crate) full: bool,
    /// Whether it answers no write.
    pub(crate) stalls: bool,
    pub(crate) logins: Arc<AtomicUsize>,
    /// What open directories have not told yet, by their handles.
    pub(crate) listings: Arc<Mutex<HashMap<String, Vec<String>>>>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) read_url: String,
    /// As it stands in `known_hosts`.
    pub(crate) key: String,
    pub(crate) tasks: JoinSet<()>,
}

pub(crate) fn host_key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

impl Files {
    pub(crate) fn names(&self) -> Vec<String> {
        self.all.lock().unwrap().keys().map(|path| path.trim_start_matches(DIRECTORY).to_owned()).collect()
    }

    pub(crate) async fn served(&self) -> Server {
        let (ssh, web) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = ssh.local_addr().unwrap();
        let read_url = format!("http://{}/", web.local_addr().unwrap());
        let router = Router::new().route("/{name}", get(show)).with_state(self.clone());
        let key = host_key(1);
        let shown = key.public_key().to_openssh().unwrap();
        let config = russh::server::Config {
            keys: vec![key],
            auth_rejection_time: std::time::Duration::ZERO,
            ..Default::default()
        };
        let (config, files) = (Arc::new(config), self.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(web, router).await.unwrap() });
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((mut stream, _)) = ssh.accept().await {
                stream.set_nodelay(true).unwrap();
                let (config, client) =
                    (config.clone(), Client { files: files.clone(), channel: None, tasks: JoinSet::new() });
                clients.spawn(async move {
                    // So that the connection ends with this task: the session is a task of its own.
                    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
                    let session = russh::server::run_stream(config, theirs, client);
                    let _ = tokio::join!(session, tokio::io::copy_bidirectional(&mut stream, &mut ours));
                });
            }
        });
        Server { key: format!("[127.0.0.1]:{} {shown}", address.port()), address, read_url, tasks }
    }

    fn fault(&self, what: &'static str) -> Result<(), StatusCode> {
        self.faults.lock().unwrap().get(what).map_or(Ok(()), |status| Err(*status))
    }

    fn with<T>(&self, path: &str, change: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T, StatusCode> {
        self.all.lock().unwrap().get_mut(path).map(change).ok_or(StatusCode::NoSuchFile)
    }
}

async fn show(Path(name): Path<String>, State(files): State<Files>, headers: HeaderMap) -> Response {
    let Ok(bits) = files.with(&format!("{DIRECTORY}/{name}"), |bits| bits.clone()) else {
        return HttpStatus::NOT_FOUND.into_response();
    };
    let range = headers.get("range").map(|range| range.to_str().unwrap());
    let from: usize = range.map_or(0, |range| range.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap());
    match range {
        Some(_) if from >= bits.len() => HttpStatus::RANGE_NOT_SATISFIABLE.into_response(),
        Some(_) => {
            let range = format!("bytes {from}-{}/{}", bits.len() - 1, bits.len());
            (HttpStatus::PARTIAL_CONTENT, [("content-range", range)], bits[from..].to_vec()).into_response()
        }
        None => bits.into_response(),
    }
}

struct Client {
    files: Files,
    channel: Option<Channel<Msg>>,
    tasks: JoinSet<()>,
}

impl russh::server::Handler for Client {
    type Error = russh::Error;

    async fn auth_password(&mut self, _user: &str, password: &str) -> Result<Auth, russh::Error> {
        self.files.logins.fetch_add(1, Ordering::Relaxed);
        Ok(if password == PASSWORD { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(id)?;
        let (stream, files) = (self.channel.take().unwrap().into_stream(), self.files.clone());
        self.tasks.spawn(async move {
            russh_sftp::server::run(stream, Sftp(files)).await;
            std::future::pending::<()>().await;
        });
        Ok(())
    }
}

/// A handle is the file's path.
struct Sftp(Files);

fn ok(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: String::new(), language_tag: String::new() }
}

fn size_of(id: u32, size: usize) -> Attrs {
    Attrs { id, attrs: FileAttributes { size: Some(size as u64), ..FileAttributes::default() } }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl Handler for Sftp {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn open(&mut self, id: u32, path: String, flags: OpenFlags, _: FileAttributes) -> Result<Handle, StatusCode> {
        self.0.fault("open")?;
        if flags.contains(OpenFlags::CREATE) {
            self.0.all.lock().unwrap().entry(path.clone()).or_default();
        }
        self.0.with(&path, |bits| {
            if flags.contains(OpenFlags::TRUNCATE) {
                bits.clear();
            }
        })?;
        Ok(Handle { id, handle: path })
    }

    async fn close(&mut self, id: u32, _: String) -> Result<Status, StatusCode> {
        self.0.fault("close").map(|()| ok(id))
    }

    async fn read(&mut self, id: u32, path: String, offset: u64, length: u32) -> Result<Data, StatusCode> {
        // Less than was asked for, as a server may.
        let most = (length as usize).min(1000);
        let read = |bits: &mut Vec<u8>| bits.get(place(offset)..).map(|bits| bits[..bits.len().min(most)].to_vec());
        match self.0.with(&path, read)? {
            Some(data) if !data.is_empty() => Ok(Data { id, data }),
            _ => Err(StatusCode::Eof),
        }
    }

    async fn write(&mut self, id: u32, path: String, offset: u64, data: Vec<u8>) -> Result<Status, StatusCode> {
        self.0.fault("write")?;
        if self.0.stalls {
            std::future::pending::<()>().await;
        }
        self.0.with(&path, |bits| {
            let end = place(offset) + data.len();
            bits.resize(bits.len().max(end), 0);
            bits[place(offset)..end].copy_from_slice(&data);
        })?;
        Ok(ok(id))
    }

    async fn fstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        self.stat(id, path).await
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        if path == DIRECTORY {
            return self.0.fault("directory").map(|()| size_of(id, 0));
        }
        self.0.with(&path, |bits| size_of(id, bits.len()))
    }

    async fn fsetstat(&mut self, id: u32, path: String, attributes: FileAttributes) -> Result<Status, StatusCode> {
        self.0.with(&path, |bits| bits.resize(place(attributes.size.unwrap()), 0))?;
        Ok(ok(id))
    }

    async fn remove(&mut self, id: u32, path: String) -> Result<Status, StatusCode> {
        self.0.fault("remove")?;
        self.0.all.lock().unwrap().remove(&path).map(|_| ok(id)).ok_or(StatusCode::NoSuchFile)
    }

    async fn rename(&mut self, id: u32, from: String, to: String) -> Result<Status, StatusCode> {
        self.0.fault("rename")?;
        let mut all = self.0.all.lock().unwrap();
        if all.contains_key(&to) {
            return Err(StatusCode::Failure);
        }
        let bits = all.remove(&from).ok_or(StatusCode::NoSuchFile)?;
        all.insert(to, bits);
        Ok(ok(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusCode> {
        self.0.fault("list")?;
        let handle = format!("{path}#{id}");
        let names = self.0.names().into_iter().map(|name| name.trim_start_matches('/').to_owned());
        self.0.listings.lock().unwrap().insert(handle.clone(), names.chain([".".into(), "..".into()]).collect());
        Ok(Handle { id, handle })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, StatusCode> {
        let mut listings = self.0.listings.lock().unwrap();
        let names = listings.get_mut(&handle).ok_or(StatusCode::Failure)?;
        let page = names.split_off(names.len().saturating_sub(3));
        if page.is_empty() {
            return Err(StatusCode::Eof);
        }
        Ok(Name { id, files: page.into_iter().map(File::dummy).collect() })
    }

    async fn extended(&mut self, id: u32, request: String, _: Vec<u8>) -> Result<Packet, StatusCode> {
        match request.as_str() {
            "statvfs@openssh.com" if self.0.full => {
                let numbers = [4096_u64, 4096, 1000, 0, 0, 1000, 1000, 1000, 1, 0, 255];
                Ok(ExtendedReply { id, data: numbers.map(u64::to_be_bytes).concat() }.into())
            }
            _ => Err(StatusCode::OpUnsupported),
        }
    }
}
