//! TOML to be read by people: sentences as comments, keys with values, and secrets by the names of their variables.

/// Lines of TOML.
#[derive(Default)]
pub(super) struct Page(Vec<String>);

const WIDTH: usize = 100;

impl Page {
    /// Sentences, broken into lines.
    pub(super) fn comment(&mut self, text: &str) {
        self.indented(text, "");
    }

    /// One of several things to do.
    pub(super) fn item(&mut self, text: &str) {
        self.indented(&format!("- {text}"), "  ");
    }

    fn indented(&mut self, text: &str, indent: &str) {
        let mut line = "#".to_owned();
        for word in
            text.split(|letter: char| letter.is_whitespace() || letter.is_control()).filter(|word| !word.is_empty())
        {
            if line.len() + 1 + word.len() > WIDTH {
                self.0.push(std::mem::replace(&mut line, format!("# {indent}").trim_end().to_owned()));
                line.push_str(&" ".repeat(indent.len().saturating_sub(line.len() - 1)));
            }
            line.push(' ');
            line.push_str(word);
        }
        self.0.push(line);
    }

    pub(super) fn line(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }

    /// What may be put in force by hand.
    pub(super) fn proposal(&mut self, line: &str) {
        self.0.push(format!("# {line}"));
    }

    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The same, but nothing of it in force.
    pub(super) fn out_of_force(self) -> Self {
        let off = |line: String| if line.starts_with('#') { line } else { format!("# {line}") };
        Self(self.0.into_iter().map(off).collect())
    }

    pub(super) fn text(self) -> String {
        self.0.into_iter().flat_map(|line| [line, "\n".to_owned()]).collect()
    }
}

/// How values are written.
pub(super) struct Values {
    /// Secrets are copied.
    copy: bool,
    /// The variables that must be set, each with what it holds.
    pub variables: Vec<(String, String)>,
    /// A secret was copied.
    pub secret: bool,
}

impl Values {
    pub(super) fn new(copy: bool) -> Self {
        Self { copy, variables: Vec::new(), secret: false }
    }

    /// A secret stands in a variable, unless secrets are copied and this one can be. None: the files do not hold it.
    pub(super) fn secret(&mut self, variable: &str, holds: &str, secret: Option<&str>) -> String {
        match secret.filter(|secret| self.copy && can_stand(secret)) {
            Some(secret) => {
                self.secret = true;
                quoted(secret)
            }
            None => self.variable(variable, holds),
        }
    }

    /// Text stands as it is, unless Mimeo would take it for something else.
    pub(super) fn plain(&mut self, variable: &str, holds: &str, text: &str) -> String {
        if can_stand(text) { quoted(text) } else { self.variable(variable, holds) }
    }

    fn variable(&mut self, name: &str, holds: &str) -> String {
        let taken = |name: &String| self.variables.iter().any(|(other, _)| other == name);
        let name = unique(name, '_', taken);
        self.variables.push((name.clone(), holds.to_owned()));
        reference(&name)
    }
}

/// `${NAME}` and `file:PATH` have a meaning in Mimeo's configuration.
fn can_stand(text: &str) -> bool {
    !text.contains("${") && !text.starts_with("file:")
}

/// The value that a variable of the environment holds.
pub(super) fn reference(variable: &str) -> String {
    format!("\"${{{variable}}}\"")
}

/// A TOML string, on one line: written as in JSON, but for DEL.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// The header of a store's section.
pub(super) fn header(store: &str) -> String {
    match store.contains('.') {
        true => format!("[stores.{}]", quoted(store)),
        false => format!("[stores.{store}]"),
    }
}

/// The name of the variable for a store's key.
pub(super) fn variable(store: &str, key: &str) -> String {
    let name = format!("MIMEO_{store}_{key}").to_ascii_uppercase();
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

/// The name, or with a number after it the first that is not taken.
pub(super) fn unique(name: &str, separator: char, taken: impl Fn(&String) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{name}{separator}{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_broken_into_lines_that_fit() {
        let mut page = Page::default();
        page.comment(&"word ".repeat(30));
        page.item(&"word ".repeat(30));
        let text = page.text();
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        let words = |lines: &[&str]| lines.concat().matches("word").count();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((words(&lines[..2]), words(&lines[2..])), (30, 30));
        assert!(lines[1].starts_with("# word") && lines[2].starts_with("# - word") && lines[3].starts_with("#   word"));
    }

    #[test]
    fn a_secret_is_copied_only_where_it_was_asked_for_and_can_stand() {
        let mut values = Values::new(false);
        assert_eq!(values.secret("A", "a", Some("s3cret")), "\"${A}\"");
        assert_eq!(values.secret("A", "another a", Some("s3cret")), "\"${A_2}\"");
        assert!(!values.secret);
        let mut values = Values::new(true);
        assert_eq!(values.secret("A", "a", Some("s3\"\\")), r#""s3\"\\""#);
        assert_eq!(values.secret("B", "b", Some("s3${")), "\"${B}\"");
        assert_eq!(values.secret("C", "c", None), "\"${C}\"");
        assert!(values.secret);
        assert_eq!(values.variables, [("B", "b"), ("C", "c")].map(|(name, holds)| (name.to_owned(), holds.to_owned())));
    }
}
