//! Who people are: the port to the identity service. The engine asks nobody; what people call does.

use std::{collections::BTreeSet, fmt};

use async_trait::async_trait;

use crate::{Result, Timestamp};

/// The identity service. Both calls leave nothing behind but, perhaps, a token that nobody has.
#[async_trait]
pub trait Identity: Send + Sync {
    /// Whose token this is, as the service says now; `None` for one that is forged, expired, revoked or another
    /// service's.
    async fn whose(&self, token: &str) -> Result<Option<Person>>;

    /// A token for these credentials; `None` where the service refuses them.
    async fn sign_in(&self, credentials: &Credentials) -> Result<Option<String>>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    /// In the project, or over whatever else, that the token is for. None, for a token that is for nothing.
    pub roles: BTreeSet<String>,
    pub expires_at: Timestamp,
}

/// A user's password, and the project in which to act. Domains go by their names.
#[derive(Clone)]
pub struct Credentials {
    pub user: String,
    pub password: String,
    pub user_domain: String,
    pub project: String,
    pub project_domain: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} in {}@{}", self.user, self.user_domain, self.project, self.project_domain)
    }
}
