//! A small S3 server with one bucket, which keeps its objects and uploads in memory. It asks for a signature, and checks
//! none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Arc, Mutex},
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// How many entries a page of a list has: few, so that there are several.
const PAGE: usize = 3;
const XMLNS: &str = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

#[derive(Default)]
pub(crate) struct Content {
    pub(crate) objects: BTreeMap<String, Bytes>,
    /// By key and id.
    pub(crate) uploads: BTreeMap<(String, String), BTreeMap<u16, Bytes>>,
    /// The ids of those that were begun with checksums.
    checked: BTreeSet<String>,
    /// What each kind of request is answered with instead.
    pub(crate) refusals: BTreeMap<&'static str, (u16, &'static str)>,
    /// The kinds of requests that came.
    pub(crate) seen: BTreeSet<&'static str>,
    /// The body of the last request that ended an upload.
    pub(crate) completion: String,
    ids: u32,
}

#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) content: Arc<Mutex<Content>>,
    /// The answer to the first part waits until the second is begun.
    pub(crate) overlap: bool,
    /// Bodies are taken as they are, whatever the headers say.
    pub(crate) is_old: bool,
    begun: watch::Sender<u16>,
}

pub(crate) struct Server {
    pub(crate) url: String,
    _task: JoinSet<()>,
}

type Parameters = BTreeMap<String, String>;

impl Bucket {
    pub(crate) fn new() -> Self {
        Self { content: Arc::default(), overlap: false, is_old: false, begun: watch::Sender::new(0) }
    }

    pub(crate) async fn served(&self) -> Server {
        let router =
            Router::new().route("/images/", get(list)).route("/images/{key}", any(request)).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Server { url, _task: task }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let content = self.content.lock().unwrap();
        content.objects.is_empty() && content.uploads.is_empty()
    }

    fn refusal(&self, kind: &'static str) -> Option<Response> {
        let mut content = self.content.lock().unwrap();
        content.seen.insert(kind);
        content.refusals.get(kind).map(|(status, code)| error(*status, code))
    }
}

async fn list(State(bucket): State<Bucket>, Query(query): Query<Parameters>) -> Response {
    if query.contains_key("uploads") { uploads(&bucket, &query) } else { objects(&bucket, &query) }
}

fn objects(bucket: &Bucket, query: &Parameters) -> Response {
    if let Some(refusal) = unsigned(query).or_else(|| bucket.refusal("list")) {
        return refusal;
    }
    let content = bucket.content.lock().unwrap();
    let marker = |name: &str| query.get(name).cloned().unwrap_or_default();
    let (prefix, after) = (marker("prefix"), marker("continuation-token"));
    let mut found = content.objects.keys().filter(|key| key.starts_with(&prefix) && **key > after).peekable();
    let (mut list, mut end) = (String::new(), None);
    for key in found.by_ref().take(PAGE) {
        write!(list, "<Contents><Key>{key}</Key><Size>1</Size></Contents>").unwrap();
        end = Some(key);
    }
    let next = end.filter(|_| found.peek().is_some());
    let next = next.map(|end| format!("<NextContinuationToken>{end}</NextContinuationToken>")).unwrap_or_default();
    format!("<ListBucketResult {XMLNS}>{list}{next}</ListBucketResult>").into_response()
}

fn uploads(bucket: &Bucket, query: &Parameters) -> Response {
    if let Some(refusal) = unsigned(query).or_else(|| bucket.refusal("list uploads")) {
        return refusal;
    }
    let content = bucket.content.lock().unwrap();
    let marker = |name: &str| query.get(name).cloned().unwrap_or_default();
    let (prefix, after) = (marker("prefix"), (marker("key-marker"), marker("upload-id-marker")));
    let mut found = content.uploads.keys().filter(|at| at.0.starts_with(&prefix) && **at > after).peekable();
    let mut list = String::new();
    let mut end = None;
    for (key, id) in found.by_ref().take(PAGE) {
        write!(list, "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Owner><ID>o</ID></Owner></Upload>").unwrap();
        end = Some((key, id));
    }
    if let (Some((key, id)), true) = (end, found.peek().is_some()) {
        let next = format!("<NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>");
        list = format!("{next}<IsTruncated>true</IsTruncated>{list}");
    }
    format!("<ListMultipartUploadsResult {XMLNS}>{list}</ListMultipartUploadsResult>").into_response()
}

async fn request(
    State(bucket): State<Bucket>,
    Path(key): Path<String>,
    Query(query): Query<Parameters>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let upload = query.get("uploadId").map(|id| (key.clone(), id.clone()));
    let kind = match (method.as_str(), &upload) {
        ("PUT", Some(_)) => "part",
        ("POST", Some(_)) => "complete",
        ("DELETE", Some(_)) => "abort",
        ("GET", Some(_)) => "list parts",
        ("PUT", None) => "put",
        ("POST", None) => "create",
        ("DELETE", None) => "delete",
        ("GET", None) => "get",
        _ => "head",
    };
    let unsigned = if headers.contains_key(header::AUTHORIZATION) { None } else { unsigned(&query) };
    if let Some(refusal) = unsigned.or_else(|| bucket.refusal(kind)) {
        return refusal;
    }
    let number = query.get("partNumber").map_or(0, |number| number.parse().unwrap());
    bucket.begun.send_modify(|begun| *begun = number.max(*begun));
    if method == Method::PUT && !headers.contains_key(header::CONTENT_LENGTH) {
        return error(411, "MissingContentLength");
    }
    let Ok(body) = to_bytes(body, usize::MAX).await else { return error(400, "IncompleteBody") };
    if bucket.overlap && number == 1 {
        bucket.begun.subscribe().wait_for(|begun| *begun > 1).await.unwrap();
    }
    let (body, told) = match headers.contains_key("x-amz-trailer") && !bucket.is_old {
        false => (body, None),
        true => match checked(&body, &headers) {
            Some((body, checksum)) => (body, Some([("x-amz-checksum-sha256", checksum)])),
            None => return error(400, "BadDigest"),
        },
    };
    let mut content = bucket.content.lock().unwrap();
    let answer = match upload {
        Some(upload) => of_upload(&mut content, upload, kind, number, body, &query),
        None if kind == "create" => {
            content.ids += 1;
            let id = format!("2~{}", content.ids);
            let created = format!(
                "<InitiateMultipartUploadResult {XMLNS}><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            if headers.contains_key("x-amz-checksum-algorithm") {
                content.checked.insert(id.clone());
            }
            content.uploads.insert((key, id), BTreeMap::new());
            created.into_response()
        }
        None => of_object(&mut content, key, kind, &headers, body),
    };
    (told, answer).into_response()
}

/// What stands between a chunk's length and the trailer, if the trailer is its checksum.
fn checked(body: &Bytes, headers: &HeaderMap) -> Option<(Bytes, String)> {
    let size: usize = headers["x-amz-decoded-content-length"].to_str().unwrap().parse().unwrap();
    let begin = if size == 0 { String::new() } else { format!("{size:x}\r\n") };
    let bits = body.slice(begin.len()..begin.len() + size);
    let checksum = sha256(&bits);
    let after = if size == 0 { "" } else { "\r\n" };
    let end = format!("{after}0\r\nx-amz-checksum-sha256:{checksum}\r\n\r\n");
    let is_right = body.starts_with(begin.as_bytes()) && body[begin.len() + size..] == *end.as_bytes();
    is_right.then_some((bits, checksum))
}

pub(crate) fn sha256(bits: &[u8]) -> String {
    STANDARD.encode(digest(&SHA256, bits))
}

fn of_upload(
    content: &mut Content,
    upload: (String, String),
    kind: &str,
    number: u16,
    body: Bytes,
    query: &Parameters,
) -> Response {
    let Some(parts) = content.uploads.get_mut(&upload) else { return error(404, "NoSuchUpload") };
    match kind {
        "part" => {
            parts.insert(number, body);
            [(header::ETAG, format!("\"{number}\""))].into_response()
        }
        "abort" => {
            content.uploads.remove(&upload);
            StatusCode::NO_CONTENT.into_response()
        }
        "complete" => {
            let said = String::from_utf8(body.to_vec()).unwrap();
            let wanted =
                said.split("<PartNumber>").skip(1).map(|rest| rest.split('<').next().unwrap().parse().unwrap());
            let wanted: Option<Vec<Bytes>> = wanted.map(|number: u16| parts.get(&number).cloned()).collect();
            let Some(wanted) = wanted else { return error(400, "InvalidPart") };
            let checksums = wanted.iter().flat_map(|bits| digest(&SHA256, bits).as_ref().to_vec()).collect::<Vec<u8>>();
            let checksum = format!("{}-{}", sha256(&checksums), wanted.len());
            content.uploads.remove(&upload);
            content.completion = said;
            content.objects.insert(upload.0, wanted.concat().into());
            let told = format!("<ETag>e</ETag><ChecksumSHA256>{checksum}</ChecksumSHA256>");
            format!("<CompleteMultipartUploadResult {XMLNS}>{told}</CompleteMultipartUploadResult>").into_response()
        }
        _ => {
            let after: u16 = query.get("part-number-marker").map_or(0, |marker| marker.parse().unwrap());
            let mut found = parts.iter().filter(|(number, _)| **number > after).peekable();
            let (mut list, mut end) = (String::new(), after);
            for (number, bits) in found.by_ref().take(PAGE) {
                let size = bits.len();
                write!(list, "<Part><PartNumber>{number}</PartNumber><LastModified>-</LastModified>").unwrap();
                write!(list, "<ETag>&quot;{number}&quot;</ETag><Size>{size}</Size>").unwrap();
                if content.checked.contains(&upload.1) {
                    write!(list, "<ChecksumSHA256>{}</ChecksumSHA256>", sha256(bits)).unwrap();
                }
                list += "</Part>";
                end = *number;
            }
            let next = format!("<NextPartNumberMarker>{end}</NextPartNumberMarker>");
            let truncated = format!("<MaxParts>3</MaxParts><IsTruncated>{}</IsTruncated>", found.peek().is_some());
            format!("<ListPartsResult {XMLNS}>{next}{truncated}{list}</ListPartsResult>").into_response()
        }
    }
}

fn of_object(content: &mut Content, key: String, kind: &str, headers: &HeaderMap, body: Bytes) -> Response {
    match (kind, content.objects.get(&key)) {
        ("put", _) => {
            content.objects.insert(key, body);
            StatusCode::OK.into_response()
        }
        ("delete", _) => {
            content.objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        (_, None) => error(404, "NoSuchKey"),
        (_, Some(bits)) => {
            let range = headers.get(header::RANGE).map(|range| range.to_str().unwrap());
            let ends = range.map(|range| range.strip_prefix("bytes=").unwrap().split_once('-').unwrap());
            let ends = ends.map(|(from, last)| (from.parse().unwrap(), last.parse().unwrap_or(bits.len() - 1)));
            match ends {
                None => bits.clone().into_response(),
                Some((from, _)) if from >= bits.len() => error(416, "InvalidRange"),
                Some((from, last)) => {
                    let range = [(header::CONTENT_RANGE, format!("bytes {from}-{last}/{}", bits.len()))];
                    (StatusCode::PARTIAL_CONTENT, range, bits.slice(from..=last)).into_response()
                }
            }
        }
    }
}

fn unsigned(query: &Parameters) -> Option<Response> {
    let signature = query.get("X-Amz-Signature").filter(|signature| signature.len() == 64);
    signature.is_none().then(|| error(403, "AccessDenied"))
}

fn error(status: u16, code: &str) -> Response {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message></Message></Error>");
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}
