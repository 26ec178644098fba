//! A real Glance, and a web server, from behind.

use std::{
    env,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::ImageId;
use mimeo_testkit::{conformance::Backstage, sample};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// Glance and a web server without the adapters, whose mistakes would otherwise hide themselves.
pub(crate) struct Cloud {
    http: Client,
    glance: String,
    token: String,
    web: String,
    names: AtomicUsize,
}

/// What the images belong to: any project but the one that is logged in to. Glance does not ask whether it exists.
const OTHER_PROJECT: &str = "00000000000000000000000000000c0f";

impl Cloud {
    pub(crate) async fn log_in(web: &str) -> Self {
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

    /// Of the file stores that the tests' Glance has beside its default one.
    fn backend(&self) -> String {
        "second".into()
    }

    async fn copied(&self, id: &ImageId) {
        let is_copied = async || {
            let image: Value = succeeds(self.request(Method::GET, &format!("/{id}"))).await.json().await.unwrap();
            image.get("os_glance_import_task").is_none_or(Value::is_null)
        };
        while !is_copied().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
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
