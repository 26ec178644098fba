//! The dashboard over real HTTP, as a browser without JavaScript has it.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use mimeo_core::{
    Change, Failure, ImageRow, Object, ObjectState, Reason, Replica, ReplicaState, StoreName, ports::Ledger,
};
use mimeo_testkit::{FakeClock, FakeRegistry, MemoryLedger, sample};
use reqwest::{Method, Response, header, redirect::Policy};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Dashboard, router};
use crate::{
    api::{
        auth::{Authority, Tokens, tests::FakeIdentity},
        tests::{doom, engine},
        token::Token,
    },
    config::RoleNames,
    listener,
};

const PAGES: [&str; 5] = ["/", "/transfers", "/stores", "/rules", "/deletes"];

struct Site {
    address: SocketAddr,
    clock: Arc<FakeClock>,
    ledger: Arc<MemoryLedger>,
    _serving: JoinSet<anyhow::Result<()>>,
}

/// Somebody's browser.
#[derive(Default)]
struct Browser {
    cookies: Vec<(String, String)>,
}

struct Page {
    status: u16,
    headers: header::HeaderMap,
    body: String,
}

async fn site() -> Site {
    site_with(true).await
}

async fn site_with(tls: bool) -> Site {
    let (clock, ledger) = (Arc::new(FakeClock::at(sample::time(0))), Arc::new(MemoryLedger::default()));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "own").unwrap();
    let token = Token::load(&directory.path().join("token")).unwrap();
    let names = |name: &str| BTreeSet::from([name.to_owned()]);
    let roles = RoleNames { admin: names("admin"), reader: names("auditor") };
    let authority = Authority::new(
        Tokens { admin: token, reader: None },
        Some(Arc::new(FakeIdentity::default())),
        roles,
        clock.clone(),
    );
    let engine = engine(FakeRegistry::default(), ledger.clone());
    let stop = CancellationToken::new();
    let dashboard = Dashboard::new(engine, authority, clock.clone(), tls, &stop);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(listener::serve(listener, None, router(Arc::new(dashboard)), stop));
    Site { address, clock, ledger, _serving: serving }
}

impl Site {
    async fn send(&self, browser: &mut Browser, method: Method, path: &str, form: &[(&str, &str)]) -> Page {
        let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        let cookies: Vec<String> = browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = client.request(method, format!("http://{}{path}", self.address)).body(form);
        let response = request.header(header::COOKIE, cookies.join("; ")).send().await.unwrap();
        browser.keep(&response);
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Page { status, headers, body: response.text().await.unwrap() }
    }

    async fn get(&self, browser: &mut Browser, path: &str) -> Page {
        self.send(browser, Method::GET, path, &[]).await
    }

    async fn post(&self, browser: &mut Browser, path: &str, form: &[(&str, &str)]) -> Page {
        self.send(browser, Method::POST, path, form).await
    }

    /// A browser in which somebody has signed in with this token.
    async fn browser_of(&self, token: &str) -> Browser {
        let mut browser = Browser::default();
        let csrf = self.get(&mut browser, "/sign-in").await.csrf();
        let page = self.post(&mut browser, "/sign-in", &[("csrf", &csrf), ("token", token), ("next", "/stores")]).await;
        assert_eq!((page.status, page.location()), (303, "/stores"));
        browser
    }

    /// An image of which one copy failed, and an object that nobody wants any more.
    async fn with_an_image(&self, name: &str) -> String {
        let (id, store): (_, StoreName) = (sample::id(1), "http1".parse().unwrap());
        let failure = Failure { reason: Reason::StoreFull, message: "no room".into(), tries: 3, next_try: None };
        let row = ImageRow { name: Some(name.into()), wanted: vec![store.clone()], ..ImageRow::new(id.clone()) };
        let replica = Replica { state: ReplicaState::Failed, failure: Some(failure), ..Replica::wanted(store) };
        self.ledger.commit(&[Change::Image(row), Change::Replica(id.clone(), replica)]).await.unwrap();
        self.doom(1).await;
        id.to_string()
    }

    async fn doom(&self, attempt: u32) {
        let object = Object {
            store: "http1".parse().unwrap(),
            name: format!("{}.{attempt}", sample::id(1)).parse().unwrap(),
            url: format!("http://http1/{attempt}"),
            state: ObjectState::Doomed,
            since: sample::time(0),
        };
        self.ledger.commit(&[Change::Object(object)]).await.unwrap();
    }
}

impl Browser {
    fn keep(&mut self, response: &Response) {
        for cookie in response.headers().get_all(header::SET_COOKIE) {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.into(), value.into()));
        }
    }
}

impl Page {
    fn location(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |value| value.to_str().unwrap())
    }

    fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.body.split_once(&start).unwrap_or_else(|| panic!("no field {name} in {}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }

    fn csrf(&self) -> String {
        self.field("csrf")
    }
}

#[tokio::test]
async fn nothing_is_shown_to_those_who_are_not_signed_in() {
    let site = site().await;
    let id = site.with_an_image("a-name").await;
    let image = format!("/images/{id}");
    let lives = ["/live", "/transfers/live", "/stores/live"];
    for mut browser in [Browser::default(), Browser { cookies: vec![("mimeo_session".into(), "forged".into())] }] {
        for path in PAGES.into_iter().chain(lives).chain([image.as_str()]) {
            let page = site.get(&mut browser, path).await;
            assert_eq!(page.status, 303, "{path}");
            assert!(page.location().starts_with("/sign-in?next=%2F"), "{path}: {}", page.location());
            assert!(!page.body.contains("a-name"));
        }
        for path in [format!("{image}/retry"), format!("{image}/verify"), "/deletes".into(), "/sign-out".into()] {
            assert_eq!(site.post(&mut browser, &path, &[("csrf", "")]).await.status, 303, "{path}");
        }
    }
    assert!(site.ledger.mark(&sample::id(1)).is_none());
}

#[tokio::test]
async fn one_signs_in_with_a_token_or_by_keystone_and_out_again() {
    let site = site().await;
    let mut browser = site.browser_of("own").await;
    let page = site.get(&mut browser, "/").await;
    assert_eq!(page.status, 200);
    let csrf = page.csrf();
    let session = browser.cookies.iter().find(|(name, _)| name == "mimeo_session").unwrap().clone();
    assert!(!page.body.contains("own\"") && session.1 != "own", "the token is not given back");
    let out = site.post(&mut browser, "/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!((out.status, out.location()), (303, "/sign-in"));
    let mut kept = Browser { cookies: vec![session] };
    assert_eq!(site.get(&mut kept, "/").await.status, 303, "the session itself is over");

    let mut browser = Browser::default();
    let csrf = site.get(&mut browser, "/sign-in").await.csrf();
    let form =
        |password| [("csrf", csrf.clone()), ("user", "reader".into()), ("password", password), ("project", "p".into())];
    for (password, status) in [("wrong".to_owned(), 403), ("right".to_owned(), 303)] {
        let form = form(password);
        let fields: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let page = site.post(&mut browser, "/sign-in", &fields).await;
        assert_eq!(page.status, status, "{}", page.body);
        // A refusal makes a new form.
        assert!(status == 303 || page.body.contains("role=\"alert\"") && !page.body.contains("wrong"));
        if status == 403 {
            browser.cookies = vec![("mimeo_sign_in".into(), csrf.clone())];
        }
    }
    assert!(site.get(&mut browser, "/").await.body.contains("reader"));
}

#[tokio::test]
async fn a_sign_in_that_another_site_sent_is_refused() {
    let site = site().await;
    for cookies in [vec![], vec![("mimeo_sign_in".to_owned(), "x".to_owned())]] {
        let mut browser = Browser { cookies };
        let page = site.post(&mut browser, "/sign-in", &[("csrf", ""), ("token", "own")]).await;
        assert_eq!(page.status, 403);
        assert!(browser.cookies.iter().all(|(name, _)| name != "mimeo_session"));
    }
}

#[tokio::test]
async fn one_signs_in_from_the_first_of_two_tabs() {
    let site = site().await;
    let mut browser = Browser::default();
    let first = site.get(&mut browser, "/sign-in").await.csrf();
    assert_eq!(site.get(&mut browser, "/sign-in?next=/stores").await.csrf(), first);
    assert_eq!(site.post(&mut browser, "/sign-in", &[("csrf", &first), ("token", "wrong")]).await.csrf(), first);
    assert_eq!(site.post(&mut browser, "/sign-in", &[("csrf", &first), ("token", "own")]).await.status, 303);
    for forged in ["", "x", &format!("\"><i>{first}"), &first.to_uppercase()] {
        let mut browser = Browser { cookies: vec![("mimeo_sign_in".into(), forged.into())] };
        let csrf = site.get(&mut browser, "/sign-in").await.csrf();
        assert!(csrf != forged && csrf != first, "{csrf}");
    }
}

#[tokio::test]
async fn a_sign_in_form_that_is_too_old_says_so() {
    let site = site().await;
    let csrf = site.get(&mut Browser::default(), "/sign-in").await.csrf();
    let page = site.post(&mut Browser::default(), "/sign-in", &[("csrf", &csrf), ("token", "own")]).await;
    assert_eq!(page.status, 403);
    assert!(page.body.contains("sign-in form") && !page.body.contains("signed in to"), "{}", page.body);
    assert!(page.body.contains("What to do"), "{}", page.body);
}

#[tokio::test]
async fn cookies_are_for_this_site_alone_and_no_script_reads_them() {
    let site = site().await;
    let mut browser = Browser::default();
    let form = site.get(&mut browser, "/sign-in").await;
    let csrf = form.csrf();
    let page = site.post(&mut browser, "/sign-in", &[("csrf", &csrf), ("token", "own")]).await;
    for cookie in form.headers.get_all(header::SET_COOKIE).iter().chain(page.headers.get_all(header::SET_COOKIE)) {
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Strict"), "{cookie}");
        assert!(cookie.contains("; Secure"), "under TLS: {cookie}");
    }
}

#[tokio::test]
async fn behind_a_proxy_cookies_are_for_tls_alone_where_it_says_that_the_browser_came_by_it() {
    let site = site_with(false).await;
    for (said, secure) in
        [(None, false), (Some("http"), false), (Some("http, https"), false), (Some("HTTPS, http"), true)]
    {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(format!("http://{}/sign-in", site.address));
        let request = said.into_iter().fold(request, |request, scheme| request.header("x-forwarded-proto", scheme));
        let response = request.send().await.unwrap();
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        assert_eq!(cookie.contains("; Secure"), secure, "{said:?}: {cookie}");
    }
}

#[tokio::test]
async fn a_reader_sees_no_buttons_and_can_change_nothing() {
    let site = site().await;
    let id = site.with_an_image("a-name").await;
    let mut reader = site.browser_of("reader").await;
    let csrf = site.get(&mut reader, "/").await.csrf();
    for path in PAGES.iter().map(ToString::to_string).chain([format!("/images/{id}")]) {
        let page = site.get(&mut reader, &path).await;
        assert_eq!(page.status, 200, "{path}");
        let posts = page.body.matches("method=\"post\"").count();
        assert_eq!((posts, page.body.matches("action=\"/sign-out\"").count()), (1, 1), "{path}: {}", page.body);
    }
    for path in [format!("/images/{id}/retry"), format!("/images/{id}/verify"), "/deletes".into()] {
        let page = site.post(&mut reader, &path, &[("csrf", &csrf), ("sure", "yes")]).await;
        assert_eq!(page.status, 403, "{path}");
    }
    assert!(site.ledger.mark(&sample::id(1)).is_none(), "nothing was marked");
}

#[tokio::test]
async fn an_order_counts_only_from_a_page_of_the_same_session() {
    let site = site().await;
    let id = site.with_an_image("a-name").await;
    let (mut admin, mut other) = (site.browser_of("admin").await, site.browser_of("admin").await);
    let foreign = site.get(&mut other, "/").await.csrf();
    let path = format!("/images/{id}/retry");
    for csrf in ["", "x", foreign.as_str()] {
        assert_eq!(site.post(&mut admin, &path, &[("csrf", csrf)]).await.status, 403);
    }
    assert_eq!(site.post(&mut admin, &path, &[]).await.status, 403);
    assert!(site.ledger.mark(&sample::id(1)).is_none());
    let page = site.get(&mut admin, &format!("/images/{id}")).await;
    assert!(page.body.contains("no room") && page.body.contains("make room, or raise its quota"), "{}", page.body);
    let csrf = page.csrf();
    let page = site.post(&mut admin, &path, &[("csrf", &csrf)]).await;
    assert_eq!((page.status, page.location().to_owned()), (303, format!("/images/{id}")));
    assert!(site.ledger.mark(&sample::id(1)).is_some());
    assert!(site.get(&mut admin, &format!("/images/{id}")).await.body.contains("role=\"status\""), "it says so");
}

#[tokio::test]
async fn a_session_is_worth_what_its_token_is_worth_now() {
    let site = site().await;
    let mut admin = site.browser_of("admin").await;
    assert_eq!(site.get(&mut admin, "/").await.status, 200);
    site.clock.set(sample::time(100));
    assert_eq!(site.get(&mut admin, "/").await.status, 303, "Keystone's token has expired");
}

#[tokio::test]
async fn every_answer_tells_the_browser_to_run_nothing_but_mimeos_own() {
    let site = site().await;
    let mut admin = site.browser_of("own").await;
    let paths = ["/", "/sign-in", "/assets/style.css", "/assets/none", "/images/x", "/images/none/live", "/nothing"];
    for path in paths {
        let page = site.get(&mut admin, path).await;
        let header = |name: &str| page.headers.get(name).map_or("", |value| value.to_str().unwrap());
        let policy = header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "same-origin", "{path}");
        let is_handler = |word: &str| word.starts_with("on") && word.contains("=\"");
        let is_inline = page.body.split_whitespace().any(|word| word.starts_with("style=") || is_handler(word));
        assert!(!is_inline && !page.body.contains("<script>"), "{path}: {}", page.body);
    }
}

#[tokio::test]
async fn an_images_name_is_text_wherever_it_stands() {
    let site = site().await;
    let id = site.with_an_image("<script>alert(1)</script>\"'").await;
    let mut admin = site.browser_of("own").await;
    for path in ["/", "/?q=%22%3E%3Cscript%3Ealert", "/deletes", &format!("/images/{id}")] {
        let page = site.get(&mut admin, path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.body.contains("<script>alert"), "{path}: {}", page.body);
    }
}

#[tokio::test]
async fn an_images_page_leads_to_the_others_of_its_project() {
    let site = site().await;
    let of = |n, owner: &str| Change::Image(ImageRow { owner: Some(owner.into()), ..ImageRow::new(sample::id(n)) });
    site.ledger.commit(&[of(1, "a&b\""), of(2, "a&b\""), of(3, "c")]).await.unwrap();
    let mut admin = site.browser_of("own").await;
    let page = site.get(&mut admin, &format!("/images/{}", sample::id(1))).await;
    let link = page.body.split("href=\"").find(|link| link.contains("a&amp;b&quot;</a>")).unwrap();
    let others = site.get(&mut admin, link.split('"').next().unwrap()).await;
    assert_eq!(others.body.matches("id=\"i-").count(), 2, "{}", others.body);
}

#[tokio::test]
async fn the_matrix_is_filtered_and_has_pages() {
    let site = site().await;
    let rows: Vec<Change> = (1..=250)
        .map(|n| Change::Image(ImageRow { name: Some(format!("image-{n:03}")), ..ImageRow::new(sample::id(n)) }))
        .collect();
    site.ledger.commit(&rows).await.unwrap();
    let mut admin = site.browser_of("own").await;
    let rows = |page: &Page| page.body.matches("id=\"i-").count();
    let (mut path, mut seen) = (Some("/?q=image".to_owned()), Vec::new());
    while let Some(here) = path {
        let page = site.get(&mut admin, &here).await;
        seen.push(rows(&page));
        let next = page.body.split("href=\"").find(|link| link.contains("rel=\"next\""));
        path = next.map(|link| link.split('"').next().unwrap().replace("&#38;", "&"));
    }
    assert_eq!(seen, [100, 100, 50]);
    assert_eq!(rows(&site.get(&mut admin, "/?q=IMAGE-12").await), 10);
    assert_eq!(rows(&site.get(&mut admin, "/?state=failed").await), 0);
    assert_eq!(rows(&site.get(&mut admin, "/?state=unmanaged&q=image-007").await), 1);
    assert_eq!(site.get(&mut admin, "/?state=nonsense").await.status, 400);
    assert_eq!(rows(&site.get(&mut admin, "/?store=http1").await), 0);
    let nowhere = site.get(&mut admin, "/?store=nowhere").await;
    assert!(nowhere.status == 400 && nowhere.body.contains("known: http1"), "{}", nowhere.body);
    let copy = Replica::wanted("former".parse().unwrap());
    site.ledger.commit(&[Change::Replica(sample::id(7), copy)]).await.unwrap();
    assert_eq!(rows(&site.get(&mut admin, "/?store=former").await), 1, "no longer enabled, and not empty");
}

#[tokio::test]
async fn what_an_address_asks_wrongly_is_told_on_a_page() {
    let site = site().await;
    let mut admin = site.browser_of("own").await;
    for path in ["/?q=a&q=b", "/sign-in?next=a&next=b"] {
        let page = site.get(&mut admin, path).await;
        assert!(
            page.status == 400 && page.body.contains("stands twice") && page.body.contains("<html"),
            "{}",
            page.body
        );
    }
}

#[tokio::test]
async fn copies_that_ended_are_shown_however_quick_they_were() {
    let site = site().await;
    let mut admin = site.browser_of("own").await;
    assert!(site.get(&mut admin, "/transfers").await.body.contains("Nothing lately"));
    let image = Change::Image(ImageRow { name: Some("quick".into()), ..ImageRow::new(sample::id(1)) });
    let copy = |state| Change::Replica(sample::id(1), Replica { state, ..Replica::wanted("http1".parse().unwrap()) });
    for change in [image, copy(ReplicaState::Copying), copy(ReplicaState::Proven), copy(ReplicaState::Registered)] {
        site.ledger.commit(&[change]).await.unwrap();
    }
    let page = site.get(&mut admin, "/transfers").await.body;
    assert_eq!((page.matches("id=\"f-").count(), page.contains(">quick</a>")), (1, true), "{page}");
}

#[tokio::test]
async fn of_many_deletions_some_are_shown_and_all_are_counted() {
    let site = site().await;
    doom(&site.ledger, 501).await;
    let mut browser = site.browser_of("own").await;
    let page = site.get(&mut browser, "/deletes").await;
    assert!(page.body.contains("500 of 501 are shown"), "{}", page.body.len());
}

#[tokio::test]
async fn deletions_are_confirmed_as_they_were_shown() {
    let site = site().await;
    site.with_an_image("a-name").await;
    let mut admin = site.browser_of("own").await;
    let csrf = site.get(&mut admin, "/").await.csrf();
    let confirmed = async || site.ledger.bookmark("deletes-confirmed").await.unwrap().is_some();
    let page = site.get(&mut admin, "/deletes").await;
    assert!(page.body.contains("a-name"), "{}", page.body);
    let (seen, ahead) = (sample::time(0).to_string(), sample::time(86_400).to_string());
    for (seen, sure) in [("", "yes"), ("then", "yes"), (&*ahead, "yes"), (&*seen, "")] {
        site.post(&mut admin, "/deletes", &[("csrf", &csrf), ("seen", seen), ("sure", sure)]).await;
        assert!(!confirmed().await, "{seen} {sure}");
    }
    site.post(&mut admin, "/deletes", &[("csrf", &csrf), ("seen", &seen), ("sure", "yes")]).await;
    assert!(confirmed().await);
}
