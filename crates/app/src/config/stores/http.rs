//! A store of the type `http`.

use std::fs;

use mimeo_adapters::stores::http::{self, Access, HttpStoreConfig, Login};
use url::Url;

use super::{Item, Own};

pub(super) const KEYS: &[&str] =
    &["url", "read_url", "user", "password", "token", "cert_file", "key_file", "ca_file", "proxy"];

pub(super) fn read(own: &Own<'_>) -> Option<HttpStoreConfig> {
    let url = own.url("url", "the place to write to, like \"http://10.0.0.11/images/\"");
    let read_url = own.url_if_given("read_url");
    let access = access(own, url.as_ref(), read_url.as_ref().and_then(Option::as_ref));
    Some(HttpStoreConfig { name: own.name.clone(), url: url?, read_url: read_url?, access: access? })
}

/// What no other store may have too, each with its key.
pub(super) fn places(config: &HttpStoreConfig) -> Vec<(&'static str, String)> {
    vec![("url", config.url.to_string()), ("read_url", config.readable().to_string())]
}

/// A mistake in one key keeps none of the others from being looked at.
fn access(own: &Own<'_>, url: Option<&Url>, read_url: Option<&Url>) -> Option<Access> {
    let is_https = |url: &Url| url.scheme() == "https";
    if url.is_some_and(|url| !is_https(url)) {
        tls_only(own, "cert_file", "is shown to https servers only, and url is none");
        if !read_url.is_some_and(is_https) {
            tls_only(own, "ca_file", "is for https servers only, and this store has none");
        }
    }
    let (login, identity) = (login(own), identity(own));
    let roots = read_if_given(own, "ca_file", |item| {
        let pem = file(own, item)?;
        ruled(item, http::certificates(&pem))
    });
    let proxy = read_if_given(own, "proxy", |item| {
        let text = item.secret(own.directory)?;
        ruled(item, http::proxy(&text))
    });
    Some(Access { login: login?, identity: identity?, roots: roots?.unwrap_or_default(), proxy: proxy? })
}

fn login(own: &Own<'_>) -> Option<Option<Login>> {
    let user = read_if_given(own, "user", |item| {
        item.parse(|text| match text.is_empty() || text.contains(|byte: char| byte == ':' || byte.is_control()) {
            true => Err("must be a name without ':'".to_owned()),
            false => Ok(text.to_owned()),
        })
    });
    let password = read_if_given(own, "password", |item| secret(own, item, |text| !text.is_empty()));
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let token = read_if_given(own, "token", |item| secret(own, item, is_token));
    pair(own, "user", "password");
    if let (Some(_), Some(item)) = (own.section.get("user"), own.section.get("token")) {
        item.wrong("there is a user too; give user and password, or token");
        return None;
    }
    let basic = user?.zip(password?).map(|(user, password)| Login::Basic { user, password: password.into() });
    Some(basic.or(token?.map(|token| Login::Bearer(token.into()))))
}

fn identity(own: &Own<'_>) -> Option<Option<reqwest::Identity>> {
    let given = |key| read_if_given(own, key, |item| Some((file(own, item)?, item.clone())));
    let (certificates, key) = (given("cert_file"), given("key_file"));
    if !pair(own, "cert_file", "key_file") {
        return None;
    }
    let Some(((certificates, cert_file), (key, key_file))) = certificates?.zip(key?) else { return Some(None) };
    ruled(&cert_file, http::certificates(&certificates))?;
    ruled(&key_file, http::identity(&certificates, &key)).map(Some)
}

/// Notes where one of two keys stands alone.
fn pair(own: &Own<'_>, one: &'static str, other: &'static str) -> bool {
    let (has_one, has_other) = (own.section.get(one).is_some(), own.section.get(other).is_some());
    let (lacks, has) = if has_one { (other, one) } else { (one, other) };
    if has_one != has_other {
        own.section.missing(lacks, &format!("missing; {has} is of no use without it"));
    }
    has_one == has_other
}

fn tls_only(own: &Own<'_>, key: &str, message: &str) {
    if let Some(item) = own.section.get(key) {
        item.wrong(format!("{message}; remove it, or write https://"));
    }
}

/// `None`: a mistake. `Some(None)`: the key is not there.
fn read_if_given<'a, T>(own: &Own<'a>, key: &str, read: impl Fn(&Item<'a>) -> Option<T>) -> Option<Option<T>> {
    match own.section.get(key) {
        Some(item) => read(&item).map(Some),
        None => Some(None),
    }
}

fn secret(own: &Own<'_>, item: &Item<'_>, is_good: impl Fn(&str) -> bool) -> Option<String> {
    let text = item.secret(own.directory)?;
    if !is_good(&text) {
        item.wrong("is empty, or has a character that no header can have; write it as the server knows it");
        return None;
    }
    Some(text)
}

fn file(own: &Own<'_>, item: &Item<'_>) -> Option<Vec<u8>> {
    item.parse(|text| {
        fs::read(own.directory.join(text))
            .map_err(|error| format!("{text} cannot be read: {error}; create it, readable for mimeo"))
    })
}

/// Tells the rule and not the value, which may be a secret.
fn ruled<T>(item: &Item<'_>, read: Result<T, &'static str>) -> Option<T> {
    read.map_err(|rule| item.wrong(rule)).ok()
}
