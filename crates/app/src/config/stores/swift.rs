//! A store of the type `swift`.

use std::path::PathBuf;

use mimeo_adapters::stores::{
    http::certificates,
    swift::{InvalidCredentials, SwiftCredentials, SwiftLogin, SwiftStoreConfig, container, segment_size},
};

use super::{Item, Own};
use crate::config::units;

pub(super) const KEYS: &[&str] = &[
    "backend",
    "auth_url",
    "auth_version",
    "user",
    "password",
    "project",
    "user_domain",
    "project_domain",
    "region",
    "interface",
    "cloud",
    "container",
    "segment_size",
    "create_container",
    "location_credentials",
    "ca_file",
];

/// Of no meaning without Keystone.
const KEYSTONES: &[&str] = &["project", "user_domain", "project_domain", "region", "interface", "cloud"];

const SEGMENT: u64 = 128 << 20;

const AUTH_URL: (&str, &str) = ("auth_url", "Keystone's URL, like \"http://10.0.0.5:5000/v3\"");
const PROJECT: (&str, &str) = ("project", "the project that the container belongs to, like \"service\"");
const USER: (&str, &str) = ("user", "whom Glance reads as, like \"glance\"");
const PASSWORD: (&str, &str) = ("password", "the user's password, best as \"file:PATH\"");

pub(super) fn read(own: &Own<'_>) -> Option<SwiftStoreConfig> {
    let section = &own.section;
    let name = own.required("container", "the container to write to, like \"glance\"");
    let name = name.and_then(|item| item.parse(container));
    let size = |text: &str| units::size(text).and_then(segment_size);
    let segment_size = section.value("segment_size", SEGMENT, |item| item.parse(size));
    let interfaces = [("public", "public"), ("internal", "internal"), ("admin", "admin")];
    let interface = section.get("interface").and_then(|item| item.choice(&interfaces)).map(str::to_owned);
    let shown = location_credentials(own);
    let login = login(own).filter(|login| has_findable_backend(own, login));
    let ca_file = section.get("ca_file").map_or(Some(None), |item| self::ca_file(own, &item).map(Some));
    shown?;
    Some(SwiftStoreConfig {
        name: own.name.clone(),
        login: login?,
        region: text(own, "region"),
        interface,
        container: name?,
        segment_size,
        create_container: section.value("create_container", false, Item::boolean),
        ca_file: ca_file?,
    })
}

/// What no other store may have too, each with its key.
pub(super) fn places(config: &SwiftStoreConfig) -> Vec<(&'static str, String)> {
    let account = match &config.login {
        SwiftLogin::TempAuth(credentials) | SwiftLogin::Keystone { credentials, .. } => credentials.account(),
        SwiftLogin::Cloud { cloud, .. } => format!("cloud {cloud}"),
    };
    vec![("container", format!("{account} {:?} {}", config.region, config.container))]
}

/// The file is named to the SDK, which would not say what is wrong with it, and where.
fn ca_file(own: &Own<'_>, item: &Item<'_>) -> Option<PathBuf> {
    let (path, pem) = own.file(item)?;
    match certificates(&pem) {
        Ok(_) => Some(path),
        Err(rule) => {
            item.wrong(format!("{} {rule}", path.display()));
            None
        }
    }
}

/// Without them Glance could read nothing, so that they are asked for.
fn location_credentials(own: &Own<'_>) -> Option<()> {
    let rule = "Glance's swift driver needs credentials in the location's URL: set location_credentials = true, which \
                shows them to whoever may see locations, or make it a store of type \"glance\" so that Glance writes it \
                itself";
    match own.section.get("location_credentials") {
        None => own.section.missing("location_credentials", &format!("missing; {rule}")),
        Some(item) => match item.boolean()? {
            true => return Some(()),
            false => item.wrong(rule),
        },
    }
    None
}

/// By the credentials in a location Glance finds its backend, where the location does not name it; a '/' in them it writes
/// otherwise than it reads it.
fn has_findable_backend(own: &Own<'_>, login: &SwiftLogin) -> bool {
    let credentials = match login {
        SwiftLogin::TempAuth(credentials)
        | SwiftLogin::Keystone { credentials, .. }
        | SwiftLogin::Cloud { credentials: Some(credentials), .. } => credentials,
        SwiftLogin::Cloud { credentials: None, .. } => return true,
    };
    let is_found = own.section.get("backend").is_some() || !credentials.has_slash();
    if !is_found {
        let rule =
            "Glance finds no backend by a project, user or password with '/': name it, as in Glance's enabled_backends";
        own.section.missing("backend", &format!("missing; {rule}"));
    }
    is_found
}

fn login(own: &Own<'_>) -> Option<SwiftLogin> {
    let section = &own.section;
    let version = section.get("auth_version").map(|item| item.choice(&[("3", 3), ("1", 1)]));
    if version.unwrap_or(Some(3))? == 1 {
        return tempauth(own);
    }
    let given = [AUTH_URL, PROJECT, USER, PASSWORD].iter().any(|(key, _)| section.get(key).is_some());
    match section.get("cloud") {
        Some(cloud) => {
            let credentials = if given { Some(keystone(own)) } else { None };
            for key in ["user_domain", "project_domain"] {
                if let Some(item) = section.get(key) {
                    item.wrong("is told by the cloud of clouds.yaml; remove it");
                    return None;
                }
            }
            let cloud = cloud.text()?;
            Some(SwiftLogin::Cloud { cloud, credentials: credentials.map_or(Some(None), |found| found.map(Some))? })
        }
        None => Some(SwiftLogin::Keystone {
            credentials: keystone(own)?,
            user_domain: text(own, "user_domain"),
            project_domain: text(own, "project_domain"),
        }),
    }
}

fn keystone(own: &Own<'_>) -> Option<SwiftCredentials> {
    let values = [AUTH_URL, PROJECT, USER].map(|key| required_text(own, key));
    let password = password(own);
    let [Some(auth_url), Some(project), Some(user)] = values else { return None };
    checked(own, SwiftCredentials::new(&auth_url, &project, &user, password?.into()))
}

fn tempauth(own: &Own<'_>) -> Option<SwiftLogin> {
    let foreign: Vec<Item<'_>> = KEYSTONES.iter().filter_map(|key| own.section.get(key)).collect();
    for item in &foreign {
        item.wrong("is Keystone's; remove it, or set auth_version = \"3\"");
    }
    let auth_url = required_text(own, ("auth_url", "the URL of the login, like \"http://10.0.0.5:7480/auth/1.0\""));
    let user = required_text(own, ("user", "the user as \"account:user\""));
    let password = password(own);
    let credentials = SwiftCredentials::tempauth(&auth_url?, &user?, password?.into());
    checked(own, credentials).filter(|_| foreign.is_empty()).map(SwiftLogin::TempAuth)
}

fn checked(own: &Own<'_>, credentials: Result<SwiftCredentials, InvalidCredentials>) -> Option<SwiftCredentials> {
    match credentials {
        Ok(credentials) => Some(credentials),
        Err(InvalidCredentials { key, rule }) => {
            if let Some(item) = own.section.get(key) {
                item.wrong(rule);
            }
            None
        }
    }
}

fn password(own: &Own<'_>) -> Option<String> {
    own.required(PASSWORD.0, PASSWORD.1)?.secret(own.directory)
}

fn required_text(own: &Own<'_>, (key, example): (&str, &str)) -> Option<String> {
    own.required(key, example)?.text()
}

fn text(own: &Own<'_>, key: &str) -> Option<String> {
    own.section.get(key).and_then(|item| item.text())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mimeo_adapters::stores::swift::{SwiftLogin, SwiftStoreConfig};

    use crate::config::{Config, StoreKind};

    const KEYSTONE: &str = r#"
        auth_url = "http://10.0.0.5:5000/v3"
        project = "service"
        user = "glance"
        password = "${SECRET}"
    "#;
    const LEAST: &str = "container = \"glance\"\nlocation_credentials = true\n";

    fn parse(section: &str) -> Result<SwiftStoreConfig, String> {
        let text = format!("enabled_stores = [\"a\"]\n[stores.a]\ntype = \"swift\"\n{section}");
        let environment = |name: &str| (name == "SECRET").then(|| "s3:cret".replace(':', ""));
        match Config::parse(Path::new("etc/mimeo.toml"), &text, &environment) {
            Ok(config) => match &config.stores[0].kind {
                StoreKind::Swift(swift) => Ok(swift.clone()),
                other => panic!("{other:?} is no Swift store"),
            },
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn keystone_is_the_login_unless_another_is_named() {
        let config = parse(&format!("{LEAST}{KEYSTONE}")).unwrap();
        assert_eq!(
            (config.container.as_str(), config.segment_size, config.create_container),
            ("glance", 128 << 20, false)
        );
        assert!(matches!(config.login, SwiftLogin::Keystone { .. }));
        assert!(!format!("{config:?}").contains("s3cret"));
        let more = "cloud = \"c\"\nsegment_size = \"16MiB\"\ncreate_container = true\n";
        let config = parse(&format!("{LEAST}{KEYSTONE}{more}")).unwrap();
        assert!(matches!(config.login, SwiftLogin::Cloud { credentials: Some(_), .. }));
        assert!(config.create_container && config.segment_size == 16 << 20);
        assert!(matches!(
            parse(&format!("{LEAST}cloud = \"c\"")).unwrap().login,
            SwiftLogin::Cloud { credentials: None, .. }
        ));
        let tempauth = "auth_version = \"1\"\nauth_url = \"http://h/auth/1.0\"\nuser = \"a:b\"\npassword = \"k\"";
        assert!(matches!(parse(&format!("{LEAST}{tempauth}")).unwrap().login, SwiftLogin::TempAuth(_)));
    }

    #[test]
    fn a_location_without_credentials_is_a_mistake_with_its_cures() {
        for (key, told) in [("", "missing; Glance's"), ("location_credentials = false\n", "Glance's")] {
            let text = parse(&format!("container = \"c\"\n{key}{KEYSTONE}")).unwrap_err();
            assert!(text.contains(&format!("stores.a.location_credentials: {told}")), "{text}");
            assert!(text.contains("location_credentials = true") && text.contains("type \"glance\""), "{text}");
        }
    }

    #[test]
    fn mistakes_are_collected_and_show_no_secret() {
        let text = parse("segment_size = \"17MiB\"\ncontainer = \"a/b\"\nca_file = \"nowhere.pem\"\n").unwrap_err();
        for key in [
            "segment_size: must be a multiple of 16MiB",
            "container: \"a/b\"",
            "ca_file: etc/nowhere.pem cannot be read",
            "location_credentials: missing",
            "auth_url: missing",
            "project: missing",
            "user: missing",
            "password: missing",
        ] {
            assert!(text.contains(&format!("stores.a.{key}")), "{key} is not in\n{text}");
        }
        let text = parse(&format!("{LEAST}{}", KEYSTONE.replace("${SECRET}", "s3:cret"))).unwrap_err();
        assert!(
            text.contains("stores.a.password: must not be empty or contain ':'") && !text.contains("cret\""),
            "{text}"
        );
        let tempauth = "auth_version = \"1\"\nauth_url = \"http://h/\"\nuser = \"b\"\npassword = \"k\"\ncloud = \"c\"";
        let text = parse(&format!("{LEAST}{tempauth}")).unwrap_err();
        assert!(text.contains("stores.a.cloud: is Keystone's") && text.contains("stores.a.user: must be"), "{text}");
    }

    #[test]
    fn two_stores_do_not_share_a_container() {
        let text = format!(
            "enabled_stores = [\"a\", \"b\"]\n[stores.a]\ntype = \"swift\"\n{LEAST}{KEYSTONE}\n[stores.b]\ntype = \"swift\"\n{LEAST}{KEYSTONE}"
        );
        let text = Config::parse(Path::new("m.toml"), &text, &|_| Some("s".into())).unwrap_err().to_string();
        assert!(text.contains("stores.b.container: is the same place as that of store \"a\""), "{text}");
    }
}
