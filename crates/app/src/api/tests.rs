//! The API over real HTTP with the commands' own client, an engine, and fakes at its far ends.

use std::{collections::BTreeSet, fs, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use mimeo_core::{
    Backoff, CHUNK, Change, ImageId, ImageRow, ImageState, Object, ObjectName, ObjectState, TimeZone,
    plan::Policy,
    policy::{Rules, StoreFacts},
    ports::Ledger,
};
use mimeo_engine::{Engine, GcSettings, Parts, ScrubSettings, Settings, StorePart};
use mimeo_testkit::{FakeClock, FakeRegistry, FakeStore, MemoryLedger, sample};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Pace, Watching,
    auth::{
        Authority,
        Role::{self, Admin, Reader},
        Tokens,
        tests::FakeIdentity,
    },
    is_overheard,
    routes::{ROUTES, Route},
    serve,
    token::Token,
};
use crate::{
    cli::Client,
    config::{ApiSettings, RoleNames, TlsFiles},
    follow,
};

const LONG: Duration = Duration::from_hours(1);

struct Api {
    address: SocketAddr,
    registry: FakeRegistry,
    ledger: Arc<MemoryLedger>,
    settings: ApiSettings,
    _directory: TempDir,
    _serving: JoinSet<anyhow::Result<()>>,
}

async fn api() -> Api {
    api_with(false).await
}

async fn api_with(metrics_are_open: bool) -> Api {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("mimeo.token");
    let token = Token::load_or_create(&token_file).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = FakeRegistry::default();
    let mut serving = JoinSet::new();
    let names = |name: &str| BTreeSet::from([name.to_owned()]);
    let roles = RoleNames { admin: names("admin"), reader: names("auditor") };
    let (identity, clock) = (Arc::new(FakeIdentity::default()), Arc::new(FakeClock::default()));
    let authority = Authority::new(Tokens { admin: token, reader: None }, Some(identity), roles, clock);
    let pace = Pace { scan: LONG, sweep: LONG, scrub: None };
    let watching = Watching { is_open: metrics_are_open, told: follow::Board::default(), pace };
    let ledger = Arc::new(MemoryLedger::default());
    let (engine, beside) = (engine(registry.clone(), Arc::clone(&ledger)), Router::new());
    serving.spawn(serve(listener, None, engine, authority, watching, beside, CancellationToken::new()));
    let settings = ApiSettings {
        listen: address,
        token_file,
        reader_token_file: None,
        roles: RoleNames::default(),
        metrics_are_open: false,
        tls: None,
    };
    Api { address, registry, ledger, settings, _directory: directory, _serving: serving }
}

/// One that only looks, with a store.
pub(crate) fn engine(registry: FakeRegistry, ledger: Arc<MemoryLedger>) -> Arc<Engine> {
    let store = FakeStore::new("http1");
    let facts = StoreFacts::new("http1".parse().unwrap());
    let parts = Parts {
        registry: Arc::new(registry),
        ledger,
        clock: Arc::new(FakeClock::at(sample::time(0))),
        stores: vec![StorePart { store: Arc::new(store), timeout: LONG, backend: None }],
    };
    let backoff = Backoff { first: LONG, max: LONG };
    let settings = Settings {
        policy: Policy { rules: Rules::default(), stores: vec![facts], backoff, chunk: CHUNK },
        limits: serde_json::from_value(limits()).unwrap(),
        time_zone: TimeZone::UTC,
        source_timeout: LONG,
        scan_interval: LONG,
        full_scan_interval: LONG,
        gc: GcSettings { interval: LONG, grace: LONG, max_images: 1, max_percent: 1 },
        scrub: ScrubSettings { period: None, bandwidth: None },
        observe: true,
    };
    Engine::new(parts, settings)
}

fn limits() -> Value {
    let store = json!({"concurrency": 1, "bandwidth": null, "hours": []});
    let stores = json!({"http1": store});
    json!({"concurrency": 2, "memory": 1 << 20, "bandwidth": 1000, "hours": ["22:00-06:00"], "stores": stores})
}

impl Api {
    async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        self.send(Method::GET, path, token, None).await
    }

    async fn send(&self, method: Method, path: &str, token: Option<&str>, body: Option<&str>) -> (u16, String) {
        let mut request = reqwest::Client::new().request(method, format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/merge-patch+json").body(body.to_owned());
        }
        let answer = request.send().await.unwrap();
        let (status, kind) = (answer.status().as_u16(), answer.headers().get("content-type").cloned());
        match kind {
            // It does not end.
            Some(kind) if kind == "text/event-stream" => (status, String::new()),
            _ => (status, answer.text().await.unwrap()),
        }
    }

    async fn patch_limits(&self, body: &str) -> (u16, Value) {
        let (status, body) = self.send(Method::PATCH, "/v1/limits", Some(&self.token()), Some(body)).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    fn token(&self) -> String {
        fs::read_to_string(&self.settings.token_file).unwrap().trim().to_owned()
    }
}

#[tokio::test]
async fn each_route_is_open_to_its_role_and_to_no_less() {
    let api = api().await;
    let known = [("reader", Some(Reader)), ("admin", Some(Admin)), ("forged", None), ("member", None)];
    for Route(method, path, least, _) in ROUTES {
        let method: Method = method.parse().unwrap();
        let path = path.replace("{id}", sample::id(7).as_str()).replace("{name}", "nowhere");
        for (token, role) in known {
            let (status, body) = api.send(method.clone(), &path, Some(token), None).await;
            let is_open = role >= *least;
            assert_eq!(is_open, !matches!(status, 401 | 403), "{method} {path} for {token}: {status} {body}");
            assert_eq!(!is_open && role.is_some(), status == 403 && token == "reader", "{method} {path}: {status}");
        }
        let (status, body) = api.send(method.clone(), &path, None, None).await;
        assert_eq!(status == 401, least.is_some(), "{method} {path}: {status}");
        assert!(!body.contains(&api.token()));
    }
    for path in ["/v1/no-such-path", "/v1/", "/v1"] {
        assert_eq!(api.get(path, None).await.0, 401, "{path}");
    }
    assert_eq!(api.get("/v1/overview", Some(&api.token())).await.0, 200);
    let open: Vec<&str> = ROUTES.iter().filter(|route| route.2.is_none()).map(|route| route.1).collect();
    assert_eq!(open, ["/healthz", "/readyz"]);
    // A rule that is tried writes nothing.
    let reads = |Route(method, path, least, _): &&Route| {
        *method == "GET" || *least == Some(Role::Admin) || *path == "/v1/rules/try"
    };
    assert_eq!(ROUTES.iter().filter(reads).count(), ROUTES.len(), "a reader can change nothing");
}

#[tokio::test]
async fn metrics_need_a_token_unless_they_are_opened() {
    let path = "/metrics";
    let (closed, open) = (api().await, api_with(true).await);
    assert_eq!((closed.get(path, None).await.0, closed.get(path, Some("reader")).await.0), (401, 200));
    let (status, text) = open.get(path, None).await;
    assert_eq!(status, 200);
    assert!(text.contains("\nmimeo_build_info{version=") && text.contains("\nmimeo_ledger_up 1\n"), "{text}");
    assert_eq!(open.get("/v1/overview", None).await.0, 401, "it is the metrics alone that are open");
}

#[tokio::test]
async fn keystones_token_comes_in_openstacks_header_too() {
    let api = api().await;
    let url = format!("http://{}/v1/overview", api.address);
    let answer = reqwest::Client::new().get(url).header("X-Auth-Token", "reader").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
}

#[tokio::test]
async fn errors_are_problems_with_a_code() {
    let api = api().await;
    let cases = [
        ("/v1/images/not-an-id", 400, "bad-request"),
        ("/v1/images?limit=many", 400, "bad-request"),
        ("/v1/images/00000000-0000-0000-0000-000000000007", 404, "not-found"),
        ("/v1/images/00000000-0000-0000-0000-000000000007/history", 404, "not-found"),
        ("/v1/no-such-path", 404, "not-found"),
        ("/v1", 404, "not-found"),
    ];
    for (path, status, code) in cases {
        let (answered, body) = api.get(path, Some(&api.token())).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((answered, &problem["status"], &problem["code"]), (status, &status.into(), &code.into()), "{path}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told_by_its_name_with_the_rule_and_what_to_do() {
    let api = api().await;
    let told = async |method: Method, path: &str, body: Option<&str>| {
        let (status, body) = api.send(method, path, Some(&api.token()), body).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        let text = |key: &str| problem[key].as_str().unwrap().to_owned();
        (status, text("detail"), text("cure"))
    };
    for (path, detail) in [
        ("/v1/images?limit=many", "limit: \"many\" is not a whole number"),
        ("/v1/images?limit=0", "limit: 0 is not from 1 to 1000"),
        ("/v1/gc?limit=", "limit: \"\" is not a whole number"),
        ("/v1/changes?after=-1", "after: \"-1\" is not a whole number"),
        ("/v1/images?after=x", "after: \"x\" is not an image id (a UUID with dashes)"),
        ("/v1/images?nme=x", "nme: no such key; known: `name`, `state`,"),
        ("/v1/images?state=x", "state: no such value `x`; known: `unmanaged`, `pending`,"),
        ("/v1/images?name=a&name=b", "name: given twice"),
        ("/v1/images/find", "q: missing"),
    ] {
        let (status, seen, cure) = told(Method::GET, path, None).await;
        assert!(status == 400 && seen.starts_with(detail), "{path}: {seen}");
        assert!(cure.contains("/v1/openapi.json"), "{path}: {cure}");
    }
    for query in ["", "?seen=", "?seen=yesterday"] {
        let (status, detail, cure) = told(Method::POST, &format!("/v1/gc/confirm{query}"), None).await;
        assert!(status == 400 && detail.starts_with("seen: "), "{detail}");
        assert!(cure.contains("`as_of`") && cure.contains("GET /v1/gc"), "{cure}");
    }
    let long = format!("[\"{}\"]", "x".repeat(3 << 20));
    for (body, status, detail) in [
        (r#"{"copies": "two"}"#, 400, "copies: found string \"two\", expected a whole number at line 1"),
        (r#"{"copies": -1}"#, 400, "copies: found integer `-1`, expected a whole number at line 1"),
        (r#"{"wehn": ""}"#, 400, "wehn: no such key; known: `when`, `stores`, `copies`"),
        (r#"{"when": "#, 400, "the body is not JSON: "),
        (&*long, 413, "the body is larger than 2 MiB"),
    ] {
        let (answered, seen, cure) = told(Method::POST, "/v1/rules/try", Some(body)).await;
        assert!(answered == status && seen.starts_with(detail), "{seen}");
        assert!(!cure.is_empty());
    }
}

#[tokio::test]
async fn a_store_that_nobody_knows_is_refused_and_no_stores_are_no_rule() {
    let api = api().await;
    let detail = |(status, body): (u16, String)| {
        let problem: Value = serde_json::from_str(&body).unwrap();
        (status, problem["detail"].as_str().unwrap_or_default().to_owned())
    };
    let asked = api.get("/v1/images?store=nosuch", Some(&api.token())).await;
    assert_eq!(detail(asked), (400, "store: there is no store \"nosuch\"; known: http1".to_owned()));
    assert_eq!(api.get("/v1/images?store=http1", Some(&api.token())).await.0, 200);
    let client = Client::new(&api.settings).unwrap();
    assert_eq!(client.images(&[("store", "nosuch".to_owned())], 1).await.unwrap_err().code, 2);
    let failure = client.try_rule(&json!({"stores": []})).await.unwrap_err();
    assert!(failure.code == 2 && failure.message.starts_with("stores: name one at least"), "{}", failure.message);
    assert!(client.try_rule(&json!({"stores": null})).await.is_ok());
}

#[tokio::test]
async fn limits_are_shown_and_changed() {
    let api = api().await;
    let in_force = async || {
        let (status, body) = api.get("/v1/limits", Some(&api.token())).await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    assert_eq!(in_force().await, (200, limits()));
    let mut expected = limits();
    expected["bandwidth"] = Value::Null;
    expected["stores"]["http1"]["bandwidth"] = json!(65536);
    let patch = r#"{"bandwidth": null, "stores": {"http1": {"bandwidth": 65536}}}"#;
    assert_eq!(api.patch_limits(patch).await, (200, expected.clone()));
    assert_eq!(in_force().await, (200, expected.clone()));
    for (wrong, told) in [
        (r#"{"concurrency": 1, "hour": []}"#, "hour: unknown key; did you mean \"hours\"?"),
        (r#"{"concurrency": 5}"#, "memory: 1048576 bytes are less than 256KiB for each of 5 images"),
        (r#"{"stores": {"http2": {}}}"#, "stores.http2: this store is not enabled; did you mean \"http1\"?"),
        ("no JSON", "the body is not JSON: "),
    ] {
        let (status, problem) = api.patch_limits(wrong).await;
        assert_eq!((status, &problem["code"]), (400, &json!("bad-request")));
        assert!(problem["detail"].as_str().unwrap().starts_with(told), "{problem}");
    }
    assert_eq!(in_force().await, (200, expected), "what was refused changed nothing");
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
    let list = client.gc().await.unwrap();
    assert!(list.entries.is_empty());
    client.confirm_gc(list.as_of).await.unwrap();
    let ahead = list.as_of.saturating_add(LONG).unwrap();
    assert!(client.confirm_gc(ahead).await.unwrap_err().message.contains("as_of"));
}

/// A copy of each of so many images that is to go.
pub(crate) async fn doom(ledger: &MemoryLedger, images: u32) {
    for n in 0..images {
        let object = Object {
            store: "http1".parse().unwrap(),
            name: ObjectName::new(&sample::id(n), 1),
            url: format!("http://http1/{n}"),
            state: ObjectState::Doomed,
            since: sample::time(0),
        };
        let image = ImageRow::new(sample::id(n));
        ledger.commit(&[Change::Image(image), Change::Object(object)]).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_to_be_removed_is_told_page_by_page() {
    let api = api().await;
    doom(&api.ledger, 1001).await;
    let client = Client::new(&api.settings).unwrap();
    let images: BTreeSet<ImageId> = client.gc().await.unwrap().entries.into_iter().map(|entry| entry.image).collect();
    assert_eq!(images.len(), 1001, "a command asks for all pages");
    let page = async |path: String| {
        let (status, body) = api.get(&path, Some(&api.token())).await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (_, first) = page("/v1/gc?limit=2".into()).await;
    assert_eq!(first["entries"].as_array().unwrap().len(), 2);
    let (_, second) = page(first["next"].as_str().unwrap().into()).await;
    assert_eq!(second["entries"][0]["image"], json!(sample::id(2)), "{first}");
    let (_, last) = page(format!("/v1/gc?after={}", sample::id(999))).await;
    assert_eq!((last["entries"].as_array().unwrap().len(), &last["next"]), (1, &Value::Null));
    assert_eq!(page("/v1/gc?limit=0".into()).await.0, 400);
}

#[tokio::test]
async fn the_commands_drain_a_store_and_are_told_what_makes_no_sense() {
    let api = api().await;
    let client = Client::new(&api.settings).unwrap();
    let (store, nowhere) = ("http1".parse().unwrap(), "nowhere".parse().unwrap());
    assert!(client.drain_report(&store).await.unwrap().since.is_none());
    let begun = client.drain(&store).await.unwrap();
    assert!(begun.since.is_some() && begun.left.is_empty());
    assert_eq!(client.stores().await.unwrap()[0].draining, begun.since);
    client.cancel_drain(&store).await.unwrap();
    assert_eq!(client.stores().await.unwrap()[0].draining, None);
    let refusals = [
        client.drain(&nowhere).await.map(drop),
        client.cancel_drain(&nowhere).await,
        client.move_store(&nowhere).await.map(drop),
        client.rename_store(&store, &store).await.map(drop),
        client.rename_store(&nowhere, &store).await.map(drop),
    ];
    for refusal in refusals {
        assert_eq!(refusal.unwrap_err().code, 2);
    }
    assert_eq!(client.move_store(&store).await.unwrap().copies, 0);
}

#[tokio::test]
async fn plain_http_is_overheard_everywhere_but_at_loopback() {
    let settings = api().await.settings;
    let at = |listen: &str| ApiSettings { listen: listen.parse().unwrap(), ..settings.clone() };
    for alone in ["127.0.0.1:9393", "127.0.0.2:9393", "[::1]:9393", "[::ffff:127.0.0.1]:9393"] {
        assert!(!is_overheard(&at(alone)), "{alone}");
    }
    let tls = Some(TlsFiles { certificate: "c.pem".into(), key: "k.pem".into() });
    for open in ["0.0.0.0:9393", "[::]:9393", "10.0.0.5:9393"] {
        assert!(is_overheard(&at(open)), "{open}");
        assert!(!is_overheard(&ApiSettings { tls: tls.clone(), ..at(open) }), "{open} with a certificate");
    }
}

#[tokio::test]
async fn a_serve_that_is_not_there_or_not_ours_is_told() {
    let api = api().await;
    let elsewhere = ApiSettings { listen: "127.0.0.1:9".parse().unwrap(), ..api.settings.clone() };
    let failure = Client::new(&elsewhere).unwrap().stores().await.unwrap_err();
    let told = "cannot reach mimeo serve at http://127.0.0.1:9: Connection refused (os error 111); if it does not run";
    assert!(failure.message.starts_with(told), "{}", failure.message);
    fs::write(&api.settings.token_file, "another").unwrap();
    let failure = Client::new(&api.settings).unwrap().stores().await.unwrap_err();
    assert!(failure.message.contains("refuses the token"), "{}", failure.message);
    fs::write(&api.settings.token_file, "one\ntwo\n").unwrap();
    let failure = Client::new(&api.settings).err().unwrap();
    assert!(failure.message.contains("mimeo.token: it holds no token"), "{}", failure.message);
    fs::remove_file(&api.settings.token_file).unwrap();
    let failure = Client::new(&api.settings).err().unwrap();
    assert!(failure.code == 1 && failure.message.contains("mimeo.token is not there; if it does not run, start it"));
}
