//! Over real HTTP, with an engine whose ledger is in memory.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use mimeo_core::{Change, Failure, ImageId, Reason, Replica, ReplicaState, ports::Ledger};
use mimeo_engine::status::HistoryReport;
use mimeo_testkit::{FakeClock, FakeRegistry, MemoryLedger, sample};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use super::*;
use crate::{api::tests::engine, config::Only, follow::Delivery};

const SECRET: &str = "a secret of enough letters";

/// What was sent.
#[derive(Debug)]
struct Sent {
    id: String,
    seconds: String,
    signature: String,
    content_type: String,
    body: String,
}

impl Sent {
    fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Clone)]
struct Receiver {
    sent: mpsc::UnboundedSender<Sent>,
    /// So many are refused before one is taken.
    refuses: Arc<Mutex<u32>>,
    refusal: StatusCode,
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, seconds) = (header("webhook-id"), header("webhook-timestamp"));
    let (signature, content_type) = (header("webhook-signature"), header("content-type"));
    receiver.sent.send(Sent { id, seconds, signature, content_type, body }).unwrap();
    let mut refuses = receiver.refuses.lock().unwrap();
    if *refuses == 0 {
        return StatusCode::NO_CONTENT;
    }
    *refuses -= 1;
    receiver.refusal
}

struct World {
    ledger: Arc<MemoryLedger>,
    address: SocketAddr,
    received: mpsc::UnboundedReceiver<Sent>,
    board: Board,
    clock: Arc<FakeClock>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

async fn world(refuses: u32) -> World {
    world_that_answers(StatusCode::INTERNAL_SERVER_ERROR, refuses).await
}

async fn world_that_answers(refusal: StatusCode, refuses: u32) -> World {
    let (sent, received) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = Receiver { sent, refuses: Arc::new(Mutex::new(refuses)), refusal };
    let router = Router::new().route("/hook", post(take)).with_state(endpoint);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let (ledger, stop) = (Arc::new(MemoryLedger::default()), CancellationToken::new());
    let clock = Arc::new(FakeClock::at(sample::time(1000)));
    World { ledger, address, received, board: Board::default(), clock, tasks, stop }
}

impl World {
    fn start(&mut self, only: Only) {
        let engine = engine(FakeRegistry::default(), self.ledger.clone());
        let url = format!("http://{}/hook", self.address).parse().unwrap();
        let settings =
            WebhookSettings { name: "pager".into(), url, secret: SECRET.into(), source: "/region-one".into(), only };
        let clock = self.clock.clone();
        let (board, stop) = (self.board.clone(), self.stop.clone());
        self.tasks.spawn(async move { run(engine, clock, vec![settings], board, stop).await.unwrap() });
    }

    /// Until the webhook has noted its place.
    async fn begun(&self) {
        while self.ledger.bookmark("heard by webhook pager").await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    }

    async fn note(&self, n: u32, state: ReplicaState, reason: Option<Reason>) {
        let failure = reason.map(|reason| Failure { reason, message: "as told".into(), tries: 1, next_try: None });
        let replica = Replica { state, failure, ..Replica::wanted("http1".parse().unwrap()) };
        self.ledger.commit(&[Change::Replica(sample::id(n), replica)]).await.unwrap();
    }

    async fn next(&mut self) -> Sent {
        self.received.recv().await.unwrap()
    }
}

#[tokio::test]
async fn what_is_refused_for_an_hour_is_given_up_and_the_next_is_told() {
    let mut world = world_that_answers(StatusCode::BAD_REQUEST, 2).await;
    world.start(Only::All);
    world.begun().await;
    world.note(1, ReplicaState::Failed, Some(Reason::StoreFull)).await;
    world.note(2, ReplicaState::Failed, Some(Reason::StoreFull)).await;
    let first = world.next().await;
    while world.board.deliveries().values().all(|delivery| delivery.failed == 0) {
        tokio::task::yield_now().await;
    }
    world.clock.set(sample::time(1000 + 3600));
    let (again, next) = (world.next().await, world.next().await);
    assert_eq!(first.id, again.id);
    assert!(next.id != first.id && next.event()["subject"] != first.event()["subject"]);
    let delivery = world.board.deliveries().pop_first().unwrap().1;
    assert_eq!((delivery.given_up, delivery.failed, delivery.failing_since), (1, 2, None));
}

#[tokio::test]
async fn a_failure_is_told_until_it_is_taken_and_then_what_comes_after_it() {
    let mut world = world(2).await;
    world.note(1, ReplicaState::Failed, Some(Reason::StoreFull)).await;
    world.start(Only::Failures);
    world.begun().await;
    world.note(2, ReplicaState::Copying, None).await;
    world.note(2, ReplicaState::Failed, Some(Reason::StoreFull)).await;
    world.note(3, ReplicaState::Failed, Some(Reason::OutsideHours)).await;
    world.note(4, ReplicaState::Failed, Some(Reason::StoreError)).await;
    let (first, again, taken, next) = (world.next().await, world.next().await, world.next().await, world.next().await);
    assert!(first.id == again.id && first.id == taken.id && first.body == taken.body);
    let event = taken.event();
    let subject = format!("{}/http1", sample::id(2));
    assert_eq!(event["subject"], json!(subject), "what was there before the webhook was is not told");
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("mimeo.copy.failed")));
    assert_eq!((&event["id"], &event["data"]["reason"]), (&json!(taken.id), &json!("store-full")));
    assert!(taken.content_type.starts_with("application/cloudevents+json"));
    assert_eq!(taken.signature, signature::sign(SECRET, &taken.id, &taken.seconds, &taken.body));
    assert_eq!(next.event()["data"]["reason"], "store-error", "to wait for other hours is no failure");
}

#[tokio::test]
async fn it_goes_on_where_it_was_and_the_board_tells_how_it_does() {
    let mut world = world(0).await;
    world.start(Only::All);
    world.begun().await;
    world.note(1, ReplicaState::Copying, None).await;
    let told = world.next().await;
    assert_eq!(told.event()["type"], "mimeo.copy.copying");
    while world.ledger.bookmark("heard by webhook pager").await.unwrap().as_deref() != Some("1") {
        tokio::task::yield_now().await;
    }
    let delivery = Delivery { delivered: 1, ..Delivery::default() };
    assert_eq!(world.board.deliveries(), [(Listener::Webhook("pager".into()), delivery)].into());
    // A restart: what was taken is not told again, what came meanwhile is.
    world.stop.cancel();
    world.note(1, ReplicaState::Stored, None).await;
    world.stop = CancellationToken::new();
    world.start(Only::All);
    assert_eq!(world.next().await.event()["type"], "mimeo.copy.stored");
}

#[test]
fn an_event_has_no_more_than_the_history_and_a_secret_is_not_shown() {
    let line = HistoryReport {
        at: sample::time(5),
        since: sample::time(5),
        times: 1,
        store: None,
        state: "active".into(),
        reason: None,
        message: None,
    };
    let change = ChangeReport { image: ImageId::nil(), image_state: None, line };
    let event: Value = serde_json::from_str(&body("/region-one", 7, &change)).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("mimeo.image.active"), &json!(id_of(7, &change))));
    assert_eq!(event["source"], "/region-one");
    assert_eq!(event["data"], serde_json::to_value(&change).unwrap());
    assert!(is_wanted(&change, Only::All) && !is_wanted(&change, Only::Failures));
    let url = "https://example.org/T0KEN".parse().unwrap();
    let settings =
        WebhookSettings { name: "pager".into(), url, secret: SECRET.into(), source: "/mimeo".into(), only: Only::All };
    let shown = format!("{settings:?}");
    assert!(!shown.contains("T0KEN") && !shown.contains(SECRET), "{shown}");
}
