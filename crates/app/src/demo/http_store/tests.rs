//! The store as a client sees it, over real sockets.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    super::web::test_client::{self, Answer, Directory, until},
    serve,
};

struct Running {
    address: SocketAddr,
    directory: Directory,
    _server: JoinSet<anyhow::Result<()>>,
}

impl Running {
    async fn start() -> Self {
        let (listener, address) = test_client::listen().await;
        let directory = Directory::new();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, directory.0.clone(), CancellationToken::new()));
        Self { address, directory, _server: server }
    }

    async fn ask(&self, method: &str, name: &str, headers: &str, body: &[u8]) -> Answer {
        test_client::ask(self.address, method, &format!("/{name}"), headers, body).await
    }
}

#[tokio::test]
async fn an_object_is_written_read_replaced_and_deleted() {
    let store = Running::start().await;
    assert_eq!(store.ask("PUT", "a.1", "", b"first").await.status, 201);
    assert_eq!(store.ask("PUT", "a.1", "", b"second").await.status, 204);

    let head = store.ask("HEAD", "a.1", "", b"").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("6")));
    assert!(head.body.is_empty());
    assert_eq!(store.ask("GET", "a.1", "", b"").await.body, b"second");

    assert_eq!(store.ask("DELETE", "a.1", "", b"").await.status, 204);
    assert_eq!(store.ask("DELETE", "a.1", "", b"").await.status, 404);
    assert_eq!(store.ask("GET", "a.1", "", b"").await.status, 404);
    assert_eq!(store.ask("HEAD", "a.1", "", b"").await.status, 404);
}

#[tokio::test]
async fn a_range_is_answered_with_that_part() {
    let store = Running::start().await;
    store.ask("PUT", "a", "", b"0123456789").await;

    let part = store.ask("GET", "a", "Range: bytes=2-4\r\n", b"").await;
    assert_eq!((part.status, part.body.as_slice()), (206, b"234".as_slice()));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));

    let behind = store.ask("GET", "a", "Range: bytes=10-\r\n", b"").await;
    assert_eq!(behind.status, 416);
    assert_eq!(behind.header("content-range"), Some("bytes */10"));

    let head = store.ask("HEAD", "a", "Range: bytes=2-4\r\n", b"").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let store = Running::start().await;
    store.ask("PUT", "kept", "", b"old").await;

    let mut socket = test_client::begin(store.address, "PUT", "/kept", "", 1000).await;
    socket.write_all(b"only this much").await.unwrap();
    until("the upload lies aside", async || store.directory.names().len() == 2).await;
    assert_eq!(store.ask("GET", "kept", "", b"").await.body, b"old");
    drop(socket);

    until("the rest is swept", async || store.directory.names() == ["kept"]).await;
    assert_eq!(store.ask("GET", "kept", "", b"").await.body, b"old");
}

#[tokio::test]
async fn an_upload_of_unknown_length_is_published_when_its_last_chunk_came() {
    let store = Running::start().await;
    let mut socket = tokio::net::TcpStream::connect(store.address).await.unwrap();
    socket.write_all(b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
    until("the upload lies aside", async || store.directory.names().len() == 1).await;
    assert_eq!(store.ask("HEAD", "c", "", b"").await.status, 404);
    socket.write_all(b"0\r\n\r\n").await.unwrap();
    until("it is published", async || store.directory.names() == ["c"]).await;
}

#[tokio::test]
async fn names_are_one_plain_component_and_other_methods_are_refused() {
    let store = Running::start().await;
    for name in ["..", ".hidden", "a%2Fb", "a%00", "%2e%2e", "a%20b", &"x".repeat(201)] {
        assert_eq!(store.ask("PUT", name, "", b"x").await.status, 400, "{name}");
    }
    assert_eq!(store.ask("PUT", "a/b", "", b"x").await.status, 404);
    assert_eq!(store.ask("POST", "a", "", b"x").await.status, 405);
    assert_eq!(store.ask("MKCOL", "a", "", b"").await.status, 405);
    assert!(store.directory.names().is_empty());
}

#[tokio::test]
async fn it_ends_when_told_even_with_a_request_under_way() {
    let (listener, address) = test_client::listen().await;
    let directory = Directory::new();
    let stop = CancellationToken::new();
    let mut server = JoinSet::new();
    server.spawn(serve(listener, directory.0.clone(), stop.clone()));
    let _stalled = test_client::begin(address, "PUT", "/a", "", 10).await;
    until("the upload began", async || directory.names().len() == 1).await;
    stop.cancel();
    server.join_next().await.unwrap().unwrap().unwrap();
}
