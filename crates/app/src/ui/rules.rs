//! The rules, and what another one would do.

use std::sync::Arc;

use askama::Template;
use axum::extract::{RawQuery, State};
use mimeo_core::{StoreName, policy::RuleSpec};
use mimeo_engine::status::{RuleReport, RulesReport, TrialEntry, TrialReport};

use super::{
    Dashboard,
    page::{Answer, Shell, html},
    session::Visitor,
};

#[derive(Template)]
#[template(path = "rules.html")]
struct Page {
    shell: Shell,
    report: RulesReport,
    rules: Vec<Rule>,
    wish: Wish,
    stores: Vec<Choice>,
    /// What was asked for: what it would do, or why it is no rule.
    trial: Option<Result<Trial, String>>,
}

struct Rule {
    name: String,
    when: Option<String>,
    stores: String,
    matches: u64,
    failure: Option<String>,
    /// The same as a what-if.
    again: String,
}

struct Choice {
    name: String,
    chosen: bool,
}

struct Trial {
    report: TrialReport,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    name: String,
    stores: String,
    new: String,
}

/// A rule as it stands in the page's address.
#[derive(Debug, Default)]
struct Wish {
    /// Whether one was asked for at all.
    asked: bool,
    when: String,
    stores: Vec<String>,
    copies: String,
}

pub(super) async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Answer {
    let wish = Wish::read(query.as_deref().unwrap_or_default());
    let report = dashboard.engine.rules().await?;
    let trial = match wish.asked.then(|| wish.rule()) {
        None => None,
        Some(Err(why)) => Some(Err(why)),
        Some(Ok(rule)) => Some(dashboard.engine.try_rule(rule).await?.map(trial)),
    };
    let choice = |name: &StoreName| {
        let chosen = wish.stores.iter().any(|chosen| chosen == name.as_str()) || !wish.asked;
        Choice { name: name.to_string(), chosen }
    };
    let stores = dashboard.engine.enabled_stores().iter().map(choice).collect();
    let rules = report.rules.iter().map(rule).collect();
    html(&Page { shell: Shell::new(&dashboard, "/rules", visitor), report, rules, wish, stores, trial })
}

impl Wish {
    fn read(query: &str) -> Self {
        let mut wish = Self::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim().to_owned();
            match &*key {
                "when" => (wish.asked, wish.when) = (true, value),
                "store" => wish.stores.push(value),
                "copies" => wish.copies = value,
                _ => {}
            }
        }
        wish
    }

    fn rule(&self) -> Result<RuleSpec, String> {
        let stores = self.stores.iter().map(|store| store.parse().map_err(|error| format!("stores: {error}")));
        let stores = stores.collect::<Result<Vec<StoreName>, String>>()?;
        if stores.is_empty() {
            return Err("stores: choose one at least".into());
        }
        let copies = Some(self.copies.as_str()).filter(|copies| !copies.is_empty());
        let copies =
            copies.map(str::parse).transpose().map_err(|_| format!("copies: \"{}\" is no number", self.copies))?;
        let when = Some(self.when.clone()).filter(|when| !when.is_empty());
        Ok(RuleSpec { name: "what if".into(), when, stores, copies })
    }
}

fn rule(report: &RuleReport) -> Rule {
    let mut again = url::form_urlencoded::Serializer::new(String::new());
    again.append_pair("when", report.when.as_deref().unwrap_or_default());
    again.extend_pairs(report.stores.iter().map(|store| ("store", store.as_str())));
    again.extend_pairs(report.copies.map(|copies| ("copies", copies.to_string())));
    let stores = listed(&report.stores);
    Rule {
        name: report.name.clone(),
        when: report.when.clone(),
        stores: report.copies.map_or(stores.clone(), |copies| format!("any {copies} of {stores}")),
        matches: report.matches,
        failure: report.failure.as_ref().map(|why| format!("It cannot be answered for {} images: {why}", report.fails)),
        again: format!("/rules?{}#what-if", again.finish()),
    }
}

fn trial(report: TrialReport) -> Trial {
    let row = |entry: &TrialEntry| Row {
        id: entry.image.to_string(),
        name: entry.name.clone().unwrap_or_else(|| entry.image.to_string()),
        stores: listed(&entry.stores),
        new: listed(&entry.new),
    };
    Trial { rows: report.matching.iter().map(row).collect(), report }
}

fn listed(stores: &[StoreName]) -> String {
    stores.iter().map(StoreName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_leads_to_itself_as_a_what_if() {
        let report = RuleReport {
            when: Some("image.name == 'a&b'".into()),
            stores: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            copies: Some(1),
            ..RuleReport::default()
        };
        let again = rule(&report).again;
        let query = again.strip_prefix("/rules?").unwrap().strip_suffix("#what-if").unwrap();
        let read = Wish::read(query).rule().unwrap();
        assert_eq!((read.when, read.stores, read.copies), (report.when, report.stores, report.copies));
    }

    #[test]
    fn a_rule_without_stores_or_with_half_a_copy_is_none() {
        assert!(Wish::read("when=").rule().unwrap_err().starts_with("stores:"));
        assert!(Wish::read("when=&store=a&copies=x").rule().unwrap_err().starts_with("copies:"));
        assert!(!Wish::read("").asked);
    }
}
