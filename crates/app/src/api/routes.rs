//! Which path is answered by which call of the engine, and who may call it.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    routing::{MethodRouter, any, delete, get, patch, post},
};

use super::{
    Api,
    auth::{
        Authority,
        Role::{self, Admin, Reader},
        token_of,
    },
    etag::tag,
    events::{changes, events},
    health::{healthz, readyz},
    images::{find, history, image, images, overview, plan, replicate, transfers, verify},
    metrics::metrics,
    openapi::document,
    problem::Problem,
    rules::{rules, try_rule},
    stores::{
        cancel_drain, change_limits, confirm_gc, drain, drain_report, gc, limits_in_force, move_store, rename_store,
        stores,
    },
};

pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// The one answer that does not end.
const EVENTS: &str = "/v1/events";

/// It tells when it was made, and so is never the same.
const GC: &str = "/v1/gc";

/// Open to anybody where `[api] metrics = "open"`.
const METRICS: &str = "/metrics";

/// What the API answers: every path, method and least role is here and nowhere else. `None`: anybody.
pub(super) const ROUTES: &[Route] = &[
    Route("GET", "/healthz", None, || get(healthz)),
    Route("GET", "/readyz", None, || get(readyz)),
    Route("GET", METRICS, Some(Reader), || get(metrics)),
    Route("GET", "/v1/openapi.json", Some(Reader), || get(document)),
    Route("GET", "/v1/overview", Some(Reader), || get(overview)),
    Route("GET", "/v1/images", Some(Reader), || get(images)),
    Route("GET", "/v1/images/find", Some(Reader), || get(find)),
    Route("GET", "/v1/images/{id}", Some(Reader), || get(image)),
    Route("GET", "/v1/images/{id}/history", Some(Reader), || get(history)),
    Route("POST", "/v1/images/{id}/replicate", Some(Admin), || post(replicate)),
    Route("POST", "/v1/images/{id}/verify", Some(Admin), || post(verify)),
    Route("GET", "/v1/transfers", Some(Reader), || get(transfers)),
    Route("GET", "/v1/changes", Some(Reader), || get(changes)),
    Route("GET", EVENTS, Some(Reader), || get(events)),
    Route("GET", "/v1/plan", Some(Reader), || get(plan)),
    Route("GET", "/v1/rules", Some(Reader), || get(rules)),
    Route("POST", "/v1/rules/try", Some(Reader), || post(try_rule)),
    Route("GET", "/v1/stores", Some(Reader), || get(stores)),
    Route("GET", "/v1/stores/{name}/drain", Some(Reader), || get(drain_report)),
    Route("POST", "/v1/stores/{name}/drain", Some(Admin), || post(drain)),
    Route("DELETE", "/v1/stores/{name}/drain", Some(Admin), || delete(cancel_drain)),
    Route("POST", "/v1/stores/{name}/rename", Some(Admin), || post(rename_store)),
    Route("POST", "/v1/stores/{name}/move", Some(Admin), || post(move_store)),
    Route("GET", "/v1/limits", Some(Reader), || get(limits_in_force)),
    Route("PATCH", "/v1/limits", Some(Admin), || patch(change_limits)),
    Route("GET", GC, Some(Reader), || get(gc)),
    Route("POST", "/v1/gc/confirm", Some(Admin), || post(confirm_gc)),
];

/// Method, path, least role, and who answers.
pub(super) struct Route(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) Option<Role>,
    pub(super) fn() -> MethodRouter<Api>,
);

pub(super) fn router(api: Api, authority: &Arc<Authority>, metrics_are_open: bool) -> Router {
    let mut router = Router::new();
    for Route(method, path, role, answer) in ROUTES {
        let role = role.filter(|_| *path != METRICS || !metrics_are_open);
        let Some(role) = role else {
            router = router.route(path, answer());
            continue;
        };
        let mut answer = answer();
        if *method == "GET" && !matches!(*path, EVENTS | METRICS | GC) {
            answer = answer.layer(middleware::from_fn(tag));
        }
        let admitted = middleware::from_fn_with_state((Arc::clone(authority), role), authorize);
        router = router.route(path, answer.route_layer(admitted));
    }
    // What is not there is nobody's business either.
    let admitted = middleware::from_fn_with_state((Arc::clone(authority), Reader), authorize);
    let nothing = any(nothing_here).layer(admitted);
    for path in ["/v1", "/v1/", "/v1/{*path}"] {
        router = router.route(path, nothing.clone());
    }
    let router = router.method_not_allowed_fallback(wrong_method).layer(middleware::map_response(private));
    router.with_state(api)
}

/// Lets through who has at least this role.
async fn authorize(
    State((authority, role)): State<(Arc<Authority>, Role)>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = authority.admit(token_of(request.headers()).unwrap_or_default()).await?;
    caller.require(role)?;
    if role == Admin {
        tracing::info!(caller = caller.name, method = %request.method(), path = request.uri().path(), "told to");
    }
    Ok(next.run(request).await)
}

/// What is told is for the caller alone, and what it says it is.
async fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    // A listener's stream says more.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn nothing_here() -> Problem {
    Problem::not_found("the API has no such path")
}

async fn wrong_method() -> Problem {
    Problem::wrong_method()
}
