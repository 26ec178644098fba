//! Files as oslo.config reads them: an indented line goes on with the value before it, `$name` stands for another option,
//! and of several files the last one that has an option wins.

use std::{cell::RefCell, collections::BTreeMap};

/// Each section with its options; an option may be given several times.
type Sections = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// A line that oslo.config refuses too. It is never shown: it may hold a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub line: usize,
    pub rule: &'static str,
}

/// What several files say together, and what is to be told about them.
#[derive(Default)]
pub(super) struct Files {
    parsed: Vec<Sections>,
    notes: RefCell<Vec<String>>,
}

/// Options that stand for each other no deeper than this.
const DEEPEST: usize = 8;

/// And no more of them in one value: each may stand for several others.
const MOST: usize = 256;

/// What became of one value's options.
struct Expansion {
    /// How many more may be put in.
    left: usize,
    /// All were known so far.
    known: bool,
}

impl Files {
    /// The next file: what it says wins over those before.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Malformed> {
        self.parsed.push(parse(text)?);
        Ok(())
    }

    pub(super) fn has(&self, section: &str) -> bool {
        self.parsed.iter().any(|sections| sections.contains_key(&normal(section)))
    }

    /// None also for one that is empty.
    pub(super) fn option(&self, section: &str, key: &str) -> Option<String> {
        let value = self.expanded(self.last(section, key)?, section, key);
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Every value of an option that may be given several times.
    pub(super) fn every(&self, section: &str, key: &str) -> Vec<String> {
        let values = self.parsed.iter().filter_map(|sections| sections.get(&normal(section))?.get(key));
        values.flatten().map(|value| self.expanded(value, section, key)).filter(|value| !value.is_empty()).collect()
    }

    /// What is neither true nor false is told, and taken for not given.
    pub(super) fn flag(&self, section: &str, key: &str) -> Option<bool> {
        let value = self.option(section, key)?;
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Some(true),
            "false" | "0" | "off" | "no" => Some(false),
            _ => {
                self.unread(section, key, "is neither true nor false");
                None
            }
        }
    }

    /// What is no whole number is told, and taken for not given.
    pub(super) fn number(&self, section: &str, key: &str) -> Option<i64> {
        let value = self.option(section, key)?;
        let number = value.parse().ok();
        if number.is_none() {
            self.unread(section, key, "is no whole number");
        }
        number
    }

    /// Tells once that an option was not understood, without its value.
    pub(super) fn unread(&self, section: &str, key: &str, why: &str) {
        self.note(format!("[{section}] {key} {why}; it is left out"));
    }

    /// A URL of an option without the credentials in it, which are told once.
    pub(super) fn bare(&self, section: &str, key: &str, url: &str) -> String {
        let bare = mimeo_core::bare(url);
        if bare != url {
            self.note(format!("[{section}] {key} has credentials in its URL; they are left out"));
        }
        bare
    }

    pub(super) fn note(&self, note: String) {
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    pub(super) fn into_notes(self) -> Vec<String> {
        self.notes.into_inner()
    }

    fn last(&self, section: &str, key: &str) -> Option<&str> {
        let found = self.parsed.iter().rev().find_map(|sections| sections.get(&normal(section))?.get(key))?;
        found.last().map(String::as_str)
    }

    fn expanded(&self, value: &str, section: &str, key: &str) -> String {
        let mut expansion = Expansion { left: MOST, known: true };
        let value = self.expand(value, section, 0, &mut expansion);
        if !expansion.known {
            self.note(format!(
                "[{section}] {key} names an option with $ that is not in these files; it is left as it is"
            ));
        }
        value
    }

    fn expand(&self, text: &str, section: &str, depth: usize, expansion: &mut Expansion) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '\\']) {
            expanded.push_str(&rest[..at]);
            rest = &rest[at..];
            let (taken, value) = if rest.starts_with("\\$") || rest.starts_with("$$") {
                (2, "$".to_owned())
            } else if let Some((taken, name)) = rest.strip_prefix('$').and_then(reference) {
                let named = self.named(name, section).filter(|_| depth < DEEPEST && expansion.left > 0);
                expansion.left = expansion.left.saturating_sub(1);
                expansion.known &= named.is_some();
                let value = named.map(|(section, value)| self.expand(value, section, depth + 1, expansion));
                (1 + taken, value.unwrap_or_else(|| rest[..=taken].to_owned()))
            } else {
                (1, rest[..1].to_owned())
            };
            expanded.push_str(&value);
            rest = &rest[taken..];
        }
        expanded + rest
    }

    /// `group.option`, else the section's own option, else that of `[DEFAULT]`.
    fn named<'a>(&'a self, name: &'a str, section: &'a str) -> Option<(&'a str, &'a str)> {
        let (own, key) = name.split_once('.').unwrap_or((section, name));
        let own = self.last(own, key).map(|value| (own, value));
        own.or_else(|| self.last("DEFAULT", name).map(|value| ("DEFAULT", value)))
    }
}

/// `name` or `{name}`, with the number of bytes that it takes.
fn reference(text: &str) -> Option<(usize, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        let (name, _) = braced.split_once('}')?;
        return (identifier(name) == name.len() && !name.is_empty()).then_some((name.len() + 2, name));
    }
    Some(identifier(text)).filter(|length| *length > 0).map(|length| (length, &text[..length]))
}

/// How many bytes at the start of the text are the name of an option.
fn identifier(text: &str) -> usize {
    let first = |byte: u8| byte == b'_' || byte.is_ascii_alphabetic();
    match text.bytes().next().is_some_and(first) {
        true => text.bytes().position(|byte| !(first(byte) || byte == b'.' || byte.is_ascii_digit())),
        false => Some(0),
    }
    .unwrap_or(text.len())
}

/// The elements of a list, with or without brackets.
pub(super) fn list(text: &str) -> Vec<String> {
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// Names of sections count without their case, but for `[DEFAULT]`.
fn normal(section: &str) -> String {
    if section == "DEFAULT" { section.to_owned() } else { section.to_lowercase() }
}

fn parse(text: &str) -> Result<Sections, Malformed> {
    let mut sections = Sections::new();
    let mut section: Option<String> = None;
    // Where an indented line belongs.
    let mut open: Option<&mut String> = None;
    for (at, line) in text.lines().enumerate() {
        let malformed = |rule| Malformed { line: at + 1, rule };
        let line = line.trim_end();
        if line.is_empty() {
            open = None;
        } else if line.starts_with([' ', '\t']) {
            let value = open.as_deref_mut().ok_or_else(|| malformed("an indented line without an option before it"))?;
            value.push('\n');
            value.push_str(line.trim_start());
        } else if let Some(name) = line.strip_prefix('[') {
            let name = name.strip_suffix(']').ok_or_else(|| malformed("a section without its \"]\""))?;
            let name =
                Some(name).filter(|name| !name.is_empty()).ok_or_else(|| malformed("a section without a name"))?;
            sections.entry(normal(name)).or_default();
            section = Some(normal(name));
            open = None;
        } else if line.starts_with(['#', ';']) {
            open = None;
        } else {
            let (key, value) = line.split_once(['=', ':']).ok_or_else(|| malformed("neither \"=\" nor \":\" in it"))?;
            let key =
                Some(key.trim()).filter(|key| !key.is_empty()).ok_or_else(|| malformed("an option without a name"))?;
            let section = section.clone().ok_or_else(|| malformed("an option before the first section"))?;
            let values = sections.entry(section).or_default().entry(key.to_owned()).or_default();
            values.push(unquoted(value.trim()).to_owned());
            open = values.last_mut();
        }
    }
    Ok(sections)
}

/// Without the quotes around it, if it has them at both ends.
fn unquoted(value: &str) -> &str {
    let within = |quote| value.strip_prefix(quote).and_then(|value: &str| value.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> Files {
        let mut files = Files::default();
        for text in texts {
            files.add(text).unwrap();
        }
        files
    }

    fn option(text: &str, key: &str) -> Option<String> {
        files(&[text]).option("a", key)
    }

    #[test]
    fn values_are_what_oslo_config_makes_of_them() {
        let text =
            "[a]\nx=1\ny : b = c\nz = 'q # no comment'\nhalf = \"q\n\tlist =  d,\n e\n\n# f\n;g\nlast = ; h\nnone =\n";
        for (key, value) in [("x", "1"), ("y", "b = c"), ("z", "q # no comment"), ("last", "; h")] {
            assert_eq!(option(text, key).as_deref(), Some(value), "{key}");
        }
        // The indented line goes on with the value before it, whatever it looks like.
        assert_eq!(option(text, "half").unwrap(), "\"q\nlist =  d,\ne");
        assert_eq!((option(text, "list"), option(text, "none")), (None, None));
        assert_eq!(option("[A]\r\nx = 1\r\n", "x").unwrap(), "1");
        assert_eq!(list(" [a, b ,\nc,] "), ["a", "b ", "c"].map(str::trim));
    }

    #[test]
    fn what_oslo_config_refuses_is_refused_with_its_line() {
        let cases = [
            ("x = 1", 1, "an option before the first section"),
            ("[a]\n  x = 1", 2, "an indented line without an option before it"),
            ("[a]\nx = 1\n\n y", 4, "an indented line without an option before it"),
            ("[a]\nsecret", 2, "neither \"=\" nor \":\" in it"),
            ("[a]\n= 1", 2, "an option without a name"),
            ("[a", 1, "a section without its \"]\""),
            ("[]", 1, "a section without a name"),
        ];
        for (text, line, rule) in cases {
            assert_eq!(Files::default().add(text), Err(Malformed { line, rule }), "{text:?}");
        }
    }

    #[test]
    fn the_last_value_wins_within_a_file_and_among_files() {
        let files = files(&["[a]\nx = 1\nx = 2\ny = 3\n[a]\nz = 4", "[a]\nx = 5\nx = 6\nz ="]);
        let option = |key| files.option("a", key);
        assert_eq!((option("x"), option("y"), option("z")), (Some("6".into()), Some("3".into()), None));
        assert_eq!(files.every("a", "x"), ["1", "2", "5", "6"]);
    }

    #[test]
    fn options_stand_for_others() {
        let files =
            files(&["[DEFAULT]\nip = 10.0.0.1\nhost = ${ip}:80\nloop = $loop\n[b]\nip = 10.0.0.2\nown = $ip\n\
             up = x$host/\nother = $a.ip $nowhere\npaid = 5$$ \\$ip $ \\n $1\nround = $loop\n[a]\nip = 10.0.0.3"]);
        let option = |key| files.option("b", key).unwrap();
        assert_eq!((option("own"), option("up")), ("10.0.0.2".into(), "x10.0.0.1:80/".into()));
        assert_eq!(option("paid"), "5$ $ip $ \\n $1");
        assert_eq!(option("other"), "10.0.0.3 $nowhere");
        assert_eq!(option("round"), "$loop");
        assert_eq!(
            files.into_notes(),
            ["other", "round"]
                .map(|key| format!("[b] {key} names an option with $ that is not in these files; it is left as it is"))
        );
    }

    #[test]
    fn options_that_stand_for_many_others_come_to_an_end() {
        let files = files(&["[DEFAULT]\nmany = $many$many$many$many$many$many$many$many$many$many"]);
        assert!(files.option("DEFAULT", "many").is_some_and(|value| value.len() < 100_000));
        assert_eq!(files.into_notes().len(), 1);
    }

    #[test]
    fn what_is_no_number_and_no_truth_is_told_without_its_value() {
        let files = files(&["[a]\non = Yes\noff = 0\nodd = s3cret\nn = -1"]);
        assert_eq!(
            (files.flag("a", "on"), files.flag("a", "off"), files.flag("a", "odd")),
            (Some(true), Some(false), None)
        );
        assert_eq!((files.number("a", "n"), files.number("a", "odd")), (Some(-1), None));
        let notes = files.into_notes();
        assert!(notes.len() == 2 && !notes.concat().contains("s3cret"), "{notes:?}");
    }
}
