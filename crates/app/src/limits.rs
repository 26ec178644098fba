//! The limits in force: what they must keep to wherever they come from, and how they change while `serve` runs.
//!
//! They come whole from the configuration, at the start and at a reload, and in part from the API.

#[cfg(fuzzing)]
pub(crate) mod fuzzing;

use std::{collections::BTreeMap, convert::Infallible, num::NonZeroUsize};

use mimeo_core::{Hours, Limits, StoreLimits, StoreName};
use mimeo_engine::Engine;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::config::suggestion;

/// More would serve nobody: each is a connection to Glance, or to a store.
pub(crate) const MOST_CONCURRENCY: usize = 1024;

/// Less of one image in memory would make every read a request of its own.
const LEAST_WINDOW_KIB: usize = 256;

/// A mistake beyond it, and no bound.
const MOST_MEMORY: usize = 1 << 40;

const KEYS: &[&str] = &["concurrency", "memory", "bandwidth", "hours", "stores"];
const STORE_KEYS: &[&str] = &["concurrency", "bandwidth", "hours"];

const CONCURRENCY: &str = "a whole number from 1 to 1024";
const MEMORY: &str = "a number of bytes up to 1 TiB, as in 33554432";
const BANDWIDTH: &str = "a number of bytes per second, as in 104857600; null is no limit";
const HOURS: &str = "a list of spans of local time, as in [\"22:00-06:00\"]; null is always";

/// Whether the memory is enough for so many images, and can be meant.
pub(crate) fn check_memory(limits: &Limits) -> Result<(), String> {
    if limits.memory.get() > MOST_MEMORY {
        return Err(format!("{} bytes are more than {MOST_MEMORY}, which is 1 TiB", limits.memory));
    }
    let least = LEAST_WINDOW_KIB << 10;
    if limits.window() >= least {
        return Ok(());
    }
    let Limits { memory, concurrency, .. } = limits;
    let enough = concurrency.get().saturating_mul(LEAST_WINDOW_KIB);
    let fewer = match memory.get() / least {
        0 => String::new(),
        fewer => format!(", or lower `concurrency` to {fewer}"),
    };
    Err(format!(
        "{memory} bytes are less than {LEAST_WINDOW_KIB}KiB for each of {concurrency} images at the same time; raise \
         `memory` to {enough}KiB ({} bytes){fewer}",
        enough << 10
    ))
}

/// Puts what a configuration says in force.
pub(crate) fn replace(engine: &Engine, limits: Limits) {
    let replaced: Result<_, Infallible> = engine.change_limits(|now| {
        let limits = for_stores_of(now, limits);
        tracing::info!(changed = %changes(now, &limits), "reloaded; limits in force");
        Ok(limits)
    });
    let Ok(_) = replaced;
}

/// Changes what a JSON merge patch (RFC 7396) of the limits names, and gives the limits then in force. An error is for
/// the one who sent it: the key, the rule, and the cure.
pub(crate) fn patch(engine: &Engine, patch: &Value) -> Result<Limits, String> {
    engine.change_limits(|now| {
        let limits = patched(now.clone(), patch)?;
        tracing::info!(changed = %changes(now, &limits), "limits changed through the API");
        Ok(limits)
    })
}

/// The new limits, for the stores that run: one that the new file does not enable keeps its limits until the restart.
fn for_stores_of(now: &Limits, mut new: Limits) -> Limits {
    let kept = now.stores.iter().map(|(name, own)| (name.clone(), new.stores.remove(name).unwrap_or(own.clone())));
    let stores = kept.collect();
    Limits { stores, ..new }
}

fn patched(mut limits: Limits, patch: &Value) -> Result<Limits, String> {
    for (key, value) in object("the body", patch)? {
        match key.as_str() {
            "concurrency" => limits.concurrency = concurrency(key, value)?,
            "memory" => limits.memory = read(key, value, MEMORY)?,
            "bandwidth" => limits.bandwidth = read(key, value, BANDWIDTH)?,
            "hours" => limits.hours = hours(key, value)?,
            "stores" => patch_stores(&mut limits.stores, value)?,
            _ => return Err(unknown(key, key, KEYS)),
        }
    }
    check_memory(&limits).map_err(|message| format!("memory: {message}"))?;
    Ok(limits)
}

/// `stores` has every store that is enabled.
fn patch_stores(stores: &mut BTreeMap<StoreName, StoreLimits>, value: &Value) -> Result<(), String> {
    if value.is_null() {
        *stores = stores.keys().map(|name| (name.clone(), StoreLimits::default())).collect();
        return Ok(());
    }
    for (name, value) in object("stores", value)? {
        let key = format!("stores.{name}");
        let Some((_, limits)) = stores.iter_mut().find(|(store, _)| store.as_str() == name) else {
            let known: Vec<&str> = stores.keys().map(StoreName::as_str).collect();
            return Err(format!("{key}: this store is not enabled; {}", suggestion(name, &known)));
        };
        patch_store(&key, limits, value)?;
    }
    Ok(())
}

fn patch_store(store: &str, limits: &mut StoreLimits, value: &Value) -> Result<(), String> {
    if value.is_null() {
        *limits = StoreLimits::default();
        return Ok(());
    }
    for (name, value) in object(store, value)? {
        let key = format!("{store}.{name}");
        match name.as_str() {
            "concurrency" if value.is_null() => limits.concurrency = None,
            "concurrency" => limits.concurrency = Some(concurrency(&key, value)?),
            "bandwidth" => limits.bandwidth = read(&key, value, BANDWIDTH)?,
            "hours" => limits.hours = hours(&key, value)?,
            _ => return Err(unknown(&key, name, STORE_KEYS)),
        }
    }
    Ok(())
}

fn object<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, String> {
    let message = || format!("{key}: {value} is no JSON object; send the keys to change with their values");
    value.as_object().ok_or_else(message)
}

fn concurrency(key: &str, value: &Value) -> Result<NonZeroUsize, String> {
    let number: NonZeroUsize = read(key, value, CONCURRENCY)?;
    match number.get() <= MOST_CONCURRENCY {
        true => Ok(number),
        false => Err(refused(key, value, CONCURRENCY)),
    }
}

fn hours(key: &str, value: &Value) -> Result<Hours, String> {
    read::<Option<Hours>>(key, value, HOURS).map(Option::unwrap_or_default)
}

fn read<T: DeserializeOwned>(key: &str, value: &Value, rule: &str) -> Result<T, String> {
    T::deserialize(value).map_err(|_| refused(key, value, rule))
}

fn refused(key: &str, value: &Value, rule: &str) -> String {
    format!("{key}: {value} is refused; give {rule}")
}

fn unknown(key: &str, name: &str, known: &[&str]) -> String {
    format!("{key}: unknown key; {}", suggestion(name, known))
}

/// What is different, for the log: `bandwidth null → 1048576`.
fn changes(old: &Limits, new: &Limits) -> String {
    let (old, new) = (flat(old), flat(new));
    let value = |limits: &BTreeMap<String, Value>, key| limits.get(key).map_or_else(|| "null".into(), Value::to_string);
    let keys = new.iter().filter(|(key, value)| old.get(*key) != Some(*value)).map(|(key, _)| key);
    let told: Vec<String> = keys.map(|key| format!("{key} {} → {}", value(&old, key), value(&new, key))).collect();
    if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
}

/// Each value with its dotted key.
fn flat(limits: &Limits) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut rest = vec![(String::new(), serde_json::to_value(limits).unwrap_or_default())];
    while let Some((path, value)) = rest.pop() {
        match value {
            Value::Object(members) => {
                let prefix = if path.is_empty() { path } else { format!("{path}.") };
                rest.extend(members.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
            }
            value => drop(found.insert(path, value)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits() -> Limits {
        let text = r#"{"concurrency": 8, "memory": 67108864, "bandwidth": 1000, "hours": ["22:00-06:00"], "stores": {
            "far": {"concurrency": 2, "bandwidth": 500, "hours": []},
            "near": {"concurrency": null, "bandwidth": null, "hours": []}
        }}"#;
        serde_json::from_str(text).unwrap()
    }

    fn refusal(patch: &Value) -> String {
        patched(limits(), patch).unwrap_err()
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_removes() {
        let mut expected = limits();
        assert_eq!(patched(limits(), &json!({})).unwrap(), expected);
        expected.bandwidth = None;
        expected.hours = Hours::default();
        expected.concurrency = NonZeroUsize::new(4).unwrap();
        let far = expected.stores.get_mut(&"far".parse().unwrap()).unwrap();
        far.concurrency = None;
        far.hours = Hours(vec!["01:00-02:00".parse().unwrap()]);
        let patch = json!({"bandwidth": null, "hours": null, "concurrency": 4,
            "stores": {"far": {"concurrency": null, "hours": ["01:00-02:00"]}}});
        assert_eq!(patched(limits(), &patch).unwrap(), expected);
        for removing in [json!({"stores": null}), json!({"stores": {"far": null}})] {
            let found = patched(limits(), &removing).unwrap();
            assert!(found.stores.len() == 2 && found.stores.values().all(|own| *own == StoreLimits::default()));
        }
    }

    #[test]
    fn a_refusal_names_the_key_and_the_cure() {
        let cases = [
            (json!([]), "the body: [] is no JSON object; send the keys"),
            (json!({"bandwith": 1}), "bandwith: unknown key; did you mean \"bandwidth\"?"),
            (json!({"bandwidth": 0}), "bandwidth: 0 is refused; give a number of bytes per second"),
            (json!({"bandwidth": "1MiB/s"}), "bandwidth: \"1MiB/s\" is refused; give a number of bytes per second"),
            (json!({"concurrency": null}), "concurrency: null is refused; give a whole number from 1 to 1024"),
            (json!({"concurrency": 1025}), "concurrency: 1025 is refused; give a whole number from 1 to 1024"),
            (json!({"memory": -1}), "memory: -1 is refused; give a number of bytes"),
            (json!({"hours": "22:00-06:00"}), "hours: \"22:00-06:00\" is refused; give a list of spans"),
            (json!({"hours": ["22-6"]}), "hours: [\"22-6\"] is refused; give a list of spans"),
            (json!({"stores": []}), "stores: [] is no JSON object"),
            (json!({"stores": {"fra": {}}}), "stores.fra: this store is not enabled; did you mean \"far\"?"),
            (json!({"stores": {"far": {"memory": 1}}}), "stores.far.memory: unknown key; known: concurrency, "),
            (json!({"stores": {"far": {"concurrency": 0}}}), "stores.far.concurrency: 0 is refused; give a whole"),
        ];
        for (patch, expected) in cases {
            let found = refusal(&patch);
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn the_memory_must_do_for_every_image() {
        assert_eq!(
            refusal(&json!({"memory": 1_048_576})),
            "memory: 1048576 bytes are less than 256KiB for each of 8 images at the same time; raise `memory` to \
             2048KiB (2097152 bytes), or lower `concurrency` to 4"
        );
        assert!(refusal(&json!({"memory": 1})).ends_with("raise `memory` to 2048KiB (2097152 bytes)"));
        assert!(patched(limits(), &json!({"memory": 1_048_576, "concurrency": 4})).is_ok());
    }

    #[test]
    fn a_store_that_the_new_file_does_not_know_keeps_its_limits_and_one_that_does_not_run_has_none() {
        let mut new = limits();
        let far = new.stores.remove(&"far".parse().unwrap()).unwrap();
        new.stores.insert("other".parse().unwrap(), far);
        new.bandwidth = None;
        let expected = Limits { bandwidth: None, ..limits() };
        assert_eq!(for_stores_of(&limits(), new), expected);
    }

    #[test]
    fn what_changed_is_told_with_both_values() {
        let new =
            patched(limits(), &json!({"bandwidth": null, "stores": {"near": {"hours": ["01:00-02:00"]}}})).unwrap();
        assert_eq!(changes(&limits(), &new), "bandwidth 1000 → null, stores.near.hours [] → [\"01:00-02:00\"]");
        assert_eq!(changes(&new, &new), "nothing");
    }
}
