//! File, environment and flags, laid over each other: flags win over the
//! environment, the environment over the file.
//!
//! A later layer hides a value, never a fault: a file with an unknown key is
//! refused even where a flag would have overridden it.

use super::document::{self, Text};
use super::fault::{Faults, Origin};
use super::schema::{self, KEYS, Kind};
use std::collections::BTreeMap;
use std::ffi::OsString;
use toml::de::{DeTable, DeValue};

/// Variables with our prefix that are not keys.
const OTHER_VARIABLES: &[&str] = &["MERESTONE_CONFIG", "MERESTONE_LOG", "MERESTONE_VECTORS"];

/// A value as given, its type checked against the schema and nothing else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Raw {
    /// A string.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
    /// A list; each item with its own place.
    List(Vec<(Self, Origin)>),
}

/// A value for a key, from the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Override {
    /// `table.key`.
    pub key: String,
    /// As typed; lists are comma-separated.
    pub value: String,
    /// The flag, for messages.
    pub flag: String,
}

/// All layers merged.
#[derive(Debug, Default)]
pub(super) struct Layers {
    values: BTreeMap<&'static str, (Raw, Origin)>,
    /// Things worth a line in the log that are not faults.
    pub(super) notes: Vec<String>,
}

impl Layers {
    /// The value of a key, taken out. Panics never: an unknown name is absent.
    pub(super) fn take(&mut self, name: &'static str) -> Option<(Raw, Origin)> {
        self.values.remove(name)
    }

    /// The lowest layer.
    pub(super) fn file(&mut self, text: &Text, faults: &mut Faults) {
        let table = text.parse(faults);
        self.table(text, "", &table, faults);
    }

    fn table(&mut self, text: &Text, prefix: &str, table: &DeTable<'_>, faults: &mut Faults) {
        for (key, value) in table {
            let name = match prefix {
                "" => key.get_ref().to_string(),
                _ => format!("{prefix}.{}", key.get_ref()),
            };
            let is_table = prefix.is_empty() && schema::tables().contains(&name.as_str());
            match (value.get_ref(), schema::find(&name)) {
                (DeValue::Table(inner), _) if is_table => self.table(text, &name, inner, faults),
                (other, _) if is_table => {
                    let message =
                        format!("`{name}` must be a table, found {}", document::kind(other));
                    faults.push(text.place(value), message, format!("write [{name}]"));
                }
                (_, None) => faults.push(
                    text.place(key),
                    format!("unknown key `{name}`"),
                    suggestion(&name),
                ),
                (given, Some(known)) => match raw(text, given, known.kind) {
                    Some(raw) => {
                        self.values.insert(known.name, (raw, text.place(value)));
                    }
                    None => faults.push(
                        text.place(value),
                        format!(
                            "`{name}` must be {}, found {}",
                            known.kind.words(),
                            document::kind(given)
                        ),
                        "",
                    ),
                },
            }
        }
    }

    /// The middle layer: `MERESTONE_TABLE_KEY`.
    pub(super) fn environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        faults: &mut Faults,
    ) {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("MERESTONE_")) else {
                continue;
            };
            let origin = Origin::Environment {
                name: name.to_owned(),
            };
            let Some(key) = KEYS.iter().find(|key| schema::variable(key.name) == name) else {
                self.unknown_variable(name, origin, faults);
                continue;
            };
            match value.to_str() {
                Some(value) => self.typed(key, value, origin, faults),
                None => faults.push(origin, "is not UTF-8", "set it to plain text"),
            }
        }
    }

    /// A near miss is a fault; what a container platform injects for a service
    /// called "merestone" (`MERESTONE_PORT_9464_TCP`, …) is only noted.
    fn unknown_variable(&mut self, name: &str, origin: Origin, faults: &mut Faults) {
        if OTHER_VARIABLES.contains(&name) {
            return;
        }
        let injected = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
            .iter()
            .any(|tail| name.ends_with(tail))
            || name.contains("_PORT_")
            || name.contains("_SERVICE_PORT_");
        let variables: Vec<String> = KEYS.iter().map(|key| schema::variable(key.name)).collect();
        let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
        match document::nearest(name, &variables) {
            Some(near) if !injected => {
                faults.push(origin, "sets no known key", format!("did you mean {near}?"));
            }
            _ => self
                .notes
                .push(format!("{origin} sets no known key and is ignored")),
        }
    }

    /// Whether a key was given as an empty string.
    pub(super) fn is_empty_text(&self, name: &str) -> bool {
        matches!(self.values.get(name), Some((Raw::Text(text), _)) if text.is_empty())
    }

    /// The highest layer.
    pub(super) fn flags(&mut self, overrides: &[Override], faults: &mut Faults) {
        for Override { key, value, flag } in overrides {
            let origin = Origin::Flag { name: flag.clone() };
            match schema::find(key) {
                Some(known) => self.typed(known, value, origin, faults),
                None => faults.push(origin, format!("unknown key `{key}`"), suggestion(key)),
            }
        }
    }

    fn typed(&mut self, key: &schema::Key, value: &str, origin: Origin, faults: &mut Faults) {
        let raw = match key.kind {
            Kind::Text | Kind::TextOrInteger => Some(Raw::Text(value.to_owned())),
            Kind::Integer => value.parse().ok().map(Raw::Integer),
            Kind::Boolean => value.parse().ok().map(Raw::Boolean),
            Kind::List => Some(Raw::List(
                value
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| (Raw::Text(item.to_owned()), origin.clone()))
                    .collect(),
            )),
        };
        match raw {
            Some(raw) => {
                self.values.insert(key.name, (raw, origin));
            }
            None => faults.push(
                origin,
                format!("`{}` must be {}", key.name, key.kind.words()),
                "",
            ),
        }
    }
}

fn raw(text: &Text, given: &DeValue<'_>, kind: Kind) -> Option<Raw> {
    match (kind, given) {
        (Kind::Text | Kind::TextOrInteger, DeValue::String(string)) => {
            Some(Raw::Text(string.to_string()))
        }
        (Kind::Integer | Kind::TextOrInteger, DeValue::Integer(_)) => {
            document::integer(given).map(Raw::Integer)
        }
        (Kind::Boolean, DeValue::Boolean(boolean)) => Some(Raw::Boolean(*boolean)),
        (Kind::List, DeValue::Array(items)) => items
            .iter()
            .map(|item| {
                let raw = raw(text, item.get_ref(), Kind::TextOrInteger)?;
                Some((raw, text.place(item)))
            })
            .collect::<Option<_>>()
            .map(Raw::List),
        _ => None,
    }
}

/// What an unknown key was probably meant to be.
fn suggestion(name: &str) -> String {
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    let (table, key) = name.rsplit_once('.').unwrap_or(("", name));
    if let Some(elsewhere) = names
        .iter()
        .find(|known| known.rsplit('.').next() == Some(key))
    {
        return format!("`{key}` belongs to `{elsewhere}`");
    }
    if let Some(near) = document::nearest(name, &names) {
        return format!("did you mean `{near}`?");
    }
    let siblings: Vec<&str> = names
        .iter()
        .filter_map(|known| match table {
            "" => (!known.contains('.')).then_some(*known),
            _ => known.strip_prefix(table)?.strip_prefix('.'),
        })
        .collect();
    if siblings.is_empty() {
        return format!("the tables are {}", schema::tables().join(", "));
    }
    format!("the keys here are {}", siblings.join(", "))
}
