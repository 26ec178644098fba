//! A store of the type `http`.

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
        let (_, pem) = own.file(item)?;
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
    let given = |key| read_if_given(own, key, |item| Some((own.file(item)?.1, item.clone())));
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

/// Tells the rule and not the value, which may be a secret.
fn ruled<T>(item: &Item<'_>, read: Result<T, &'static str>) -> Option<T> {
    read.map_err(|rule| item.wrong(rule)).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mimeo_adapters::stores::http::Login;

    use crate::config::{Config, ConfigError, StoreKind};

    /// In a directory with the files `secret` and `junk`.
    fn parse(section: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("secret"), "s3cret\n").unwrap();
        fs::write(directory.path().join("junk"), "s3cret").unwrap();
        let text = format!("enabled_stores = [\"a\"]\n[stores.a]\n{section}");
        let environment = |name: &str| (name == "SECRET").then(|| "s3cret".to_owned());
        Config::parse(&directory.path().join("mimeo.toml"), &text, &environment)
    }

    fn login(section: &str) -> String {
        let config = parse(section).unwrap();
        let StoreKind::Http(http) = &config.stores[0].kind else { panic!("{:?}", config.stores[0].kind) };
        let shown = format!("{config:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        match &http.access.login {
            Some(Login::Basic { user, .. }) => format!("password of {user}"),
            Some(Login::Bearer(_)) => "token".to_owned(),
            None => "nothing".to_owned(),
        }
    }

    #[test]
    fn secrets_come_from_a_file_or_the_environment_and_are_never_shown() {
        let url = "url = \"https://h/\"\n";
        assert_eq!(login(url), "nothing");
        assert_eq!(login(&format!("{url}user = \"mimeo\"\npassword = \"file:secret\"")), "password of mimeo");
        assert_eq!(login(&format!("{url}token = \"${{SECRET}}\"")), "token");
        assert_eq!(login(&format!("{url}proxy = \"http://u:${{SECRET}}@10.0.0.1:3128\"")), "nothing");
    }

    #[test]
    fn each_mistake_is_told_with_key_and_cure_and_without_the_secret() {
        let cases = [
            ("user = \"u\"", "2: stores.a.password: missing; user is of no use without it"),
            ("password = \"s3cret\"", "2: stores.a.user: missing; password is of no use without it"),
            ("user = \"a:b\"\npassword = \"s3cret\"", "4: stores.a.user: must be a name without ':'"),
            ("user = \"u\"\npassword = \"\"", "5: stores.a.password: is empty"),
            ("token = \"s3cret s3cret\"", "4: stores.a.token: is empty, or has a character"),
            ("token = \"file:/nowhere/t\"", "4: stores.a.token: the secret file /nowhere/t cannot be read"),
            ("user = \"u\"\npassword = \"p\"\ntoken = \"s3cret\"", "6: stores.a.token: there is a user too"),
            ("cert_file = \"junk\"", "2: stores.a.key_file: missing; cert_file is of no use without it"),
            ("key_file = \"junk\"", "2: stores.a.cert_file: missing; key_file is of no use without it"),
            ("cert_file = \"junk\"\nkey_file = \"junk\"", "4: stores.a.cert_file: has no certificate in PEM"),
            ("ca_file = \"junk\"", "4: stores.a.ca_file: has no certificate in PEM"),
            ("ca_file = \"/nowhere/ca\"", "4: stores.a.ca_file: /nowhere/ca cannot be read"),
            ("proxy = \"s3cret:3128\"", "4: stores.a.proxy: is no URL of a proxy; write it like"),
            ("proxy = \"socks5://u:s3cret@h:1080\"", "4: stores.a.proxy: is no URL of a proxy; write it like"),
        ];
        for (section, expected) in cases {
            let found = parse(&format!("url = \"https://h/\"\n{section}")).unwrap_err().to_string();
            let told = found.split_once("mimeo.toml:").unwrap().1;
            assert!(told.starts_with(expected) && found.lines().count() == 1, "{section}: {found}");
            assert!(!found.contains("s3cret"), "{found}");
        }
    }

    #[test]
    fn what_is_of_no_use_without_tls_is_a_mistake() {
        let found = |section: &str| parse(section).map_or_else(|error| error.to_string(), |_| String::new());
        let plain = "url = \"http://h/\"\nca_file = \"junk\"\n";
        assert!(found(plain).contains("a.ca_file: is for https servers only"));
        assert!(!found(&format!("{plain}read_url = \"https://h/\"")).contains("https servers only"));
        let shown = "url = \"http://h/\"\ncert_file = \"junk\"\nkey_file = \"junk\"";
        assert!(found(shown).contains("a.cert_file: is shown to https servers only"), "{}", found(shown));
    }
}
