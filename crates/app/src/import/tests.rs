use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{Failure, Options, Written, convert, import, paths, save};
use crate::config::Config;

/// Samples of Glance's configuration, each with what was not understood of it.
const SAMPLES: [(&str, &[&str]); 5] = [
    ("kolla", &[]),
    ("devstack", &[]),
    ("dcn", &["[backend_defaults] is used for what a store's own section lacks; Glance itself does not read it"]),
    ("single", &[]),
    (
        "many",
        &[
            "[ceph] rbd_store_chunk_size is no whole number; it is left out",
            "[amazon] s3_store_bucket_url_format is none of auto, path and virtual; it is left out",
            "store \"sheep\" has the type \"sheepdog\", which is unknown here; it is not enabled",
            "[half] has no s3_store_bucket; its store is not enabled",
        ],
    ),
];

const SECRETS: [&str; 8] = ["Rabbit0ne", "Glance0ne", "Maria", "Stack", "Swift0ne", "Tripl0", "c0ld/secret", "pa$word"];

fn sample(name: &str, secrets: bool) -> Written {
    let path = PathBuf::from(format!("tests/import/{name}.conf"));
    let text = fs::read_to_string(&path).unwrap();
    convert(&[(path, text)], secrets).unwrap()
}

fn text(conf: &str) -> String {
    convert(&[("glance-api.conf".into(), conf.into())], false).unwrap().text
}

/// The mistakes that `mimeo` finds in it once the variables that its comments name are set.
fn mistakes(text: &str) -> Vec<String> {
    let environment = |name: &str| {
        let named = text.contains(&format!("# - {name}: "));
        named.then(|| if name.ends_with("URL") { "rabbit://u:p@broker/" } else { "value" }.to_owned())
    };
    // Ceph's own configuration, which tells the fsid otherwise, is not here.
    let mut pieces = text.split("type = \"rbd\"\n").enumerate();
    let first = pieces.next().map(|(_, piece)| piece.to_owned()).unwrap_or_default();
    let text = pieces.fold(first, |text, (number, piece)| {
        format!("{text}type = \"rbd\"\nfsid = \"78185306-f8c6-4a0e-9a83-85a04d859a5{number}\"\n{piece}")
    });
    let found = Config::parse(Path::new("mimeo.toml"), &text, &environment).err();
    let found = found.map(|error| error.to_string()).unwrap_or_default();
    found.lines().map(str::to_owned).collect()
}

#[test]
fn each_sample_becomes_what_stands_beside_it() {
    for (name, notes) in SAMPLES {
        let written = sample(name, false);
        let expected = fs::read_to_string(format!("tests/import/{name}.toml")).unwrap();
        assert_eq!(written.text, expected, "{name}");
        assert_eq!(written.notes, notes, "{name}");
    }
}

#[test]
fn mimeo_takes_what_was_written() {
    for secrets in [false, true] {
        for (name, _) in SAMPLES {
            let found = mistakes(&sample(name, secrets).text);
            assert!(found.is_empty(), "{name}: {found:#?}");
        }
    }
}

#[test]
fn what_is_proposed_in_comments_can_be_put_in_force() {
    let text = sample("devstack", false).text;
    let section = text.split_once("[stores.swift]\n").unwrap().1.split_once("\n\n").unwrap().0;
    let on = |line| str::strip_prefix(line, "# ").filter(|line| line.contains(" = "));
    let section: Vec<&str> = section.lines().filter_map(on).collect();
    assert!(
        section.contains(&"type = \"swift\"") && section.contains(&"password = \"${MIMEO_SWIFT_PASSWORD}\""),
        "{section:?}"
    );
    let text = format!("enabled_stores = [\"swift\"]\n[stores.swift]\n{}", section.join("\n"));
    let found = mistakes(&text.replace("${MIMEO_SWIFT_PASSWORD}", "s3cret"));
    assert!(found.is_empty(), "{text}: {found:#?}");
}

#[test]
fn no_secret_is_copied_unasked_and_each_is_when_asked() {
    for (name, _) in SAMPLES {
        let Written { text, secret, notes } = sample(name, false);
        let shown = text + &notes.concat();
        assert!(!secret && !SECRETS.iter().any(|secret| shown.contains(secret)), "{name}: {shown}");
    }
    let copied = |name| {
        let written = sample(name, true);
        assert!(written.secret && written.notes.iter().all(|note| !SECRETS.iter().any(|secret| note.contains(secret))));
        written.text
    };
    let brokers = "rabbit://openstack:Rabbit0ne@10.0.0.21:5672,openstack:Rabbit0ne@10.0.0.22:5672//?ssl=1";
    assert!(copied("kolla").contains(&format!("\ntransport_url = \"{brokers}\"\n")));
    let many = copied("many");
    assert!(
        many.contains("secret_key = \"c0ld/secret\"") && many.contains("pa$word@10.2.0.5:5671/images?ssl=1"),
        "{many}"
    );
    // What the files do not hold stays a variable.
    assert!(many.contains("secret_key = \"${MIMEO_AMAZON_SECRET_KEY}\""), "{many}");
}

#[test]
fn no_url_is_copied_with_the_credentials_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let conf = "[DEFAULT]\nenabled_backends = s:s3,t:s3,u:swift,v:swift\n[s]\ns3_store_bucket = bucket\n\
        s3_store_host = https://AK:s3/cret@s3.example.org\n[t]\ns3_store_bucket = bucket\n\
        s3_store_host = AK:s3cret@s3-eu-west-1.amazonaws.com\n[u]\n\
        swift_store_auth_address = http://u:s3cret@keystone/v3\n[v]\nswift_store_config_file = swift.conf\n\
        [keystone_authtoken]\nauth_url = https://u:s3cret@keystone:5000\n";
    fs::write(directory.path().join("swift.conf"), "[ref1]\nauth_address = u:s3cret@keystone/v3\n").unwrap();
    for secrets in [false, true] {
        let path = directory.path().join("glance-api.conf");
        let Written { text, notes, .. } = convert(&[(path, conf.into())], secrets).unwrap();
        let shown = text.clone() + &notes.concat();
        assert!(!shown.contains("s3cret") && !shown.contains("cret@") && !shown.contains("AK"), "{shown}");
        for line in [
            "endpoint = \"https://s3.example.org\"",
            "endpoint = \"http://s3-eu-west-1.amazonaws.com\"",
            "region = \"eu-west-1\"",
            "# auth_url = \"http://keystone/v3\"",
            "# auth_url = \"keystone/v3\"",
            "# Glance's Keystone: https://keystone:5000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let told = [
            "[s] s3_store_host",
            "[t] s3_store_host",
            "[u] swift_store_auth_address",
            "[ref1] auth_address",
            "[keystone_authtoken] auth_url",
        ];
        assert_eq!(notes, told.map(|option| format!("{option} has credentials in its URL; they are left out")));
    }
}

#[test]
fn a_size_of_chunks_that_no_image_can_have_is_left_out() {
    let written = |size: &str| {
        let conf = format!("[DEFAULT]\nenabled_backends = c:rbd\n[c]\nrbd_store_chunk_size = {size}");
        let Written { text, notes, .. } = convert(&[("glance-api.conf".into(), conf)], false).unwrap();
        assert_eq!(mistakes(&text), Vec::<String>::new(), "{size}");
        (text.lines().find(|line| line.starts_with("chunk_size")).map(str::to_owned), notes)
    };
    for (size, taken) in [("1", "1MiB"), ("12", "8MiB"), ("32", "32MiB"), ("63", "32MiB")] {
        assert_eq!(written(size), (Some(format!("chunk_size = \"{taken}\"")), Vec::new()), "{size}");
    }
    for (size, why) in [
        ("64", "above 32, the most that Ceph takes"),
        ("9223372036854775807", "above 32, the most that Ceph takes"),
        ("0", "not above 0"),
    ] {
        assert_eq!(written(size), (None, vec![format!("[c] rbd_store_chunk_size is {why}; it is left out")]), "{size}");
    }
}

#[test]
fn names_that_mimeo_does_not_take_are_changed_and_stay_apart() {
    let text = text("[DEFAULT]\nenabled_backends = a b:cinder,a-b:cinder,x:http,:file,q");
    let expected = "[stores.a-b]\n# \"a b\" in Glance, which is no name that Mimeo takes.\n\
        # Only Glance can write here: Mimeo asks it to (copy-image).\ntype = \"glance\"\nbackend = \"a b\"\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("[stores.a-b-2]") && text.contains("backend = \"a-b\""), "{text}");
    assert!(
        text.contains("enabled_stores = [\n    \"a-b\",\n    \"a-b-2\",\n    # \"x\",  needs its url\n]"),
        "{text}"
    );
}

#[test]
fn an_endpoint_is_what_glance_makes_of_the_host() {
    let lines = |host: &str| {
        let conf = format!("[DEFAULT]\nenabled_backends = s:s3\n[s]\ns3_store_bucket = bucket\ns3_store_host = {host}");
        let text = text(&conf);
        let lines = text.lines().filter(|line| line.starts_with("endpoint") || line.starts_with("region"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines("s3.example.org:7480"), ["endpoint = \"http://s3.example.org:7480\""]);
    assert_eq!(lines("https://s3.example.org"), ["endpoint = \"https://s3.example.org\""]);
    for host in
        ["s3-eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com", "http://s3-eu-west-1.amazonaws.com:80/"]
    {
        assert_eq!(lines(host)[1], "region = \"eu-west-1\"", "{host}");
    }
    assert_eq!(lines("s3.amazonaws.com").len(), 1);
}

#[test]
fn an_authority_and_a_way_to_name_buckets_are_taken_over() {
    let conf = "[DEFAULT]\nenabled_backends = s:s3\n[s]\ns3_store_bucket = bucket\ns3_store_host = s3.example.org\n\
        s3_store_cacert = /etc/ssl/s3.pem\ns3_store_bucket_url_format = ";
    let virtual_hosts = text(&format!("{conf}virtual"));
    assert!(virtual_hosts.contains("ca_file = \"/etc/ssl/s3.pem\"\n"), "{virtual_hosts}");
    assert!(virtual_hosts.contains("bucket_url_format = \"virtual\"\n"), "{virtual_hosts}");
    assert!(!text(&format!("{conf}auto")).contains("bucket_url_format"));
}

#[test]
fn glance_as_it_comes_has_no_store_to_enable() {
    let Written { text, notes, .. } = convert(&[("glance-api.conf".into(), String::new())], false).unwrap();
    assert!(text.contains("enabled_stores = [\n    # \"file\",  Glance needs enabled_backends first\n"), "{text}");
    assert_eq!(notes, ["no enabled_backends and no [glance_store] stores: taken for file and http, as Glance does"]);
}

#[test]
fn a_transport_that_mimeo_does_not_speak_is_left_out_without_its_password() {
    let conf = "[DEFAULT]\nenabled_backends = a:cinder\ntransport_url = kafka://user:s3cret@h:9092/\n";
    let Written { text, notes, .. } = convert(&[("glance-api.conf".into(), conf.into())], true).unwrap();
    assert!(text.contains("# [events]\n") && text.contains("# transport_url = \"rabbit://…\"\n"), "{text}");
    assert!(notes.len() == 1 && notes[0].contains("kafka") && !(text + &notes[0]).contains("s3cret"), "{notes:?}");
}

#[test]
fn an_account_file_that_is_not_there_is_told() {
    let conf = "[DEFAULT]\nenabled_backends = s:swift\n[s]\nswift_store_config_file = /nowhere/swift.conf";
    let notes = convert(&[("glance-api.conf".into(), conf.into())], false).unwrap().notes;
    let expected = "/nowhere/swift.conf, swift_store_config_file of [s], cannot be read: ";
    assert!(notes.len() == 1 && notes[0].starts_with(expected), "{notes:?}");
}

#[test]
fn several_files_and_directories_count_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("conf.d")).unwrap();
    for (name, store) in [("first", "f"), ("conf.d/b.conf", "b"), ("conf.d/a.conf", "a"), ("conf.d/c.txt", "c")] {
        fs::write(path(name), format!("[DEFAULT]\nenabled_backends = {store}:cinder")).unwrap();
    }
    let found = paths(&[path("first"), path("conf.d")]).unwrap();
    assert_eq!(found, ["first", "conf.d/a.conf", "conf.d/b.conf"].map(path));
    let output = path("mimeo.toml");
    let options = Options {
        files: vec![path("first"), path("conf.d")],
        output: Some(output.clone()),
        force: false,
        secrets: false,
    };
    import(&options).unwrap();
    assert!(fs::read_to_string(output).unwrap().contains("enabled_stores = [\"b\"]"));
}

#[test]
fn what_cannot_be_read_ends_with_two_and_shows_no_line() {
    let run = |path: PathBuf| {
        let Failure { code, message } =
            import(&Options { files: vec![path], output: None, force: false, secrets: false }).unwrap_err();
        assert_eq!(code, 2);
        message
    };
    assert!(run("/nowhere/glance-api.conf".into()).starts_with("/nowhere/glance-api.conf: cannot be read: "));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "[DEFAULT]\ntransport_url rabbit //user s3cret").unwrap();
    let expected = format!("{}:2: neither \"=\" nor \":\" in it", file.path().display());
    assert_eq!(run(file.path().to_owned()), expected);
}

#[test]
fn a_file_is_replaced_only_by_force_and_kept_private_with_secrets_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mimeo.toml");
    let written = |text: &str, secret| Written { text: text.to_owned(), secret, notes: Vec::new() };
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    save(&path, &written("first", false), false).unwrap();
    assert_eq!(mode() & 0o044, 0o044);
    let refused = save(&path, &written("second", true), false).unwrap_err();
    assert_eq!((refused.code, fs::read_to_string(&path).unwrap().as_str()), (2, "first"));
    save(&path, &written("third", true), true).unwrap();
    assert_eq!((mode(), fs::read_to_string(&path).unwrap().as_str()), (0o600, "third"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(save(Path::new("/nowhere/mimeo.toml"), &written("", false), false).unwrap_err().code, 1);
}
