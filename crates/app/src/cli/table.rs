//! Results as rows or fields, in the formats and with the column options of openstackclient.

use clap::ValueEnum;
use comfy_table::{Table, presets::ASCII_FULL_CONDENSED};
use serde_json::{Map, Value};

use super::{Failure, Outcome, visible};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
    Value,
    Csv,
}

/// How the one who asked wants to see the result.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    pub format: Format,
    /// Empty: all of them.
    pub columns: Vec<String>,
}

impl Style {
    /// Whether a list of these columns can be shown so; for what is done before there is one to show.
    pub(crate) fn suits(&self, columns: &[&str]) -> Outcome {
        choose(columns, &self.columns).map(|_| ())
    }
}

/// Many things of one kind: a row for each.
#[derive(Debug)]
pub(crate) struct Listing {
    /// As in a table's head; `Next try` is `next_try` for machines.
    pub columns: &'static [&'static str],
    pub rows: Vec<Vec<Value>>,
}

/// One thing: its fields, named as machines read them.
#[derive(Debug)]
pub(crate) struct Record(pub Vec<Field>);

#[derive(Debug)]
pub(crate) struct Field {
    pub name: &'static str,
    pub value: Value,
    /// For people, where the value itself is more than one cell can show: its lines.
    pub lines: Option<Vec<String>>,
}

impl Field {
    pub(crate) fn new(name: &'static str, value: impl Into<Value>) -> Self {
        Self { name, value: value.into(), lines: None }
    }

    fn shown(&self) -> String {
        match &self.lines {
            Some(lines) => lines.iter().map(|line| visible(line)).collect::<Vec<_>>().join("\n"),
            None => plain(&self.value, ""),
        }
    }
}

impl Listing {
    pub(crate) fn render(&self, style: &Style) -> Outcome<String> {
        let chosen = choose(self.columns, &style.columns)?;
        let heads: Vec<&str> = chosen.iter().map(|at| self.columns[*at]).collect();
        let rows = self.rows.iter().map(|row| chosen.iter().map(|at| &row[*at]).collect::<Vec<_>>());
        let object = |row: Vec<&Value>| {
            let keys = heads.iter().map(|head| (*head).to_owned());
            Value::Object(keys.zip(row.into_iter().cloned()).collect::<Map<_, _>>())
        };
        let texts =
            |none: &'static str| rows.clone().map(move |row| row.iter().map(|cell| plain(cell, none)).collect());
        match style.format {
            Format::Table => Ok(table(&heads, texts(""))),
            Format::Json => json(&Value::Array(rows.map(object).collect())),
            Format::Yaml => yaml(&Value::Array(rows.map(object).collect())),
            Format::Value => Ok(texts("None").map(|row: Vec<String>| row.join(" ") + "\n").collect()),
            Format::Csv => csv(&heads, rows),
        }
    }
}

impl Record {
    pub(crate) fn render(&self, style: &Style) -> Outcome<String> {
        let names: Vec<&str> = self.0.iter().map(|field| field.name).collect();
        let chosen = choose(&names, &style.columns)?;
        let fields = chosen.iter().map(|at| &self.0[*at]);
        let object = || {
            let pairs = fields.clone().map(|field| (field.name.to_owned(), field.value.clone()));
            Value::Object(pairs.collect())
        };
        match style.format {
            Format::Table => {
                Ok(table(&["Field", "Value"], fields.map(|field| vec![field.name.to_owned(), field.shown()])))
            }
            Format::Json => json(&object()),
            Format::Yaml => yaml(&object()),
            Format::Value => Ok(fields.map(|field| plain(&field.value, "None") + "\n").collect()),
            Format::Csv => {
                let heads: Vec<&str> = fields.clone().map(|field| field.name).collect();
                csv(&heads, std::iter::once(fields.map(|field| &field.value).collect()))
            }
        }
    }
}

/// A column's name for machines.
fn key(head: &str) -> String {
    head.to_lowercase().replace(' ', "_")
}

/// The places of the wanted columns, in the order of the table; names of either kind are taken.
fn choose(columns: &[&str], wanted: &[String]) -> Outcome<Vec<usize>> {
    let is = |column: &str, name: &str| key(column) == key(name);
    if let Some(unknown) = wanted.iter().find(|name| !columns.iter().any(|column| is(column, name))) {
        let known = columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("there is no column \"{unknown}\"; known: {known}")));
    }
    let places = columns.iter().enumerate();
    let chosen = places.filter(|(_, column)| wanted.is_empty() || wanted.iter().any(|name| is(column, name)));
    Ok(chosen.map(|(at, _)| at).collect())
}

/// A cell as text, on one line; what has parts of its own stays JSON.
fn plain(value: &Value, none: &str) -> String {
    match value {
        Value::Null => none.to_owned(),
        Value::String(text) => visible(text),
        other => visible(&other.to_string()),
    }
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_FULL_CONDENSED.header_separator(comfy_table::LineStyle::new('+', '-', '+', '+')));
    table.set_header(heads);
    table.add_rows(rows);
    format!("{table}\n")
}

fn json(value: &Value) -> Outcome<String> {
    let text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
    Ok(text + "\n")
}

fn yaml(value: &Value) -> Outcome<String> {
    Ok(serde_yaml_ng::to_string(value).map_err(anyhow::Error::from)?)
}

fn csv<'a>(heads: &[&str], rows: impl Iterator<Item = Vec<&'a Value>>) -> Outcome<String> {
    let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::NonNumeric).from_writer(Vec::new());
    writer.write_record(heads).map_err(anyhow::Error::from)?;
    for row in rows {
        writer.write_record(row.iter().map(|cell| plain(cell, ""))).map_err(anyhow::Error::from)?;
    }
    let bytes = writer.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listing() -> Listing {
        Listing {
            columns: &["ID", "Next try"],
            rows: vec![vec![json!("a b"), json!(null)], vec![json!("c"), json!(3)]],
        }
    }

    fn style(format: Format, columns: &[&str]) -> Style {
        Style { format, columns: columns.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn a_list_looks_as_openstackclient_shows_it() {
        let render = |format| listing().render(&style(format, &[])).unwrap();
        assert_eq!(
            render(Format::Table),
            "+-----+----------+\n| ID  | Next try |\n+-----+----------+\n| a b |          |\n| c   | 3        |\n\
             +-----+----------+\n"
        );
        let parsed: Value = serde_json::from_str(&render(Format::Json)).unwrap();
        assert_eq!(parsed, json!([{"ID": "a b", "Next try": null}, {"ID": "c", "Next try": 3}]));
        assert_eq!(render(Format::Yaml), "- ID: a b\n  Next try: null\n- ID: c\n  Next try: 3\n");
        assert_eq!(render(Format::Value), "a b None\nc 3\n");
        assert_eq!(render(Format::Csv), "\"ID\",\"Next try\"\n\"a b\",\"\"\n\"c\",3\n");
    }

    #[test]
    fn one_thing_is_shown_as_fields_and_values() {
        let long = Field {
            lines: Some(vec!["for people".into(), "and\u{1b} more".into()]),
            ..Field::new("parts", json!([1]))
        };
        let record = Record(vec![Field::new("state", "registered"), long]);
        let render = |format| record.render(&style(format, &[])).unwrap();
        let table = render(Format::Table);
        assert!(table.contains("for people") && table.contains(r"and\u{1b} more"), "{table}");
        assert_eq!(
            serde_json::from_str::<Value>(&render(Format::Json)).unwrap(),
            json!({"state": "registered", "parts": [1]})
        );
        assert_eq!(render(Format::Value), "registered\n[1]\n");
        assert_eq!(render(Format::Csv), "\"state\",\"parts\"\n\"registered\",\"[1]\"\n");
    }

    #[test]
    fn a_tenants_name_commands_no_terminal_and_stays_as_it_is_in_json() {
        let name = "a\u{1b}]0;b\u{7}\n\u{202e}c";
        let listing = Listing { columns: &["Name"], rows: vec![vec![json!(name)], vec![json!([name])]] };
        for format in [Format::Table, Format::Value, Format::Csv] {
            let shown = listing.render(&style(format, &[])).unwrap();
            assert!(shown.contains(r"a\u{1b}]0;b\u{7}\n\u{202e}c"), "{shown}");
            assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
        }
        let parsed: Value = serde_json::from_str(&listing.render(&style(Format::Json, &[])).unwrap()).unwrap();
        assert_eq!(parsed[0]["Name"], name);
    }

    #[test]
    fn columns_are_chosen_by_either_name_and_unknown_ones_are_wrong_usage() {
        for name in ["Next try", "next_try", "NEXT TRY"] {
            assert_eq!(listing().render(&style(Format::Value, &[name])).unwrap(), "None\n3\n");
        }
        let failure = listing().render(&style(Format::Value, &["Size"])).unwrap_err();
        assert_eq!(failure.code, 2);
        assert_eq!(failure.message, "there is no column \"Size\"; known: \"ID\", \"Next try\"");
    }
}
