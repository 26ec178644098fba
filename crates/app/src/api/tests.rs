//! The API over real HTTP with the commands' own client, an engine, and fakes at its far ends.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use mimeo_core::{Backoff, ImageState, plan::Policy, policy::Rules, policy::StoreFacts};
use mimeo_engine::{Engine, GcSettings, Parts, Settings, StorePart};
use mimeo_testkit::{FakeClock, FakeRegistry, FakeStore, MemoryLedger, sample};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{serve, token::Token};
use crate::{cli::Client, config::ApiSettings};

const LONG: Duration = Duration::from_hours(1);

struct Api {
    address: SocketAddr,
    registry: FakeRegistry,
    settings: ApiSettings,
    _directory: TempDir,
    _serving: JoinSet<anyhow::Result<()>>,
}

async fn api() -> Api {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("mimeo.token");
    let token = Token::load_or_create(&token_file).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = FakeRegistry::default();
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, engine(registry.clone()), token, CancellationToken::new()));
    let settings = ApiSettings { listen: address, token_file };
    Api { address, registry, settings, _directory: directory, _serving: serving }
}

fn engine(registry: FakeRegistry) -> Arc<Engine> {
    let store = FakeStore::new("http1");
    let facts = StoreFacts { name: "http1".parse().unwrap(), visibility: None };
    let parts = Parts {
        registry: Arc::new(registry),
        ledger: Arc::new(MemoryLedger::default()),
        clock: Arc::new(FakeClock::at(sample::time(0))),
        stores: vec![StorePart { store: Arc::new(store), timeout: LONG }],
    };
    let backoff = Backoff { first: LONG, max: LONG };
    let settings = Settings {
        policy: Policy { rules: Rules::default(), stores: vec![facts], backoff },
        transfers: 1,
        window: 1 << 20,
        source_timeout: LONG,
        scan_interval: LONG,
        full_scan_interval: LONG,
        gc: GcSettings { interval: LONG, grace: LONG, max_images: 1, max_percent: 1 },
        observe: true,
    };
    Engine::new(parts, settings)
}

impl Api {
    async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let mut request = reqwest::Client::new().get(format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn token(&self) -> String {
        fs::read_to_string(&self.settings.token_file).unwrap().trim().to_owned()
    }
}

#[tokio::test]
async fn nothing_but_the_health_is_told_without_the_token() {
    let api = api().await;
    assert_eq!(api.get("/healthz", None).await, (200, "ok\n".into()));
    for path in ["/v1/overview", "/v1/images", "/v1/plan", "/v1/stores", "/v1/gc"] {
        for token in [None, Some("wrong")] {
            let (status, body) = api.get(path, token).await;
            assert_eq!(status, 401, "{path}");
            assert!(!body.contains(&api.token()));
        }
    }
    assert_eq!(api.get("/v1/overview", Some(&api.token())).await.0, 200);
}

#[tokio::test]
async fn errors_are_problems_with_a_code() {
    let api = api().await;
    let cases = [
        ("/v1/images/not-an-id", 400, "bad-request"),
        ("/v1/images?limit=many", 400, "bad-request"),
        ("/v1/images/00000000-0000-0000-0000-000000000007", 404, "not-found"),
        ("/v1/no-such-path", 404, "not-found"),
    ];
    for (path, status, code) in cases {
        let (answered, body) = api.get(path, Some(&api.token())).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((answered, &problem["status"], &problem["code"]), (status, &status.into(), &code.into()), "{path}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
}

#[tokio::test]
async fn the_commands_find_an_image_by_its_id_and_have_it_looked_at() {
    let api = api().await;
    api.registry.insert(sample::image(1, 3), sample::bits(3));
    let client = Client::new(&api.settings).unwrap();
    let id = sample::id(1);
    let report = client.find(id.as_str()).await.unwrap();
    assert_eq!((report.id.clone(), report.state), (id.clone(), ImageState::Pending));
    client.replicate(&id).await.unwrap();
    assert_eq!(client.find("nobody").await.unwrap_err().code, 1);
    assert!(client.overview().await.unwrap().observe);
    assert_eq!(client.stores().await.unwrap().len(), 1);
    assert!(client.gc().await.unwrap().entries.is_empty());
    client.confirm_gc().await.unwrap();
}

#[tokio::test]
async fn a_serve_that_is_not_there_or_not_ours_is_told() {
    let api = api().await;
    let elsewhere = ApiSettings { listen: "127.0.0.1:9".parse().unwrap(), ..api.settings.clone() };
    let failure = Client::new(&elsewhere).unwrap().stores().await.unwrap_err();
    assert_eq!(failure.message, "cannot reach mimeo serve at http://127.0.0.1:9: start it with `mimeo serve`");
    fs::write(&api.settings.token_file, "another").unwrap();
    let failure = Client::new(&api.settings).unwrap().stores().await.unwrap_err();
    assert!(failure.message.contains("refuses the token"), "{}", failure.message);
    fs::remove_file(&api.settings.token_file).unwrap();
    let failure = Client::new(&api.settings).err().unwrap();
    assert!(failure.code == 1 && failure.message.contains("start it with `mimeo serve`"));
}
