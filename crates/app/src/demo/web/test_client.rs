//! HTTP by hand over a socket: enough to ask the embedded servers, and to break off in the middle of a request.

use std::{net::SocketAddr, path::PathBuf};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A listener on a free port of the loopback interface.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// One request on a connection of its own. `headers` are whole lines, each ended by `\r\n`.
pub(crate) async fn ask(server: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut socket = begin(server, method, path, headers, body.len()).await;
    socket.write_all(body).await.unwrap();
    answer(socket, method == "HEAD").await
}

/// The head of a request that announces `length` bytes; the body is left to the caller.
pub(crate) async fn begin(server: SocketAddr, method: &str, path: &str, headers: &str, length: usize) -> TcpStream {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    let mut socket = TcpStream::connect(server).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

/// Reads the answer to the end of the connection.
pub(crate) async fn answer(mut socket: TcpStream, head_only: bool) -> Answer {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an HTTP head");
    let headers = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let answer = Answer { status: headers[9..12].parse().unwrap(), headers, body: bytes[end + 4..].to_vec() };
    if let (Some(length), false) = (answer.header("content-length"), head_only) {
        assert_eq!(length, answer.body.len().to_string(), "Content-Length is the truth");
    }
    answer
}

/// A new directory that goes away with the value.
pub(crate) struct Directory(pub PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("mimeo-demo-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until `done` says so; a test that never gets there fails after a few seconds.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if done().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}
