//! What the rules, and those that somebody thinks of, say of the cloud's images. Nothing is written for it.

use std::time::Duration;

use mimeo_core::{
    Image, Result, StoreName,
    policy::{RuleSpec, Rules, Verdict},
};
use tokio::{
    task::{spawn_blocking, yield_now},
    time::Instant,
};

use crate::{
    Engine, Refusal,
    status::{RuleReport, RulesReport, TrialEntry, TrialReport},
    walk::Walk,
};

/// Images that are asked of the image service for one answer: it is to come while somebody waits.
const LOOKED_AT: u64 = 10_000;
/// For so long images are looked at for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// An expression that takes longer on one image, a sample, is not asked of the others.
const SLOW: Duration = Duration::from_millis(500);
/// Matching images that are named.
const NAMED: usize = 100;

impl Engine {
    /// The rules in force, with how many images match each.
    pub async fn rules(&self) -> Result<RulesReport> {
        let rules = &self.settings.policy.rules;
        let mut reports: Vec<RuleReport> = rules.specs().map(report).collect();
        let (images, complete) = self
            .each_image(|image| {
                for (report, verdict) in reports.iter_mut().zip(rules.verdicts(image)) {
                    count(verdict, &mut report.matches, &mut report.fails, &mut report.failure);
                }
            })
            .await?;
        Ok(RulesReport { images, complete, rules: reports })
    }

    /// In the operator's order.
    pub fn enabled_stores(&self) -> Vec<StoreName> {
        self.settings.policy.stores.iter().map(|facts| facts.name.clone()).collect()
    }

    /// In the order in which they were written.
    pub fn rule_names(&self) -> Vec<String> {
        self.settings.policy.rules.specs().map(|spec| spec.name.clone()).collect()
    }

    /// What this rule would do beside those in force.
    pub async fn try_rule(&self, spec: RuleSpec) -> Result<Result<TrialReport, Refusal>> {
        for store in &spec.stores {
            if !self.settings.policy.enables(store) {
                return Ok(Err(format!("stores: {store} is not among enabled_stores")));
            }
        }
        let most = spec.stores.len();
        if let Some(copies) = spec.copies.filter(|copies| !(1..=most).contains(copies)) {
            return Ok(Err(format!("copies: {copies} is not from 1 to {most}, which is how many stores are named")));
        }
        let turn = self.questions.acquire().await;
        let began = Instant::now();
        let rule = match spawn_blocking(|| Rules::compile(vec![spec])).await {
            Ok(Ok(_)) if began.elapsed() > SLOW => {
                return Ok(Err(format!("when: takes more than {SLOW:?} for one image")));
            }
            Ok(Ok(rule)) => rule,
            Ok(Err((_, error))) => return Ok(Err(format!("when: is no CEL expression: {error}"))),
            Err(broken) => return Ok(Err(format!("when: cannot be tried: {broken}"))),
        };
        drop(turn);
        let (mut report, mut matching) = (TrialReport::default(), Vec::new());
        let (images, complete) = self
            .each_image(|image| {
                for verdict in rule.verdicts(image) {
                    let matches = verdict == Verdict::Matches;
                    count(verdict, &mut report.matches, &mut report.fails, &mut report.failure);
                    if matches && matching.len() < NAMED {
                        matching.push(image.clone());
                    }
                }
            })
            .await?;
        for image in &matching {
            report.matching.push(self.trial(&rule, image).await?);
        }
        Ok(Ok(TrialReport { images, complete, ..report }))
    }

    async fn trial(&self, rule: &Rules, image: &Image) -> Result<TrialEntry> {
        let held = self.ledger.load(&image.id).await?.map(|record| record.replicas).unwrap_or_default();
        let policy = &self.settings.policy;
        let conditions = self.conditions(self.clock.now());
        let wanted = |rules: &Rules| rules.wanted(image, &policy.stores, &conditions, &held).stores;
        let (stores, now) = (wanted(rule), wanted(&policy.rules));
        let new = stores.iter().filter(|store| !now.contains(store)).cloned().collect();
        Ok(TrialEntry { image: image.id.clone(), name: image.name.clone(), stores, new })
    }

    /// How many images were shown, and whether these are all. An expression may be slow: others go on meanwhile.
    async fn each_image(&self, mut visit: impl FnMut(&Image)) -> Result<(u64, bool)> {
        let _turn = self.questions.acquire().await;
        let (mut images, mut walk, began) = (0, Walk::new(self.registry.as_ref(), None), Instant::now());
        while let Some(page) = walk.next().await? {
            for image in &page {
                if images >= LOOKED_AT || began.elapsed() > PATIENCE {
                    return Ok((images, false));
                }
                visit(image);
                images += 1;
                yield_now().await;
            }
        }
        Ok((images, true))
    }
}

fn report(spec: &RuleSpec) -> RuleReport {
    let RuleSpec { name, when, stores, copies } = spec.clone();
    RuleReport { name, when, stores, copies, ..RuleReport::default() }
}

fn count(verdict: Verdict, matches: &mut u64, fails: &mut u64, failure: &mut Option<String>) {
    match verdict {
        Verdict::Matches => *matches += 1,
        Verdict::Passes => {}
        Verdict::Fails(why) => {
            *fails += 1;
            failure.get_or_insert(why);
        }
    }
}
