//! `[[webhooks]]`: where to tell what happens.

use std::{collections::BTreeSet, path::Path};

use url::Url;

use super::{
    Only, WebhookSettings,
    document::{Item, Section},
    sections::filled,
};

/// A secret that can be guessed signs nothing.
const LEAST_SECRET: usize = 16;

pub(super) fn read(root: &Section<'_>, directory: &Path) -> Vec<WebhookSettings> {
    let items = root.get("webhooks").and_then(|item| item.array()).unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut webhooks = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        let Some(webhook) = item.table().and_then(|section| webhook(at, &section, directory)) else { continue };
        if !names.insert(webhook.name.clone()) {
            item.wrong(format!("another webhook has the name \"{}\" already; give each its own", webhook.name));
        }
        webhooks.push(webhook);
    }
    webhooks
}

/// None where something is missing or wrong.
fn webhook(at: usize, section: &Section<'_>, directory: &Path) -> Option<WebhookSettings> {
    section.allow(&["name", "url", "secret", "source", "only"]);
    let name = section.value("name", format!("webhook {}", at + 1), filled);
    let needed = |key, what: &str| {
        let item = section.get(key);
        if item.is_none() {
            section.missing(key, what);
        }
        item
    };
    let url = needed("url", "missing; where to send events, like \"https://alerts.example.org/mimeo\"");
    let secret = needed(
        "secret",
        "missing; what events are signed with: `openssl rand -hex 32 > webhook.secret`, and \"file:webhook.secret\" here",
    );
    let source = section.value("source", "/mimeo".to_owned(), filled);
    let only =
        section.value("only", Only::Failures, |item| item.choice(&[("failures", Only::Failures), ("all", Only::All)]));
    let url = url.and_then(|item| address(&item, directory));
    let secret = secret.and_then(|item| strong(&item, directory));
    Some(WebhookSettings { name, url: url?, secret: secret?, source, only })
}

fn address(item: &Item<'_>, directory: &Path) -> Option<Url> {
    let text = item.secret(directory)?;
    let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.is_none() {
        // Not what it is: it may be a secret.
        item.wrong("is no URL of http or https, like \"https://alerts.example.org/mimeo\"");
    }
    url
}

fn strong(item: &Item<'_>, directory: &Path) -> Option<String> {
    let secret = item.secret(directory)?;
    if secret.len() < LEAST_SECRET {
        item.wrong(format!("is shorter than {LEAST_SECRET} letters: make one with `openssl rand -hex 32`"));
        return None;
    }
    Some(secret)
}
