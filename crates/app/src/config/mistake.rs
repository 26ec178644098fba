//! Mistakes in a configuration: each with its file, line and key.

use std::{
    cell::RefCell,
    fmt,
    path::{Path, PathBuf},
};

/// Why there is no configuration to work with. Its text is for the operator; each mistake has a line of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{}", NOT_FOUND)]
    NotFound,
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}", Lines(.0))]
    Mistakes(Vec<Mistake>),
}

const NOT_FOUND: &str = r#"no configuration found. Looked for: --config FILE, $MIMEO_CONFIG, ./mimeo.toml, /etc/mimeo/mimeo.toml
The least that a mimeo.toml needs:

    enabled_stores = ["http1"]

    [stores.http1]
    type = "http"
    url = "http://10.0.0.11/images/"

    [openstack]
    cloud = "admin"

Or try `mimeo demo`, which needs no file."#;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mistake {
    line: usize,
    file: String,
    /// Dotted, as in `stores.http1.url`; empty for the file as a whole.
    key: String,
    message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

struct Lines<'a>(&'a [Mistake]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.0.iter().enumerate() {
            write!(f, "{}{mistake}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Collects what is wrong with one file.
pub(super) struct Mistakes {
    file: String,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
    found: RefCell<Vec<Mistake>>,
}

impl Mistakes {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        Self { file: path.display().to_string(), lines, found: RefCell::default() }
    }

    /// `at` is a position in the file, in bytes.
    pub(super) fn add(&self, at: usize, key: impl Into<String>, message: impl Into<String>) {
        let line = self.lines.partition_point(|start| *start <= at);
        let mistake = Mistake { line, file: self.file.clone(), key: key.into(), message: message.into() };
        self.found.borrow_mut().push(mistake);
    }

    /// The mistakes in the order of their lines; `None` if there are none.
    pub(super) fn finish(self) -> Option<Vec<Mistake>> {
        let mut found = self.found.into_inner();
        found.sort();
        found.dedup();
        (!found.is_empty()).then_some(found)
    }
}
