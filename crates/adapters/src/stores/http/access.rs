//! What a server wants to see before it takes anything, and how it is reached.

use std::fmt;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Proxy, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::stores::web::plain_client;

/// All of it is for the server that Mimeo writes to. Glance's driver has none of it, so reads have only what makes the
/// server reached and believed.
#[derive(Clone, Default)]
pub struct Access {
    pub login: Option<Login>,
    /// The certificate that Mimeo shows.
    pub identity: Option<Identity>,
    /// Believed beside the system's.
    pub roots: Vec<Certificate>,
    pub proxy: Option<Proxy>,
}

/// What `Authorization` says.
#[derive(Debug, Clone)]
pub enum Login {
    Basic { user: String, password: SecretString },
    Bearer(SecretString),
}

impl Access {
    pub(super) fn writer(&self) -> ClientBuilder {
        let client = proxied(self.reader(), self.proxy.as_ref());
        match &self.identity {
            Some(identity) => client.identity(identity.clone()),
            None => client,
        }
    }

    /// For what is read where it was written.
    pub(super) fn reader_of_the_same(&self) -> ClientBuilder {
        proxied(self.reader(), self.proxy.as_ref())
    }

    /// For what is read elsewhere: where Glance reaches a server of its own, no proxy is in between.
    pub(super) fn reader(&self) -> ClientBuilder {
        plain_client().tls_certs_merge(self.roots.iter().cloned())
    }

    pub(super) fn logged_in(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.login {
            Some(Login::Basic { user, password }) => request.basic_auth(user, Some(password.expose_secret())),
            Some(Login::Bearer(token)) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }
}

fn proxied(client: ClientBuilder, proxy: Option<&Proxy>) -> ClientBuilder {
    match proxy {
        Some(proxy) => client.proxy(proxy.clone()),
        None => client,
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("login", &self.login)
            .field("identity", &self.identity.is_some())
            .field("roots", &self.roots.len())
            // Its URL may have a password.
            .field("proxy", &self.proxy.is_some())
            .finish()
    }
}

/// The certificates of a PEM file; the error is the rule that it broke.
pub fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, &'static str> {
    let found = Certificate::from_pem_bundle(pem).unwrap_or_default();
    let is_good = !found.is_empty() && Client::builder().tls_certs_only(found.clone()).build().is_ok();
    is_good.then_some(found).ok_or("has no certificate in PEM that can be read")
}

/// A certificate, with those of its issuers behind it, and its key, both PEM; the error is the rule that the key broke.
pub fn identity(certificates: &[u8], key: &[u8]) -> Result<Identity, &'static str> {
    let identity = Identity::from_pem(&[certificates, b"\n", key].concat())
        .map_err(|_| "has no private key in PEM that can be read; one with a passphrase cannot")?;
    let client = Client::builder().tls_certs_only([]).identity(identity.clone());
    client.build().map(|_| identity).map_err(|_| "is not the key of the certificate in cert_file")
}

/// `http://host:port`, perhaps with a user and password; the error is the rule that it broke.
pub fn proxy(text: &str) -> Result<Proxy, &'static str> {
    const RULE: &str = "is no URL of a proxy; write it like http://10.0.0.1:3128";
    let url = Url::parse(text).map_err(|_| RULE)?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    match is_bare && url.has_host() && matches!(url.scheme(), "http" | "https") {
        true => Proxy::all(url).map_err(|_| RULE),
        false => Err(RULE),
    }
}
