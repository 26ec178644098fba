//! The rules, and what another one would do.

use std::sync::Arc;

use axum::{Json, extract::State};
use mimeo_core::{StoreName, policy::RuleSpec};
use mimeo_engine::{
    Engine,
    status::{RulesReport, TrialReport},
};
use serde::Deserialize;

use super::{input::Body, problem::Problem, routes::Answer, stores::allowed};

pub(super) async fn rules(State(engine): State<Arc<Engine>>) -> Answer<RulesReport> {
    Ok(Json(engine.rules().await?))
}

/// A name that no rule has is a mistake, and no rule without images.
pub(crate) fn known_rule(engine: &Engine, rule: &str) -> Result<(), Problem> {
    let known = engine.rule_names();
    if known.iter().any(|name| name == rule) {
        return Ok(());
    }
    let known = if known.is_empty() { "none: every image goes everywhere".to_owned() } else { known.join(", ") };
    Err(Problem::bad_request(format!("rule: there is no rule \"{rule}\"; known: {known}")))
}

/// A rule as in the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trial {
    when: Option<String>,
    /// None: every enabled store.
    stores: Option<Vec<StoreName>>,
    copies: Option<usize>,
}

pub(super) async fn try_rule(State(engine): State<Arc<Engine>>, Body(trial): Body<Trial>) -> Answer<TrialReport> {
    let Trial { when, stores, copies } = trial;
    let stores = stores.unwrap_or_else(|| engine.enabled_stores());
    if stores.is_empty() {
        return Err(Problem::bad_request("stores: name one at least; without the key every enabled store is meant"));
    }
    allowed(engine.try_rule(RuleSpec { name: "trial".into(), when, stores, copies }).await?)
}
