//! What the check found: told as it goes, or as a table at the end.

use std::fmt::Write;

use serde_json::json;

use crate::cli::{Format, Listing, Outcome, Style, print, visible};

pub(super) const COLUMNS: &[&str] = &["Step", "Result", "Seen", "Cure"];

pub(super) struct Report<'a> {
    style: &'a Style,
    findings: Vec<Finding>,
}

struct Finding {
    step: String,
    verdict: Verdict,
    seen: String,
    /// Empty where nothing is to be done.
    cure: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Info,
    Warn,
    Fail,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(style: &'a Style) -> Self {
        Self { style, findings: Vec::new() }
    }

    pub(super) fn ok(&mut self, step: impl Into<String>, seen: impl Into<String>) {
        self.add(step, Verdict::Ok, seen, "");
    }

    /// Worth knowing, and right as it is.
    pub(super) fn info(&mut self, step: impl Into<String>, seen: impl Into<String>) {
        self.add(step, Verdict::Info, seen, "");
    }

    /// Mimeo works, but less well than it could.
    pub(super) fn warn(&mut self, step: impl Into<String>, seen: impl Into<String>, cure: impl Into<String>) {
        self.add(step, Verdict::Warn, seen, cure);
    }

    pub(super) fn fail(&mut self, step: impl Into<String>, seen: impl Into<String>, cure: impl Into<String>) {
        self.add(step, Verdict::Fail, seen, cure);
    }

    fn add(&mut self, step: impl Into<String>, verdict: Verdict, seen: impl Into<String>, cure: impl Into<String>) {
        let finding = Finding { step: step.into(), verdict, seen: seen.into(), cure: cure.into() };
        if self.is_live() {
            // A reader that has gone away must not keep the check from cleaning up.
            let _ = print(&finding.lines());
        }
        self.findings.push(finding);
    }

    pub(super) fn failures(&self) -> usize {
        self.count(Verdict::Fail)
    }

    /// The end of what was told, or all of it.
    pub(super) fn conclude(&self) -> Outcome {
        if self.is_live() {
            return print(&self.summary());
        }
        let row = |finding: &Finding| {
            let cure = Some(&finding.cure).filter(|cure| !cure.is_empty());
            vec![json!(finding.step), json!(finding.verdict.name()), json!(finding.seen), json!(cure)]
        };
        let rows = self.findings.iter().map(row).collect();
        print(&Listing { columns: COLUMNS, rows }.render(self.style)?)
    }

    fn summary(&self) -> String {
        match (self.failures(), self.count(Verdict::Warn)) {
            (0, 0) => "\nAll is well.\n".into(),
            (0, warnings) => format!("\nNothing failed; {warnings} to look at.\n"),
            (failures, _) => format!("\n{failures} failed: follow each cure, then run `mimeo check` again.\n"),
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// A check takes a while: without another wish each finding is told at once.
    fn is_live(&self) -> bool {
        self.style.format == Format::Table && self.style.columns.is_empty()
    }
}

impl Finding {
    fn lines(&self) -> String {
        let mut text = format!("{:4}  {:26}  {}\n", self.verdict.name(), self.step, visible(&self.seen));
        if !self.cure.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:34}→ {}", "", visible(&self.cure));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cure_stands_under_what_was_seen() {
        let style = Style { format: Format::Json, columns: Vec::new() };
        let mut report = Report::new(&style);
        report.ok("clock", "0 s off");
        report.fail("http1: write", "405", "allow PUT");
        report.warn("sees all", "not shown", "");
        assert_eq!(report.findings[1].lines().lines().nth(1).unwrap().trim(), "→ allow PUT");
        assert_eq!(report.findings[0].lines(), format!("ok    {:26}  0 s off\n", "clock"));
        assert_eq!(report.failures(), 1);
        assert!(report.summary().starts_with("\n1 failed"));
    }
}
