//! A store of the type `http`.

use mimeo_adapters::stores::http::HttpStoreConfig;

use super::Own;

pub(super) const KEYS: &[&str] = &["url", "read_url"];

pub(super) fn read(own: &Own<'_>) -> Option<HttpStoreConfig> {
    let url = own.url("url", "the place to write to, like \"http://10.0.0.11/images/\"");
    let read_url = own.url_if_given("read_url");
    Some(HttpStoreConfig { name: own.name.clone(), url: url?, read_url: read_url? })
}

/// What no other store may have too, each with its key.
pub(super) fn places(config: &HttpStoreConfig) -> Vec<(&'static str, String)> {
    vec![("url", config.url.to_string()), ("read_url", config.readable().to_string())]
}
