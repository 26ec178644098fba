use std::{fmt, str::FromStr, time::Duration};

/// The `[events]` section, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RabbitConfig {
    pub transport_url: TransportUrl,
    /// Glance's `[DEFAULT] control_exchange`.
    pub exchange: String,
    /// Glance's `[oslo_messaging_notifications] topics`.
    pub topics: Vec<String>,
    /// Mimeo's own: a queue shared with another listener splits the messages between both.
    pub queue: String,
    /// The queue is gone with the connection: for a look, not for a service.
    pub temporary: bool,
    pub heartbeat: Duration,
}

impl RabbitConfig {
    /// As Glance does it where nothing else is configured.
    pub fn new(transport_url: TransportUrl) -> Self {
        Self {
            transport_url,
            exchange: "glance".into(),
            topics: vec!["notifications".into()],
            queue: "mimeo".into(),
            temporary: false,
            heartbeat: Duration::from_secs(30),
        }
    }
}

/// Brokers as `transport_url` names them in glance-api.conf:
/// `rabbit://user:password@host:port,user:password@host:port/vhost`. Its `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct TransportUrl {
    pub(super) brokers: Vec<Broker>,
    pub(super) vhost: String,
    pub(super) tls: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) host: String,
    pub(super) port: u16,
}

/// A `transport_url` that names no broker. The text names key, value, rule and cure, and never a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "transport_url = \"{value}\": {rule}; write it as rabbit://user:password@host:5672/vhost, as in glance-api.conf, \
     with each of : / @ , ? # % in a user or password as %XX"
)]
pub struct InvalidTransportUrl {
    value: String,
    rule: &'static str,
}

impl FromStr for TransportUrl {
    type Err = InvalidTransportUrl;

    fn from_str(text: &str) -> Result<Self, InvalidTransportUrl> {
        parse(text).map_err(|rule| InvalidTransportUrl { value: redact(text), rule })
    }
}

fn parse(text: &str) -> Result<TransportUrl, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let tls = match scheme {
        "rabbit" | "amqp" | "kombu" | "kombu+amqp" => asks_for_tls(query),
        "amqps" | "rabbits" => true,
        _ => return Err("its scheme is neither rabbit nor amqp(s)"),
    };
    let mut brokers: Vec<Broker> = Vec::new();
    for part in authority.split(',').filter(|part| !part.is_empty()) {
        let broker = broker(part, tls, brokers.last())?;
        brokers.push(broker);
    }
    if brokers.is_empty() {
        return Err("names no host");
    }
    // As kombu does it: without a name it is the broker's default vhost.
    let vhost = match decode(path)? {
        vhost if vhost.is_empty() => "/".to_owned(),
        vhost => vhost,
    };
    Ok(TransportUrl { brokers, vhost, tls })
}

/// One `user:password@host:port`. Who names no user is the one before, else the broker's own default.
fn broker(text: &str, tls: bool, before: Option<&Broker>) -> Result<Broker, &'static str> {
    let (userinfo, place) = match text.rsplit_once('@') {
        Some((userinfo, place)) => (Some(userinfo), place),
        None => (None, text),
    };
    let (user, password) = match (userinfo, before) {
        (Some(userinfo), _) => {
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            (decode(user)?, decode(password)?)
        }
        (None, Some(before)) => (before.user.clone(), before.password.clone()),
        (None, None) => ("guest".to_owned(), "guest".to_owned()),
    };
    let default = if tls { 5671 } else { 5672 };
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, default),
        Some((host, port)) => (host, parse_port(port.strip_prefix(':').unwrap_or(port))?),
        None => match place.split_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (place, default),
        },
    };
    match host.is_empty() {
        true => Err("has an empty host"),
        false => Ok(Broker { user, password, host: host.to_owned(), port }),
    }
}

fn parse_port(port: &str) -> Result<u16, &'static str> {
    port.parse().ok().filter(|port| *port != 0).ok_or("has a port that is no number from 1 to 65535")
}

fn asks_for_tls(query: &str) -> bool {
    let on = |value: &str| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str());
    url::form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "ssl" && on(&value))
}

fn decode(text: &str) -> Result<String, &'static str> {
    const BROKEN: &str = "has a % that two hexadecimal digits do not follow";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(BROKEN)?;
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(value(digits[0]).ok_or(BROKEN)? * 16 + value(digits[1]).ok_or(BROKEN)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 once its %XX are decoded")
}

/// What may be shown of text that could not be understood: a password may stand anywhere before the last `@`, and
/// without one, anywhere at all.
fn redact(text: &str) -> String {
    let scheme = match text.split_once("://") {
        Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+') => scheme,
        _ => return "***".to_owned(),
    };
    let shown = text.rsplit_once('@').map(|(_, place)| place.split('?').next().unwrap_or_default());
    match shown {
        Some(place) => format!("{scheme}://***@{place}"),
        None => format!("{scheme}://***"),
    }
}

impl fmt::Debug for TransportUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportUrl")
            .field("brokers", &self.brokers)
            .field("vhost", &self.vhost)
            .field("tls", &self.tls)
            .finish()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Where it is, without who logs in.
impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> TransportUrl {
        text.parse().unwrap()
    }

    #[test]
    fn reads_what_glance_reads() {
        let several = url("rabbit://mimeo:p%40ss%2C@h1:5673,other:x@h2,h3/images");
        let brokers: Vec<_> = several.brokers.iter().map(|b| (&*b.user, &*b.password, &*b.host, b.port)).collect();
        assert_eq!(brokers, [("mimeo", "p@ss,", "h1", 5673), ("other", "x", "h2", 5672), ("other", "x", "h3", 5672)]);
        assert_eq!((several.vhost.as_str(), several.tls), ("images", false));
        assert_eq!(url("rabbit://h").brokers[0].user, "guest");
        assert_eq!(url("rabbit://u:p@[::1]:5672/").brokers[0].host, "::1");
    }

    #[test]
    fn a_bare_slash_is_the_default_vhost() {
        for text in ["rabbit://h", "rabbit://h/", "rabbit://h//", "rabbit://h/%2F"] {
            assert_eq!(url(text).vhost, "/", "{text}");
        }
    }

    #[test]
    fn tls_is_asked_for_by_scheme_or_query() {
        for (text, tls) in [("amqps://h", true), ("rabbit://h/?ssl=1", true), ("rabbit://h/?ssl=0", false)] {
            assert_eq!(url(text).tls, tls, "{text}");
        }
        assert_eq!(url("amqps://h").brokers[0].port, 5671);
    }

    #[test]
    fn errors_and_debug_never_show_a_password() {
        let bad = [
            "rabbit://user:s3cret",
            "rabbit://user:s3cret@h:port/",
            "rabbit://user:s3cret@:5672/",
            "rabbit://user:s3cret%@h/",
            "rabbit://user:s3cret,@h:0/",
            "user:s3cret@h",
            "kafka://user:s3cret@h/",
        ];
        for text in bad {
            let error = text.parse::<TransportUrl>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
            assert!(error.to_string().starts_with("transport_url = \""), "{error}");
        }
        let good = format!("{:?}", RabbitConfig::new(url("rabbit://user:s3cret@h/")));
        assert!(good.contains("h:5672") && !good.contains("s3cret"), "{good}");
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,60}") {
            let _ = text.parse::<TransportUrl>();
            let _ = format!("rabbit://{text}").parse::<TransportUrl>();
        }
    }
}
