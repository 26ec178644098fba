//! A line of the history as a `CloudEvent` 1.0, in its structured JSON form.

use mimeo_engine::status::ChangeReport;
use serde_json::json;

use crate::config::Only;

/// It is the same each time that the line is told. The time is in it because a new ledger counts anew.
pub(super) fn id_of(number: u64, change: &ChangeReport) -> String {
    format!("{number}-{}", change.line.at.as_millisecond())
}

pub(super) fn body(source: &str, number: u64, change: &ChangeReport) -> String {
    let (line, image) = (&change.line, &change.image);
    let (kind, subject) = match &line.store {
        Some(store) => (format!("mimeo.copy.{}", line.state), format!("{image}/{store}")),
        None => (format!("mimeo.image.{}", line.state), image.to_string()),
    };
    let event = json!({
        "specversion": "1.0",
        "id": id_of(number, change),
        "source": source,
        "type": kind,
        "subject": subject,
        "time": line.at,
        "datacontenttype": "application/json",
        "data": change,
    });
    event.to_string()
}

/// A copy that is registered keeps the reason why its location was lost before: that is no failure now.
pub(super) fn is_wanted(change: &ChangeReport, only: Only) -> bool {
    only == Only::All || (change.line.is_a_failure() && change.line.state != "registered")
}
