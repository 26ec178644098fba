//! Every section of the file, with its keys, defaults and rules.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

use mimeo_adapters::{
    events::rabbitmq::{RabbitConfig, TransportUrl},
    openstack::OpenstackConfig,
};
use mimeo_core::{
    Backoff, StoreName,
    policy::{RuleSpec, Rules},
};
use url::Url;

use super::{
    ApiSettings, Config, GcSettings, LogFormat, RoleNames, ScanSettings, ScrubSettings, Written,
    document::{Document, Item, Section, of_this_machine, suggestion},
    gateway::{gateway, tls},
    limits, stores, units, webhooks,
};

/// A copy is not read without a pause.
const LEAST_PERIOD: Duration = Duration::from_secs(10);

const ROOT_KEYS: &[&str] = &[
    "enabled_stores",
    "observe",
    "store_defaults",
    "stores",
    "openstack",
    "events",
    "rules",
    "ledger",
    "scan",
    "gc",
    "scrub",
    "retry",
    "transfer",
    "api",
    "gateway",
    "log",
    "webhooks",
    "traces",
];

/// `None`, or a value that nobody may use, where mistakes were noted.
pub(super) fn read(document: &Document<'_>, written: Written, directory: &Path) -> Option<Config> {
    let root = document.root();
    root.allow(ROOT_KEYS);
    let enabled = stores::enabled(&root);
    let ledger = ledger(&document.section("ledger"), directory);
    let (stores, store_limits) = stores::read(document, &enabled, directory);
    Some(Config {
        stores,
        observe: root.value("observe", false, Item::boolean),
        backoff: retry(&document.section("retry")),
        openstack: openstack(&document.section("openstack")),
        events: events(&document.section("events"), directory),
        scan: scan(&document.section("scan")),
        gc: gc(&document.section("gc")),
        scrub: scrub(&document.section("scrub")),
        limits: limits::transfer(&document.section("transfer"), store_limits),
        api: api(&document.section("api"), directory, &ledger),
        gateway: gateway(&document.section("gateway"), directory),
        log: log(&document.section("log")),
        webhooks: webhooks::read(&root, directory),
        traces: traces(&document.section("traces")),
        ledger,
        rules: rules(&root, &enabled)?,
        written,
    })
}

/// What openstackclient has in clouds.yaml below `auth`.
const LOGIN: [&str; 9] = [
    "auth",
    "auth_url",
    "username",
    "password",
    "project_name",
    "project_id",
    "user_domain_name",
    "project_domain_name",
    "token",
];

fn openstack(section: &Section<'_>) -> OpenstackConfig {
    let known = ["cloud", "interface", "region", "endpoint", "auth_type"];
    section.allow_but(&known, &|key| {
        let is_login = LOGIN.contains(&key);
        is_login.then(|| "the login is in clouds.yaml, named by `cloud`, or in the OS_* variables; not here".to_owned())
    });
    let text = |key| section.get(key).and_then(|item| item.text());
    let interfaces = [("public", "public"), ("internal", "internal"), ("admin", "admin")];
    let auth_type = section.get("auth_type");
    let without_auth = auth_type.as_ref().and_then(|item| item.choice(&[("none", true)])).unwrap_or(false);
    if let Some(item) = auth_type.filter(|_| without_auth && section.get("endpoint").is_none()) {
        item.wrong("\"none\" needs Glance's own URL: add `endpoint = \"http://…\"`");
    }
    OpenstackConfig {
        cloud: text("cloud"),
        auth_type: without_auth.then(|| "none".to_owned()),
        endpoint: section.get("endpoint").and_then(|item| item.parse(endpoint)),
        interface: section.get("interface").and_then(|item| item.choice(&interfaces)).map(str::to_owned),
        region: text("region"),
        ..OpenstackConfig::default()
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    service(text, "is no URL of an image service, like \"http://10.0.0.5:9292\"").map(|_| text.to_owned())
}

/// The URL of somebody else's service; `wrong` says what it should be.
fn service(text: &str, wrong: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        return Err("must not carry a user or password: URLs are shown in messages and logs".to_owned());
    }
    url.ok_or_else(|| wrong.to_owned())
}

fn events(section: &Section<'_>, directory: &Path) -> Option<RabbitConfig> {
    section.allow(&["transport_url", "exchange", "topics", "queue"]);
    if !section.exists() {
        return None;
    }
    let Some(url) = section.get("transport_url") else {
        section.missing(
            "transport_url",
            "missing; copy `transport_url` from glance-api.conf, or remove [events] to rely on the scan alone",
        );
        return None;
    };
    let transport_url = match url.secret(directory)?.parse::<TransportUrl>() {
        Ok(transport_url) => transport_url,
        Err(error) => {
            url.wrong(error.to_string().trim_start_matches("transport_url = "));
            return None;
        }
    };
    let defaults = RabbitConfig::new(transport_url);
    Some(RabbitConfig {
        exchange: section.value("exchange", defaults.exchange.clone(), filled),
        topics: section.value("topics", defaults.topics.clone(), |item| list(item, filled)),
        queue: section.value("queue", defaults.queue.clone(), filled),
        ..defaults
    })
}

fn scan(section: &Section<'_>) -> ScanSettings {
    section.allow(&["interval", "full_interval"]);
    ScanSettings {
        interval: duration(section, "interval", Duration::from_mins(5)),
        full_interval: duration(section, "full_interval", Duration::from_hours(6)),
    }
}

fn gc(section: &Section<'_>) -> GcSettings {
    section.allow(&["interval", "grace", "max_images", "max_percent"]);
    let max_percent = |item: &Item<'_>| {
        let percent = item.number(0)?;
        if percent > 100 {
            item.wrong(format!("{percent} is more than 100 percent"));
        }
        Some(percent)
    };
    GcSettings {
        interval: duration(section, "interval", Duration::from_mins(1)),
        grace: section.value("grace", Duration::from_hours(24), |item| item.parse(units::duration)),
        max_images: section.value("max_images", 20, |item| item.number(0)),
        max_percent: section.value("max_percent", 10, max_percent),
    }
}

fn scrub(section: &Section<'_>) -> ScrubSettings {
    section.allow(&["period", "bandwidth"]);
    let period = |text: &str| match text.trim() {
        "off" => Ok(None),
        text => match units::duration(text).map_err(|why| format!("{why}, or \"off\""))? {
            period if period < LEAST_PERIOD => Err(format!("\"{text}\" is less than {LEAST_PERIOD:?}")),
            period => Ok(Some(period)),
        },
    };
    ScrubSettings {
        period: section.value("period", Some(Duration::from_hours(30 * 24)), |item| item.parse(period)),
        bandwidth: section.value("bandwidth", NonZeroU64::new(20 << 20), |item| item.parse(units::bandwidth).map(Some)),
    }
}

fn retry(section: &Section<'_>) -> Backoff {
    section.allow(&["first", "max"]);
    let backoff = Backoff {
        first: duration(section, "first", Duration::from_secs(1)),
        max: duration(section, "max", Duration::from_mins(10)),
    };
    if let Some(item) = section.get("max").or_else(|| section.get("first")).filter(|_| backoff.max < backoff.first) {
        item.wrong("`max` is less than `first`");
    }
    backoff
}

/// The ledger's file: `sqlite:PATH`, from the directory of the configuration.
fn ledger(section: &Section<'_>, directory: &Path) -> PathBuf {
    section.allow(&["url"]);
    let path = |text: &str| {
        let path = text.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
        match path.filter(|path| !path.is_empty()) {
            Some(path) => Ok(of_this_machine(directory, path)),
            None => Err("is no ledger; write it like \"sqlite:mimeo.db\" (the only kind so far)".to_owned()),
        }
    };
    section.value("url", directory.join("mimeo.db"), |item| item.parse(path))
}

fn api(section: &Section<'_>, directory: &Path, ledger: &Path) -> ApiSettings {
    let keys =
        ["listen", "token_file", "reader_token_file", "admin_roles", "reader_roles", "metrics", "certificate", "key"];
    section.allow(&keys);
    let roles = |key, default: &[&str]| -> BTreeSet<String> {
        let default = default.iter().map(|role| (*role).to_owned()).collect();
        section.value(key, default, |item| Some(item.array()?.iter().filter_map(filled).collect()))
    };
    let address = |text: &str| {
        text.parse::<SocketAddr>()
            .map_err(|_| format!("\"{text}\" is no address with a port; write it like \"127.0.0.1:9393\""))
    };
    ApiSettings {
        listen: section.value("listen", SocketAddr::from(([127, 0, 0, 1], 9393)), |item| item.parse(address)),
        token_file: section.value("token_file", ledger.with_file_name("mimeo.token"), |item| {
            filled(item).map(|path| of_this_machine(directory, &path))
        }),
        reader_token_file: section
            .get("reader_token_file")
            .and_then(|item| filled(&item))
            .map(|path| of_this_machine(directory, &path)),
        tls: tls(section, directory),
        // No reader by default: where `admin` implies `member` and that `reader`, every tenant is one.
        roles: RoleNames { admin: roles("admin_roles", &["admin"]), reader: roles("reader_roles", &[]) },
        metrics_are_open: section.value("metrics", false, |item| item.choice(&[("reader", false), ("open", true)])),
    }
}

fn log(section: &Section<'_>) -> LogFormat {
    section.allow(&["format"]);
    let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
    section.value("format", LogFormat::Human, |item| item.choice(&formats))
}

fn traces(section: &Section<'_>) -> Option<Url> {
    section.allow(&["endpoint"]);
    if section.exists() && section.get("endpoint").is_none() {
        section.missing("endpoint", "missing; where OpenTelemetry's collector listens, like \"http://127.0.0.1:4318\"");
    }
    section.get("endpoint")?.parse(collector)
}

/// Without a path it is the one that every collector has for traces.
fn collector(text: &str) -> Result<Url, String> {
    let mut url = service(text, "is no URL of a collector, like \"http://127.0.0.1:4318\"")?;
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Ok(url)
}

/// None where one is wrong.
fn rules(root: &Section<'_>, enabled: &[StoreName]) -> Option<Rules> {
    let Some(item) = root.get("rules") else { return Some(Rules::default()) };
    let specs = item.array()?.into_iter().enumerate().map(|(at, item)| rule(root, at, &item, enabled));
    // Collected as a whole first: every rule is to be looked at, not only those before the first wrong one.
    let specs: Vec<Option<RuleSpec>> = specs.collect();
    Rules::compile(specs.into_iter().collect::<Option<_>>()?).ok()
}

fn rule(root: &Section<'_>, at: usize, item: &Item<'_>, enabled: &[StoreName]) -> Option<RuleSpec> {
    let section = item.table()?;
    section.allow(&["name", "when", "stores", "copies"]);
    let stores = section.value("stores", enabled.to_vec(), |item| list(item, |item| wanted(root, item, enabled)));
    let when = section.get("when").and_then(|item| item.text());
    let copies = section.get("copies").and_then(|item| Some((usize::try_from(item.number(1)?).ok()?, item)));
    let spec = RuleSpec {
        name: section.value("name", format!("rule {}", at + 1), filled),
        when,
        stores,
        copies: copies.as_ref().map(|(copies, _)| *copies),
    };
    let has_too_many = |copies: usize| copies > spec.stores.len() && !spec.stores.is_empty();
    if let Some((copies, item)) = copies.filter(|(copies, _)| has_too_many(*copies)) {
        item.wrong(format!("{copies} copies, but the rule names {} stores", spec.stores.len()));
    }
    // One by one, so that each wrong expression is told with its own line.
    if let (Some(item), Err((_, error))) = (section.get("when"), Rules::compile(vec![spec.clone()])) {
        item.wrong(format!("is no CEL expression in rule \"{}\": {}", spec.name, one_line(&error.to_string())));
    }
    Some(spec)
}

fn wanted(root: &Section<'_>, item: &Item<'_>, enabled: &[StoreName]) -> Option<StoreName> {
    let sections = root.get("stores").and_then(|item| item.table());
    item.parse(|text| {
        let is_spare = !enabled.iter().any(|store| store.as_str() == text);
        if is_spare && sections.as_ref().is_some_and(|sections| sections.get(text).is_some()) {
            return Err(format!("\"{text}\" has a section, and is not among enabled_stores; add it there"));
        }
        let known: Vec<&str> = enabled.iter().map(StoreName::as_str).collect();
        let store = enabled.iter().find(|store| store.as_str() == text).cloned();
        store.ok_or_else(|| format!("\"{text}\" is not among enabled_stores; {}", suggestion(text, &known)))
    })
}

/// A list that is not empty and names nothing twice.
pub(super) fn list<T: PartialEq>(item: &Item<'_>, read: impl Fn(&Item<'_>) -> Option<T>) -> Option<Vec<T>> {
    let items = item.array()?;
    if items.is_empty() {
        item.wrong("is empty; name at least one");
    }
    let mut values = Vec::new();
    for item in items {
        match read(&item) {
            Some(value) if values.contains(&value) => {
                item.wrong(format!("\"{}\" is named twice", item.raw().unwrap_or_default()));
            }
            value => values.extend(value),
        }
    }
    Some(values)
}

/// Text that is not empty.
pub(super) fn filled(item: &Item<'_>) -> Option<String> {
    item.parse(|text| match text.trim() {
        "" => Err("is empty; give it a value, or remove the key".to_owned()),
        _ => Ok(text.to_owned()),
    })
}

fn duration(section: &Section<'_>, key: &str, default: Duration) -> Duration {
    section.value(key, default, above_zero)
}

/// A duration that is not zero: a pause of none would spin, a time-out of none would always strike.
pub(super) fn above_zero(item: &Item<'_>) -> Option<Duration> {
    item.parse(|text| match units::duration(text)? {
        Duration::ZERO => Err(format!("\"{text}\" must be more than nothing")),
        duration => Ok(duration),
    })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
