//! The requests, each signed, sent, and its answer checked.

use std::{collections::BTreeMap, iter, sync::Arc, time::Duration};

use mimeo_core::{Error, Reason, Result, StoreName};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header, redirect};
use rusty_s3::{
    Bucket, Credentials, Method as Verb, S3Action,
    actions::{CompleteMultipartUploadResponse, CreateMultipartUpload, ListObjectsV2, ListParts, PartsContent},
    signing::sign,
};
use secrecy::ExposeSecret;
use url::Url;

use super::{
    S3Credentials, S3StoreConfig,
    answer::{Answer, elements, first, refused},
    checked,
};
use crate::{
    Live,
    stores::web::{built, plain_client},
    upload::unanswered,
};

/// How long a signature holds. Servers let clocks differ by as much.
const VALID: Duration = Duration::from_mins(15);

/// Says which checksum the parts of an upload will have.
const CHECKSUM_ALGORITHM: &str = "x-amz-checksum-algorithm";

/// A probe answers at once or not at all, as that of any web server.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(super) struct Api {
    store: StoreName,
    bucket: Bucket,
    credentials: Live<Credentials>,
    client: Client,
    /// Bodies are sent with their SHA-256.
    pub(super) checksum: bool,
}

/// A part that the server has.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) number: u16,
    pub(super) size: u64,
    pub(super) etag: String,
    /// Its SHA-256, where that is known.
    pub(super) checksum: Option<String>,
}

/// Where a listing of uploads goes on: a key, and an upload's id.
pub(super) type Marker = (String, String);

pub(super) struct Uploads {
    /// The key and the id of each.
    pub(super) uploads: Vec<(String, String)>,
    pub(super) next: Option<Marker>,
}

impl Api {
    pub(super) fn new(config: &S3StoreConfig) -> Result<Self> {
        let builder = plain_client().redirect(redirect::Policy::none());
        let client = built(&config.name, builder.tls_certs_merge(config.authorities.clone()))?;
        let credentials = Live::new(signing(&config.credentials));
        let (store, bucket, checksum) = (config.name.clone(), config.bucket.clone(), config.checksum);
        Ok(Self { store, bucket, credentials, client, checksum })
    }

    /// For the requests from now on.
    pub(super) fn renew(&self, credentials: &S3Credentials) {
        self.credentials.set(signing(credentials));
    }

    fn credentials(&self) -> Arc<Credentials> {
        self.credentials.get()
    }

    // -- whole objects ---------------------------------------------------------------------------------------------

    pub(super) fn put(&self, key: &str, size: u64) -> RequestBuilder {
        if self.checksum {
            return self.put_checked(&self.bucket.object_url(key), size);
        }
        self.client.put(self.bucket.put_object(Some(&*self.credentials()), key).sign(VALID))
    }

    /// For a body with its SHA-256.
    #[expect(clippy::disallowed_methods, reason = "the time of a signature decides nothing")]
    fn put_checked(&self, url: &Url, size: u64) -> RequestBuilder {
        let (request, credentials) = (self.client.put(url.clone()), self.credentials());
        checked::signed(request, url, size, (self.bucket.region(), &credentials), jiff::Timestamp::now())
    }

    /// `None`: it is not there.
    pub(super) async fn head(&self, key: &str) -> Result<Option<Response>> {
        let head = self.client.head(self.bucket.head_object(Some(&*self.credentials()), key).sign(VALID));
        let what = self.what(&Method::HEAD, key);
        let response = head.timeout(PROBE_TIMEOUT).send().await.map_err(|cause| unanswered(&what, cause))?;
        match response.status() {
            StatusCode::OK => Ok(Some(response)),
            StatusCode::NOT_FOUND => self.missing(key).await.map(|()| None),
            status => Err(refused(&what, status, "")),
        }
    }

    /// Whether it is the object that is not there. An answer to HEAD has no body, and so does not tell that from a bucket,
    /// or a whole server, that is not there.
    async fn missing(&self, key: &str) -> Result<()> {
        let get = self.client.get(self.bucket.get_object(Some(&*self.credentials()), key).sign(VALID));
        let get = get.header(header::RANGE, "bytes=0-0").timeout(PROBE_TIMEOUT);
        let what = self.what(&Method::GET, key);
        let response = get.send().await.map_err(|cause| unanswered(&what, cause))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            let message = format!("{what} answered {status} where HEAD was answered 404; let HEAD through too");
            return Err(Error::new(Reason::StoreError, message));
        }
        let answer = Answer::of(what, response).await?;
        if answer.code() == Some("NoSuchKey") { Ok(()) } else { Err(answer.refused()) }
    }

    /// The object from `offset` on; `None`: it ends there.
    pub(super) async fn get(&self, key: &str, offset: u64) -> Result<Option<Response>> {
        let mut get = self.client.get(self.bucket.get_object(Some(&*self.credentials()), key).sign(VALID));
        if offset > 0 {
            get = get.header(header::RANGE, format!("bytes={offset}-"));
        }
        let what = self.what(&Method::GET, key);
        let response = get.send().await.map_err(|cause| unanswered(&what, cause))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Some(response)),
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(None),
            status => {
                let answer = Answer::of(what, response).await?;
                match answer.code() {
                    Some("NoSuchKey") => {
                        let message = format!("{} answered {status}: the object is gone", answer.what);
                        Err(Error::new(Reason::ObjectMissing, message))
                    }
                    _ => Err(answer.refused()),
                }
            }
        }
    }

    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        let delete = self.client.delete(self.bucket.delete_object(Some(&*self.credentials()), key).sign(VALID));
        let answer = Answer::to(self.what(&Method::DELETE, key), delete).await?;
        if answer.code() == Some("NoSuchKey") { Ok(()) } else { answer.success().map(drop) }
    }

    /// A page of the keys that begin so, and where the next one begins.
    pub(super) async fn keys(&self, prefix: &str, after: Option<&str>) -> Result<(Vec<String>, Option<String>)> {
        let credentials = self.credentials();
        let mut list = self.bucket.list_objects_v2(Some(&*credentials));
        list.with_prefix(prefix);
        if let Some(after) = after {
            list.with_continuation_token(after);
        }
        let list = self.client.get(list.sign(VALID));
        let answer = Answer::to(self.what(&Method::GET, ""), list).await?.success()?;
        let page = ListObjectsV2::parse_response(&answer.body);
        let page = page.map_err(|cause| answer.unreadable().caused_by(cause))?;
        Ok((page.contents.into_iter().map(|object| object.key).collect(), page.next_continuation_token))
    }

    // -- multipart uploads -----------------------------------------------------------------------------------------

    /// Begins an upload; its id.
    pub(super) async fn create(&self, key: &str) -> Result<String> {
        let credentials = self.credentials();
        let mut action = self.bucket.create_multipart_upload(Some(&*credentials), key);
        if self.checksum {
            action.headers_mut().insert(CHECKSUM_ALGORITHM, "SHA256");
        }
        let create = self.client.post(action.sign(VALID));
        let create = if self.checksum { create.header(CHECKSUM_ALGORITHM, "SHA256") } else { create };
        let answer = Answer::to(self.what(&Method::POST, key), create).await?.success()?;
        let created = CreateMultipartUpload::parse_response(&answer.body);
        Ok(created.map_err(|cause| answer.unreadable().caused_by(cause))?.upload_id().to_owned())
    }

    pub(super) fn part(&self, key: &str, upload: &str, number: u16, size: u64) -> RequestBuilder {
        if self.checksum {
            return self.put_checked(&checked::of_part(self.bucket.object_url(key), upload, number), size);
        }
        self.client.put(self.bucket.upload_part(Some(&*self.credentials()), key, number, upload).sign(VALID))
    }

    /// Makes the object of its parts. The answer may begin as a success before it is one.
    pub(super) async fn complete(&self, key: &str, upload: &str, parts: &[Part]) -> Result<()> {
        let credentials = self.credentials();
        let etags = parts.iter().map(|part| part.etag.as_str());
        let action = self.bucket.complete_multipart_upload(Some(&*credentials), key, upload, etags);
        let url = action.sign(VALID);
        let body = if self.checksum { completion(parts) } else { action.body() };
        let answer = Answer::to(self.what(&Method::POST, key), self.client.post(url).body(body)).await?.success()?;
        if let Err(cause) = CompleteMultipartUploadResponse::parse(&answer.body) {
            return Err(match answer.code() {
                Some(_) => answer.refused(),
                None => answer.unreadable().caused_by(cause),
            });
        }
        let sent = checked::of_parts(parts.iter().map(|part| part.checksum.as_deref()));
        match (sent, first(&answer.body, "ChecksumSHA256")) {
            (Some(sent), Some(told)) if sent != told => {
                let message = format!("{} has the SHA-256 {told} of parts, and {sent} was sent", answer.what);
                Err(Error::new(Reason::ProofMismatch, message))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn abort(&self, key: &str, upload: &str) -> Result<()> {
        let credentials = self.credentials();
        let action = self.bucket.abort_multipart_upload(Some(&*credentials), key, upload);
        let abort = self.client.delete(action.sign(VALID));
        let answer = Answer::to(self.what(&Method::DELETE, key), abort).await?;
        if answer.code() == Some("NoSuchUpload") { Ok(()) } else { answer.success().map(drop) }
    }

    /// The ids of the uploads of this key that nobody has ended.
    pub(super) async fn uploads(&self, key: &str) -> Result<Vec<String>> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let page = self.uploads_from(key, next.as_ref()).await?;
            found.extend(page.uploads.into_iter().filter(|(of, _)| of == key).map(|(_, id)| id));
            // The keys come in their order, and those that follow begin with this one.
            match page.next {
                Some(end) if end.0 == key && next.as_ref() != Some(&end) => next = Some(end),
                _ => return Ok(found),
            }
        }
    }

    /// A page of the uploads whose keys begin so, and that nobody has ended.
    pub(super) async fn uploads_from(&self, prefix: &str, after: Option<&Marker>) -> Result<Uploads> {
        let list = self.client.get(self.list_uploads(prefix, after));
        let answer = Answer::to(self.what(&Method::GET, ""), list).await?.success()?;
        if !answer.body.contains("<ListMultipartUploadsResult") {
            return Err(answer.unreadable());
        }
        let body = &answer.body;
        let of = |upload| Some((first(upload, "Key")?.to_owned(), first(upload, "UploadId")?.to_owned()));
        let marker = |name| first(body, name).unwrap_or_default().to_owned();
        let next = (marker("NextKeyMarker"), marker("NextUploadIdMarker"));
        Ok(Uploads {
            uploads: elements(body, "Upload").filter_map(of).collect(),
            next: (first(body, "IsTruncated") == Some("true")).then_some(next),
        })
    }

    /// Signed by hand: rusty-s3 does not have this one.
    #[expect(clippy::disallowed_methods, reason = "the time of a signature decides nothing")]
    fn list_uploads(&self, key: &str, after: Option<&Marker>) -> Url {
        let marker = |name, value: fn(&Marker) -> &String| after.map(|last| (name, value(last).as_str()));
        let query = marker("key-marker", |last| &last.0)
            .into_iter()
            .chain(iter::once(("prefix", key)))
            .chain(marker("upload-id-marker", |last| &last.1))
            .chain(iter::once(("uploads", "")));
        let (bucket, credentials) = (&self.bucket, self.credentials());
        sign(
            &jiff::Timestamp::now(),
            Verb::Get,
            bucket.base_url().clone(),
            credentials.key(),
            credentials.secret(),
            credentials.token(),
            bucket.region(),
            VALID.as_secs(),
            query,
            iter::empty(),
        )
    }

    /// The parts that an upload has, in the order of their numbers.
    pub(super) async fn parts(&self, key: &str, upload: &str) -> Result<Vec<Part>> {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let credentials = self.credentials();
            let mut list = self.bucket.list_parts(Some(&*credentials), key, upload);
            list.set_part_number_marker(after);
            let list = self.client.get(list.sign(VALID));
            let answer = Answer::to(self.what(&Method::GET, key), list).await?.success()?;
            let page = ListParts::parse_response(&answer.body);
            let page = page.map_err(|cause| answer.unreadable().caused_by(cause))?;
            let checksums: BTreeMap<&str, &str> = elements(&answer.body, "Part")
                .filter_map(|part| Some((first(part, "PartNumber")?, first(part, "ChecksumSHA256")?)))
                .collect();
            found.extend(page.parts.into_iter().map(|PartsContent { number, size, etag, .. }| {
                let checksum = checksums.get(number.to_string().as_str()).map(ToString::to_string);
                Part { number, size, etag, checksum }
            }));
            match page.next_part_number_marker {
                Some(next) if next > after => after = next,
                _ => break,
            }
        }
        found.sort_by_key(|part| part.number);
        Ok(found)
    }

    /// The request without its signature.
    pub(super) fn what(&self, method: &Method, key: &str) -> String {
        format!("{}: {method} {}", self.store, self.bucket.object_url(key))
    }
}

/// The end of an upload with checksums: rusty-s3's knows none.
fn completion(parts: &[Part]) -> String {
    let checksum = |part: &Part| part.checksum.as_ref().map(|sum| format!("<ChecksumSHA256>{sum}</ChecksumSHA256>"));
    let of = |part: &Part| {
        let (number, etag) = (part.number, part.etag.replace('&', "&amp;").replace('<', "&lt;"));
        let checksum = checksum(part).unwrap_or_default();
        format!("<Part><ETag>{etag}</ETag><PartNumber>{number}</PartNumber>{checksum}</Part>")
    };
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.iter().map(of).collect::<String>())
}

/// With what requests are signed.
fn signing(S3Credentials { access_key, secret_key, session_token }: &S3Credentials) -> Credentials {
    let (key, secret) = (access_key.clone(), secret_key.expose_secret());
    match session_token {
        Some(token) => Credentials::new_with_token(key, secret, token.expose_secret()),
        None => Credentials::new(key, secret),
    }
}
