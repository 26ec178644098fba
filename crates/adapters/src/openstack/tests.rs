//! The adapter against a small Keystone and a scripted Glance. The real ones are for the end-to-end tests.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use mimeo_core::{
    ImageId, Location, Reason, Timestamp, Visibility,
    ports::{Page, Registry, Undone},
};
use openstack_sdk::config::{Auth, CloudConfig};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    Glance,
    config::{Endpoint, Login},
};

const PASSWORD: &str = "s3cret";

#[derive(Default)]
struct Cloud {
    url: String,
    logins: usize,
    /// What Glance takes: the newest token, unless a test says otherwise.
    valid: Option<String>,
    seen: Vec<Seen>,
    answers: VecDeque<Response>,
}

#[derive(Debug, Clone, PartialEq)]
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: String,
}

type Shared = Arc<Mutex<Cloud>>;

struct TestCloud {
    cloud: Shared,
    glance: Glance,
    _server: JoinSet<()>,
}

impl TestCloud {
    async fn start() -> Self {
        Self::start_with("public", "RegionOne", |_| {}).await
    }

    async fn start_with(interface: &str, region: &str, change: fn(&mut Auth)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut config = config(&url);
        change(config.auth.as_mut().unwrap());
        let cloud = Shared::new(Mutex::new(Cloud { url, ..Default::default() }));
        let router = Router::new()
            .route("/v3/", get(version))
            .route("/v3/auth/tokens", post(log_in).get(answer))
            .fallback(answer)
            .with_state(cloud.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let service =
            Endpoint::InCatalogue { service: "image", interface: interface.into(), region: Some(region.into()) };
        let glance = Glance::with_login(Login::Keystone { cloud: Box::new(config), service }).unwrap();
        Self { cloud, glance, _server: server }
    }

    /// Says what Glance answers next. Without a script it answers 404.
    fn script(&self, answers: impl IntoIterator<Item = Response>) {
        self.cloud.lock().unwrap().answers.extend(answers);
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.cloud.lock().unwrap().seen)
    }

    fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }
}

fn config(url: &str) -> CloudConfig {
    CloudConfig {
        auth: Some(Auth {
            auth_url: Some(format!("{url}/v3")),
            username: Some("mimeo".into()),
            password: Some(PASSWORD.into()),
            user_domain_name: Some("Default".into()),
            project_name: Some("admin".into()),
            project_domain_name: Some("Default".into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn version(State(cloud): State<Shared>) -> Json<Value> {
    let links = json!([{"rel": "self", "href": format!("{}/v3/", cloud.lock().unwrap().url)}]);
    Json(json!({"version": {"id": "v3.14", "status": "stable", "links": links}}))
}

async fn log_in(State(cloud): State<Shared>, Json(request): Json<Value>) -> Response {
    if request["auth"]["identity"]["password"]["user"]["password"] != PASSWORD {
        let error = json!({"error": {"code": 401, "title": "Unauthorized", "message": "wrong password"}});
        return (StatusCode::UNAUTHORIZED, Json(error)).into_response();
    }
    let mut cloud = cloud.lock().unwrap();
    cloud.logins += 1;
    let token = format!("token-{}", cloud.logins);
    cloud.valid = Some(token.clone());
    let endpoint = |interface: &str, region: &str, url: String| json!({"id": "e", "interface": interface, "region": region, "region_id": region, "url": url});
    let endpoints = [
        endpoint("internal", "RegionOne", "http://nowhere.invalid".into()),
        endpoint("public", "RegionTwo", "http://nowhere.invalid".into()),
        endpoint("public", "RegionOne", format!("{}/image/v2/", cloud.url)),
    ];
    let body = json!({"token": {
        "methods": ["password"], "user": {"id": "u1", "name": "mimeo", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": "p1", "name": "admin", "domain": {"id": "default", "name": "Default"}}, "roles": [],
        "issued_at": "2026-11-22T17:00:00.000000Z", "expires_at": "2026-11-22T18:00:00.000000Z",
        "catalog": [{"id": "s", "type": "image", "name": "glance", "endpoints": endpoints}]}});
    (StatusCode::CREATED, [("X-Subject-Token", token)], Json(body)).into_response()
}

async fn answer(State(cloud): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut cloud = cloud.lock().unwrap();
    let path = parts.uri.to_string();
    let body = String::from_utf8_lossy(&body).into_owned();
    cloud.seen.push(Seen { method: parts.method, path, headers: parts.headers.clone(), body });
    let token = parts.headers.get("X-Auth-Token").and_then(|token| token.to_str().ok());
    if token != cloud.valid.as_deref() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    cloud.answers.pop_front().unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

fn id(n: u32) -> ImageId {
    mimeo_testkit::sample::id(n)
}

fn image(n: u32, owner: &str, hidden: bool) -> Value {
    json!({"id": id(n), "name": "i", "status": "active", "visibility": "private", "owner": owner, "size": 3,
           "os_hidden": hidden, "created_at": "2026-11-22T17:36:34Z", "updated_at": "2026-11-22T17:36:34Z"})
}

fn page(images: &[Value], more: bool) -> Response {
    let mut page = json!({"images": images, "first": "/v2/images"});
    if more {
        page["next"] = "/v2/images?marker=x".into();
    }
    Json(page).into_response()
}

fn html(status: u16, text: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let page = format!("<html><head><title>{status}</title></head><body><h1>{status}</h1>{text}<br /></body></html>");
    (status, [(header::CONTENT_TYPE, "text/html")], page).into_response()
}

#[tokio::test]
async fn logs_in_at_the_first_use_and_finds_the_endpoint_in_the_catalogue() {
    let cloud = TestCloud::start().await;
    assert_eq!(cloud.cloud.lock().unwrap().logins, 0);
    cloud.script([Json(image(1, "p1", false)).into_response()]);
    assert_eq!(cloud.glance.look(&id(1)).await.unwrap().unwrap().id, id(1));
    assert_eq!(cloud.glance.look(&id(2)).await.unwrap(), None);
    assert_eq!(cloud.paths()[0], format!("GET /image/v2/images/{}", id(1)));
    assert_eq!(cloud.cloud.lock().unwrap().logins, 1);
}

#[tokio::test]
async fn many_refused_requests_renew_the_token_once() {
    let cloud = TestCloud::start().await;
    cloud.glance.look(&id(1)).await.unwrap();
    cloud.cloud.lock().unwrap().valid = Some("another".into());
    let ids: Vec<ImageId> = (0..10).map(id).collect();
    for found in join_all(ids.iter().map(|id| cloud.glance.look(id))).await {
        assert_eq!(found.unwrap(), None);
    }
    assert_eq!(cloud.cloud.lock().unwrap().logins, 2);
}

#[tokio::test]
async fn a_token_that_stays_refused_is_an_error_and_no_loop() {
    let cloud = TestCloud::start().await;
    cloud.script([html(401, "no"), html(401, "This server could not verify you"), html(401, "no")]);
    let error = cloud.glance.look(&id(1)).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotAllowed);
    assert!(error.to_string().ends_with(": This server could not verify you"), "{error}");
    assert_eq!(cloud.seen().len(), 2);
}

#[tokio::test]
async fn why_there_is_no_token_is_told_apart() {
    type Case = (&'static str, &'static str, fn(&mut Auth), Reason, &'static str);
    let cases: [Case; 4] = [
        ("public", "RegionOne", |auth| auth.password = Some("wrong".into()), Reason::NotAllowed, "wrong password"),
        ("public", "Mars", |_| {}, Reason::NotAllowed, "in region Mars"),
        ("admin", "RegionOne", |_| {}, Reason::NotAllowed, "no admin endpoint"),
        (
            "public",
            "RegionOne",
            |auth| auth.auth_url = Some("http://127.0.0.1:9/v3".into()),
            Reason::ImageServiceUnreachable,
            "Keystone at http://127.0.0.1:9/v3 cannot be reached",
        ),
    ];
    for (interface, region, change, reason, text) in cases {
        let cloud = TestCloud::start_with(interface, region, change).await;
        let error = cloud.glance.look(&id(1)).await.unwrap_err();
        assert_eq!(error.reason, reason, "{}", error.chain());
        assert!(error.chain().contains(text), "{}", error.chain());
    }
}

#[tokio::test]
async fn locations_go_in_one_patch_and_a_refusal_keeps_its_reason_and_words() {
    let cloud = TestCloud::start().await;
    let store = "http1".parse().unwrap();
    let locations = ["http://a/1", "http://b/1"].map(|url| Location::ours(url, &store));
    cloud.script([StatusCode::OK.into_response()]);
    cloud.glance.add_locations(&id(1), &locations).await.unwrap();
    let sent = cloud.seen().remove(0);
    assert_eq!(sent.headers[header::CONTENT_TYPE], "application/openstack-images-v2.1-json-patch");
    let add =
        |url| json!({"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {"mimeo_store": "http1"}}});
    assert_eq!(serde_json::from_str::<Value>(&sent.body).unwrap(), json!([add("http://a/1"), add("http://b/1")]));

    let cases = [
        (400, Reason::LocationRefused),
        (403, Reason::LocationsForbidden),
        (404, Reason::ImageNotVisible),
        (409, Reason::Conflict),
        (413, Reason::LocationQuota),
        (500, Reason::ImageServiceError),
    ];
    for (status, reason) in cases {
        cloud.script([html(status, "It&#x27;s not allowed")]);
        let error = cloud.glance.add_locations(&id(1), &locations).await.unwrap_err();
        assert_eq!(error.reason, reason);
        assert!(error.to_string().ends_with(": It's not allowed"), "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
}

/// A PATCH that Glance may go on with is told from one that it has refused, and from one that never left.
#[tokio::test]
async fn a_patch_without_an_answer_may_have_an_effect_unless_it_never_left() {
    let cloud = TestCloud::start().await;
    let locations = [Location::ours("http://a/1", &"http1".parse().unwrap())];
    let add = async |glance: &Glance| {
        let error = glance.add_locations(&id(1), &locations).await.unwrap_err();
        (error.reason, error.is_unsent())
    };
    for (status, reason) in [
        (500, Reason::ImageServiceError),
        (502, Reason::ImageServiceUnreachable),
        (503, Reason::ImageServiceError),
        (504, Reason::ImageServiceUnreachable),
    ] {
        cloud.script([html(status, "")]);
        assert_eq!(add(&cloud.glance).await, (reason, false), "{status}");
    }
    let nowhere = TestCloud::start_with("internal", "RegionOne", |_| {}).await;
    assert_eq!(add(&nowhere.glance).await, (Reason::ImageServiceUnreachable, true), "its address leads nowhere");
}

#[tokio::test]
async fn the_list_goes_from_the_visible_images_to_the_hidden_ones() {
    let cloud = TestCloud::start().await;
    let numbers = |page: &Page| page.images.iter().map(|image| image.id.clone()).collect::<Vec<_>>();
    let since = Some("2026-01-01T00:00:00.9Z".parse::<Timestamp>().unwrap());
    let base = "GET /image/v2/images?limit=500&visibility=all&sort=created_at:asc,id:asc\
                &updated_at=gte:2026-01-01T00:00:00Z";

    cloud.script([page(&[image(1, "p", false)], true)]);
    let first = cloud.glance.changed_since(since, None).await.unwrap();
    assert_eq!(numbers(&first), [id(1)]);
    assert_eq!(cloud.paths(), [format!("{base}&os_hidden=false")]);

    cloud.script([page(&[image(2, "p", false)], false), page(&[image(3, "p", true)], true)]);
    let second = cloud.glance.changed_since(since, first.next.as_ref()).await.unwrap();
    assert_eq!(numbers(&second), [id(2), id(3)]);
    let marked = format!("{base}&os_hidden=false&marker={}", id(1));
    assert_eq!(cloud.paths(), [marked, format!("{base}&os_hidden=true")]);

    cloud.script([page(&[image(4, "p", true)], false)]);
    let third = cloud.glance.changed_since(since, second.next.as_ref()).await.unwrap();
    assert_eq!((numbers(&third), third.next), (vec![id(4)], None));
    assert_eq!(cloud.paths(), [format!("{base}&os_hidden=true&marker={}", id(3))]);

    cloud.script([html(400, "Marker could not be found")]);
    let error = cloud.glance.changed_since(since, second.next.as_ref()).await.unwrap_err();
    assert_eq!(error.reason, Reason::Conflict);
}

#[tokio::test]
async fn only_an_image_kept_from_others_shows_that_all_are_seen() {
    let cloud = TestCloud::start().await;
    let none = || page(&[], false);
    let members = |ids: &[&str]| {
        let members: Vec<Value> = ids.iter().map(|id| json!({"member_id": id, "status": "accepted"})).collect();
        Json(json!({"members": members})).into_response()
    };
    let shared = || page(&[image(3, "p2", false)], false);
    let cases = [
        (vec![page(&[image(1, "p1", false)], false), page(&[image(2, "p1", true)], false), none()], false),
        (vec![page(&[image(1, "p1", false)], true), page(&[image(2, "p2", false)], false)], true),
        (vec![none(), page(&[image(2, "p2", true)], false)], true),
        (vec![none(), none(), shared(), members(&["p1"])], false),
        (vec![none(), none(), shared(), html(404, "no")], false),
        (vec![none(), none(), shared(), members(&["p3"])], true),
        (vec![none(), none(), shared(), members(&[])], true),
    ];
    for (answers, sees_all) in cases {
        cloud.script(answers);
        assert_eq!(cloud.glance.sees_all().await.unwrap(), sees_all, "{:?}", cloud.paths());
    }
    cloud.script([html(500, "no")]);
    assert!(cloud.glance.sees_all().await.is_err());
}

#[tokio::test]
async fn keystone_tells_which_roles_the_token_has_now() {
    let cloud = TestCloud::start().await;
    let of = |roles: &[&str]| {
        let roles: Vec<Value> = roles.iter().map(|role| json!({"id": role, "name": role})).collect();
        let (user, expires_at) = (json!({"name": "mimeo"}), "2026-11-22T18:00:00.000000Z");
        Json(json!({"token": {"user": user, "roles": roles, "expires_at": expires_at}})).into_response()
    };
    cloud.script([of(&["admin", "member"]), html(404, "revoked"), html(500, "no")]);
    let roles = async || cloud.glance.roles().await;
    assert_eq!(roles().await.unwrap(), Some(BTreeSet::from(["admin".to_owned(), "member".to_owned()])));
    assert_eq!(roles().await.unwrap(), Some(BTreeSet::new()));
    assert!(roles().await.is_err());
}

#[tokio::test]
async fn what_was_undone_is_put_back_the_visibility_first() {
    let cloud = TestCloud::start().await;
    let undone = Undone { visibility: Some(Visibility::Private), protected: Some(true), deactivated: Some(true) };
    cloud.script([(); 3].map(|()| StatusCode::NO_CONTENT.into_response()));
    cloud.glance.put_back(&id(1), &undone).await.unwrap();
    let seen = cloud.seen();
    let patch = |path: &str, value: Value| json!([{"op": "replace", "path": path, "value": value}]).to_string();
    assert_eq!(seen[0].body, patch("/visibility", "private".into()));
    assert_eq!(seen[1].body, patch("/protected", true.into()));
    assert_eq!(seen[2].path, format!("/image/v2/images/{}/actions/deactivate", id(1)));

    cloud.script([html(409, "no")]);
    assert_eq!(cloud.glance.put_back(&id(1), &undone).await.unwrap_err().reason, Reason::Conflict);
    assert_eq!(cloud.seen().len(), 1);
}

#[tokio::test]
async fn bits_are_read_from_an_offset_whether_or_not_glance_knows_ranges() {
    let cloud = TestCloud::start().await;
    let partial = (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, "bytes 4-9/10")], "456789");
    let refused = html(400, "the store cannot read in part");
    cloud.script([partial.into_response(), "0123456789".into_response(), refused, "0123456789".into_response()]);
    for _ in 0..3 {
        let chunks: Vec<Bytes> = cloud.glance.source(&id(1)).open(4).await.unwrap().try_collect().await.unwrap();
        assert_eq!(chunks.concat(), b"456789");
    }
    assert_eq!(cloud.seen()[0].headers[header::RANGE], "bytes=4-");
    cloud.script([StatusCode::RANGE_NOT_SATISFIABLE.into_response()]);
    assert!(cloud.glance.source(&id(1)).open(10).await.unwrap().next().await.is_none());
}

#[tokio::test]
async fn a_token_that_ended_is_renewed_before_the_bits_too() {
    let cloud = TestCloud::start().await;
    cloud.glance.look(&id(1)).await.unwrap();
    cloud.cloud.lock().unwrap().valid = Some("another".into());
    cloud.script(["bits".into_response()]);
    assert_eq!(cloud.glance.download(&id(1)).await.unwrap(), "bits");
}

#[tokio::test]
async fn bits_that_cannot_be_had_are_errors() {
    let cloud = TestCloud::start().await;
    let cases = [
        (StatusCode::NO_CONTENT.into_response(), Reason::SourceUnreadable),
        (html(403, "You are not authorized"), Reason::NotAllowed),
        (html(404, "No image found"), Reason::SourceUnreadable),
        (html(503, "no"), Reason::SourceUnreadable),
    ];
    for (answer, reason) in cases {
        cloud.script([answer]);
        assert_eq!(cloud.glance.source(&id(1)).open(0).await.err().unwrap().reason, reason);
    }
    let cut = stream::once(async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(std::io::Error::other("cut"))
    });
    let body = Body::from_stream(stream::iter([Ok(Bytes::from_static(b"bits"))]).chain(cut));
    cloud.script([body.into_response()]);
    assert_eq!(cloud.glance.download(&id(1)).await.unwrap_err().reason, Reason::SourceUnreadable);
}

#[tokio::test]
async fn an_answer_that_is_no_image_is_an_error_that_says_so() {
    let cloud = TestCloud::start().await;
    cloud.script(["<html>".into_response(), Json(json!({"id": "x"})).into_response()]);
    for _ in 0..2 {
        let error = cloud.glance.look(&id(1)).await.unwrap_err();
        assert_eq!(error.reason, Reason::ImageServiceError);
        assert!(error.to_string().contains("not what the Images API promises"), "{error}");
    }
}

#[tokio::test]
async fn glances_words_about_a_location_show_no_password() {
    // As in glance.common.exception.DuplicateLocation.
    let cloud = TestCloud::start().await;
    let url = "swift+http://service%3Aglance:s3cret@10.0.0.5:5000/v3/images/object";
    cloud.script([html(400, &format!("The location {url} already exists"))]);
    let location = Location { url: url.into(), metadata: BTreeMap::default() };
    let error = cloud.glance.add_locations(&id(1), &[location]).await.unwrap_err();
    assert!(!error.chain().contains("s3cret"), "{}", error.chain());
    assert!(error.message.contains("swift+http://***@10.0.0.5:5000/v3/images/object already exists"), "{error}");
}
