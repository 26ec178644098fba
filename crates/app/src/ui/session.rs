//! Who is signed in: a cookie that is nothing but the name of a session in this process's memory.
//!
//! A session keeps the token that it was opened with, and each request asks anew what that token is worth: a role that was
//! taken away is gone here too.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, Uri, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Dashboard, fault::Fault};
use crate::api::auth::Role;

const COOKIE: &str = "mimeo_session";
/// However busy it is.
const LONGEST: Duration = Duration::from_hours(12);
const LONGEST_IDLE: Duration = Duration::from_hours(2);
/// With more the one that was idle for longest ends.
const MOST: usize = 1000;

#[derive(Default)]
pub(super) struct Sessions(Mutex<BTreeMap<String, Session>>);

struct Session {
    bearer: String,
    csrf: String,
    begun: Instant,
    used: Instant,
    note: Option<String>,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now - self.begun > LONGEST || now - self.used > LONGEST_IDLE
    }
}

impl Sessions {
    /// Gives the new session's name.
    pub(super) fn begin(&self, bearer: String) -> String {
        let (name, now) = (secret(), Instant::now());
        let mut sessions = self.lock();
        sessions.retain(|_, session| !session.is_over(now));
        if sessions.len() >= MOST
            && let Some(idlest) = sessions.iter().min_by_key(|(_, session)| session.used).map(|(name, _)| name.clone())
        {
            sessions.remove(&idlest);
        }
        sessions.insert(name.clone(), Session { bearer, csrf: secret(), begun: now, used: now, note: None });
        name
    }

    pub(super) fn end(&self, name: &str) {
        self.lock().remove(name);
    }

    /// The session of a request, if it has one.
    pub(super) fn end_of(&self, headers: &HeaderMap) {
        if let Some(name) = cookie(headers, COOKIE) {
            self.end(name);
        }
    }

    /// The token and the CSRF token of a session that is not over.
    fn open(&self, name: &str) -> Option<(String, String)> {
        let (mut sessions, now) = (self.lock(), Instant::now());
        let session = sessions.get_mut(name).filter(|session| !session.is_over(now))?;
        session.used = now;
        Some((session.bearer.clone(), session.csrf.clone()))
    }

    /// The token of a session that is not over. A page that is merely open does not count as use.
    fn peek(&self, name: &str) -> Option<String> {
        let (sessions, now) = (self.lock(), Instant::now());
        sessions.get(name).filter(|session| !session.is_over(now)).map(|session| session.bearer.clone())
    }

    /// For the next page that is shown.
    pub(super) fn note(&self, name: &str, note: impl Into<String>) {
        if let Some(session) = self.lock().get_mut(name) {
            session.note = Some(note.into());
        }
    }

    pub(super) fn take_note(&self, name: &str) -> Option<String> {
        self.lock().get_mut(name)?.note.take()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 244 random bits, that nobody guesses.
pub(super) fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Whether it looks like one.
pub(super) fn is_secret(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Somebody who is signed in. A handler that takes one answers nobody else.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub name: String,
    pub csrf: String,
    pub session: String,
    role: Role,
}

impl Visitor {
    pub(super) fn is_admin(&self) -> bool {
        self.role >= Role::Admin
    }

    /// The CSRF token for a form that changes something; a reader is shown none.
    pub(super) fn may_change(&self) -> Option<String> {
        self.is_admin().then(|| self.csrf.clone())
    }

    /// Whether the session goes on, with a token that is still worth something.
    pub(super) async fn is_still_in(&self, dashboard: &Dashboard) -> bool {
        let Some(bearer) = dashboard.sessions.peek(&self.session) else { return false };
        dashboard.authority.admit(&bearer).await.map_or_else(|problem| problem.status().is_server_error(), |_| true)
    }

    pub(super) fn role_name(&self) -> &'static str {
        match self.role {
            Role::Admin => "admin",
            Role::Reader => "reader",
        }
    }
}

impl FromRequestParts<Arc<Dashboard>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Response> {
        let turned_away = || to_sign_in(&parts.uri).into_response();
        let session = cookie(&parts.headers, COOKIE).ok_or_else(turned_away)?.to_owned();
        let (bearer, csrf) = dashboard.sessions.open(&session).ok_or_else(turned_away)?;
        match dashboard.authority.admit(&bearer).await {
            Ok(caller) => Ok(Self { name: caller.name, csrf, session, role: caller.role }),
            Err(problem) if problem.status().is_client_error() => {
                dashboard.sessions.end(&session);
                Err(turned_away())
            }
            Err(problem) => Err(Fault::from(problem).into_response()),
        }
    }
}

/// Where to sign in, and then come back.
fn to_sign_in(from: &Uri) -> Redirect {
    let next: String =
        url::form_urlencoded::byte_serialize(from.path_and_query().map_or("/", |p| p.as_str()).as_bytes()).collect();
    Redirect::to(&format!("/sign-in?next={next}"))
}

pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// For the browser to keep until it is closed, and to show to this very site alone.
pub(super) fn session_cookie(session: &str, secure: bool) -> Option<HeaderValue> {
    set_cookie(COOKIE, session, "/", "", secure)
}

pub(super) fn no_session_cookie(secure: bool) -> Option<HeaderValue> {
    set_cookie(COOKIE, "", "/", "; Max-Age=0", secure)
}

pub(super) fn set_cookie(name: &str, value: &str, path: &str, age: &str, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path={path}; HttpOnly; SameSite=Strict{secure}{age}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_it_was_idle_or_open_for_too_long() {
        let sessions = Sessions::default();
        let name = sessions.begin("token".into());
        assert_eq!(sessions.open(&name).unwrap().0, "token");
        for _ in 0..6 {
            tokio::time::advance(LONGEST_IDLE).await;
            assert!(sessions.open(&name).is_some());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sessions.open(&name).is_none(), "used all the time, and over all the same");
        let idle = sessions.begin("token".into());
        tokio::time::advance(LONGEST_IDLE + Duration::from_secs(1)).await;
        assert!(sessions.open(&idle).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn their_number_is_bounded_and_the_idlest_goes() {
        let sessions = Sessions::default();
        let first = sessions.begin("token".into());
        let second = sessions.begin("token".into());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sessions.open(&first).is_some());
        for _ in 0..MOST - 1 {
            sessions.begin("token".into());
        }
        assert!(sessions.open(&first).is_some() && sessions.open(&second).is_none());
        assert_eq!(sessions.lock().len(), MOST);
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; mimeo_session=x"));
        headers.append(header::COOKIE, HeaderValue::from_static("mimeo_sessions=y"));
        assert_eq!(cookie(&headers, COOKIE), Some("x"));
        assert_eq!(cookie(&headers, "b"), None);
    }
}
