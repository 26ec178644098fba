use std::{fs, path::Path, time::Duration};

use mimeo_core::{Visibility, policy::RuleSpec};
use serde_json::json;

use super::{Config, ConfigError, HttpStoreConfig, LogFormat, Only, StoreConfig, StoreKind};

const LEAST: &str = "enabled_stores = [\"http1\", \"http2\"]\n\
    [stores.http1]\nurl = \"http://10.0.0.11/images\"\n\
    [stores.http2]\nurl = \"http://10.0.0.12/images/\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    let environment = |name: &str| (name == "RACK").then(|| "10.0.0.9".to_owned());
    Config::parse(Path::new("etc/mimeo.toml"), text, &environment)
}

fn http(store: &StoreConfig) -> &HttpStoreConfig {
    match &store.kind {
        StoreKind::Http(config) => config,
        other => panic!("{other:?} is no HTTP store"),
    }
}

fn mistakes(text: &str) -> Vec<String> {
    parse(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

/// The only mistake in the least configuration with `more` after it. Its line counts from the first of `more`.
fn mistake_in(more: &str) -> String {
    let found = mistakes(&format!("{LEAST}{more}"));
    assert_eq!(found.len(), 1, "{found:#?}");
    let (line, rest) = found[0].strip_prefix("etc/mimeo.toml:").unwrap().split_once(": ").unwrap();
    format!("{}: {rest}", line.parse::<usize>().unwrap() - LEAST.lines().count())
}

#[test]
fn every_key_but_the_stores_has_a_default() {
    let config = parse(LEAST).unwrap();
    let urls: Vec<&str> = config.stores.iter().map(|store| http(store).url.as_str()).collect();
    assert_eq!(urls, ["http://10.0.0.11/images/", "http://10.0.0.12/images/"]);
    assert_eq!(config.stores[0].timeout, Duration::from_mins(1));
    assert!(!config.observe && config.events.is_none());
    assert_eq!(config.ledger, Path::new("etc/mimeo.db"));
    assert_eq!(config.api.token_file, Path::new("etc/mimeo.token"));
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:9393");
    assert_eq!((config.gc.max_images, config.gc.max_percent, config.gc.grace), (20, 10, Duration::from_hours(24)));
    let none = json!({"concurrency": null, "bandwidth": null, "hours": []});
    let limits = json!({"concurrency": 8, "memory": 32 << 20, "bandwidth": null, "hours": [],
        "stores": {"http1": none, "http2": none}});
    assert_eq!(serde_json::to_value(&config.limits).unwrap(), limits);
    assert_eq!(config.log, LogFormat::Human);
    assert!(config.webhooks.is_empty() && !config.api.metrics_are_open);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one configuration, with everything in it")]
fn every_key_is_read() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("url"), "rabbit://mimeo:s3cret@broker/\n").unwrap();
    fs::write(directory.path().join("url-of-hook"), "https://hooks.example.org/T0KEN\n").unwrap();
    fs::write(directory.path().join("secret-of-hook"), "fedcba9876543210\n").unwrap();
    let text = r#"
        enabled_stores = ["b", "a"]
        observe = true
        [store_defaults]
        type = "http"
        timeout = "5s"
        visibility = ["public"]
        concurrency = 3
        hours = ["12:00-13:00"]
        [stores.a]
        url = "http://${RACK}/a/"
        read_url = "http://${RACK}:81/a/"
        visibility = ["public", "community"]
        [stores.b]
        url = "http://${RACK}/b/"
        timeout = "1m30s"
        concurrency = 1
        bandwidth = "2MB/s"
        hours = ["01:00-02:00"]
        [stores.spare]
        url = "http://${RACK}/spare/"
        [openstack]
        endpoint = "http://127.0.0.1:9292"
        auth_type = "none"
        [events]
        transport_url = "file:url"
        exchange = "x"
        topics = ["t1", "t2"]
        queue = "q"
        [[rules]]
        name = "public ones"
        when = 'image.visibility == "public"'
        stores = ["a"]
        [[rules]]
        copies = 1
        [ledger]
        url = "sqlite:///var/lib/mimeo/ledger.db"
        [scan]
        interval = "1s"
        full_interval = "2s"
        [gc]
        interval = "3s"
        grace = "0s"
        max_images = 0
        max_percent = 100
        [retry]
        first = "100ms"
        max = "1s"
        [transfer]
        concurrency = 2
        memory = "1MiB"
        bandwidth = "100MiB/s"
        hours = ["22:00-06:00", "12:00-13:30"]
        [api]
        listen = "[::1]:1"
        token_file = "t"
        metrics = "open"
        [[webhooks]]
        name = "pager"
        url = "file:url-of-hook"
        secret = "file:secret-of-hook"
        only = "all"
        [[webhooks]]
        url = "http://${RACK}/hook"
        secret = "0123456789abcdef"
        [log]
        format = "json"
    "#;
    let path = directory.path().join("mimeo.toml");
    let config = Config::parse(&path, text, &|name| (name == "RACK").then(|| "10.0.0.9".to_owned())).unwrap();
    let names: Vec<&str> = config.stores.iter().map(|store| store.facts.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(config.stores[0].timeout, Duration::from_secs(90));
    assert_eq!(config.stores[0].facts.visibility, Some(vec![Visibility::Public]));
    assert_eq!(config.stores[1].timeout, Duration::from_secs(5));
    assert_eq!(http(&config.stores[1]).read_url.as_ref().unwrap().as_str(), "http://10.0.0.9:81/a/");
    assert_eq!(config.stores[1].facts.visibility, Some(vec![Visibility::Public, Visibility::Community]));
    assert_eq!(config.openstack.auth_type.as_deref(), Some("none"));
    let limits = json!({"concurrency": 2, "memory": 1 << 20, "bandwidth": 100 << 20,
    "hours": ["22:00-06:00", "12:00-13:30"],
    "stores": {
        "a": {"concurrency": 3, "bandwidth": null, "hours": ["12:00-13:00"]},
        "b": {"concurrency": 1, "bandwidth": 2_000_000, "hours": ["01:00-02:00"]},
    }});
    assert_eq!(serde_json::to_value(&config.limits).unwrap(), limits);
    let events = config.events.as_ref().unwrap();
    assert_eq!((events.exchange.as_str(), events.queue.as_str(), events.topics.len()), ("x", "q", 2));
    assert_eq!(config.ledger, Path::new("/var/lib/mimeo/ledger.db"));
    assert_eq!(config.api.token_file, directory.path().join("t"));
    assert!(config.api.metrics_are_open);
    let hooks =
        config.webhooks.iter().map(|hook| (hook.name.as_str(), hook.url.as_str(), hook.secret.as_str(), hook.only));
    let expected = [
        ("pager", "https://hooks.example.org/T0KEN", "fedcba9876543210", Only::All),
        ("webhook 2", "http://10.0.0.9/hook", "0123456789abcdef", Only::Failures),
    ];
    assert_eq!(hooks.collect::<Vec<_>>(), expected);
    let shown = format!("{config:?}");
    assert!(shown.contains("rule 2") && !shown.contains("s3cret"), "{shown}");
    assert!(!shown.contains("T0KEN") && !shown.contains("fedcba"), "{shown}");
}

#[test]
fn rules_are_as_written_with_all_stores_where_they_name_none() {
    let config = parse(&format!("{LEAST}[[rules]]\ncopies = 1")).unwrap();
    let stores = vec!["http1".parse().unwrap(), "http2".parse().unwrap()];
    let expected = RuleSpec { name: "rule 1".into(), when: None, stores, copies: Some(1) };
    assert_eq!(format!("{:?}", config.rules), format!("[{expected:?}]"));
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let text = "enabled_stores = [\"http1\"]\n\n[stores.http1]\nurl = \"http://h/\"\n\nobserve = true\nulr = \"x\"\n";
    assert_eq!(
        mistakes(text),
        [
            "etc/mimeo.toml:6: stores.http1.observe: unknown key; known: type, url, read_url, user, password, \
             token, cert_file, key_file, ca_file, proxy, timeout, visibility, concurrency, bandwidth, hours",
            "etc/mimeo.toml:7: stores.http1.ulr: unknown key; did you mean \"url\"?",
        ]
    );
    assert_eq!(mistake_in("[scna]\n"), "1: scna: unknown key; did you mean \"scan\"?");
    assert_eq!(mistake_in("[retry]\nmaximum = \"1s\""), "2: retry.maximum: unknown key; known: first, max");
    assert_eq!(
        mistake_in("[store_defaults]\nurl = \"http://h/\""),
        "2: store_defaults.url: unknown key; known: type, timeout, visibility, concurrency, bandwidth, hours"
    );
}

#[test]
fn enabled_stores_must_each_have_a_section() {
    assert_eq!(
        mistakes(
            "enabled_stores = [\n  \"http1\",\n  \"htpp2\",\n]\n[stores.http1]\nurl = \"http://h/\"\n[stores.http2]\nurl = \"http://i/\""
        ),
        [
            "etc/mimeo.toml:3: enabled_stores[2]: \"htpp2\" has no section; add [stores.htpp2] with its url, or did you mean \"http2\"?"
        ]
    );
    assert_eq!(
        mistakes("observe = true"),
        ["etc/mimeo.toml:1: enabled_stores: missing; name the stores to use, as in enabled_stores = [\"http1\"]"]
    );
    assert_eq!(mistakes("enabled_stores = []"), ["etc/mimeo.toml:1: enabled_stores: is empty; name at least one"]);
    assert_eq!(
        mistakes("enabled_stores = [\"a\", \"a\"]\nstores.a.url = \"http://h/\""),
        ["etc/mimeo.toml:1: enabled_stores[2]: \"a\" is named twice"]
    );
}

#[test]
fn a_store_must_have_a_place_of_its_own() {
    let other = |line: &str| mistakes(&format!("enabled_stores = [\"a\"]\n[stores.a]\n{line}"));
    assert_eq!(
        other("type = \"s4\"\nurl = \"http://h/\""),
        [
            "etc/mimeo.toml:3: stores.a.type: unknown value \"s4\"; known: http, file, s3, swift, rbd, sftp, rsync, glance"
        ]
    );
    assert!(other("timeout = \"1s\"")[0].starts_with("etc/mimeo.toml:2: stores.a.url: missing"));
    for bad in
        ["http:///images/", "images", "ftp://h/", "http://user:s3cret@h/", "http://h/?a=b", "http://h/#a", "${RACK}"]
    {
        let found = other(&format!("url = \"{bad}\""));
        assert_eq!(found.len(), 1, "{bad}: {found:?}");
        assert!(found[0].starts_with("etc/mimeo.toml:3: stores.a.url: ") && !found[0].contains("s3cret"), "{found:?}");
    }
    let shared =
        "enabled_stores = [\"a\", \"b\"]\n[stores.a]\nurl = \"http://Host:80/x\"\n[stores.b]\nurl = \"http://host/x/\"";
    assert_eq!(
        mistakes(shared),
        ["etc/mimeo.toml:5: stores.b.url: is the same place as that of store \"a\"; give each its own"]
    );
}

#[test]
fn a_rule_must_name_enabled_stores_and_be_cel() {
    assert_eq!(
        mistake_in("[[rules]]\nname = \"x\"\nstores = [\"http1\", \"htp2\"]"),
        "3: rules[1].stores[2]: \"htp2\" is not among enabled_stores; did you mean \"http2\"?"
    );
    let spare = "[stores.spare]\nurl = \"http://h/\"\n[[rules]]\nstores = [\"spare\"]";
    assert_eq!(
        mistake_in(spare),
        "4: rules[1].stores[1]: \"spare\" has a section, and is not among enabled_stores; add it there"
    );
    let found = mistake_in("[[rules]]\n[[rules]]\nname = \"big\"\nwhen = 'image.size >'");
    assert!(found.starts_with("4: rules[2].when: is no CEL expression in rule \"big\": "), "{found}");
    assert_eq!(mistake_in("[[rules]]\ncopies = 0"), "2: rules[1].copies: 0 is not a whole number of at least 1");
    assert_eq!(mistake_in("[[rules]]\ncopies = 3"), "2: rules[1].copies: 3 copies, but the rule names 2 stores");
    assert!(mistake_in("[[rules]]\nstores = []").starts_with("2: rules[1].stores: is empty"));
    assert!(mistake_in("[rules]\nwhen = 'true'").starts_with("1: rules: expected a list, found a table"));
}

#[test]
fn values_follow_their_rules() {
    let cases = [
        ("[scan]\ninterval = \"5 min\"", "2: scan.interval: \"5 min\" is no duration; write it like"),
        ("[scan]\ninterval = \"0s\"", "2: scan.interval: \"0s\" must be more than nothing"),
        ("[scan]\ninterval = 5", "2: scan.interval: \"5\" is no duration; write it like"),
        ("[api]\nlisten = \"localhost\"", "2: api.listen: \"localhost\" is no address with a port"),
        ("[gc]\nmax_percent = 101", "2: gc.max_percent: 101 is more than 100 percent"),
        ("[retry]\nfirst = \"1h\"", "2: retry.first: `max` is less than `first`"),
        ("[ledger]\nurl = \"postgres://h/\"", "2: ledger.url: is no ledger"),
        ("[log]\nformat = \"xml\"", "2: log.format: unknown value \"xml\"; known: human, json"),
        ("[openstack]\nauth_type = \"none\"", "2: openstack.auth_type: \"none\" needs Glance's own URL"),
        ("[openstack]\nauth_type = \"basic\"", "2: openstack.auth_type: unknown value \"basic\"; known: none"),
        ("[openstack]\ninterface = \"secret\"", "2: openstack.interface: unknown value \"secret\""),
        ("[openstack]\nendpoint = \"glance\"", "2: openstack.endpoint: is no URL of an image service"),
        ("[events]\nqueue = \"q\"", "1: events.transport_url: missing"),
    ];
    for (text, expected) in cases {
        let found = mistake_in(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

#[test]
fn limits_follow_their_rules() {
    let cases = [
        ("window = \"8MiB\"", "2: transfer.window: unknown key; known: concurrency, memory, bandwidth, hours"),
        ("memory = \"8 miles\"", "2: transfer.memory: \"8 miles\" is no size; write it like"),
        (
            "memory = \"1MiB\"",
            "2: transfer.memory: 1048576 bytes are less than 256KiB for each of 8 images at the same time; raise \
             `memory` to 2048KiB (2097152 bytes), or lower `concurrency` to 4",
        ),
        ("concurrency = 512", "2: transfer.concurrency: 33554432 bytes are less than 256KiB for each of 512 images"),
        ("concurrency = -1", "2: transfer.concurrency: -1 is not a whole number of at least 1"),
        ("concurrency = 1025", "2: transfer.concurrency: 1025 is more than 1024, which is the most; lower it"),
        ("bandwidth = \"100MiB\"", "2: transfer.bandwidth: \"100MiB\" is no bandwidth; write it like"),
        ("bandwidth = \"0MiB/s\"", "2: transfer.bandwidth: \"0MiB/s\" lets nothing through; leave it out for no limit"),
        ("hours = \"22:00-06:00\"", "2: transfer.hours: expected a list, found a string"),
        ("hours = []", "2: transfer.hours: is empty; name at least one"),
        ("hours = [\"22-6\"]", "2: transfer.hours[1]: \"22-6\" is no span of hours; write it like"),
    ];
    for (text, expected) in cases {
        let found = mistake_in(&format!("[transfer]\n{text}"));
        assert!(found.starts_with(expected), "{text}: {found}");
    }
    let found = mistake_in("[store_defaults]\nbandwidth = \"fast\"");
    assert!(found.starts_with("2: store_defaults.bandwidth: \"fast\" is no bandwidth"), "{found}");
}

#[test]
fn what_changed_in_the_file_is_found_by_section_and_limits_are_none_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (path, secret) = (directory.path().join("mimeo.toml"), directory.path().join("url"));
    fs::write(&secret, "rabbit://mimeo:s3cret@broker/").unwrap();
    let events = "[events]\ntransport_url = \"file:url\"\n";
    let written = |text: &str| Config::parse(&path, text, &|_| None).unwrap().written;
    let started = written(&format!("{LEAST}{events}[scan]\ninterval = \"1s\""));

    let limits = "concurrency = 1\nbandwidth = \"1MiB/s\"\n";
    let other =
        format!("{LEAST}{limits}[transfer]\n{limits}[store_defaults]\n{limits}{events}[scan]\ninterval = \"1s\"");
    assert!(started.differences(&written(&other)).is_empty());

    let other = LEAST.replace("0.12/images/", "0.13/") + events + "[api]\ntoken_file = \"t\"\n[[rules]]\ncopies = 1";
    let found = Vec::from_iter(started.differences(&written(&format!("observe = true\n{other}"))));
    assert_eq!(found, ["[[rules]]", "[api]", "[scan]", "[stores.http2]", "observe"]);

    // Credentials are taken over too.
    fs::write(&secret, "rabbit://mimeo:0ther@broker/").unwrap();
    let same = format!("{LEAST}{events}[scan]\ninterval = \"1s\"");
    assert!(started.differences(&written(&same)).is_empty());
    let found = started.differences(&written(&same.replace("[scan]", "queue = \"other\"\n[scan]")));
    assert_eq!(Vec::from_iter(found), ["[events]"]);
    assert!(!format!("{started:?}").contains("s3cret"), "{started:?}");
}

#[test]
fn secrets_are_found_and_never_shown() {
    let found = mistake_in("[events]\ntransport_url = \"file:/nowhere/url\"");
    assert!(found.starts_with("2: events.transport_url: the secret file /nowhere/url cannot be read: "), "{found}");
    let found = mistake_in("[events]\ntransport_url = \"kafka://user:s3cret@h/\"");
    assert!(found.starts_with("2: events.transport_url: ") && !found.contains("s3cret"), "{found}");
}

#[test]
fn a_variable_must_be_set() {
    assert_eq!(
        mistake_in("[openstack]\ncloud = \"${CLOUD}\""),
        "2: openstack.cloud: the environment variable CLOUD is not set; set it for every command, or put the value into a file and write file:PATH here"
    );
    assert_eq!(mistake_in("[openstack]\ncloud = \"${CLOUD\""), "2: openstack.cloud: a \"${\" without its \"}\"");
}

/// The message shows the URL without its password, which is no longer the text that the variables made.
#[test]
fn what_a_variable_held_is_not_told_where_only_a_part_of_its_value_is_shown() {
    let found = mistakes("enabled_stores = [\"a\"]\n[stores.a]\nurl = \"http://user:${RACK}@host/${RACK}\"");
    assert!(found[0].contains("\"http://***@host/${RACK}\""), "{found:?}");
    assert!(!found[0].contains("10.0.0.9"), "{found:?}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_lines() {
    let found = mistakes(&format!("{LEAST}[scan]\nintervall = \"1s\"\n[log]\nformat = 3\n[api]\nlisten = \"x\""));
    let lines: Vec<&str> = found.iter().map(|line| line.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["7", "9", "11"]);
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let found = mistakes("enabled_stores = [\"a\"]\n[stores.a\nurl = 3");
    assert!(found[0].starts_with("etc/mimeo.toml:2: this is no TOML: "), "{found:?}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nowhere/mimeo.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/mimeo.toml: cannot be read: "), "{error}");
}

#[test]
fn a_webhook_needs_an_address_a_strong_secret_and_a_name_of_its_own() {
    let hook = |rest: &str| format!("[[webhooks]]\nurl = \"http://h/\"\nsecret = \"0123456789abcdef\"\n{rest}\n");
    let cases = [
        ("[[webhooks]]\nsecret = \"0123456789abcdef\"\n".to_owned(), "webhooks[1].url: missing; where to send events"),
        ("[[webhooks]]\nurl = \"http://h/\"\n".to_owned(), "webhooks[1].secret: missing; what events are signed with"),
        (hook("only = \"some\""), "webhooks[1].only: unknown value \"some\"; known: failures, all"),
        (hook("onyl = \"all\""), "webhooks[1].onyl: unknown key; did you mean \"only\"?"),
        (hook("").replace("http", "ftp"), "webhooks[1].url: is no URL of http or https"),
        (hook("").replace("9abcdef", ""), "webhooks[1].secret: is shorter than 16 letters"),
        (hook("name = \"a\"") + &hook("name = \"a\""), "webhooks[2]: another webhook has the name \"a\""),
    ];
    for (more, said) in cases {
        let mistake = mistake_in(&more);
        assert!(mistake.contains(said), "{mistake}");
    }
}

#[test]
fn traces_go_where_a_collector_listens() {
    let endpoint = |of: &str| {
        let config = parse(&format!("{LEAST}[traces]\nendpoint = \"{of}\"\n")).unwrap();
        config.traces.unwrap().to_string()
    };
    assert_eq!(endpoint("http://127.0.0.1:4318"), "http://127.0.0.1:4318/v1/traces");
    assert_eq!(endpoint("https://otel.example.org/in/traces"), "https://otel.example.org/in/traces");
    for (more, said) in [
        ("[traces]\n", "traces.endpoint: missing; where OpenTelemetry's collector listens"),
        ("[traces]\nendpoint = \"collector:4318\"\n", "traces.endpoint: is no URL of a collector, like \"http://"),
        ("[traces]\nendpoint = \"http://a:b@collector/\"\n", "traces.endpoint: must not carry a user or password"),
        ("[traces]\nendpoint = \"http://collector/\"\nheaders = 1\n", "traces.headers: unknown key; known: endpoint"),
    ] {
        let mistake = mistake_in(more);
        assert!(mistake.contains(said), "{mistake}");
    }
}
