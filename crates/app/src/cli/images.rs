//! `mimeo status`: one image in full, or all of them in a line each.

use std::num::NonZeroUsize;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use mimeo_core::{ImageId, ImageState, Reason, ReplicaState, StoreName, Timestamp};
use mimeo_engine::status::{HistoryReport, ImageReport, Overview, ReplicaReport};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Client, Field, Format, Listing, Outcome, Record, Style, note, output, print, visible};

const IMAGE_STATES: [&str; 7] = ["unmanaged", "pending", "replicating", "registered", "degraded", "failed", "retiring"];

/// But for `gone`, of which nothing is kept.
const REPLICA_STATES: [&str; 8] =
    ["wanted", "copying", "stored", "proven", "registered", "failed", "suspect", "retiring"];

const COLUMNS: &[&str] = &["ID", "Name", "State", "Registered", "Reason"];

/// Images in a table, unless more are asked for.
const IN_A_TABLE: usize = 50;

const WORST_FIRST: [ImageState; 7] = [
    ImageState::Failed,
    ImageState::Degraded,
    ImageState::Pending,
    ImageState::Replicating,
    ImageState::Retiring,
    ImageState::Registered,
    ImageState::Unmanaged,
];

pub(super) async fn show(client: &Client, image: &str, style: &Style) -> Outcome {
    let image = client.find(image).await?;
    print(&record(&image).render(style)?)?;
    if style.format == Format::Table {
        for cure in cures(&image) {
            note(&cure);
        }
    }
    Ok(())
}

/// Which images are listed.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only images in this state
    #[arg(long, conflicts_with = "image", value_parser = one_of::<ImageState>(&IMAGE_STATES))]
    state: Option<ImageState>,
    /// Only images that have a replica at this store
    #[arg(long, conflicts_with = "image")]
    store: Option<StoreName>,
    /// Only images that have a replica in this state, at --store if that is given
    #[arg(long, conflicts_with = "image", value_parser = one_of::<ReplicaState>(&REPLICA_STATES))]
    replica: Option<ReplicaState>,
    /// Only images that this rule of the configuration matches
    #[arg(long, conflicts_with = "image")]
    rule: Option<String>,
    /// Only images of this project, by Glance's id of it
    #[arg(long, conflicts_with = "image", value_name = "ID")]
    owner: Option<String>,
    /// Only images with this in their name
    #[arg(long, conflicts_with = "image", value_name = "TEXT")]
    name: Option<String>,
    /// No more than so many [default: 50 in a table, else all]
    #[arg(long, conflicts_with = "image", value_name = "N", value_parser = one_or_more)]
    limit: Option<NonZeroUsize>,
}

/// In a table: how things stand, then the images, those first that are not as they should be. For machines: the images.
pub(super) async fn list(client: &Client, which: &Which, style: &Style) -> Outcome {
    style.suits(COLUMNS)?;
    let is_table = style.format == Format::Table;
    let limit = which.limit.map_or(if is_table { IN_A_TABLE } else { usize::MAX }, NonZeroUsize::get);
    let images = match is_table && which.state.is_none() {
        false => client.images(&which.filter(which.state), limit).await?,
        true => worst_first(client, which, limit).await?,
    };
    if is_table {
        let overview = client.overview().await?;
        print(&glance(&overview))?;
        let left = overview.images.saturating_sub(images.len() as u64);
        print(&listing(&images).render(style)?)?;
        if images.len() == limit && left > 0 {
            note(
                "There may be more: --state, --store, --rule, --owner, --name and --limit say which, -f csv gives all.",
            );
        }
        return Ok(());
    }
    print(&listing(&images).render(style)?)
}

async fn worst_first(client: &Client, which: &Which, limit: usize) -> Outcome<Vec<ImageReport>> {
    let mut images = Vec::new();
    for state in WORST_FIRST {
        let left = limit - images.len();
        if left == 0 {
            break;
        }
        images.extend(client.images(&which.filter(Some(state)), left).await?);
    }
    Ok(images)
}

impl Which {
    fn filter(&self, state: Option<ImageState>) -> Vec<(&'static str, String)> {
        let words = [
            ("state", state.map(|state| state.to_string())),
            ("store", self.store.as_ref().map(ToString::to_string)),
            ("replica", self.replica.map(|state| state.to_string())),
            ("rule", self.rule.clone()),
            ("owner", self.owner.clone()),
            ("name", self.name.clone()),
        ];
        words.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// In a few lines: how many images are in which state, and what is wrong as a whole.
fn glance(overview: &Overview) -> String {
    let states = WORST_FIRST.iter().filter_map(|state| Some(format!("{} {state}", overview.states.get(state)?)));
    let states = states.collect::<Vec<_>>().join(", ");
    let mut lines = vec![match overview.images {
        0 => "No images yet.".to_owned(),
        images => format!("{}: {states}", output::images(images)),
    }];
    let scanned = overview.last_scan.map_or("not yet".to_owned(), seconds);
    let events = match &overview.events {
        None => "no events".to_owned(),
        Some(events) if events.connected => format!("events connected, {} received", events.received),
        Some(events) => {
            let why = events.last_error.as_ref().map_or(String::new(), |why| format!(" ({why})"));
            format!("events NOT connected{why}")
        }
    };
    lines.push(format!("{events}; last scan {scanned}{}", if overview.observe { "; only observing" } else { "" }));
    if !overview.stores_down.is_empty() {
        let down = overview.stores_down.iter().map(StoreName::as_str).collect::<Vec<_>>().join(", ");
        lines.push(format!("stores that do not answer: {down} (mimeo stores)"));
    }
    if overview.held_deletes > 0 {
        lines.push(format!("{} deletions wait for a word (mimeo gc)", overview.held_deletes));
    }
    if overview.contested > 0 {
        lines.push(format!("of {} another writer keeps removing locations", output::images(overview.contested)));
    }
    lines.extend(overview.trouble.as_ref().map(|trouble| format!("{}: {}", trouble.code, trouble.message)));
    lines.iter().map(|line| visible(line) + "\n").collect()
}

fn listing(images: &[ImageReport]) -> Listing {
    let rows = images.iter().map(row).collect();
    Listing { columns: COLUMNS, rows }
}

/// By their names, which the shell completes.
fn one_of<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| serde_json::from_value(json!(name)))
}

fn one_or_more(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "must be a whole number, 1 or more".into())
}

/// What became of an image and its copies. An id finds one that was forgotten too.
pub(super) async fn history(client: &Client, image: &str, style: &Style) -> Outcome {
    let id = match image.parse::<ImageId>() {
        Ok(id) => id,
        Err(_) => client.find(image).await?.id,
    };
    let rows = client.history(&id).await?.iter().map(line).collect();
    print(&Listing { columns: &["At", "Store", "State", "Times", "Since", "Why"], rows }.render(style)?)
}

/// What `status IMAGE -f json` answers is a contract (docs/commands.md).
fn record(image: &ImageReport) -> Record {
    let replicas = image.replicas.iter().map(replica).collect::<Vec<_>>();
    // For people: what stands in the way of the whole image comes with its replicas.
    let trouble = image.reason.as_ref().map(|reason| format!("{}: {}", reason.code, reason.message));
    let lines = image.replicas.iter().map(replica_line).chain(trouble).collect::<Vec<_>>();
    Record(vec![
        Field::new("id", image.id.as_str()),
        Field::new("name", image.name.clone()),
        Field::new("state", image.state.to_string()),
        Field { lines: Some(lines), ..Field::new("replicas", replicas) },
    ])
}

/// What to do about each reason that it has.
fn cures(image: &ImageReport) -> Vec<String> {
    let reasons = image.replicas.iter().filter_map(|replica| replica.reason.as_ref()).chain(&image.reason);
    let mut codes: Vec<&str> = reasons.map(|reason| reason.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    let known = codes.into_iter().filter_map(|code| Some((code, Reason::from_code(code)?)));
    known.map(|(code, reason)| format!("{code}: {}", reason.cure())).collect()
}

fn replica(replica: &ReplicaReport) -> Value {
    json!({
        "store": replica.store,
        "state": replica.state,
        "location": replica.location,
        "proof": replica.proof,
        "proven_at": replica.proven_at,
        "seen_at": replica.seen_at,
        "reason": replica.reason.as_ref().map(|reason| json!({"code": reason.code, "message": reason.message})),
        "next_try": replica.next_try,
    })
}

/// `http1  registered  http://…  readback 2026-05-01T10:00:00Z`
fn replica_line(replica: &ReplicaReport) -> String {
    let state = match (replica.wanted, replica.progress) {
        (_, Some(progress)) => format!("{} ({})", replica.state, transferred(progress.bytes, progress.total)),
        (false, None) => format!("{} (no longer wanted)", replica.state),
        (true, None) => replica.state.to_string(),
    };
    let proof = replica.proof.zip(replica.proven_at).map(|(proof, at)| format!("{proof} {}", seconds(at)));
    let reason = replica.reason.as_ref().map(|reason| format!("{}: {}", reason.code, reason.message));
    let seen = replica.seen_at.map(|at| format!("seen {}", seconds(at)));
    let next_try = replica.next_try.map(|at| format!("next try {}", seconds(at)));
    let parts = [Some(replica.store.to_string()), Some(state), replica.location.clone(), proof, seen, reason, next_try];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

fn transferred(bytes: u64, total: Option<u64>) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => format!("{} %", u128::from(bytes) * 100 / u128::from(total)),
        None => format!("{bytes} bytes"),
    }
}

/// Fractions of a second are for machines.
pub(super) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn row(image: &ImageReport) -> Vec<Value> {
    let wanted = image.replicas.iter().filter(|replica| replica.wanted);
    let registered = wanted.clone().filter(|replica| replica.state == ReplicaState::Registered).count();
    let reason = image.replicas.iter().find_map(|replica| replica.reason.as_ref()).or(image.reason.as_ref());
    vec![
        json!(image.id),
        json!(image.name),
        json!(image.state),
        json!(format!("{registered}/{}", wanted.count())),
        json!(reason.map(|reason| format!("{}: {}", reason.code, reason.message))),
    ]
}

fn line(line: &HistoryReport) -> Vec<Value> {
    let why = match (&line.reason, &line.message) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (code, message) => code.clone().or_else(|| message.clone()),
    };
    vec![
        json!(seconds(line.at)),
        json!(line.store),
        json!(line.state),
        json!(line.times),
        json!(seconds(line.since)),
        json!(why),
    ]
}

#[cfg(test)]
mod tests {
    use mimeo_core::ProofKind;
    use mimeo_engine::status::ReasonReport;

    use super::*;

    const ID: &str = "0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a";

    fn report() -> ImageReport {
        let at: Timestamp = "2026-05-01T10:00:00.25Z".parse().unwrap();
        let registered = ReplicaReport {
            store: "http1".parse().unwrap(),
            state: ReplicaState::Registered,
            wanted: true,
            location: Some("http://h/x".into()),
            proof: Some(ProofKind::Readback),
            proven_at: Some(at),
            seen_at: Some(at),
            reason: None,
            next_try: None,
            progress: None,
        };
        let failed = ReplicaReport {
            store: "http2".parse().unwrap(),
            state: ReplicaState::Failed,
            location: None,
            proof: None,
            proven_at: None,
            seen_at: None,
            reason: Some(ReasonReport { code: "store-full".into(), message: "no room".into(), permanent: false }),
            next_try: Some(at),
            ..registered.clone()
        };
        ImageReport {
            id: ID.parse().unwrap(),
            name: None,
            state: ImageState::Degraded,
            size: Some(1),
            owner: None,
            rules: Vec::new(),
            reason: None,
            observed_at: Some(at),
            replicas: vec![registered, failed],
        }
    }

    #[test]
    fn each_reason_comes_with_what_to_do_once() {
        let mut report = report();
        report.replicas[0].reason = report.replicas[1].reason.clone();
        let [cure] = &cures(&report)[..] else { panic!("{:?}", cures(&report)) };
        assert!(cure.starts_with("store-full: ") && cure.contains("make room"), "{cure}");
    }

    #[test]
    fn the_json_of_one_image_is_exactly_the_contract() {
        let style = Style { format: Format::Json, columns: Vec::new() };
        let shown: Value = serde_json::from_str(&record(&report()).render(&style).unwrap()).unwrap();
        let expected = json!({
            "id": ID,
            "name": null,
            "state": "degraded",
            "replicas": [
                {"store": "http1", "state": "registered", "location": "http://h/x", "proof": "readback",
                 "proven_at": "2026-05-01T10:00:00.25Z", "seen_at": "2026-05-01T10:00:00.25Z", "reason": null,
                 "next_try": null},
                {"store": "http2", "state": "failed", "location": null, "proof": null, "proven_at": null,
                 "seen_at": null, "reason": {"code": "store-full", "message": "no room"}, "next_try": "2026-05-01T10:00:00.25Z"},
            ],
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn people_see_a_line_per_replica_and_one_per_image() {
        let style = Style { format: Format::Table, columns: Vec::new() };
        let shown = record(&report()).render(&style).unwrap();
        assert!(shown.contains("http1  registered  http://h/x  readback 2026-05-01T10:00:00Z  seen 2026-"), "{shown}");
        assert!(shown.contains("http2  failed  store-full: no room  next try 2026-05-01T10:00:00Z"), "{shown}");
        assert_eq!(row(&report())[2..], [json!("degraded"), json!("1/2"), json!("store-full: no room")]);
    }
    #[test]
    fn a_line_of_the_history_tells_when_where_what_and_why() {
        let at: Timestamp = "2026-05-01T10:00:00.25Z".parse().unwrap();
        let failed = HistoryReport {
            at,
            since: "2026-05-01T09:00:00Z".parse().unwrap(),
            times: 14,
            store: Some("http1".parse().unwrap()),
            state: "failed".into(),
            reason: Some("store-full".into()),
            message: Some("no room".into()),
        };
        let expected =
            json!(["2026-05-01T10:00:00Z", "http1", "failed", 14, "2026-05-01T09:00:00Z", "store-full: no room"]);
        assert_eq!(Value::Array(line(&failed)), expected);
    }
}
