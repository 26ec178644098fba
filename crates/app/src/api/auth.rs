//! Who may call: the one place that turns a token into a caller with a role.
//!
//! Mimeo's own token (`[api] token_file`) is an admin, that of `reader_token_file` a reader. Any other is Keystone's to
//! judge, and the roles that it tells are matched with `[api] admin_roles` and `reader_roles`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header};
use mimeo_core::{
    Timestamp,
    identity::{Credentials, Identity, Person},
    ports::Clock,
};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{problem::Problem, token::Token};
use crate::config::{ApiSettings, RoleNames};

/// For so long Keystone is not asked about the same token again: a role that was taken away counts for no longer.
const REMEMBERED: Duration = Duration::from_secs(30);
/// More callers at a time are asked about anew.
const MOST_REMEMBERED: usize = 1000;
/// Questions to Keystone at a time: a flood of forged tokens must not become one there.
const QUESTIONS: usize = 8;
/// No service has longer ones.
const LONGEST_TOKEN: usize = 8192;

/// What a caller may do. An admin may do all that a reader may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Reader,
    Admin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// For people.
    pub name: String,
    pub role: Role,
}

impl Caller {
    pub(crate) fn require(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role { Ok(()) } else { Err(Problem::forbidden(&self.name)) }
    }
}

/// Mimeo's own.
pub(crate) struct Tokens {
    pub admin: Token,
    pub reader: Option<Token>,
}

impl Tokens {
    /// From their files, which are made where they are not there.
    pub(crate) fn load_or_create(api: &ApiSettings) -> anyhow::Result<Self> {
        let admin = Token::load_or_create(&api.token_file)?;
        let reader = api.reader_token_file.as_deref().map(Token::load_or_create).transpose()?;
        let is_the_same = reader.as_ref().is_some_and(|reader| admin.matches(reader.reveal()));
        anyhow::ensure!(
            !is_the_same,
            "[api] reader_token_file holds the token of token_file, which is an admin's: name another file, and it is made"
        );
        Ok(Self { admin, reader })
    }
}

pub(crate) struct Authority {
    tokens: Tokens,
    identity: Option<Arc<dyn Identity>>,
    roles: RoleNames,
    clock: Arc<dyn Clock>,
    /// Callers by their tokens' digests, and until when that holds. No token is kept.
    known: Mutex<BTreeMap<[u8; 32], (Caller, Timestamp)>>,
    questions: Semaphore,
}

impl Authority {
    /// Without an `identity`, `tokens` are the only ones that open.
    pub(crate) fn new(
        tokens: Tokens,
        identity: Option<Arc<dyn Identity>>,
        roles: RoleNames,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let is_asked = !roles.admin.is_empty() || !roles.reader.is_empty();
        let identity = identity.filter(|_| is_asked);
        Arc::new(Self { tokens, identity, roles, clock, known: Mutex::default(), questions: Semaphore::new(QUESTIONS) })
    }

    /// Whether people can sign in by Keystone.
    pub(crate) fn has_keystone(&self) -> bool {
        self.identity.is_some()
    }

    /// Who calls with this token. A 401 where nobody knows it, a 403 for somebody without a role here, a 503 where
    /// Keystone cannot be asked.
    pub(crate) async fn admit(&self, bearer: &str) -> Result<Caller, Problem> {
        if self.tokens.admin.matches(bearer) {
            return Ok(Caller { name: "token_file".into(), role: Role::Admin });
        }
        if self.tokens.reader.as_ref().is_some_and(|token| token.matches(bearer)) {
            return Ok(Caller { name: "reader_token_file".into(), role: Role::Reader });
        }
        let is_token = (1..=LONGEST_TOKEN).contains(&bearer.len());
        let Some(identity) = self.identity.as_ref().filter(|_| is_token) else {
            return Err(self.unauthorized());
        };
        let key = Sha256::digest(bearer).into();
        if let Some(caller) = self.remembered(&key) {
            return Ok(caller);
        }
        let _question = self.questions.acquire().await;
        let person = identity.whose(bearer).await.map_err(|error| Problem::no_identity(&error))?;
        let now = self.clock.now();
        let person = person.filter(|person| person.expires_at > now).ok_or_else(|| self.unauthorized())?;
        let role = self.role(&person).ok_or_else(|| Problem::no_role(&person.name))?;
        let caller = Caller { name: person.name, role };
        self.remember(key, &caller, person.expires_at, now);
        Ok(caller)
    }

    /// A token for [`admit`](Self::admit) from Keystone, for a user with a password.
    pub(crate) async fn sign_in(&self, credentials: &Credentials) -> Result<String, Problem> {
        let identity = self.identity.as_ref().ok_or_else(Problem::no_keystone)?;
        let _question = self.questions.acquire().await;
        let token = identity.sign_in(credentials).await.map_err(|error| Problem::no_identity(&error))?;
        token.ok_or_else(Problem::wrong_password)
    }

    fn unauthorized(&self) -> Problem {
        Problem::unauthorized(self.has_keystone())
    }

    fn role(&self, person: &Person) -> Option<Role> {
        let has = |names: &BTreeSet<String>| !names.is_disjoint(&person.roles);
        if has(&self.roles.admin) {
            return Some(Role::Admin);
        }
        has(&self.roles.reader).then_some(Role::Reader)
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Caller> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (caller, until) = known.get(key)?;
        (*until > self.clock.now()).then(|| caller.clone())
    }

    fn remember(&self, key: [u8; 32], caller: &Caller, expires_at: Timestamp, now: Timestamp) {
        let until = now.saturating_add(REMEMBERED).map_or(expires_at, |until| until.min(expires_at));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_REMEMBERED {
            known.retain(|_, (_, until)| *until > now);
        }
        if known.len() < MOST_REMEMBERED {
            known.insert(key, (caller.clone(), until));
        }
    }
}

/// The token of a request: `Authorization: Bearer`, or OpenStack's own header.
pub(super) fn token_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer =
        bearer.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let given = bearer.map(|(_, token)| token.trim());
    given.or_else(|| headers.get("x-auth-token")?.to_str().ok().map(str::trim)).filter(|token| !token.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use async_trait::async_trait;
    use mimeo_core::{Error, Reason, Result};
    use mimeo_testkit::{FakeClock, sample};

    use super::*;

    /// Knows the tokens `admin`, `reader`, `member` and `unscoped`, whose owners bear their names, until second 100.
    #[derive(Default)]
    pub(crate) struct FakeIdentity {
        asked: Mutex<usize>,
        is_down: Mutex<bool>,
    }

    #[async_trait]
    impl Identity for FakeIdentity {
        async fn whose(&self, token: &str) -> Result<Option<Person>> {
            *self.asked.lock().unwrap() += 1;
            if *self.is_down.lock().unwrap() {
                return Err(Error::new(Reason::ImageServiceUnreachable, "Keystone at http://k cannot be reached"));
            }
            let roles: &[&str] = match token {
                "admin" => &["admin", "member", "reader"],
                "reader" => &["auditor"],
                "member" => &["member", "reader"],
                "unscoped" => &[],
                _ => return Ok(None),
            };
            let roles = roles.iter().map(|role| (*role).to_owned()).collect();
            Ok(Some(Person { name: token.into(), roles, expires_at: sample::time(100) }))
        }

        async fn sign_in(&self, credentials: &Credentials) -> Result<Option<String>> {
            Ok((credentials.password == "right").then(|| credentials.user.clone()))
        }
    }

    struct World {
        authority: Arc<Authority>,
        identity: Arc<FakeIdentity>,
        clock: Arc<FakeClock>,
    }

    fn world() -> World {
        let (identity, clock) = (Arc::new(FakeIdentity::default()), Arc::new(FakeClock::default()));
        let names = |name: &str| BTreeSet::from([name.to_owned()]);
        let roles = RoleNames { admin: names("admin"), reader: names("auditor") };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "own").unwrap();
        let (admin, reader) = (Token::load(&path).unwrap(), directory.path().join("reader"));
        std::fs::write(&reader, "own-reader").unwrap();
        let tokens = Tokens { admin, reader: Some(Token::load(&reader).unwrap()) };
        World { authority: Authority::new(tokens, Some(identity.clone()), roles, clock.clone()), identity, clock }
    }

    impl World {
        async fn role(&self, token: &str) -> Result<Role, u16> {
            self.authority.admit(token).await.map(|caller| caller.role).map_err(|problem| problem.status().as_u16())
        }

        fn asked(&self) -> usize {
            *self.identity.asked.lock().unwrap()
        }
    }

    #[tokio::test]
    async fn a_token_is_worth_what_its_owners_roles_are() {
        let world = world();
        assert_eq!(world.role("own").await, Ok(Role::Admin));
        assert_eq!(world.role("own-reader").await, Ok(Role::Reader));
        assert_eq!(world.asked(), 0, "Keystone need not know of Mimeo's own tokens");
        assert_eq!(world.role("admin").await, Ok(Role::Admin));
        assert_eq!(world.role("reader").await, Ok(Role::Reader));
        for nobody in ["member", "unscoped"] {
            assert_eq!(world.role(nobody).await, Err(403), "{nobody}");
        }
        for unknown in ["forged", "", &"x".repeat(LONGEST_TOKEN + 1)] {
            assert_eq!(world.role(unknown).await, Err(401));
        }
        let reader = Caller { name: "r".into(), role: Role::Reader };
        assert!(reader.require(Role::Reader).is_ok());
        assert_eq!(reader.require(Role::Admin).unwrap_err().status().as_u16(), 403);
    }

    #[tokio::test]
    async fn a_caller_is_remembered_for_a_while_and_never_beyond_the_tokens_end() {
        let world = world();
        for _ in 0..3 {
            assert_eq!(world.role("admin").await, Ok(Role::Admin));
        }
        assert_eq!(world.asked(), 1);
        world.clock.set(sample::time(31));
        assert_eq!(world.role("admin").await, Ok(Role::Admin));
        assert_eq!(world.asked(), 2);
        world.clock.set(sample::time(90));
        assert_eq!(world.role("admin").await, Ok(Role::Admin));
        world.clock.set(sample::time(100));
        assert_eq!(world.role("admin").await, Err(401), "expired, though remembered ten seconds ago");
    }

    #[tokio::test]
    async fn while_keystone_is_down_those_who_are_remembered_come_in_and_the_own_token() {
        let world = world();
        assert_eq!(world.role("reader").await, Ok(Role::Reader));
        *world.identity.is_down.lock().unwrap() = true;
        assert_eq!(world.role("reader").await, Ok(Role::Reader));
        assert_eq!(world.role("own").await, Ok(Role::Admin));
        assert_eq!(world.role("admin").await, Err(503));
    }

    #[tokio::test]
    async fn without_roles_keystone_is_not_asked() {
        let world = world();
        let tokens = Tokens { admin: world.authority.tokens.admin.clone(), reader: None };
        let closed = Authority::new(tokens, Some(world.identity.clone()), RoleNames::default(), world.clock.clone());
        assert!(closed.admit("own").await.is_ok());
        assert_eq!(closed.admit("admin").await.unwrap_err().status().as_u16(), 401);
        assert_eq!(world.asked(), 0);
    }

    #[tokio::test]
    async fn signing_in_gives_a_token_or_tells_that_the_password_is_wrong() {
        let world = world();
        let sign_in = async |password: &str| {
            let text = str::to_owned;
            let credentials = Credentials {
                user: text("reader"),
                password: text(password),
                user_domain: text("Default"),
                project: text("p"),
                project_domain: text("Default"),
            };
            assert!(!format!("{credentials:?}").contains(password));
            world.authority.sign_in(&credentials).await
        };
        let token = sign_in("right").await.unwrap();
        assert_eq!(world.role(&token).await, Ok(Role::Reader));
        assert_eq!(sign_in("wr0ng").await.unwrap_err().status().as_u16(), 401);
    }
}
