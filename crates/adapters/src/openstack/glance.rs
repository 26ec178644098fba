use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use mimeo_core::{
    Error, Image, ImageId, Location, Reason, Result, Timestamp,
    identity::Identity,
    ports::{Cursor, Page, Registry, Source, Undone},
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    OpenstackConfig,
    answer::{reason, refused, unanswered},
    config::{Login, trust},
    session::{Access, Session},
    source::GlanceSource,
    wire::{Members, WireImage, WirePage},
};
use crate::http::client;

/// For everything but bits.
const TIMEOUT: Duration = Duration::from_secs(30);

const PATCH_TYPE: &str = "application/openstack-images-v2.1-json-patch";

/// Images per page.
const PAGE: usize = 500;

/// How many pages are looked through for an image of another project.
const PAGES_OF_OTHERS: usize = 4;

/// Of how many shared images the members are asked for.
const SHARED: usize = 5;

/// Glance's Images API v2. Clones share their token and connections.
#[derive(Clone)]
pub struct Glance(Arc<Shared>);

struct Shared {
    session: Session,
    http: Client,
}

impl Glance {
    /// Reads the configuration; the login itself happens at the first use, so that Mimeo starts while Keystone is
    /// down.
    pub fn connect(config: &OpenstackConfig) -> Result<Self> {
        Self::with_login(config.login()?)
    }

    /// From now on requests log in as this configuration, with clouds.yaml as it is now, says.
    pub fn renew(&self, config: &OpenstackConfig) -> Result<()> {
        self.0.session.renew(config.login()?);
        Ok(())
    }

    pub(super) fn with_login(login: Login) -> Result<Self> {
        let builder = match &login {
            Login::Keystone { cloud, .. } => trust(client(), cloud)?,
            _ => client(),
        };
        let failed = |cause| Error::new(Reason::NotAllowed, "no HTTP client can be made").caused_by(cause);
        Ok(Self(Arc::new(Shared { session: Session::new(login), http: builder.build().map_err(failed)? })))
    }

    /// A private, raw image without bits.
    pub async fn create_image(&self, name: &str, properties: &BTreeMap<String, String>) -> Result<ImageId> {
        let mut image =
            json!({"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "private"});
        for (key, value) in properties {
            image[key.as_str()] = Value::from(value.as_str());
        }
        let post = |request: RequestBuilder| request.timeout(TIMEOUT).json(&image);
        let response = self.send(&Method::POST, "/v2/images", post).await?;
        let created: WireImage = read(&Method::POST, expect_success(&Method::POST, response).await?).await?;
        Ok(Image::from(created).id)
    }

    /// Uploads the whole of an image's bits; for small ones.
    pub async fn upload(&self, id: &ImageId, bits: Bytes) -> Result<()> {
        let path = format!("/v2/images/{id}/file");
        let put = |request: RequestBuilder| {
            request.timeout(TIMEOUT).header(header::CONTENT_TYPE, "application/octet-stream").body(bits.clone())
        };
        let response = self.send(&Method::PUT, &path, put).await?;
        expect_success(&Method::PUT, response).await.map(drop)
    }

    /// The whole of an image's bits; for small ones.
    pub async fn download(&self, id: &ImageId) -> Result<Bytes> {
        let chunks: Vec<Bytes> = self.source(id).open(0).await?.try_collect().await?;
        Ok(chunks.concat().into())
    }

    /// An image that is not there is no error.
    pub async fn delete_image(&self, id: &ImageId) -> Result<()> {
        let response = self.send(&Method::DELETE, &image_path(id), metadata).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(()),
            _ => expect_success(&Method::DELETE, response).await.map(drop),
        }
    }

    /// Glance's own stores, as `GET /v2/info/stores` tells them.
    pub async fn list_stores(&self) -> Result<Value> {
        self.get("/v2/info/stores").await
    }

    /// What Glance's web server takes for the time, if it tells.
    pub async fn server_date(&self) -> Result<Option<Timestamp>> {
        let response = self.send(&Method::GET, "/v2/images?limit=1", metadata).await?;
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp()))
    }

    /// Sends a request with the token, and once more with a new one if the first was refused. Any answer is a success
    /// here.
    pub(super) async fn send(
        &self,
        method: &Method,
        path: &str,
        finish: impl Fn(RequestBuilder) -> RequestBuilder + Send + Sync,
    ) -> Result<Response> {
        let access = self.0.session.access().await.map_err(Error::unsent)?;
        let response = self.send_as(&access, method, path, &finish).await?;
        if response.status() != StatusCode::UNAUTHORIZED || self.0.session.is_open() {
            return Ok(response);
        }
        let access = self.0.session.renewed(&access).await.map_err(Error::unsent)?;
        self.send_as(&access, method, path, &finish).await
    }

    async fn send_as(
        &self,
        access: &Access,
        method: &Method,
        path: &str,
        finish: impl Fn(RequestBuilder) -> RequestBuilder + Send + Sync,
    ) -> Result<Response> {
        let url = format!("{}{path}", access.endpoint);
        let mut request = self.0.http.request(method.clone(), &url);
        if let Some(token) = &access.token {
            request = request.header("X-Auth-Token", token.clone());
        }
        finish(request).send().await.map_err(|cause| unanswered(method, &url, cause))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.send(&Method::GET, path, metadata).await?;
        read(&Method::GET, expect_success(&Method::GET, response).await?).await
    }

    async fn patch(&self, id: &ImageId, patch: &Value, reason: fn(StatusCode) -> Reason) -> Result<()> {
        let body = patch.to_string();
        let finish = |request: RequestBuilder| {
            request.timeout(TIMEOUT).header(header::CONTENT_TYPE, PATCH_TYPE).body(body.clone())
        };
        // Behind a proxy that answers for it, or a connection that broke off, Glance may go on.
        let unanswered = |mut error: Error| {
            if error.reason == Reason::ImageServiceError {
                error.reason = Reason::ImageServiceUnreachable;
            }
            error
        };
        let response = self.send(&Method::PATCH, &image_path(id), finish).await.map_err(unanswered)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                Err(refused(&Method::PATCH, Reason::ImageServiceUnreachable, response).await)
            }
            status => Err(refused(&Method::PATCH, reason(status), response).await),
        }
    }

    /// A page of one of Glance's two lists of images, from its start or from where `cursor` stands.
    async fn page(&self, list: &str, query: &str, cursor: Option<&str>) -> Result<Page> {
        let marker = cursor.map(|id| format!("&marker={id}")).unwrap_or_default();
        let path = format!("/v2/images?limit={PAGE}&{query}&{list}{marker}");
        let response = self.send(&Method::GET, &path, metadata).await?;
        if cursor.is_some() && matches!(response.status(), StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) {
            return Err(refused(&Method::GET, Reason::Conflict, response).await);
        }
        let page: WirePage = read(&Method::GET, expect_success(&Method::GET, response).await?).await?;
        let images: Vec<Image> = page.images.into_iter().map(Image::from).collect();
        let end = images.last().filter(|_| page.next.is_some());
        let next = end.map(|image| Cursor(format!("{list} {}", image.id)));
        Ok(Page { images, next })
    }

    /// The images of other projects than the token's in this list, as far as it is looked through.
    async fn others(&self, list: &str, query: &str, enough: usize) -> Result<Vec<Image>> {
        let own = self.0.session.access().await?.project;
        let (mut others, mut cursor) = (Vec::new(), None);
        for _ in 0..PAGES_OF_OTHERS {
            let page = self.page(list, query, cursor.as_ref().map(marker)).await?;
            let foreign = |image: &Image| image.owner.is_some() && image.owner != own;
            others.extend(page.images.into_iter().filter(foreign));
            cursor = page.next;
            if others.len() >= enough || cursor.is_none() {
                break;
            }
        }
        others.truncate(enough);
        Ok(others)
    }

    /// Whether the image is shown although nobody shared it with the token's project.
    async fn is_shown_unshared(&self, image: &Image) -> Result<bool> {
        let own = self.0.session.access().await?.project;
        let response = self.send(&Method::GET, &format!("{}/members", image_path(&image.id)), metadata).await?;
        if !response.status().is_success() {
            return Ok(false);
        }
        let members: Members = read(&Method::GET, response).await?;
        Ok(members.members.iter().all(|member| Some(&member.member_id) != own.as_ref()))
    }
}

#[async_trait]
impl Registry for Glance {
    async fn look(&self, id: &ImageId) -> Result<Option<Image>> {
        let response = self.send(&Method::GET, &image_path(id), metadata).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let image: WireImage = read(&Method::GET, expect_success(&Method::GET, response).await?).await?;
        Ok(Some(image.into()))
    }

    async fn named(&self, name: &str) -> Result<Vec<Image>> {
        // Without the operator Glance takes what stands before a colon for one.
        let query: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("visibility", "all")
            .append_pair("name", &format!("eq:{name}"))
            .finish();
        let mut images = self.page(SHOWN, &query, None).await?.images;
        images.extend(self.page(HIDDEN, &query, None).await?.images);
        Ok(images)
    }

    /// Shown by another project's private image, or by a shared one (what Glance makes by default) that nobody shared
    /// with the token's project. Without a token nobody's images are hidden from anybody.
    async fn sees_all(&self) -> Result<bool> {
        if self.0.session.is_open() {
            return Ok(true);
        }
        for list in [SHOWN, HIDDEN] {
            if !self.others(list, "visibility=private", 1).await?.is_empty() {
                return Ok(true);
            }
        }
        for image in self.others(SHOWN, "visibility=shared&member_status=all", SHARED).await? {
            if self.is_shown_unshared(&image).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn roles(&self) -> Result<Option<BTreeSet<String>>> {
        let Some(keystone) = self.0.session.keystone()? else { return Ok(None) };
        let access = self.0.session.access().await?;
        let token = access.token.as_ref().and_then(|token| token.to_str().ok()).unwrap_or_default();
        // Keystone knows nothing of a token that it has revoked.
        Ok(Some(keystone.whose(token).await?.map(|person| person.roles).unwrap_or_default()))
    }

    /// Glance keeps hidden images in a list of their own, so there are two to walk, and the cursor says in which of them
    /// it stands. Both are in the order of creation, which no change of an image disturbs: in the order of `updated_at`
    /// an image that changes while it is the marker would take those behind it along.
    async fn changed_since(&self, since: Option<Timestamp>, cursor: Option<&Cursor>) -> Result<Page> {
        let since = since.map(|since| format!("&updated_at=gte:{}", since.strftime("%Y-%m-%dT%H:%M:%SZ")));
        let query = format!("visibility=all&sort=created_at:asc,id:asc{}", since.unwrap_or_default());
        if cursor.is_some_and(|cursor| cursor.0.starts_with(HIDDEN)) {
            return self.page(HIDDEN, &query, cursor.map(marker)).await;
        }
        let mut page = self.page(SHOWN, &query, cursor.map(marker)).await?;
        if page.next.is_none() {
            let hidden = self.page(HIDDEN, &query, None).await?;
            page.images.extend(hidden.images);
            page.next = hidden.next;
        }
        Ok(page)
    }

    async fn add_locations(&self, id: &ImageId, locations: &[Location]) -> Result<()> {
        let add = |location| json!({"op": "add", "path": "/locations/-", "value": location});
        let patch: Value = locations.iter().map(add).collect();
        self.patch(id, &patch, locations_reason).await
    }

    /// In one PATCH, of which Glance saves all or nothing. A position alone would hit whatever stands there by then: the
    /// whole set is given first, which Glance refuses if it is another one by now, with those to be removed at its end.
    async fn arrange_locations(&self, id: &ImageId, keep: &[Location], remove: &[Location]) -> Result<()> {
        if keep.is_empty() {
            // Glance refuses that only when the bits of the others are gone.
            let message = format!("image {id} would be left without a location");
            return Err(Error::new(Reason::LastLocation, message));
        }
        let all: Vec<&Location> = keep.iter().chain(remove).collect();
        let mut patch = vec![json!({"op": "replace", "path": "/locations", "value": all})];
        let last_ones = (keep.len()..all.len()).rev();
        patch.extend(last_ones.map(|at| json!({"op": "remove", "path": format!("/locations/{at}")})));
        self.patch(id, &Value::from(patch), arranging_reason).await
    }

    async fn put_back(&self, id: &ImageId, undone: &Undone) -> Result<()> {
        // The visibility first: while it is wrong, others may see what they should not.
        if let Some(visibility) = undone.visibility {
            let patch = json!([{"op": "replace", "path": "/visibility", "value": visibility}]);
            self.patch(id, &patch, reason).await?;
        }
        if let Some(protected) = undone.protected {
            self.patch(id, &json!([{"op": "replace", "path": "/protected", "value": protected}]), reason).await?;
        }
        if let Some(deactivated) = undone.deactivated {
            let action = if deactivated { "deactivate" } else { "reactivate" };
            let path = format!("{}/actions/{action}", image_path(id));
            let response = self.send(&Method::POST, &path, metadata).await?;
            expect_success(&Method::POST, response).await?;
        }
        Ok(())
    }

    async fn copy_to(&self, id: &ImageId, backends: &[String]) -> Result<()> {
        let body = json!({"method": {"name": "copy-image"}, "stores": backends, "all_stores_must_succeed": false});
        let path = format!("{}/import", image_path(id));
        let response = self.send(&Method::POST, &path, |request| metadata(request).json(&body)).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(refused(&Method::POST, copying_reason(status), response).await),
        }
    }

    fn source(&self, id: &ImageId) -> Arc<dyn Source> {
        Arc::new(GlanceSource { glance: self.clone(), id: id.clone() })
    }
}

/// The two lists of images, as a cursor names them.
const SHOWN: &str = "os_hidden=false";
const HIDDEN: &str = "os_hidden=true";

/// The image that the cursor stands at.
fn marker(cursor: &Cursor) -> &str {
    cursor.0.split_once(' ').map_or("", |(_, id)| id)
}

fn image_path(id: &ImageId) -> String {
    format!("/v2/images/{id}")
}

fn metadata(request: RequestBuilder) -> RequestBuilder {
    request.timeout(TIMEOUT)
}

/// What a status means as the answer to a PATCH of locations.
fn locations_reason(status: StatusCode) -> Reason {
    match status {
        StatusCode::FORBIDDEN => Reason::LocationsForbidden,
        StatusCode::PAYLOAD_TOO_LARGE => Reason::LocationQuota,
        StatusCode::BAD_REQUEST => Reason::LocationRefused,
        status => reason(status),
    }
}

/// What a status means as the answer to a PATCH that arranges locations: 400 where the image has others.
fn arranging_reason(status: StatusCode) -> Reason {
    match status {
        StatusCode::BAD_REQUEST => Reason::Conflict,
        status => locations_reason(status),
    }
}

/// What a status means as the answer to copy-image.
fn copying_reason(status: StatusCode) -> Reason {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Reason::GlanceCopyFailed,
        status => reason(status),
    }
}

async fn expect_success(method: &Method, response: Response) -> Result<Response> {
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(refused(method, reason(status), response).await),
    }
}

async fn read<T: DeserializeOwned>(method: &Method, response: Response) -> Result<T> {
    let url = response.url().to_string();
    let body = response.bytes().await.map_err(|cause| unanswered(method, &url, cause))?;
    serde_json::from_slice(&body).map_err(|cause| {
        let message = format!("the answer to {method} {url} is not what the Images API promises");
        Error::new(Reason::ImageServiceError, message).caused_by(cause)
    })
}
