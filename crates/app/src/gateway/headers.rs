//! Which headers belong to one connection only, and what a proxy adds.

use std::net::SocketAddr;

use hyper::{
    HeaderMap,
    header::{
        CONNECTION, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE,
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
        // Without it the body would have no length.
        if name != hyper::header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
}

/// Says whom the request came from, and answers `Expect` itself: glance-api under uwsgi never does.
pub(super) fn forwarded(headers: &mut HeaderMap, client: Client) {
    headers.remove(EXPECT);
    let ip = client.peer.ip();
    append(headers, HeaderName::from_static("x-forwarded-for"), &ip.to_string());
    let node = if ip.is_ipv6() { format!("\"[{ip}]\"") } else { ip.to_string() };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let quoted = host.as_deref().filter(|host| !host.contains(['"', '\\'])).map(|host| format!(";host=\"{host}\""));
    append(headers, FORWARDED, &format!("for={node};proto={}{}", client.scheme, quoted.unwrap_or_default()));
    headers.insert("x-forwarded-proto", HeaderValue::from_static(client.scheme));
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(&host).ok()) {
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
    fn the_length_of_a_body_cannot_be_talked_away() {
        let mut it = headers(&[("connection", "content-length"), ("content-length", "5")]);
        end_hop(&mut it);
        assert_eq!(it, headers(&[("content-length", "5")]));
    }

    #[test]
    fn the_client_is_added_to_those_before_it() {
        let mut it = headers(&[("host", "glance:9292"), ("x-forwarded-for", "10.0.0.1"), ("expect", "100-continue")]);
        forwarded(&mut it, Client { peer: "[::1]:5".parse().unwrap(), scheme: "https" });
        assert_eq!(it["x-forwarded-for"], "10.0.0.1, ::1");
        assert_eq!(it["forwarded"], "for=\"[::1]\";proto=https;host=\"glance:9292\"");
        assert_eq!((&it["x-forwarded-proto"], it.contains_key("expect")), (&HeaderValue::from_static("https"), false));
    }
}
