//! A store of the type `s3`.

use std::path::PathBuf;

use ini::Ini;
use mimeo_adapters::stores::s3::{Bucket, S3Credentials, S3StoreConfig, UrlStyle, bucket, certificates, prefix};
use reqwest::Certificate;
use url::Url;

use super::{Item, Own};

pub(super) const KEYS: &[&str] = &[
    "backend",
    "endpoint",
    "bucket",
    "prefix",
    "region",
    "bucket_url_format",
    "access_key",
    "secret_key",
    "profile",
    "ca_file",
    "location_credentials",
    "checksum",
];

pub(super) fn read(own: &Own<'_>) -> Option<S3StoreConfig> {
    let endpoint = own.url("endpoint", "the server's URL, like \"https://s3.eu-central-1.amazonaws.com\"");
    let written = own.section.get("endpoint").and_then(|item| item.text());
    let bucket = read_bucket(own, endpoint.as_ref());
    let rule = |text: &str| prefix(text).map_err(|rule| format!("\"{text}\" {rule}"));
    let prefix = own.section.value("prefix", String::new(), |item| item.parse(rule));
    let credentials = credentials(own);
    let authorities = own.section.value("ca_file", Vec::new(), |item| authorities(own, item));
    let location_credentials = location_credentials(own, credentials.as_ref());
    let checksum = own.section.value("checksum", false, |item| item.choice(&[("sha256", true)]));
    Some(S3StoreConfig {
        name: own.name.clone(),
        endpoint: endpoint?,
        written: written?,
        bucket: bucket?,
        prefix,
        credentials: credentials?,
        authorities,
        location_credentials: location_credentials?,
        checksum,
    })
}

/// What no other store may have too, each with its key.
pub(super) fn places(config: &S3StoreConfig) -> Vec<(&'static str, String)> {
    vec![("bucket", format!("{}{}/{}", config.endpoint, config.bucket.name(), config.prefix))]
}

fn read_bucket(own: &Own<'_>, endpoint: Option<&Url>) -> Option<Bucket> {
    let styles = [("path", UrlStyle::Path), ("virtual", UrlStyle::VirtualHost)];
    let style = own.section.value("bucket_url_format", UrlStyle::Path, |item| item.choice(&styles));
    let region = own.section.value("region", "us-east-1".to_owned(), Item::text);
    let name = own.required("bucket", "the bucket's name, as in Glance's s3_store_bucket");
    let endpoint = endpoint?;
    name?.parse(|text| bucket(endpoint.clone(), style, text, &region).map_err(|rule| format!("\"{text}\" {rule}")))
}

/// The section's own; else the environment's; else those of a profile, which the environment does not overrule where
/// the section names it.
fn credentials(own: &Own<'_>) -> Option<S3Credentials> {
    let pair = |has: &str, lacks: &str| {
        own.section.missing(lacks, &format!("missing; {has} is of no use without it"));
        None
    };
    match (own.section.get("access_key"), own.section.get("secret_key"), own.section.get("profile")) {
        (Some(access_key), Some(secret_key), _) => {
            let (access_key, secret_key) = (secret(own, &access_key), secret(own, &secret_key));
            Some(S3Credentials { access_key: access_key?, secret_key: secret_key?.into(), session_token: None })
        }
        (Some(_), None, _) => pair("access_key", "secret_key"),
        (None, Some(_), _) => pair("secret_key", "access_key"),
        (None, None, Some(item)) => item.parse(|name| of_profile(own, name)),
        (None, None, None) => of_environment(own).or_else(|| {
            let name = own.section.variable("AWS_PROFILE");
            match of_profile(own, name.as_deref().unwrap_or("default")) {
                Ok(credentials) => Some(credentials),
                Err(why) => {
                    let or = "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
                    own.section.missing("access_key", &format!("missing; give it with secret_key, {or} ({why})"));
                    None
                }
            }
        }),
    }
}

fn secret(own: &Own<'_>, item: &Item<'_>) -> Option<String> {
    let secret = item.secret(own.directory)?;
    if secret.is_empty() {
        item.wrong("is empty; give the key");
    }
    Some(secret).filter(|secret| !secret.is_empty())
}

fn of_environment(own: &Own<'_>) -> Option<S3Credentials> {
    Some(S3Credentials {
        access_key: own.section.variable("AWS_ACCESS_KEY_ID")?,
        secret_key: own.section.variable("AWS_SECRET_ACCESS_KEY")?.into(),
        session_token: own.section.variable("AWS_SESSION_TOKEN").map(Into::into),
    })
}

/// From the file that all clients of AWS share.
fn of_profile(own: &Own<'_>, name: &str) -> Result<S3Credentials, String> {
    let home = || own.section.variable("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
    let path = own.section.variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(home);
    let path = path.ok_or("there is no HOME with a file .aws/credentials")?;
    // The parser's own message may show the line, and so a secret.
    let file = Ini::load_from_file_noescape(&path).map_err(|error| match error {
        ini::Error::Io(error) => format!("{} cannot be read: {error}", path.display()),
        ini::Error::Parse(error) => format!("{} has a mistake in line {}", path.display(), error.line + 1),
    })?;
    let found = |key: &str| file.section(Some(name))?.get(key).filter(|value| !value.is_empty()).map(str::to_owned);
    let (Some(access_key), Some(secret_key)) = (found("aws_access_key_id"), found("aws_secret_access_key")) else {
        let path = path.display();
        return Err(format!("{path} has no section [{name}] with aws_access_key_id and aws_secret_access_key"));
    };
    let session_token = found("aws_session_token").map(Into::into);
    Ok(S3Credentials { access_key, secret_key: secret_key.into(), session_token })
}

fn authorities(own: &Own<'_>, item: &Item<'_>) -> Option<Vec<Certificate>> {
    let (path, pem) = own.file(item)?;
    certificates(&pem).map_err(|rule| item.wrong(format!("{} {rule}", path.display()))).ok()
}

fn location_credentials(own: &Own<'_>, credentials: Option<&S3Credentials>) -> Option<bool> {
    let Some(item) = own.section.get("location_credentials") else { return Some(false) };
    let wanted = item.boolean()?;
    match credentials.filter(|_| wanted).map(S3Credentials::fit_a_location) {
        Some(Err(rule)) => {
            item.wrong(rule.to_string());
            None
        }
        _ => Some(wanted),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::config::{Config, ConfigError, StoreKind};

    const PLACE: &str = "enabled_stores = [\"s\"]\n[stores.s]\ntype = \"s3\"\nendpoint = \"https://s3.example\"\n\
        bucket = \"images\"\n";
    const KEYS: &str = "access_key = \"AK\"\nsecret_key = \"${S3_SECRET}\"\n";

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let found =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Config::parse(Path::new("etc/mimeo.toml"), text, &found)
    }

    fn store(more: &str, variables: &[(&str, &str)]) -> S3StoreConfig {
        match parse(&format!("{PLACE}{more}"), variables).unwrap().stores.remove(0).kind {
            StoreKind::S3(config) => config,
            other => panic!("{other:?} is no S3 store"),
        }
    }

    fn mistakes(text: &str, variables: &[(&str, &str)]) -> String {
        let found = parse(text, variables).unwrap_err().to_string();
        assert!(!found.contains("s3cret"), "{found}");
        found
    }

    fn keys(store: &S3StoreConfig) -> String {
        // The only way to a secret from here is a location that shows it.
        let shown = S3StoreConfig { location_credentials: true, ..store.clone() };
        let object = mimeo_core::ObjectName::new(&mimeo_testkit::sample::id(1), 1);
        let location =
            mimeo_core::ports::Store::location(&mimeo_adapters::stores::s3::S3Store::new(shown).unwrap(), &object);
        let (keys, _) = location.strip_prefix("s3+https://").unwrap().split_once('@').unwrap();
        keys.to_owned()
    }

    #[test]
    fn the_least_has_defaults_for_the_rest() {
        let store = store(KEYS, &[("S3_SECRET", "s3cret")]);
        assert_eq!(store.bucket.base_url().as_str(), "https://s3.example/images/");
        assert_eq!((store.bucket.region(), store.prefix.as_str()), ("us-east-1", ""));
        assert!(!store.location_credentials && !store.checksum && store.authorities.is_empty());
        assert_eq!(keys(&store), "AK:s3cret");
        assert!(!format!("{store:?}").contains("s3cret"));
    }

    #[test]
    fn every_key_is_read() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("secret"), "s3cret\n").unwrap();
        let text = format!(
            "{PLACE}prefix = \"mimeo.\"\nregion = \"eu-central-1\"\nbucket_url_format = \"virtual\"\naccess_key = \"AK\"\n\
             secret_key = \"file:secret\"\nlocation_credentials = true\nchecksum = \"sha256\"\n"
        );
        let config = Config::parse(&directory.path().join("mimeo.toml"), &text, &|_| None).unwrap();
        let StoreKind::S3(store) = &config.stores[0].kind else { panic!("no S3 store") };
        assert_eq!(store.bucket.base_url().as_str(), "https://images.s3.example/");
        assert_eq!((store.bucket.region(), store.prefix.as_str()), ("eu-central-1", "mimeo."));
        assert!(store.location_credentials && store.checksum);
        assert_eq!(keys(store), "AK:s3cret");
    }

    #[test]
    fn keys_are_the_sections_own_or_its_profiles_or_the_environments() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let profiles = "[default]\naws_access_key_id = D\naws_secret_access_key = d/+\\n\n[p]\naws_access_key_id = P\n\
            aws_secret_access_key = p\naws_session_token = t\n";
        fs::write(&path, profiles).unwrap();
        let file = ("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap());
        let (id, secret) = (("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e"));
        assert_eq!(keys(&store("", &[file])), "D:d/+\\n");
        assert_eq!(keys(&store("", &[file, ("AWS_PROFILE", "p")])), "P:p");
        assert_eq!(keys(&store("", &[file, id, secret, ("AWS_PROFILE", "p")])), "E:e");
        assert_eq!(keys(&store("profile = \"p\"\n", &[file, id, secret])), "P:p");
        assert!(store("profile = \"p\"\n", &[file]).credentials.session_token.is_some());
        let own = "access_key = \"A\"\nsecret_key = \"a\"\nprofile = \"p\"\n";
        assert_eq!(keys(&store(own, &[file, id, secret])), "A:a");
        let found = mistakes(&format!("{PLACE}profile = \"q\"\n"), &[file]);
        assert!(found.contains("stores.s.profile: ") && found.contains("has no section [q]"), "{found}");
        fs::write(&path, "[default]\naws_secret_access_key s3cret\n").unwrap();
        let found = mistakes(PLACE, &[file]);
        assert!(found.contains("stores.s.access_key: missing;") && found.contains("a mistake in line"), "{found}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_its_cure() {
        let found = mistakes("enabled_stores = [\"s\"]\n[stores.s]\ntype = \"s3\"\n", &[("HOME", "/nowhere")]);
        for part in ["s.endpoint: missing; give", "s.bucket: missing; give", "s.access_key: missing;", "/nowhere/.aws"]
        {
            assert!(found.contains(part), "{part} in {found}");
        }
        let cases = [
            ("access_key = \"AK\"\n", "s.secret_key: missing; access_key is of no use"),
            ("secret_key = \"s3cret\"\n", "s.access_key: missing; secret_key is of no use"),
            ("access_key = \"AK\"\nsecret_key = \"\"\n", "s.secret_key: is empty"),
            ("prefix = \"a/b\"\n", "s.prefix: \"a/b\" may have letters"),
            ("prefix = \"mimeo-\"\n", "s.prefix: \"mimeo-\" must not end with '-'"),
            ("prefix = \"site1\"\n", "hexadecimal digit (0-9, a-f)"),
            ("prefix = \"CAFE\"\n", "; end it with '.' or '_'"),
            ("checksum = \"md5\"\n", "s.checksum: unknown value \"md5\"; known: sha256"),
            ("bucket_url_format = \"auto\"\n", "s.bucket_url_format: unknown value \"auto\"; known: path, virtual"),
            ("ca_file = \"nowhere.pem\"\n", "s.ca_file: etc/nowhere.pem cannot be read"),
            ("ca_flie = \"x\"\n", "s.ca_flie: unknown key; did you mean \"ca_file\"?"),
        ];
        for (more, expected) in cases {
            let keys = if more.contains("_key") { "" } else { KEYS };
            let found = mistakes(&format!("{PLACE}{keys}{more}"), &[("S3_SECRET", "s3cret")]);
            assert!(found.contains(expected) && found.lines().count() == 1, "{expected} in {found}");
        }
        let with_bucket = |name: &str| PLACE.replace("\"images\"", &format!("\"{name}\"")) + KEYS;
        assert!(mistakes(&with_bucket("a/b"), &[("S3_SECRET", "s")]).contains("s.bucket: \"a/b\" is no name"));
        let virtual_one = with_bucket("under_score") + "bucket_url_format = \"virtual\"\n";
        let ip = virtual_one.replace("s3.example", "10.0.0.1");
        assert!(mistakes(&ip, &[("S3_SECRET", "s")]).contains("cannot be part of a host name"));
    }

    #[test]
    fn a_key_that_a_location_cannot_carry_is_refused_where_it_should() {
        let text = format!("{PLACE}{KEYS}location_credentials = true\n");
        let found = mistakes(&text, &[("S3_SECRET", "s3cret@")]);
        assert!(found.contains("s.location_credentials: a key with"), "{found}");
        let environment = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e"), ("AWS_SESSION_TOKEN", "t")];
        let found = mistakes(&format!("{PLACE}location_credentials = true\n"), &environment);
        assert!(found.contains("temporary credentials"), "{found}");
    }

    #[test]
    fn a_file_of_authorities_holds_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        fs::write(&path, "nothing").unwrap();
        let text = format!("{PLACE}{KEYS}ca_file = \"{}\"\n", path.display());
        let found = mistakes(&text, &[("S3_SECRET", "s3cret")]);
        assert!(found.contains("ca.pem holds no certificate"), "{found}");
    }

    #[test]
    fn a_prefix_ends_where_an_objects_name_can_be_told_from_it() {
        for prefix in ["", "mimeo.", "site-1_", "Glanz"] {
            let store = store(&format!("{KEYS}prefix = \"{prefix}\"\n"), &[("S3_SECRET", "s3cret")]);
            assert_eq!(store.prefix, prefix);
        }
    }

    #[test]
    fn two_stores_in_one_bucket_differ_in_their_prefix() {
        let second = "[stores.t]\ntype = \"s3\"\nendpoint = \"https://s3.example/\"\nbucket = \"images\"\n";
        let text = format!("{}{KEYS}{second}{KEYS}", PLACE.replace("[\"s\"]", "[\"s\", \"t\"]"));
        let found = mistakes(&text, &[("S3_SECRET", "s3cret")]);
        assert!(found.contains("stores.t.bucket: is the same place as that of store \"s\""), "{found}");
        assert!(parse(&format!("{text}prefix = \"t.\"\n"), &[("S3_SECRET", "s3cret")]).is_ok());
    }
}
