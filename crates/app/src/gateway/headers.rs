//! Which headers belong to one connection only, and what a proxy adds.

use std::net::SocketAddr;

use hyper::{
    HeaderMap,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

/// Whom a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) peer: SocketAddr,
    pub(super) scheme: &'static str,
}

/// RFC 9110, section 7.6.1, and what else is for the next hop alone.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes out what was meant for this connection: the well-known headers and those that `Connection` names.
pub(super) fn end_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        // Without them the body would have no length, and nobody know whom the request came from, and for which host.
        let stays = [CONTENT_LENGTH, HOST, FORWARDED].contains(name) || name.as_str().starts_with("x-forwarded-");
        if !stays {
            headers.remove(name);
        }
    }
}

/// Whether a server that takes `_` for `-`, as WSGI does, would see another request than this gateway did.
pub(super) fn is_ambiguous(headers: &HeaderMap) -> bool {
    headers.keys().map(HeaderName::as_str).filter(|name| name.contains('_')).any(|name| {
        let read = name.replace('_', "-");
        matches!(read.as_str(), "content-length" | "transfer-encoding" | "host" | "forwarded" | "connection" | "expect")
            || read.starts_with("x-forwarded-")
    })
}

/// Says whom the request came from, and answers `Expect` itself: glance-api under uwsgi never does. What a proxy before
/// this one said of the scheme and the host stays. `Forwarded` is gone on with and never begun: where it is there, glance-api
/// looks at nothing else, and it does not read quotes.
pub(super) fn forwarded(headers: &mut HeaderMap, client: Client) {
    headers.remove(EXPECT);
    let ip = client.peer.ip();
    append(headers, HeaderName::from_static("x-forwarded-for"), &ip.to_string());
    let node = if ip.is_ipv6() { format!("\"[{ip}]\"") } else { ip.to_string() };
    if headers.contains_key(FORWARDED) {
        append(headers, FORWARDED, &format!("for={node};proto={}", client.scheme));
    }
    headers.entry("x-forwarded-proto").or_insert(HeaderValue::from_static(client.scheme));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry("x-forwarded-host").or_insert(host);
    }
}

/// Adds to a list that proxies before this one may have begun.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let before: Vec<&str> = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect();
    let all = before.into_iter().chain([value]).collect::<Vec<_>>().join(", ");
    if let Ok(all) = HeaderValue::from_str(&all) {
        headers.insert(name, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn what_is_meant_for_one_connection_stays_there() {
        let mut it = headers(&[
            ("connection", "close, X-Secret"),
            ("keep-alive", "5"),
            ("x-secret", "1"),
            ("transfer-encoding", "chunked"),
            ("x-auth-token", "t"),
        ]);
        end_hop(&mut it);
        assert_eq!(it, headers(&[("x-auth-token", "t")]));
    }

    #[test]
    fn what_others_rely_on_cannot_be_talked_away() {
        for name in ["content-length", "host", "forwarded", "x-forwarded-for", "x-forwarded-proto"] {
            let mut it = headers(&[("connection", name), (name, "5")]);
            end_hop(&mut it);
            assert_eq!(it, headers(&[(name, "5")]));
        }
    }

    #[test]
    fn the_client_is_added_to_those_before_it() {
        let mut it = headers(&[("host", "glance:9292"), ("x-forwarded-for", "10.0.0.1"), ("expect", "100-continue")]);
        let client = Client { peer: "[::1]:5".parse().unwrap(), scheme: "http" };
        forwarded(&mut it, client);
        assert_eq!((&it["x-forwarded-for"], &it["x-forwarded-host"]), (&value("10.0.0.1, ::1"), &value("glance:9292")));
        assert_eq!(it["x-forwarded-proto"], "http");
        assert!(!it.contains_key("forwarded") && !it.contains_key("expect"));
        // Behind one that ends TLS.
        let said =
            [("x-forwarded-proto", "https"), ("x-forwarded-host", "api"), ("forwarded", "for=10.0.0.1;proto=https")];
        let mut it = headers(&said);
        forwarded(&mut it, client);
        assert_eq!((&it["x-forwarded-proto"], &it["x-forwarded-host"]), (&value("https"), &value("api")));
        assert_eq!(it["forwarded"], "for=10.0.0.1;proto=https, for=\"[::1]\";proto=http");
    }

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    #[test]
    fn what_another_server_might_read_as_another_header_is_found() {
        for name in
            ["content_length", "transfer_encoding", "x_forwarded_proto", "x-forwarded_for", "forwarded_", "host_"]
        {
            assert_eq!(is_ambiguous(&headers(&[(name, "1")])), !name.ends_with('_'), "{name}");
        }
        assert!(!is_ambiguous(&headers(&[("x-image-meta-property-os_type", "linux"), ("content-length", "1")])));
    }
}
