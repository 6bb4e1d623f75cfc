//! From the bytes of `boundary.toml` to a [`Boundary`], or to every reason why
//! not.
//!
//! It refuses what it does not know, and it knows the words of later versions
//! only to refuse them by name: half a boundary is no boundary.

use super::network::Network;
use super::{Action, Boundary, Deputies, LAST_RULE, Mode, PortRange, Protocol, Rule};
use crate::config::document::{self, Text, Value};
use crate::config::fault::Faults;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Keys at the top, and those of a rule and of `[mode]`.
const TOP: &[&str] = &[
    "name",
    "version",
    "allow",
    "deny",
    "mode",
    "deputies",
    "resolvers",
    "select",
];
const RULE: &[&str] = &[
    "cidr",
    "country",
    "asn",
    "name",
    "ports",
    "protocols",
    "mode",
    "comment",
];
const MODE: &[&str] = &["default"];
/// The keys of a rule that name destinations.
const DESTINATIONS: &[&str] = &["cidr", "country", "asn", "name"];
/// Words of the language that this version does not honour.
const TOP_LATER: &[&str] = &["grant"];

pub(super) const REFUSED: &str =
    "not supported by this version: the boundary is refused rather than half applied";

/// Parses a boundary; `path` is for messages.
pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Boundary, Faults> {
    let digest = Sha256::digest(&bytes).into();
    let text = Text::new(path, bytes)?;
    let mut faults = Faults::new();
    let table = text.parse(&mut faults);
    let mut parser = Parser {
        text: &text,
        sound: faults.is_empty(),
        faults,
    };
    let boundary = parser.boundary(path, digest, &table);
    parser.faults.into_result(boundary)
}

pub(super) struct Parser<'t> {
    pub(super) text: &'t Text,
    /// The syntax is whole, so what is missing is missing.
    pub(super) sound: bool,
    pub(super) faults: Faults,
}

impl Parser<'_> {
    fn boundary(&mut self, path: &Path, digest: [u8; 32], table: &DeTable<'_>) -> Boundary {
        self.keys(table, "", TOP, TOP_LATER);
        let name = table.get("name").and_then(|value| self.name(value));
        if name.is_none() && !table.contains_key("name") && self.sound {
            let hint = "write name = \"…\" at the top; it is shown wherever the boundary is";
            self.faults
                .push(self.text.at(0), "the boundary has no `name`", hint);
        }
        let mut mode = Mode::Enforce;
        if let Some(value) = table.get("mode") {
            match value.get_ref() {
                DeValue::Table(inner) => mode = self.mode(inner),
                other => self.wrong("mode", "a table", other, value, "write [mode]"),
            }
        }
        let version = table.get("version").and_then(|value| self.version(value));
        let deputies = table
            .get("deputies")
            .map_or_else(Deputies::default, |value| self.deputies(value));
        let selects = table
            .get("select")
            .map_or_else(Vec::new, |value| self.selects(value));
        let resolvers = table
            .get("resolvers")
            .and_then(|value| self.resolvers(value));
        let mut rules = Vec::new();
        for (key, action) in [("allow", Action::Allow), ("deny", Action::Deny)] {
            let Some(value) = table.get(key) else {
                continue;
            };
            match value.get_ref() {
                DeValue::Array(items) => {
                    for item in items {
                        rules.extend(self.rule(key, action, item));
                    }
                }
                other => {
                    let hint = format!("write [[{key}]], with two brackets");
                    self.wrong(key, "a list of tables", other, value, &hint);
                }
            }
        }
        rules.sort_by_key(|rule: &(usize, Rule)| rule.0);
        if let Some((start, _)) = rules.get(usize::from(LAST_RULE)) {
            let message = format!("a boundary has at most {LAST_RULE} rules");
            self.faults.push(
                self.text.at(*start),
                message,
                "put networks with the same ports into one rule",
            );
        }
        let numbered = (1..=LAST_RULE)
            .zip(rules)
            .map(|(number, (_, rule))| Rule { number, ..rule });
        Boundary {
            path: path.to_owned(),
            name: name.unwrap_or_default(),
            digest,
            version,
            mode,
            deputies,
            resolvers,
            selects,
            rules: numbered.collect(),
        }
    }

    /// Refuses unknown keys, and later ones by name.
    pub(super) fn keys(
        &mut self,
        table: &DeTable<'_>,
        whose: &str,
        known: &[&str],
        later: &[&str],
    ) {
        for (key, _) in table {
            let word: &str = key.get_ref();
            let place = self.text.place(key);
            if later.contains(&word) {
                self.faults
                    .push(place, format!("`{word}` is {REFUSED}"), "remove it");
            } else if !known.contains(&word) {
                let hint = match document::nearest(word, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the keys here are {}", known.join(", ")),
                };
                self.faults
                    .push(place, format!("unknown key `{word}`{whose}"), hint);
            }
        }
    }

    pub(super) fn wrong(
        &mut self,
        what: &str,
        expected: &str,
        found: &DeValue<'_>,
        at: &Value<'_>,
        hint: &str,
    ) {
        let found = document::kind(found);
        let message = format!("`{what}` must be {expected}, found {found}");
        self.faults.push(self.text.place(at), message, hint);
    }

    fn name(&mut self, value: &Value<'_>) -> Option<String> {
        let name = document::string(self.text, "`name`", value, &mut self.faults)?;
        let fits = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !fits {
            let hint = "1 to 64 letters, digits, dots, dashes";
            self.faults.push(
                self.text.place(value),
                format!("`name` cannot be {name:?}"),
                hint,
            );
        }
        Some(name.to_owned())
    }

    fn mode(&mut self, table: &DeTable<'_>) -> Mode {
        self.keys(table, " in [mode]", MODE, &[]);
        let Some(value) = table.get("default") else {
            return Mode::Enforce;
        };
        self.word_mode("default", value)
    }

    fn word_mode(&mut self, key: &str, value: &Value<'_>) -> Mode {
        let label = format!("`{key}`");
        let Some(word) = document::string(self.text, &label, value, &mut self.faults) else {
            return Mode::Enforce;
        };
        Mode::from_word(word).unwrap_or_else(|hint| {
            let message = format!("{label} cannot be {word:?}");
            self.faults.push(self.text.place(value), message, hint);
            Mode::Enforce
        })
    }

    /// One `[[allow]]` or `[[deny]]`, with where it begins.
    fn rule(&mut self, key: &str, action: Action, item: &Value<'_>) -> Option<(usize, Rule)> {
        let start = item.span().start;
        let DeValue::Table(table) = item.get_ref() else {
            let hint = format!("write [[{key}]]");
            self.wrong(key, "a list of tables", item.get_ref(), item, &hint);
            return None;
        };
        self.keys(table, &format!(" in [[{key}]]"), RULE, &[]);
        let mut networks = Vec::new();
        if let Some(value) = table.get("cidr") {
            networks = self.networks(value);
        }
        let mut geo = Vec::new();
        if let Some(value) = table.get("country") {
            self.countries(value, &mut geo);
        }
        if let Some(value) = table.get("asn") {
            self.asns(value, &mut geo);
        }
        let names = table
            .get("name")
            .map_or_else(Vec::new, |value| self.names(value));
        let names_one = |words: &[&str]| words.iter().any(|word| table.contains_key(*word));
        if self.sound && !names_one(DESTINATIONS) {
            self.faults.push(
                self.text.place(item),
                format!("this [[{key}]] names no destination"),
                "write cidr = [\"…\"], or remove the table",
            );
        }
        let audit = table
            .get("mode")
            .is_some_and(|value| self.word_mode("mode", value) == Mode::Audit);
        let ports = table.get("ports").map(|value| self.ports(value));
        let protocols = table.get("protocols").map(|value| self.protocols(value));
        let icmp = protocols
            .as_ref()
            .is_some_and(|list| list.contains(&Protocol::Icmp));
        if let Some(value) = table.get("ports").filter(|_| icmp) {
            let hint = "write a rule of its own for icmp";
            self.faults.push(
                self.text.place(value),
                "icmp has no ports: they would never match",
                hint,
            );
        }
        let rule = Rule {
            number: 0,
            action,
            line: self.text.line(start),
            networks,
            geo,
            names,
            ports,
            protocols,
            audit,
            comment: table.get("comment").and_then(|value| self.comment(value)),
        };
        Some((start, rule))
    }

    fn comment(&mut self, value: &Value<'_>) -> Option<String> {
        let comment = document::string(self.text, "`comment`", value, &mut self.faults)?;
        if comment.chars().any(char::is_control) || comment.chars().count() > 200 {
            let hint = "one line of at most 200 characters";
            self.faults
                .push(self.text.place(value), "`comment` does not fit", hint);
        }
        Some(comment.to_owned())
    }

    /// The items of a list that must not be empty.
    pub(super) fn items<'v, 'd>(
        &mut self,
        what: &str,
        value: &'v Value<'d>,
        hint: &str,
    ) -> &'v [Value<'d>] {
        let label = format!("`{what}`");
        let Some(list) = document::list(self.text, &label, value, &mut self.faults) else {
            return &[];
        };
        if list.is_empty() && self.sound {
            self.faults
                .push(self.text.place(value), format!("{label} is empty"), hint);
        }
        list
    }

    fn networks(&mut self, value: &Value<'_>) -> Vec<Network> {
        let mut networks = Vec::new();
        for item in self.items("cidr", value, "name a network, or remove the table") {
            let Some(text) = document::string(self.text, "a network", item, &mut self.faults)
            else {
                continue;
            };
            match Network::parse(text) {
                Ok(network) => networks.push(network),
                Err((message, hint)) => self.faults.push(self.text.place(item), message, hint),
            }
        }
        networks
    }

    fn ports(&mut self, value: &Value<'_>) -> Vec<PortRange> {
        let mut ports = Vec::new();
        for item in self.items("ports", value, "leave the key out for any port") {
            let range = match item.get_ref() {
                DeValue::String(text) => port_range(text),
                DeValue::Integer(_) => document::integer(item.get_ref())
                    .and_then(|port| u16::try_from(port).ok())
                    .filter(|port| *port > 0)
                    .map(|port| PortRange {
                        low: port,
                        high: port,
                    })
                    .ok_or_else(|| "a port is 1 to 65535".to_owned()),
                other => Err(format!("found {}", document::kind(other))),
            };
            match range {
                Ok(range) => ports.push(range),
                Err(why) => self.faults.push(
                    self.text.place(item),
                    format!("not a port or a range of ports: {why}"),
                    "write 443 or \"8000-8100\"",
                ),
            }
        }
        merged(ports)
    }

    fn protocols(&mut self, value: &Value<'_>) -> Vec<Protocol> {
        let mut protocols = Vec::new();
        for item in self.items("protocols", value, "leave the key out for any protocol") {
            let Some(word) = document::string(self.text, "a protocol", item, &mut self.faults)
            else {
                continue;
            };
            let place = self.text.place(item);
            match Protocol::from_word(word) {
                Some(protocol) if protocols.contains(&protocol) => {
                    self.faults
                        .push(place, format!("{word:?} is named twice"), "once is enough");
                }
                Some(protocol) => protocols.push(protocol),
                None => {
                    self.faults.push(
                        place,
                        format!("unknown protocol {word:?}"),
                        "write \"tcp\", \"udp\" or \"icmp\"",
                    );
                }
            }
        }
        protocols.sort_unstable();
        protocols
    }
}

/// `low-high`.
fn port_range(text: &str) -> Result<PortRange, String> {
    let number = |text: &str| -> Option<u16> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|port| digits && *port > 0)
    };
    let Some((low, high)) = text.split_once('-') else {
        return match number(text) {
            Some(port) => Err(format!("write {port} without quotes")),
            None => Err(format!("{text:?}")),
        };
    };
    match (number(low), number(high)) {
        (Some(low), Some(high)) if low <= high => Ok(PortRange { low, high }),
        (Some(low), Some(high)) => Err(format!("{low} is above {high}")),
        _ => Err(format!("{text:?}: a port is 1 to 65535")),
    }
}

/// Sorted, with ranges that touch made one: each costs a kernel entry.
fn merged(mut ports: Vec<PortRange>) -> Vec<PortRange> {
    ports.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(ports.len());
    for range in ports {
        match merged.last_mut() {
            Some(last) if range.low <= last.high.saturating_add(1) => {
                last.high = last.high.max(range.high);
            }
            _ => merged.push(range),
        }
    }
    merged
}
