//! How numbers, times, states and reasons are written on a page.

use std::fmt;

use askama::filters::HtmlSafe;
use mimeo_core::{ImageState, Reason, ReplicaState, Timestamp};
use mimeo_engine::{
    Phase, Progress,
    status::{ReasonReport, ReplicaReport, StoreHealth},
};

/// What is markup already, with everything in it escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl HtmlSafe for Html {}

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Html {
    /// What a template made.
    pub(super) fn made(template: &impl askama::Template) -> askama::Result<Self> {
        template.render().map(Self)
    }

    pub(super) fn text(text: &str) -> Self {
        let mut escaped = String::with_capacity(text.len());
        for letter in text.chars() {
            match letter {
                '&' => escaped.push_str("&amp;"),
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                '"' => escaped.push_str("&quot;"),
                letter => escaped.push(letter),
            }
        }
        Self(escaped)
    }

    /// A sentence of the guide, in which `` `this` `` is code.
    pub(super) fn prose(text: &str) -> Self {
        let parts = text.split('`').enumerate();
        Self(
            parts
                .map(
                    |(at, part)| {
                        if at % 2 == 0 { Self::text(part).0 } else { format!("<code>{}</code>", Self::text(part)) }
                    },
                )
                .collect(),
        )
    }

    /// Of an address that was made here.
    pub(super) fn link(to: &str, text: &str) -> Self {
        Self(format!("<a href=\"{}\">{}</a>", Self::text(to), Self::text(text)))
    }

    /// `3 min ago`, with the exact time beneath.
    pub(super) fn time(at: Timestamp, now: Timestamp) -> Self {
        let exact = at.strftime("%Y-%m-%d %H:%M:%S UTC");
        Self(format!("<time datetime=\"{at:.0}\" title=\"{exact}\">{}</time>", distance(at, now)))
    }

    /// The same, or `words` where there is no such time.
    pub(super) fn time_or(at: Option<Timestamp>, now: Timestamp, words: &str) -> Self {
        at.map_or_else(|| Self(format!("<span class=\"quiet\">{}</span>", Self::text(words))), |at| Self::time(at, now))
    }

    #[must_use]
    pub(super) fn after(self, words: &str) -> Self {
        Self(format!("{} {}", Self::text(words), self.0))
    }
}

/// A state as a sign, which is a colour and a shape, and as a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sign {
    /// Its name in signs.html and in the style sheet.
    pub sign: &'static str,
    pub word: String,
}

/// The signs, and what they mean.
pub(super) const LEGEND: [(&str, &str); 10] = [
    ("registered", "proven, registered with Glance, and seen there"),
    ("proven", "read back and right; not yet among the image's locations"),
    ("stored", "written; not yet read back"),
    ("copying", "being written, or read back"),
    ("wanted", "to be made, and not begun"),
    ("degraded", "of an image: some copies are registered, others are not"),
    ("failed", "the last try failed; the image's page says why and when it is tried again"),
    ("suspect", "was registered; the last look could not confirm it"),
    ("retiring", "on its way out"),
    ("none", "nothing there, and nothing wanted"),
];

impl From<ReplicaState> for Sign {
    fn from(state: ReplicaState) -> Self {
        let sign = match state {
            ReplicaState::Wanted => "wanted",
            ReplicaState::Copying => "copying",
            ReplicaState::Stored => "stored",
            ReplicaState::Proven => "proven",
            ReplicaState::Registered => "registered",
            ReplicaState::Failed => "failed",
            ReplicaState::Suspect => "suspect",
            ReplicaState::Retiring => "retiring",
            ReplicaState::Gone => "none",
        };
        Self { sign, word: state.to_string() }
    }
}

impl From<ImageState> for Sign {
    fn from(state: ImageState) -> Self {
        let sign = match state {
            ImageState::Unmanaged => "none",
            ImageState::Pending => "wanted",
            ImageState::Replicating => "copying",
            ImageState::Registered => "registered",
            ImageState::Degraded => "degraded",
            ImageState::Failed => "failed",
            ImageState::Retiring => "retiring",
        };
        Self { sign, word: state.to_string() }
    }
}

impl From<StoreHealth> for Sign {
    fn from(health: StoreHealth) -> Self {
        let (sign, word) = match health {
            StoreHealth::Up => ("registered", "answers"),
            StoreHealth::Down => ("failed", "does not answer"),
            StoreHealth::Unknown => ("wanted", "not asked yet"),
        };
        Self { sign, word: word.into() }
    }
}

/// A line of a history: its states are texts, and Glance's own among them.
pub(super) fn past(state: &str, has_reason: bool) -> Sign {
    let known = ["registered", "proven", "stored", "copying", "wanted", "failed", "suspect", "retiring"];
    let sign = match state {
        "active" if has_reason => "degraded",
        "active" => "registered",
        "gone" | "deleted" | "forgotten" => "retiring",
        state => known.into_iter().find(|known| *known == state).unwrap_or("none"),
    };
    Sign { sign, word: state.to_owned() }
}

/// One copy in a word or two, for those who cannot see its sign.
pub(super) fn label(replica: &ReplicaReport) -> String {
    let mut label = format!("{}: {}", replica.store, replica.state);
    if let Some(progress) = replica.progress {
        label = format!("{label}, {}", done(&progress));
    }
    match &replica.reason {
        Some(reason) => format!("{label}, {}", reason.code),
        None => label,
    }
}

/// A reason with its cure.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub code: String,
    pub message: String,
    pub cure: Option<Html>,
}

impl From<&ReasonReport> for Problem {
    fn from(reason: &ReasonReport) -> Self {
        let cure = Reason::from_code(&reason.code).map(|reason| Html::prose(reason.cure()));
        Self { code: reason.code.clone(), message: sentence(&reason.message), cure }
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{text}{end}")
}

/// With no more digits than a glance takes in.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let tenths = |unit: usize| (u128::from(bytes) * 10) >> (10 * (unit + 1));
    let Some(unit) = (0..UNITS.len()).rev().find(|unit| tenths(*unit) >= 10) else { return format!("{bytes} B") };
    match tenths(unit) {
        tenths if tenths < 1000 && !tenths.is_multiple_of(10) => {
            format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
        }
        tenths => format!("{} {}", tenths / 10, UNITS[unit]),
    }
}

pub(super) fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

pub(super) fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Copying => "copying",
        Phase::Proving => "reading back",
    }
}

/// `copying, 25 %`
pub(super) fn done(progress: &Progress) -> String {
    let doing = doing(progress.phase);
    match progress.total.filter(|total| *total > 0) {
        Some(total) => format!("{doing}, {} %", u128::from(progress.bytes) * 100 / u128::from(total)),
        None => format!("{doing}, {}", bytes(progress.bytes)),
    }
}

/// In the largest unit that is not zero: a page is looked at, not computed with.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn distance(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - at.as_second();
    match seconds {
        0..5 => "now".into(),
        5.. => format!("{} ago", span(seconds.unsigned_abs())),
        _ => format!("in {}", span(seconds.unsigned_abs())),
    }
}

/// `12,345`
pub(super) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_never_becomes_markup() {
        let evil = "<script>alert('x')</script> & `<b>`";
        let shown = Html::prose(evil).to_string();
        assert_eq!(shown, "&lt;script&gt;alert('x')&lt;/script&gt; &amp; <code>&lt;b&gt;</code>");
    }

    #[test]
    fn times_are_told_from_now() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let cases = [
            (1000, "now"),
            (990, "10 s ago"),
            (1200, "in 3 min"),
            (1000 - 7300, "2 h ago"),
            (1000 - 200_000, "2 days ago"),
        ];
        for (second, words) in cases {
            assert_eq!(distance(at(second), at(1000)), words);
        }
        let shown = Html::time(at(0), at(60)).to_string();
        assert_eq!(shown, "<time datetime=\"1970-01-01T00:00:00Z\" title=\"1970-01-01 00:00:00 UTC\">1 min ago</time>");
    }

    #[test]
    fn sizes_are_told_in_a_few_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (3 << 20, "3 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (size, words) in cases {
            assert_eq!(bytes(size), words);
        }
        assert_eq!(bytes((150 << 30) + (200 << 20)), "150 GiB");
    }

    #[test]
    fn every_state_has_a_sign_in_the_legend() {
        let signs = include_str!("templates/signs.html");
        for sign in ReplicaState::ALL.map(|state| Sign::from(state).sign) {
            assert!(LEGEND.iter().any(|(name, _)| *name == sign), "{sign}");
        }
        for (sign, _) in LEGEND {
            assert!(signs.contains(&format!("id=\"sign-{sign}\"")), "{sign}");
        }
    }
}
