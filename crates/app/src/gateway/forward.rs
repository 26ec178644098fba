//! One request on its way to glance-api, and the answer back.

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING},
};

use super::{
    Gateway,
    headers::{self, Client},
    target,
    upstream::AnyBody,
};
use crate::config::Reads;

impl Gateway {
    pub(super) async fn answer(&self, request: Request<Incoming>, client: Client) -> Response<AnyBody> {
        if let Some(refusal) = refusal(&request) {
            return refusal;
        }
        match target::upload(request.method(), request.uri()) {
            Some((image, becomes)) => self.upload(&image, becomes, request, client).await,
            None => self.forward(request.map(|body| body.map_err(Into::into).boxed_unsync()), client).await,
        }
    }

    /// Through to glance-api, and back.
    pub(super) async fn forward(&self, mut request: Request<AnyBody>, client: Client) -> Response<AnyBody> {
        headers::end_hop(request.headers_mut());
        headers::forwarded(request.headers_mut(), client);
        let image = target::image(request.uri()).map(str::to_owned);
        let download =
            target::download(request.method(), request.uri()).filter(|_| self.settings.reads == Reads::Nearest);
        let Some(mut response) = self.upstreams.send(request, image.as_deref()).await else {
            return say(StatusCode::BAD_GATEWAY, "no glance-api behind this gateway answered the request");
        };
        headers::end_hop(response.headers_mut());
        let response = response.map(|body| body.map_err(Into::into).boxed_unsync());
        match download {
            Some(id) => self.nearest(&id, response).await,
            None => response,
        }
    }
}

/// What no service behind a gateway is asked for.
fn refusal(request: &Request<Incoming>) -> Option<Response<AnyBody>> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        let mut answer = say(StatusCode::METHOD_NOT_ALLOWED, "CONNECT and TRACE are not for this gateway");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        return Some(answer);
    }
    if !request.uri().path().starts_with('/') {
        return Some(say(StatusCode::BAD_REQUEST, "the request's target is no path"));
    }
    if headers::is_ambiguous(request.headers()) {
        let sentence = "a header has \"_\" in its name where others read \"-\"; write it as it is called";
        return Some(say(StatusCode::BAD_REQUEST, sentence));
    }
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    let is_coded = !request.headers().get_all(TRANSFER_ENCODING).iter().all(is_plain);
    is_coded.then(|| say(StatusCode::NOT_IMPLEMENTED, "no transfer coding but chunked is known here"))
}

pub(super) fn say(status: StatusCode, sentence: &str) -> Response<AnyBody> {
    let body = Full::from(format!("{sentence}\n")).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
