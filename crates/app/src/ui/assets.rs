//! The style sheet, the script and the icon, which are part of the binary.

use axum::{
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset { name: "style.css", kind: "text/css; charset=utf-8", body: include_str!("assets/style.css") },
    Asset { name: "live.js", kind: "text/javascript; charset=utf-8", body: include_str!("assets/live.js") },
    Asset { name: "icon.svg", kind: "image/svg+xml", body: include_str!("assets/icon.svg") },
];

pub(super) async fn asset(Path(name): Path<String>, asked: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "there is no such file\n").into_response();
    };
    let digest = Sha256::digest(asset.body);
    let tag = format!("\"{:02x}{:02x}{:02x}{:02x}{:02x}\"", digest[0], digest[1], digest[2], digest[3], digest[4]);
    // Asked for anew each time, so that a page never has the style of another release.
    let headers = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".into())];
    if asked.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, asset.kind)], asset.body).into_response()
}
