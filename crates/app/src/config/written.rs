//! What a configuration file says, kept to find out later what has changed in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use toml::{Table, Value};

use super::{document::resolve, limits};

/// What of a section is taken over while `serve` runs: credentials. Another user is another matter: to a server it may be
/// another place.
const CREDENTIALS: &[&str] = &[
    "password",
    "token",
    "agent",
    "cert_file",
    "key_file",
    "key_passphrase",
    "access_key",
    "secret_key",
    "profile",
    "transport_url",
];

/// What the file says beside limits and credentials, section by section, as in `[scan]` or `[stores.http1]`. It may hold
/// secrets all the same: only the names of sections are ever shown.
#[derive(Default)]
pub(crate) struct Written(BTreeMap<String, Value>);

impl Written {
    /// `text` is TOML. Values are taken with what variables and secret files hold now: a secret that was exchanged is
    /// a change too.
    pub(super) fn new(text: &str, environment: &dyn Fn(&str) -> Option<String>, directory: &Path) -> Self {
        let mut sections = BTreeMap::new();
        for (name, value) in text.parse::<Table>().unwrap_or_default() {
            match value {
                Value::Table(_) if name == "transfer" => {}
                Value::Table(stores) if name == "stores" => {
                    let stores = stores.into_iter();
                    sections.extend(stores.map(|(name, store)| (format!("[stores.{name}]"), lasting(store))));
                }
                Value::Table(_) if name == "store_defaults" => {
                    let rest = Some(lasting(value)).filter(|rest| *rest != Value::Table(Table::new()));
                    sections.extend(rest.map(|rest| (format!("[{name}]"), rest)));
                }
                Value::Table(_) if name == "events" => drop(sections.insert(format!("[{name}]"), lasting(value))),
                Value::Table(mut section) if name == "api" || name == "gateway" => {
                    // Which files they are is taken over; whether there are any is not.
                    let files = section.iter_mut().filter(|(key, _)| matches!(key.as_str(), "certificate" | "key"));
                    files.for_each(|(_, path)| *path = Value::Boolean(true));
                    sections.insert(format!("[{name}]"), Value::Table(section));
                }
                Value::Table(_) => drop(sections.insert(format!("[{name}]"), value)),
                Value::Array(_) if name == "rules" || name == "webhooks" => {
                    drop(sections.insert(format!("[[{name}]]"), value));
                }
                _ => drop(sections.insert(name, value)),
            }
        }
        for value in sections.values_mut() {
            resolved(value, environment, directory);
        }
        Self(sections)
    }

    /// The sections that only one of the two has, or that differ.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<String> {
        let names = self.0.keys().chain(other.0.keys());
        names.filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }
}

/// What takes effect only at a start.
fn lasting(mut section: Value) -> Value {
    if let Some(table) = section.as_table_mut() {
        table.retain(|key, _| !limits::STORE_KEYS.contains(&key) && !CREDENTIALS.contains(&key));
    }
    section
}

fn resolved(value: &mut Value, environment: &dyn Fn(&str) -> Option<String>, directory: &Path) {
    match value {
        Value::String(text) => {
            // What cannot be resolved is a mistake, told elsewhere.
            if let Ok(held) = resolve(text, environment, directory) {
                *text = held;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| resolved(value, environment, directory)),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| resolved(value, environment, directory)),
        _ => {}
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
