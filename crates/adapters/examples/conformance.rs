//! Runs a conformance suite against a real server, for `e2e/test_conformance.py`: no unit test has one.
//!
//! - `conformance store http URL [KEY=VALUE…]`: a web server that takes PUT and DELETE below the URL, with the keys of a
//!   store's section, from `read_url` to `proxy`. It is checked with small segments too, and what it says of itself is
//!   printed: `resumes` where it takes ranged PUTs.
//! - `conformance store file DIRECTORY URL`: a directory, and a web server that shows it at the URL. It is checked with
//!   small writes too.
//! - `conformance store http URL`: a web server that takes PUT and DELETE below the URL. It is checked with small segments
//!   too, and what it says of itself is printed: `resumes` where it takes ranged PUTs.
//! - `conformance store rbd CONF_FILE USER POOL`: a pool of a Ceph cluster, whose keyring the file names. It is checked
//!   with small objects and requests too.
//! - `conformance store swift AUTH_URL USER KEY CONTAINER [PROJECT]`: a Swift that is logged in to by version 1, or with
//!   a project by Keystone. It is checked with small segments too.
//! - `conformance store s3 ENDPOINT BUCKET`: a bucket, with the keys of `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. With
//!   `small-parts` behind it also with parts of 25,000 bytes, for which the server must be set up (radosgw:
//!   `rgw_multipart_min_part_size`).
//! - `conformance store sftp HOST PORT USER PATH READ_URL KNOWN_HOSTS LOGIN`: an SSH server whose directory the web
//!   server at READ_URL exports. LOGIN is a key file, `agent`, or `password`, which `STORE_PASSWORD` holds. It is checked
//!   with small requests too.
//! - `conformance store rsync TARGET READ_URL SPOOL [PORT KEY_FILE KNOWN_HOSTS]`: a directory behind an SSH server, or a
//!   module of rsync's daemon, whose password `STORE_PASSWORD` holds. It is checked with small deltas too.
//! - `conformance registry URL`: the Glance that the `OS_*` variables (user and password) lead to. It must read
//!   locations below the URL, which is a web server's as above, and give no more than three images per page
//!   (`api_limit_max`).
//!
//! Ends with a panic, and so with an exit code other than 0, where the server does not conform.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a check fails")]
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::{
    collections::BTreeMap,
    env,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use mimeo_adapters::{
    openstack::{Glance, OpenstackConfig},
    stores::{
        base_url,
        file::{FileStore, FileStoreConfig},
        http::{self, Access, HttpStore, HttpStoreConfig, Login},
        http::{HttpStore, HttpStoreConfig},
        rbd::{RbdStore, RbdStoreConfig},
        http::{HttpStore, HttpStoreConfig},
        swift::{SwiftCredentials, SwiftLogin, SwiftStore, SwiftStoreConfig},
        http::{HttpStore, HttpStoreConfig},
        s3::{self, S3Credentials, S3Store, S3StoreConfig, UrlStyle},
        http::{HttpStore, HttpStoreConfig},
        rsync::{RsyncStore, RsyncStoreConfig, RsyncTarget},
        sftp::{SftpStore, SftpStoreConfig},
    },
};
use mimeo_core::{ImageId, ports::Store};
use mimeo_testkit::{
    conformance::{self, Backstage},
    sample,
};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["store", "http", url, ref options @ ..] => {
            let config = http_config(url, options);
            conformance::store(&HttpStore::new(config.clone()).unwrap()).await;
            let store = HttpStore::new(config).unwrap().with_segment(16 << 10);
            conformance::store(&store).await;
            if store.resumes() == Some(true) {
                println!("resumes");
            }
        }
        ["store", "file", path, read_url] => {
            let read_url = base_url("read_url", read_url).unwrap();
            let config = FileStoreConfig { name: "store".parse().unwrap(), path: path.into(), read_url };
            let store = FileStore::new(config).unwrap();
            conformance::store(&store).await;
            conformance::store(&store.with_gathered(3 << 10)).await;
        ["store", "rbd", conf_file, user, pool] => {
            let fsid = RbdStoreConfig::fsid_of(conf_file.as_ref()).unwrap();
            let config = RbdStoreConfig::new("store".parse().unwrap(), pool.into(), fsid);
            let config = RbdStoreConfig { conf_file: conf_file.into(), user: user.into(), ..config };
            conformance::store(&RbdStore::new(config.clone()).unwrap()).await;
            let store = RbdStore::new(RbdStoreConfig { order: 16, ..config }).unwrap().with_request(16 << 10);
            conformance::store(&store).await;
        ["store", "swift", url, user, key, container] => {
            let credentials = SwiftCredentials::tempauth(url, user, key.into()).unwrap();
            swift(SwiftLogin::TempAuth(credentials), container).await;
        }
        ["store", "swift", url, user, key, container, project] => {
            let credentials = SwiftCredentials::new(url, project, user, key.into()).unwrap();
            let login = SwiftLogin::Keystone { credentials, user_domain: None, project_domain: None };
            swift(login, container).await;
        ["store", "s3", endpoint, bucket, ref small @ ..] => {
            let store = s3(endpoint, bucket);
            conformance::store(&store).await;
            if *small == ["small-parts"] {
                conformance::store(&store.with_part(25_000)).await;
            }
            println!("resumes");
        ["store", "sftp", host, port, user, path, read_url, known_hosts, login] => {
            let config = SftpStoreConfig {
                name: "store".parse().unwrap(),
                host: host.to_owned(),
                port: port.parse().unwrap(),
                user: user.to_owned(),
                path: path.to_owned(),
                read_url: base_url("read_url", read_url).unwrap(),
                key_file: (!matches!(login, "agent" | "password")).then(|| login.into()),
                key_passphrase: None,
                agent: login == "agent",
                password: env::var("STORE_PASSWORD").ok().filter(|_| login == "password").map(Into::into),
                known_hosts: known_hosts.into(),
            };
            let store = SftpStore::new(config).unwrap();
            conformance::store(&store).await;
            conformance::store(&store.with_request(1000)).await;
        }
        ["store", "rsync", target, read_url, spool, ref ssh @ ..] => {
            let config = RsyncStoreConfig {
                name: "store".parse().unwrap(),
                target: RsyncTarget::parse(target).unwrap(),
                read_url: base_url("read_url", read_url).unwrap(),
                spool: spool.into(),
                spool_size: 1 << 30,
                password: env::var("STORE_PASSWORD").ok().filter(|_| ssh.is_empty()).map(Into::into),
                port: ssh.first().map(|port| port.parse().unwrap()),
                key_file: ssh.get(1).map(Into::into),
                known_hosts: ssh.get(2).map(Into::into),
            };
            let store = RsyncStore::new(config).unwrap();
            conformance::store(&store).await;
            conformance::store(&store.with_delta_from(1)).await;
        }
        ["registry", url] => {
            let glance = Glance::connect(&OpenstackConfig::default()).unwrap();
            conformance::registry(&glance, &Cloud::log_in(url).await).await;
        }
        _ => panic!("usage: conformance store http URL [KEY=VALUE…] | store file DIRECTORY URL | registry URL"),
        _ => panic!("usage: conformance store (http URL | rbd CONF_FILE USER POOL) | conformance registry URL"),
        _ => panic!("usage: conformance store http|swift … | conformance registry URL"),
        _ => panic!("usage: conformance store TYPE … | conformance registry URL; see the first lines of its source"),
    }
}

async fn swift(login: SwiftLogin, container: &str) {
    let config = SwiftStoreConfig {
        name: "store".parse().unwrap(),
        login,
        region: None,
        interface: None,
        container: container.to_owned(),
        segment_size: 128 << 20,
        create_container: true,
        ca_file: None,
    };
    conformance::store(&SwiftStore::new(config.clone()).unwrap()).await;
    for segment_size in [16 << 10, 100_000] {
        conformance::store(&SwiftStore::new(SwiftStoreConfig { segment_size, ..config.clone() }).unwrap()).await;
    }
}

fn http_config(url: &str, options: &[&str]) -> HttpStoreConfig {
    let options: BTreeMap<&str, &str> = options.iter().map(|option| option.split_once('=').unwrap()).collect();
    let option = |key: &str| options.get(key).copied();
    let pem = |key: &str| option(key).map(|path| std::fs::read(path).unwrap());
    let basic = option("user").zip(option("password"));
    let access = Access {
        login: match (basic, option("token")) {
            (Some((user, password)), _) => Some(Login::Basic { user: user.into(), password: password.into() }),
            (None, token) => token.map(|token| Login::Bearer(token.into())),
        },
        identity: pem("cert_file").zip(pem("key_file")).map(|(cert, key)| http::identity(&cert, &key).unwrap()),
        roots: pem("ca_file").map(|pem| http::certificates(&pem).unwrap()).unwrap_or_default(),
        proxy: option("proxy").map(|url| http::proxy(url).unwrap()),
    };
    HttpStoreConfig { access, ..HttpStoreConfig::new("store".parse().unwrap(), url, option("read_url")).unwrap() }
        _ => panic!(
            "usage: conformance store http URL | conformance store s3 ENDPOINT BUCKET [small-parts] | conformance registry URL"
        ),
    }
}

fn s3(endpoint: &str, bucket: &str) -> S3Store {
    let endpoint = base_url("endpoint", endpoint).unwrap();
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let config = S3StoreConfig {
        name: "store".parse().unwrap(),
        bucket: s3::bucket(endpoint.clone(), UrlStyle::Path, bucket, "us-east-1").unwrap(),
        endpoint,
        prefix: String::new(),
        credentials: S3Credentials {
            access_key: variable("AWS_ACCESS_KEY_ID"),
            secret_key: variable("AWS_SECRET_ACCESS_KEY").into(),
            session_token: None,
        },
        authorities: Vec::new(),
        location_credentials: false,
    };
    S3Store::new(config).unwrap()
}

/// Glance and a web server without the adapters, whose mistakes would otherwise hide themselves.
struct Cloud {
    http: Client,
    glance: String,
    token: String,
    web: String,
    names: AtomicUsize,
}

/// What the images belong to: any project but the one that is logged in to. Glance does not ask whether it exists.
const OTHER_PROJECT: &str = "00000000000000000000000000000c0f";

impl Cloud {
    async fn log_in(web: &str) -> Self {
        let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let user = json!({
            "name": variable("OS_USERNAME"), "password": variable("OS_PASSWORD"),
            "domain": {"id": variable("OS_USER_DOMAIN_ID")},
        });
        let project = json!({"name": variable("OS_PROJECT_NAME"), "domain": {"id": variable("OS_PROJECT_DOMAIN_ID")}});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": project},
        }});
        let http = Client::builder().no_proxy().build().unwrap();
        let login = http.post(format!("{}/auth/tokens", variable("OS_AUTH_URL"))).json(&body);
        let answer = succeeds(login).await;
        let token = answer.headers()["X-Subject-Token"].to_str().unwrap().to_owned();
        let catalogue: Value = answer.json().await.unwrap();
        let glance = endpoint(&catalogue).expect("the catalogue has a public endpoint of an image service");
        let web = web.trim_end_matches('/').to_owned();
        Self { http, glance, token, web, names: AtomicUsize::new(0) }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/v2/images{path}", self.glance)).header("X-Auth-Token", &self.token)
    }

    fn new_url(&self) -> String {
        format!("{}/conformance-{}-{}", self.web, std::process::id(), self.names.fetch_add(1, Ordering::Relaxed))
    }
}

#[async_trait]
impl Backstage for Cloud {
    async fn create(&self, bits: Bytes) -> ImageId {
        let image = json!({
            "name": "conformance", "disk_format": "raw", "container_format": "bare", "visibility": "private",
            "owner": OTHER_PROJECT,
        });
        let image: Value = succeeds(self.request(Method::POST, "").json(&image)).await.json().await.unwrap();
        let id: ImageId = image["id"].as_str().unwrap().parse().unwrap();
        let upload =
            self.request(Method::PUT, &format!("/{id}/file")).header("Content-Type", "application/octet-stream");
        succeeds(upload.body(bits)).await;
        id
    }

    async fn hide(&self, id: &ImageId) {
        let patch = json!([{"op": "replace", "path": "/os_hidden", "value": true}]).to_string();
        let request = self.request(Method::PATCH, &format!("/{id}"));
        succeeds(request.header("Content-Type", "application/openstack-images-v2.1-json-patch").body(patch)).await;
    }

    async fn delete(&self, id: &ImageId) {
        succeeds(self.request(Method::DELETE, &format!("/{id}"))).await;
    }

    async fn fresh_url(&self, size: usize) -> String {
        let url = self.new_url();
        succeeds(self.http.put(&url).body(sample::bits(size))).await;
        url
    }

    async fn dead_url(&self) -> String {
        self.new_url()
    }
}

fn endpoint(catalogue: &Value) -> Option<String> {
    let services = catalogue["token"]["catalog"].as_array()?;
    let endpoints = services.iter().find(|service| service["type"] == "image")?["endpoints"].as_array()?;
    let public = endpoints.iter().find(|endpoint| endpoint["interface"] == "public")?;
    Some(public["url"].as_str()?.trim_end_matches('/').to_owned())
}

async fn succeeds(request: RequestBuilder) -> Response {
    let response = request.send().await.unwrap();
    let (status, url) = (response.status(), response.url().clone());
    if status.is_success() {
        return response;
    }
    panic!("{url} answered {status}: {}", response.text().await.unwrap_or_default())
}
