//! The service as a client sees it, over real sockets.

mod life;
mod listing;
mod patching;

use std::{net::SocketAddr, sync::Arc};

use serde_json::{Value, json};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    super::web::test_client::{self, Answer, Directory},
    Notification, Setup, serve,
};

const OCTETS: &str = "Content-Type: application/octet-stream\r\n";
const PATCH: &str = "Content-Type: application/openstack-images-v2.1-json-patch\r\n";
const OLD_PATCH: &str = "Content-Type: application/openstack-images-v2.0-json-patch\r\n";

/// A service where every URL with `good` in it answers with 5 bytes, and those with `empty` with none.
struct Running {
    address: SocketAddr,
    directory: Directory,
    events: UnboundedReceiver<Notification>,
    _server: JoinSet<anyhow::Result<()>>,
}

impl Running {
    async fn start() -> Self {
        let (listener, address) = test_client::listen().await;
        let directory = Directory::new();
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let setup = Setup {
            bits: directory.0.clone(),
            probe: Arc::new(|url| {
                Box::pin(async move {
                    let size = if url.contains("empty") { 0 } else { 5 };
                    (url.contains("good") || size == 0).then_some(size)
                })
            }),
            events: sender,
        };
        let mut server = JoinSet::new();
        server.spawn(serve(listener, setup, CancellationToken::new()));
        Self { address, directory, events, _server: server }
    }

    async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        test_client::ask(self.address, method, path, headers, body).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "", b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Creates an image and answers its path.
    async fn create(&self, wish: Value) -> String {
        let answer = self.ask("POST", "/v2/images", "", wish.to_string().as_bytes()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.header("location").unwrap().to_owned()
    }

    /// An active image of 5 bytes.
    async fn upload(&self, wish: Value) -> String {
        let image = self.create(wish).await;
        let answer = self.ask("PUT", &format!("{image}/file"), OCTETS, b"hello").await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        image
    }

    async fn patch(&self, image: &str, operations: Value) -> Answer {
        self.ask("PATCH", image, PATCH, operations.to_string().as_bytes()).await
    }

    /// The types of the events so far.
    fn heard(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok()).map(|event| event.event_type).collect()
    }
}

#[tokio::test]
async fn versions_are_announced_for_the_address_that_was_asked() {
    let service = Running::start().await;
    let choices = service.ask("GET", "/", "", b"").await;
    assert_eq!(choices.status, 300);
    assert!(choices.header("x-openstack-request-id").unwrap().starts_with("req-"));
    let first = &choices.json()["versions"][0];
    assert_eq!(first["status"], "CURRENT");
    assert_eq!(first["links"][0]["href"], format!("http://{}/v2/", service.address));
    assert_eq!(service.get("/versions").await, choices.json());
}

#[tokio::test]
async fn what_is_not_there_is_a_page_with_a_message() {
    let service = Running::start().await;
    let answer = service.ask("GET", "/v2/images/%3Cnone%3E", "", b"").await;
    assert_eq!(answer.status, 404);
    assert!(answer.header("content-type").unwrap().starts_with("text/html"));
    assert!(answer.text().contains("No image found with ID &lt;none&gt;"));
    assert_eq!(service.ask("GET", "/v3", "", b"").await.status, 404);
}

#[tokio::test]
async fn the_schema_covers_every_field_of_an_image() {
    let service = Running::start().await;
    let image = service.upload(json!({})).await;
    let schema = service.get("/v2/schemas/image").await;
    for field in service.get(&image).await.as_object().unwrap().keys() {
        assert!(schema["properties"].get(field).is_some(), "{field}");
    }
}
