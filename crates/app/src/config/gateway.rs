//! `[gateway]`: where uploads come in, and how long their senders wait for replicas.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use url::{Host, Url};

use super::{
    document::{Item, Section, of_this_machine},
    sections::{above_zero, list},
};

const KEYS: &[&str] =
    &["listen", "upstream", "ack", "ack_timeout", "reads", "connections", "stop_timeout", "certificate", "key"];
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

#[derive(Debug, Clone)]
pub(crate) struct GatewaySettings {
    pub listen: SocketAddr,
    /// The glance-api servers behind it.
    pub upstream: Vec<Url>,
    pub ack: Ack,
    pub ack_timeout: Duration,
    pub reads: Reads,
    /// How many clients may be connected at a time.
    pub connections: NonZeroUsize,
    pub stop_timeout: Duration,
    pub tls: Option<TlsFiles>,
}

/// How many registered replicas the answer to an upload waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    All,
    Some(usize),
    None,
}

/// Where the bits of a download come from, once glance-api has granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    Glance,
    /// From the proven copy that was the fastest to read lately.
    Nearest,
}

#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `None` without the section, or where mistakes were noted.
pub(super) fn gateway(section: &Section<'_>, directory: &Path) -> Option<GatewaySettings> {
    section.allow(KEYS);
    if !section.exists() {
        return None;
    }
    let duration = |key, default| section.value(key, default, above_zero);
    let settings = GatewaySettings {
        listen: section.value("listen", SocketAddr::from(([0, 0, 0, 0], 9292)), |item| item.parse(address)),
        upstream: upstream(section)?,
        ack: section.value("ack", Ack::All, ack),
        ack_timeout: duration("ack_timeout", Duration::from_mins(1)),
        reads: section.value("reads", Reads::Glance, |item| {
            item.choice(&[("glance", Reads::Glance), ("nearest", Reads::Nearest)])
        }),
        connections: section.value("connections", CONNECTIONS, |item| {
            item.number(1).and_then(|most| usize::try_from(most).ok()).and_then(NonZeroUsize::new)
        }),
        stop_timeout: duration("stop_timeout", Duration::from_mins(1)),
        tls: tls(section, directory),
    };
    if let Some(item) =
        section.get("upstream").filter(|_| settings.upstream.iter().any(|url| leads_to(url, settings.listen)))
    {
        item.wrong("is the gateway itself; name the address that glance-api listens on");
    }
    Some(settings)
}

fn upstream(section: &Section<'_>) -> Option<Vec<Url>> {
    let Some(item) = section.get("upstream") else {
        section
            .missing("upstream", "missing; name the glance-api behind the gateway, like [\"http://127.0.0.1:9291\"]");
        return None;
    };
    list(&item, |item| item.parse(glance_api))
}

fn glance_api(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or("is no URL of a glance-api, like \"http://127.0.0.1:9291\"")?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if is_plain { Ok(url) } else { Err("must be a plain address: no user, password or query".to_owned()) }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no address with a port; write it like \"0.0.0.0:9292\""))
}

fn ack(item: &Item<'_>) -> Option<Ack> {
    if item.is_number() {
        return item.number(1).and_then(|least| usize::try_from(least).ok()).map(Ack::Some);
    }
    item.choice(&[("all", Ack::All), ("none", Ack::None)])
}

/// None, too, where only one of the two is named.
pub(super) fn tls(section: &Section<'_>, directory: &Path) -> Option<TlsFiles> {
    let file = |key| section.get(key).and_then(|item| item.text()).map(|path| of_this_machine(directory, &path));
    match (section.get("certificate"), section.get("key")) {
        (Some(item), None) => item.wrong("needs the key too: add `key = \"…\"`, or remove it for plain HTTP"),
        (None, Some(item)) => {
            item.wrong("needs the certificate too: add `certificate = \"…\"`, or remove it for plain HTTP");
        }
        _ => {}
    }
    Some(TlsFiles { certificate: file("certificate")?, key: file("key")? })
}

/// Whether the URL is the very address that is listened on.
fn leads_to(url: &Url, listen: SocketAddr) -> bool {
    let same_port = url.port_or_known_default() == Some(listen.port());
    let leads = match url.host() {
        Some(Host::Ipv4(ip)) => reaches(ip.into(), listen.ip()),
        Some(Host::Ipv6(ip)) => reaches(ip.into(), listen.ip()),
        Some(Host::Domain(name)) => name == "localhost" && (listen.ip().is_unspecified() || listen.ip().is_loopback()),
        None => false,
    };
    same_port && leads
}

fn reaches(to: IpAddr, listen: IpAddr) -> bool {
    to == listen || (listen.is_unspecified() && to.is_loopback())
}
