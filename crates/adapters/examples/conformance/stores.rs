//! The stores, each as it comes and with small parts.

use std::{collections::BTreeMap, env, fs};

use mimeo_adapters::stores::{
    base_url,
    file::{FileStore, FileStoreConfig},
    http::{self, Access, HttpStore, HttpStoreConfig, Login},
    rbd::{RbdStore, RbdStoreConfig},
    rsync::{RsyncStore, RsyncStoreConfig, RsyncTarget},
    s3::{self, S3Credentials, S3Store, S3StoreConfig, UrlStyle},
    sftp::{SftpStore, SftpStoreConfig},
    swift::{SwiftCredentials, SwiftLogin, SwiftStore, SwiftStoreConfig},
};
use mimeo_core::{StoreName, ports::Store};
use url::Url;

type Stores = Vec<Box<dyn Store>>;

/// What each type is given. Passwords are in `STORE_PASSWORD`.
pub(crate) fn of(kind: &str, options: &[&str]) -> Stores {
    match (kind, options) {
        // A web server that takes PUT and DELETE below the URL, and keys of a store's section, from `read_url` to `proxy`.
        ("http", [url, options @ ..]) => http(url, options),
        // A directory, and the web server that shows it.
        ("file", [path, read_url]) => file(path, read_url),
        // A pool of a Ceph, whose keyring the file names.
        ("rbd", [conf_file, user, pool]) => rbd(conf_file, user, pool),
        // A bucket, with the keys in the `AWS_*` variables. `small-parts`: the server takes parts of 25,000 bytes (radosgw:
        // `rgw_multipart_min_part_size`). `ca_file=FILE`: who signed its certificate. `prefix=TEXT`: before each name. `virtual-host`: the bucket is in the
        // host's name.
        ("s3", [endpoint, bucket, options @ ..]) => s3(endpoint, bucket, options),
        // A Swift that is logged in to by version 1, or with a project by Keystone.
        ("swift", [url, user, container]) => {
            let credentials = SwiftCredentials::tempauth(url, user, password().into()).unwrap();
            swift(&SwiftLogin::TempAuth(credentials), container)
        }
        ("swift", [url, user, container, project]) => {
            let credentials = SwiftCredentials::new(url, project, user, password().into()).unwrap();
            swift(&SwiftLogin::Keystone { credentials, user_domain: None, project_domain: None }, container)
        }
        // A directory behind an SSH server, and the web server that shows it; the login is a key file, `agent` or `password`.
        ("sftp", [host, port, user, path, read_url, known_hosts, login]) => {
            let config = SftpStoreConfig {
                name: name(),
                host: (*host).to_owned(),
                port: port.parse().unwrap(),
                user: (*user).to_owned(),
                path: (*path).to_owned(),
                read_url: base("read_url", read_url),
                key_file: (!matches!(*login, "agent" | "password")).then(|| login.into()),
                key_passphrase: None,
                agent: *login == "agent",
                password: (*login == "password").then(|| password().into()),
                known_hosts: known_hosts.into(),
            };
            let store = SftpStore::new(config).unwrap();
            let mut stores: Stores = vec![Box::new(store.clone())];
            // Once is enough: how it logged in makes no difference to that.
            if !matches!(*login, "agent" | "password") {
                stores.push(Box::new(store.with_request(1000)));
            }
            stores
        }
        // A directory behind an SSH server, or a module of rsync's daemon, and the web server that shows it.
        ("rsync", [target, read_url, spool, ssh @ ..]) => rsync(target, read_url, spool, ssh),
        _ => panic!("{kind} is no type of store, or is given other things than {options:?}"),
    }
}

fn http(url: &str, options: &[&str]) -> Stores {
    let options: BTreeMap<&str, &str> = options.iter().map(|option| option.split_once('=').unwrap()).collect();
    let option = |key: &str| options.get(key).copied();
    let pem = |key: &str| option(key).map(|path| fs::read(path).unwrap());
    let basic = option("user").zip(option("password"));
    let access = Access {
        login: match (basic, option("token")) {
            (Some((user, password)), _) => Some(Login::Basic { user: user.into(), password: password.into() }),
            (None, token) => token.map(|token| Login::Bearer(token.into())),
        },
        identity: pem("cert_file").zip(pem("key_file")).map(|(cert, key)| http::identity(&cert, &key).unwrap()),
        roots: pem("ca_file").map(|pem| http::certificates(&pem).unwrap()).unwrap_or_default(),
        proxy: option("proxy").map(|url| http::proxy(url).unwrap()),
    };
    let config = HttpStoreConfig::new(name(), url, option("read_url")).unwrap();
    let config = HttpStoreConfig { access, ..config };
    let small = HttpStore::new(config.clone()).unwrap().with_segment(16 << 10);
    vec![Box::new(HttpStore::new(config).unwrap()), Box::new(small)]
}

fn file(path: &str, read_url: &str) -> Stores {
    let config = FileStoreConfig { name: name(), path: path.into(), read_url: base("read_url", read_url) };
    let store = FileStore::new(config).unwrap();
    vec![Box::new(store.clone()), Box::new(store.with_gathered(3 << 10))]
}

fn rbd(conf_file: &str, user: &str, pool: &str) -> Stores {
    let fsid = RbdStoreConfig::fsid_of(conf_file.as_ref()).unwrap();
    let config = RbdStoreConfig::new(name(), pool.into(), fsid);
    let config = RbdStoreConfig { conf_file: conf_file.into(), user: user.into(), ..config };
    let small = RbdStoreConfig { order: 16, ..config.clone() };
    let small = RbdStore::new(small).unwrap().with_request(16 << 10);
    vec![Box::new(RbdStore::new(config).unwrap()), Box::new(small)]
}

fn s3(endpoint: &str, bucket: &str, options: &[&str]) -> Stores {
    let written = endpoint.to_owned();
    let option = |key: &str| options.iter().find_map(|option| option.strip_prefix(key)?.strip_prefix('='));
    let style = if options.contains(&"virtual-host") { UrlStyle::VirtualHost } else { UrlStyle::Path };
    let endpoint = base("endpoint", endpoint);
    let config = S3StoreConfig {
        name: name(),
        bucket: s3::bucket(endpoint.clone(), style, bucket, "us-east-1").unwrap(),
        endpoint,
        written,
        prefix: s3::prefix(option("prefix").unwrap_or_default()).unwrap(),
        credentials: S3Credentials {
            access_key: variable("AWS_ACCESS_KEY_ID"),
            secret_key: variable("AWS_SECRET_ACCESS_KEY").into(),
            session_token: env::var("AWS_SESSION_TOKEN").ok().map(Into::into),
        },
        authorities: option("ca_file")
            .map_or_else(Vec::new, |file| s3::certificates(&fs::read(file).unwrap()).unwrap()),
        location_credentials: false,
        checksum: options.contains(&"checksum"),
    };
    let store = S3Store::new(config).unwrap();
    let mut stores: Stores = vec![Box::new(store.clone())];
    if options.contains(&"small-parts") {
        stores.push(Box::new(store.with_part(25_000)));
    }
    stores
}

fn swift(login: &SwiftLogin, container: &str) -> Stores {
    let sizes = [128 << 20, 16 << 10, 100_000];
    let store = |segment_size| {
        let config = SwiftStoreConfig {
            name: name(),
            login: login.clone(),
            region: None,
            interface: None,
            container: container.to_owned(),
            segment_size,
            create_container: true,
            ca_file: None,
        };
        Box::new(SwiftStore::new(config).unwrap()) as Box<dyn Store>
    };
    sizes.map(store).into()
}

fn rsync(target: &str, read_url: &str, spool: &str, ssh: &[&str]) -> Stores {
    let config = RsyncStoreConfig {
        name: name(),
        target: RsyncTarget::parse(target).unwrap(),
        read_url: base("read_url", read_url),
        spool: spool.into(),
        spool_size: 8 << 30,
        bandwidth: None,
        password: ssh.is_empty().then(|| password().into()),
        port: ssh.first().map(|port| port.parse().unwrap()),
        key_file: ssh.get(1).map(Into::into),
        known_hosts: ssh.get(2).map(Into::into),
    };
    let store = RsyncStore::new(config).unwrap();
    vec![Box::new(store.clone()), Box::new(store.with_delta_from(1))]
}

fn name() -> StoreName {
    "store".parse().unwrap()
}

fn base(key: &'static str, url: &str) -> Url {
    base_url(key, url).unwrap()
}

fn password() -> String {
    variable("STORE_PASSWORD")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}
