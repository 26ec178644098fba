//! Signing in, by Keystone or with a token, and out.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use mimeo_core::identity::Credentials;
use serde::Deserialize;

use super::{
    Dashboard,
    fault::Fault,
    page::{Answer, Asked, Shell, html},
    posted::{Fields, Posted},
    session::{cookie, is_secret, no_session_cookie, secret, session_cookie, set_cookie},
};
use crate::api::Problem;

/// Nobody is signed in yet who could have a session with a CSRF token: the form has to bear what this cookie bears.
const COOKIE: &str = "mimeo_sign_in";

/// Letters of a name that nobody has vouched for.
const LOGGED: usize = 64;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    shell: Shell,
    keystone: bool,
    refusal: Option<String>,
    csrf: String,
    next: String,
    user: String,
    project: String,
}

#[derive(Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    next: String,
}

pub(super) async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    headers: HeaderMap,
    Asked(Next { next }): Asked<Next>,
) -> Answer {
    form(&dashboard, &headers, &next, None, None)
}

pub(super) async fn sign_in(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap, fields: Fields) -> Answer {
    let expected = cookie(&headers, COOKIE).filter(|expected| !expected.is_empty());
    if expected != Some(fields.get("csrf")) {
        return Err(Fault::stale_sign_in());
    }
    let next = fields.get("next");
    match bearer(&dashboard, &fields).await {
        Ok((bearer, who)) => {
            tracing::info!(who, "signed in to the dashboard");
            dashboard.sessions.end_of(&headers);
            let session = dashboard.sessions.begin(bearer);
            let mut response = Redirect::to(local(next)).into_response();
            response
                .headers_mut()
                .extend(session_cookie(&session, dashboard.is_secure(&headers)).map(|c| (header::SET_COOKIE, c)));
            Ok(response)
        }
        Err(problem) => {
            let who: String = fields.get("user").chars().take(LOGGED).collect();
            tracing::warn!(who, why = problem.detail(), "not signed in to the dashboard");
            let mut response = form(&dashboard, &headers, next, Some(&problem), Some(&fields))?;
            *response.status_mut() = match problem.status() {
                StatusCode::BAD_REQUEST | StatusCode::SERVICE_UNAVAILABLE => problem.status(),
                _ => StatusCode::FORBIDDEN,
            };
            Ok(response)
        }
    }
}

pub(super) async fn sign_out(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap, posted: Posted) -> Response {
    dashboard.sessions.end(&posted.visitor.session);
    let mut response = Redirect::to("/sign-in").into_response();
    response.headers_mut().extend(no_session_cookie(dashboard.is_secure(&headers)).map(|c| (header::SET_COOKIE, c)));
    response
}

/// A token that opens, and whose it is.
async fn bearer(dashboard: &Dashboard, fields: &Fields) -> Result<(String, String), Problem> {
    let text = |name: &str| fields.get(name).trim().to_owned();
    let bearer = match text("user") {
        user if user.is_empty() => text("token"),
        user => {
            let password = fields.get("password").to_owned();
            let (project, user_domain, project_domain) = (text("project"), text("user_domain"), text("project_domain"));
            let credentials = Credentials { user, password, user_domain, project, project_domain };
            dashboard.authority.sign_in(&credentials).await?
        }
    };
    let caller = dashboard.authority.admit(&bearer).await?;
    Ok((bearer, caller.name))
}

fn form(
    dashboard: &Dashboard,
    headers: &HeaderMap,
    next: &str,
    refusal: Option<&Problem>,
    filled: Option<&Fields>,
) -> Answer {
    // What another tab shows is to be worth something still.
    let csrf = cookie(headers, COOKIE).filter(|csrf| is_secret(csrf)).map_or_else(secret, str::to_owned);
    let kept = |name: &str| filled.map_or(String::new(), |fields| fields.get(name).to_owned());
    let page = SignIn {
        shell: Shell::outside(),
        keystone: dashboard.authority.has_keystone(),
        refusal: refusal.map(|problem| format!("Not signed in: {}. To cure it, {}.", problem.detail(), problem.cure())),
        csrf: csrf.clone(),
        next: local(next).to_owned(),
        user: kept("user"),
        project: kept("project"),
    };
    let mut response = html(&page)?;
    let cookie = set_cookie(COOKIE, &csrf, "/sign-in", "; Max-Age=3600", dashboard.is_secure(headers));
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

/// A path of the dashboard's own: nobody is sent on to another site.
fn local(next: &str) -> &str {
    let is_local = next.starts_with('/') && !next[1..].starts_with(['/', '\\']) && !next.contains(char::is_control);
    // A stream of changes is no page, and a form's target neither.
    let is_page = !["/live", "/retry", "/verify", "/sign-out"]
        .iter()
        .any(|end| next.split('?').next().unwrap_or("").ends_with(end));
    if is_local && is_page { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn nobody_is_sent_to_another_site_after_signing_in() {
        for away in [
            "",
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "/a\nb",
            "images",
            "/images/x/retry",
            "/live?q=a",
        ] {
            assert_eq!(local(away), "/", "{away:?}");
        }
        for here in ["/", "/images/x", "/?q=a&state=failed"] {
            assert_eq!(local(here), here);
        }
    }
}
