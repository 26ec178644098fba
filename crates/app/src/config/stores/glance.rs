//! A store of the type `glance`: one that only Glance can write.

use super::Own;

pub(super) const KEYS: &[&str] = &["backend"];

/// Glance's id of the store: the section's name unless it says another.
pub(super) fn read(own: &Own<'_>) -> String {
    if let Some(item) = own.section.own("bandwidth") {
        item.wrong("Glance itself writes to this store, at its own pace; remove the key");
    }
    let named = own.section.get("backend").and_then(|item| item.text());
    named.unwrap_or_else(|| own.name.to_string())
}

/// What no other store may have too, each with its key.
pub(super) fn places(backend: &str) -> Vec<(&'static str, String)> {
    vec![("backend", backend.to_owned())]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ConfigError};

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let text = format!("enabled_stores = [\"a\", \"b\"]\n{text}");
        Config::parse(Path::new("etc/mimeo.toml"), &text, &|_| None)
    }

    #[test]
    fn glances_id_is_the_sections_name_unless_it_is_given() {
        let config = parse("[stores.a]\ntype = \"glance\"\n[stores.b]\ntype = \"glance\"\nbackend = \"c\"").unwrap();
        let backends: Vec<_> = config.stores.iter().map(|store| store.facts.backend.as_deref()).collect();
        assert_eq!(backends, [Some("a"), Some("c")]);
    }

    #[test]
    fn one_store_of_glances_is_one_store_here() {
        let s3 = "[stores.b]\ntype = \"s3\"\nendpoint = \"http://h/\"\nbucket = \"images\"\naccess_key = \"k\"\n\
                  secret_key = \"s\"\nbackend = \"a\"";
        for (other, line) in [("[stores.b]\ntype = \"glance\"\nbackend = \"a\"", 6), (s3, 10)] {
            let error = parse(&format!("[stores.a]\ntype = \"glance\"\n{other}")).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "etc/mimeo.toml:{line}: stores.b.backend: is the same place as that of store \"a\"; give each its own"
                )
            );
        }
    }

    #[test]
    fn a_bandwidth_that_would_have_no_effect_is_refused() {
        let error = parse("[stores.a]\ntype = \"glance\"\nbandwidth = \"1MB/s\"\n[stores.b]\ntype = \"glance\"");
        assert!(error.unwrap_err().to_string().contains("stores.a.bandwidth: Glance itself writes to this store"));
    }
}
