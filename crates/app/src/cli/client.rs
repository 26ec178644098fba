//! The commands' side of `serve`'s API.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use mimeo_core::{ImageId, StoreName, Timestamp, root_cause};
use mimeo_engine::status::{
    DrainReport, GcReport, HistoryReport, ImageReport, MoveReport, Overview, RenameReport, RulesReport, StoreReport,
    TrialReport, VerifyReport,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::{Failure, Outcome, pinned};
use crate::{
    api::{Changes, GcPage, Page, ProblemBody, token::Token},
    config::ApiSettings,
};

/// An answer is made from the ledger; only a look at Glance on the way takes longer than a moment.
const PATIENCE: Duration = Duration::from_mins(1);

/// Of a stream of events, which `serve` ends long before.
const ENDLESS: Duration = Duration::from_hours(1);

/// Images in one answer.
const PAGE: usize = 1000;

pub(crate) struct Client {
    base: Url,
    token: Token,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(api: &ApiSettings) -> Outcome<Self> {
        let scheme = if api.tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}/", reachable(api.listen));
        let base = Url::parse(&base).map_err(|error| Failure::usage(format!("{base}: {error}")))?;
        let token = Token::load(&api.token_file).map_err(|error| match error.kind() {
            // `serve` makes it at its first start.
            std::io::ErrorKind::NotFound => {
                unreachable_at(&base, &format!("its token file {} is not there", api.token_file.display()))
            }
            _ => Failure::failed(format!("cannot read the token file {}: {error}", api.token_file.display())),
        })?;
        let mut builder = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        if let Some(files) = &api.tls {
            builder = builder.tls_backend_preconfigured(pinned::to(&files.certificate)?);
        }
        let built = builder.build();
        Ok(Self { base, token, http: built.map_err(anyhow::Error::from)? })
    }

    pub(crate) async fn overview(&self) -> Outcome<Overview> {
        self.ask(Method::GET, &["overview"], &[]).await
    }

    pub(crate) async fn stores(&self) -> Outcome<Vec<StoreReport>> {
        self.ask(Method::GET, &["stores"], &[]).await
    }

    pub(crate) async fn drain(&self, store: &StoreName) -> Outcome<DrainReport> {
        self.ask(Method::POST, &["stores", store.as_str(), "drain"], &[]).await
    }

    pub(crate) async fn drain_report(&self, store: &StoreName) -> Outcome<DrainReport> {
        self.ask(Method::GET, &["stores", store.as_str(), "drain"], &[]).await
    }

    pub(crate) async fn cancel_drain(&self, store: &StoreName) -> Outcome {
        self.send(Method::DELETE, &["stores", store.as_str(), "drain"], &[]).await.map(drop)
    }

    pub(crate) async fn rename_store(&self, from: &StoreName, to: &StoreName) -> Outcome<RenameReport> {
        self.ask(Method::POST, &["stores", from.as_str(), "rename"], &[("to", to.as_str())]).await
    }

    pub(crate) async fn move_store(&self, store: &StoreName) -> Outcome<MoveReport> {
        self.ask(Method::POST, &["stores", store.as_str(), "move"], &[]).await
    }

    pub(crate) async fn gc(&self) -> Outcome<GcReport> {
        let mut page: GcPage = self.ask(Method::GET, &["gc"], &[]).await?;
        let mut report = page.report;
        while let Some(next) = page.next {
            page = self.read(self.answer(self.to(Method::GET, self.at(&next)?)).await?).await?;
            report = report.and(page.report);
        }
        Ok(report)
    }

    /// Of the list that was made at this time.
    pub(crate) async fn confirm_gc(&self, seen: Timestamp) -> Outcome {
        self.send(Method::POST, &["gc", "confirm"], &[("seen", &seen.to_string())]).await.map(drop)
    }

    /// Images that fit, in order of their ids; no more than `limit`.
    pub(crate) async fn images(&self, filter: &[(&str, String)], limit: usize) -> Outcome<Vec<ImageReport>> {
        let mut images: Vec<ImageReport> = Vec::new();
        loop {
            let wanted = (limit - images.len()).min(PAGE).to_string();
            let after = images.last().map(|image| image.id.to_string());
            let mut query: Vec<(&str, &str)> = filter.iter().map(|(key, value)| (*key, value.as_str())).collect();
            query.push(("limit", &wanted));
            query.extend(after.iter().map(|id| ("after", id.as_str())));
            let page: Page<ImageReport> = self.ask(Method::GET, &["images"], &query).await?;
            images.extend(page.images);
            if page.next.is_none() || images.len() >= limit {
                return Ok(images);
            }
        }
    }

    pub(crate) async fn rules(&self) -> Outcome<RulesReport> {
        self.ask(Method::GET, &["rules"], &[]).await
    }

    pub(crate) async fn try_rule(&self, rule: &Value) -> Outcome<TrialReport> {
        let request = self.request(Method::POST, &["rules", "try"], &[]).json(rule);
        self.read(self.answer(request).await?).await
    }

    /// The newest changes, and the number of the last.
    pub(crate) async fn changes(&self, limit: usize) -> Outcome<Changes> {
        self.ask(Method::GET, &["changes"], &[("limit", &limit.to_string())]).await
    }

    /// What happens from now on, or from behind the change of this number.
    /// `None`: nobody answers now.
    pub(crate) async fn events(&self, after: u64) -> Outcome<Option<Response>> {
        let request = self.request(Method::GET, &["events"], &[("after", &after.to_string())]);
        match request.timeout(ENDLESS).send().await {
            Err(error) if not_trusted(&error).is_none() => Ok(None),
            sent => self.judged(sent).await.map(Some),
        }
    }

    pub(crate) async fn image(&self, id: &ImageId) -> Outcome<ImageReport> {
        self.ask(Method::GET, &["images", id.as_str()], &[]).await
    }

    pub(crate) async fn history(&self, id: &ImageId) -> Outcome<Vec<HistoryReport>> {
        self.ask(Method::GET, &["images", id.as_str(), "history"], &[]).await
    }

    /// The one image of this name or id. A name that several bear is wrong usage, and they are listed.
    pub(crate) async fn find(&self, name_or_id: &str) -> Outcome<ImageReport> {
        let found: Vec<ImageReport> = self.ask(Method::GET, &["images", "find"], &[("q", name_or_id)]).await?;
        the_one(found, name_or_id)
    }

    pub(crate) async fn replicate(&self, id: &ImageId) -> Outcome {
        self.send(Method::POST, &["images", id.as_str(), "replicate"], &[]).await.map(drop)
    }

    /// From when on proofs count.
    pub(crate) async fn verify(&self, id: &ImageId) -> Outcome<Timestamp> {
        let report: VerifyReport = self.ask(Method::POST, &["images", id.as_str(), "verify"], &[]).await?;
        Ok(report.asked_at)
    }

    /// A path that an answer named.
    fn at(&self, path: &str) -> Outcome<Url> {
        self.base.join(path).map_err(|error| Failure::failed(format!("{} names {path}: {error}", self.base)))
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> Outcome<T> {
        self.read(self.send(method, path, query).await?).await
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response) -> Outcome<T> {
        answer
            .json()
            .await
            .map_err(|error| Failure::failed(format!("{} does not answer as mimeo serve: {error}", self.base)))
    }

    async fn send(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> Outcome<Response> {
        self.answer(self.request(method, path, query)).await
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.to(method, url)
    }

    fn to(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url).bearer_auth(self.token.reveal())
    }

    async fn answer(&self, request: RequestBuilder) -> Outcome<Response> {
        self.judged(request.send().await).await
    }

    async fn judged(&self, sent: reqwest::Result<Response>) -> Outcome<Response> {
        let answer = sent.map_err(|error| match (not_trusted(&error), error.is_connect()) {
            (Some(why), _) => Failure::failed(format!("cannot talk to mimeo serve at {}: {why}", self.base)),
            (None, true) => unreachable_at(&self.base, &root_cause(&error)),
            (None, false) => {
                Failure::failed(format!("mimeo serve at {} does not answer: {}", self.base, root_cause(&error)))
            }
        })?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(Failure::failed(format!(
                "mimeo serve at {} refuses the token: it was started with another token_file",
                self.base
            ))),
            status => {
                let problem = answer.json::<ProblemBody>().await;
                let detail =
                    problem.map_or_else(|_| format!("{} answers {status}", self.base), |problem| problem.detail);
                // What was asked for makes no sense: no other time is better for it.
                Err(if status == StatusCode::BAD_REQUEST { Failure::usage(detail) } else { Failure::failed(detail) })
            }
        }
    }
}

pub(crate) fn the_one(mut found: Vec<ImageReport>, name_or_id: &str) -> Outcome<ImageReport> {
    match found.len() {
        0 => {
            Err(Failure::failed(format!("neither Mimeo nor Glance knows an image of the name or id \"{name_or_id}\"")))
        }
        1 => Ok(found.remove(0)),
        several => {
            let ids: Vec<String> = found.iter().map(|image| format!("  {} ({})", image.id, image.state)).collect();
            Err(Failure::usage(format!(
                "{several} images are called \"{name_or_id}\"; name one by its id:\n{}",
                ids.join("\n")
            )))
        }
    }
}

/// What TLS said, if that was it.
fn not_trusted<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        // It leaves out of its sources the very error that it holds.
        return not_trusted(io.get_ref()?);
    }
    error.downcast_ref::<rustls::Error>().or_else(|| not_trusted(error.source()?))
}

/// The address to connect to for one to listen on.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn unreachable_at(base: &Url, why: &str) -> Failure {
    let base = base.as_str().trim_end_matches('/');
    Failure::failed(format!(
        "cannot reach mimeo serve at {base}: {why}; if it does not run, start it with `mimeo serve`"
    ))
}

#[cfg(test)]
mod tests {
    use mimeo_core::ImageState;

    use super::*;

    fn report(id: &str) -> ImageReport {
        ImageReport {
            id: id.parse().unwrap(),
            name: Some("cirros".into()),
            state: ImageState::Pending,
            size: None,
            owner: None,
            rules: Vec::new(),
            reason: None,
            observed_at: None,
            replicas: Vec::new(),
        }
    }

    #[test]
    fn a_name_must_mean_one_image() {
        let ids = ["0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a", "0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6b"];
        assert_eq!(the_one(vec![], "x").unwrap_err().code, 1);
        assert_eq!(the_one(vec![report(ids[0])], "cirros").unwrap().id.as_str(), ids[0]);
        let failure = the_one(ids.map(report).into(), "cirros").unwrap_err();
        assert_eq!(failure.code, 2);
        assert!(ids.iter().all(|id| failure.message.contains(id)), "{}", failure.message);
    }

    #[test]
    fn an_address_for_all_interfaces_is_reached_at_loopback() {
        assert_eq!(reachable("0.0.0.0:9393".parse().unwrap()).to_string(), "127.0.0.1:9393");
        assert_eq!(reachable("[::]:9393".parse().unwrap()).to_string(), "[::1]:9393");
        assert_eq!(reachable("10.0.0.1:9393".parse().unwrap()).to_string(), "10.0.0.1:9393");
    }
}
