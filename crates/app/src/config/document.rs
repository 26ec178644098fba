//! The TOML file with its positions: sections whose keys are checked against what is known, and values that report
//! their own mistakes.

use std::{
    collections::BTreeMap,
    env, fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::mistake::Mistakes;

/// A parsed file, and where its mistakes go.
pub(super) struct Document<'a> {
    root: DeTable<'a>,
    mistakes: &'a Mistakes,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Document<'a> {
    /// None, with its mistakes noted, for a file that is no TOML.
    pub(super) fn parse(
        text: &'a str,
        mistakes: &'a Mistakes,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            mistakes.add(at, "", format!("this is no TOML: {}", error.message()));
        }
        errors.is_empty().then(|| Self { root: root.into_inner(), mistakes, environment })
    }

    pub(super) fn root(&self) -> Section<'_> {
        Section { document: self, layers: vec![Layer { path: String::new(), at: 0, table: &self.root }] }
    }

    /// The section of this name; an empty one where the file has none.
    pub(super) fn section(&self, name: &str) -> Section<'_> {
        let layers = self.root().get(name).and_then(|item| item.table()).map(|section| section.layers);
        Section { document: self, layers: layers.unwrap_or_default() }
    }

    pub(super) fn add(&self, at: usize, key: impl Into<String>, message: impl Into<String>) {
        self.mistakes.add(at, key, message);
    }

    /// What the environment made of `raw`, beside what stands in the file: the whole, and each variable by itself, since
    /// a message may show a part of a value only.
    fn replaced(&self, raw: &str) -> Vec<(String, String)> {
        let whole = expand(raw, self.environment).ok().map(|text| (text, raw.to_owned()));
        let names = raw.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        let each = names.filter_map(|name| Some(((self.environment)(name)?, format!("${{{name}}}"))));
        whole.into_iter().chain(each).filter(|(held, written)| !held.is_empty() && held != written).collect()
    }
}

/// A table, perhaps over another that gives what it lacks: `[stores.a]` over `[store_defaults]`.
#[derive(Clone)]
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    /// The first one that has a key wins. None at all: every key has its default.
    layers: Vec<Layer<'a>>,
}

#[derive(Clone)]
struct Layer<'a> {
    path: String,
    at: usize,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    pub(super) fn exists(&self) -> bool {
        !self.layers.is_empty()
    }

    /// This section, with what it lacks taken from `below`.
    pub(super) fn over(mut self, below: &Self) -> Self {
        self.layers.extend(below.layers.iter().cloned());
        self
    }

    pub(super) fn get(&self, key: &str) -> Option<Item<'a>> {
        self.layers.iter().find_map(|layer| {
            let value = layer.table.get(key)?;
            Some(Item { document: self.document, path: layer.key(key), value })
        })
    }

    /// As [`get`](Self::get), but not from what lies beneath.
    pub(super) fn own(&self, key: &str) -> Option<Item<'a>> {
        let layer = self.layers.first()?;
        Some(Item { document: self.document, path: layer.key(key), value: layer.table.get(key)? })
    }

    /// Notes every key of its own (not of what lies beneath) that is not among `known`, with the nearest one.
    pub(super) fn allow(&self, known: &[&str]) {
        self.allow_but(known, &|_| None);
    }

    /// The same, where of some keys more can be said.
    pub(super) fn allow_but(&self, known: &[&str], cure: &dyn Fn(&str) -> Option<String>) {
        let Some(layer) = self.layers.first() else { return };
        for (key, _) in layer.table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let message = format!("unknown key; {}", cure(name).unwrap_or_else(|| suggestion(name, known)));
            self.document.add(key.span().start, layer.key(name), message);
        }
    }

    /// What a variable of the environment holds; `None` also where that is nothing.
    #[cfg(feature = "s3")]
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.document.environment)(name).filter(|value| !value.trim().is_empty())
    }

    /// The keys of its own, each with the position of its name.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'a str, usize)> {
        let table = self.layers.first().map(|layer| layer.table);
        table.into_iter().flat_map(|table| table.iter().map(|(key, _)| (key.get_ref().as_ref(), key.span().start)))
    }

    /// A mistake about a key that is not there.
    pub(super) fn missing(&self, key: &str, message: &str) {
        let (at, path) = self.layers.first().map_or((0, key.to_owned()), |layer| (layer.at, layer.key(key)));
        self.document.add(at, path, message);
    }

    /// What the key says, or `default`; `default` also, with the mistake noted, for what `read` refuses.
    pub(super) fn value<T>(&self, key: &str, default: T, read: impl Fn(&Item<'a>) -> Option<T>) -> T {
        self.get(key).and_then(|item| read(&item)).unwrap_or(default)
    }
}

impl Layer<'_> {
    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// One value with its key. Its readers note what is wrong and then give `None`.
#[derive(Clone)]
pub(super) struct Item<'a> {
    document: &'a Document<'a>,
    path: String,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    /// Notes a mistake. What a variable of the environment held is told as it stands in the file: it may be a secret.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        let mut message = message.into();
        if let Some(raw) = self.value.get_ref().as_str() {
            for (held, written) in self.document.replaced(raw) {
                message = message.replace(&held, &written);
            }
        }
        self.document.add(self.value.span().start, self.path.clone(), message);
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        let number = self.number_as_written().map_or(String::new(), |number| format!(" ({number})"));
        self.wrong(format!("expected {what}, found {}{number}", article(self.value.get_ref().type_str())));
        None
    }

    fn number_as_written(&self) -> Option<&str> {
        let value = self.value.get_ref();
        value.as_integer().map(toml::de::DeInteger::as_str).or_else(|| Some(value.as_float()?.as_str()))
    }

    pub(super) fn table(&self) -> Option<Section<'a>> {
        let Some(table) = self.value.get_ref().as_table() else { return self.expected("a section") };
        let layer = Layer { path: self.path.clone(), at: self.value.span().start, table };
        Some(Section { document: self.document, layers: vec![layer] })
    }

    /// The elements of an array, each with its place in its key, as in `rules[2]`.
    pub(super) fn array(&self) -> Option<Vec<Item<'a>>> {
        let Some(array) = self.value.get_ref().as_array() else { return self.expected("a list") };
        let item = |(at, value)| Item { document: self.document, path: format!("{}[{}]", self.path, at + 1), value };
        Some(array.deref().iter().enumerate().map(item).collect())
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.value.get_ref().as_bool().or_else(|| self.expected("true or false"))
    }

    pub(super) fn is_number(&self) -> bool {
        self.value.get_ref().as_integer().is_some()
    }

    /// A whole number of at least `least`.
    pub(super) fn number(&self, least: u64) -> Option<u64> {
        let Some(integer) = self.value.get_ref().as_integer() else { return self.expected("a whole number") };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|number| *number >= least);
        if number.is_none() {
            self.wrong(format!("{integer} is not a whole number of at least {least}"));
        }
        number
    }

    /// As it stands in the file. What is shown in messages: variables may hold secrets.
    pub(super) fn raw(&self) -> Option<&'a str> {
        self.value.get_ref().as_str().or_else(|| self.expected("a string in quotes"))
    }

    /// With each `${NAME}` replaced by that variable of the environment.
    pub(super) fn text(&self) -> Option<String> {
        match expand(self.raw()?, self.document.environment) {
            Ok(text) => Some(text),
            Err(message) => {
                self.wrong(message);
                None
            }
        }
    }

    /// Text that follows a rule; `read` says which one it broke.
    pub(super) fn parse<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        // A number without its unit: the rule says how it is written.
        if let Some(Err(message)) = self.number_as_written().map(&read) {
            self.wrong(message);
            return None;
        }
        match read(&self.text()?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(message);
                None
            }
        }
    }

    /// One of `choices`, by its name.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.parse(|text| {
            let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
            found.ok_or_else(|| format!("unknown value \"{text}\"; known: {}", names.join(", ")))
        })
    }

    /// Text, or `file:PATH`: the text that this file holds, without the white space around it.
    pub(super) fn secret(&self, directory: &Path) -> Option<String> {
        match resolve(self.raw()?, self.document.environment, directory) {
            Ok(secret) => Some(secret),
            Err(message) => {
                self.wrong(message);
                None
            }
        }
    }
}

/// A path of this machine: relative to the configuration file's directory, or to the home directory after `~/`.
pub(super) fn of_this_machine(directory: &Path, text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => directory.join(text),
    }
}

/// What a secret is: the text with its variables replaced, or what the file holds that it names.
pub(super) fn resolve(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    directory: &Path,
) -> Result<String, String> {
    let text = expand(text, environment)?;
    let Some(path) = text.strip_prefix("file:") else { return Ok(text) };
    let path = of_this_machine(directory, path);
    match fs::read_to_string(&path) {
        Ok(secret) => Ok(secret.trim().to_owned()),
        Err(error) => {
            let path = path.display();
            Err(format!("the secret file {path} cannot be read: {error}; create it, readable for mimeo"))
        }
    }
}

fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("a \"${\" without its \"}\"")?;
        let value = environment(name).ok_or_else(|| {
            format!(
                "the environment variable {name} is not set; set it for every command, or put the value \
                into a file and write file:PATH here"
            )
        })?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// `did you mean "url"?`, or all that is known where nothing is near.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    let near: BTreeMap<usize, &str> = known.iter().rev().map(|key| (strsim::osa_distance(name, key), *key)).collect();
    match near.first_key_value() {
        Some((distance, nearest)) if *distance <= 1 + nearest.len() / 3 => format!("did you mean \"{nearest}\"?"),
        Some(_) => format!("known: {}", known.join(", ")),
        None => "nothing is known here".to_owned(),
    }
}

fn article(kind: &str) -> String {
    if kind.starts_with(['a', 'i']) { format!("an {kind}") } else { format!("a {kind}") }
}
