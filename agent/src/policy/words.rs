//! The words of the boundary beyond its rules' networks and ports: countries,
//! operators, deputies, selects, the version.

use super::parse::{Parser, REFUSED};
use super::{Deputies, Place, Select, Selector};
use crate::config::document::{self, Value};
use crate::geo::Code;
use merestone_abi::SELECTOR_BYTES;
use toml::de::{DeTable, DeValue};

const DEPUTIES: &[&str] = &["loopback", "unix"];
const SELECT: &[&str] = &["cgroup", "unit", "boundary"];
/// Labels live in the cluster, not on the host.
const SELECT_LATER: &[&str] = &["pod"];

impl Parser<'_> {
    pub(super) fn countries(&mut self, value: &Value<'_>, places: &mut Vec<Place>) {
        for item in self.items("country", value, "name a country, or remove the key") {
            let Some(text) = document::string(self.text, "a country", item, &mut self.faults)
            else {
                continue;
            };
            let origin = self.text.place(item);
            match Code::country(text) {
                Some(code) => places.push(Place { code, origin }),
                None => self.faults.push(
                    origin,
                    format!("{text:?} is not a country"),
                    "write two capital letters of ISO 3166-1, as in \"DE\"",
                ),
            }
        }
    }

    pub(super) fn asns(&mut self, value: &Value<'_>, places: &mut Vec<Place>) {
        for item in self.items("asn", value, "name an operator, or remove the key") {
            let origin = self.text.place(item);
            let number = match item.get_ref() {
                DeValue::Integer(_) => {
                    document::integer(item.get_ref()).and_then(|number| u32::try_from(number).ok())
                }
                _ => None,
            };
            match number.filter(|number| *number > 0) {
                Some(number) => places.push(Place {
                    code: Code::Asn(number),
                    origin,
                }),
                None => self.faults.push(
                    origin,
                    "not the number of an autonomous system",
                    "write it as a number, as in 64500",
                ),
            }
        }
    }

    pub(super) fn version(&mut self, value: &Value<'_>) -> Option<u64> {
        let number = match value.get_ref() {
            DeValue::Integer(_) => document::integer(value.get_ref()),
            _ => None,
        };
        let number = number.and_then(|number| u64::try_from(number).ok());
        if number.is_none_or(|number| number == 0) {
            self.faults.push(
                self.text.place(value),
                "`version` must be a number from 1",
                "count it up with every change",
            );
        }
        number
    }

    pub(super) fn deputies(&mut self, value: &Value<'_>) -> Deputies {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(
                "deputies",
                "a table",
                value.get_ref(),
                value,
                "write [deputies]",
            );
            return Deputies::default();
        };
        self.keys(table, " in [deputies]", DEPUTIES, &[]);
        let deny_loopback = self.denies(table, "loopback");
        let deny_unix = self.denies(table, "unix");
        Deputies {
            deny_loopback,
            deny_unix,
        }
    }

    fn denies(&mut self, table: &DeTable<'_>, key: &str) -> bool {
        let Some(value) = table.get(key) else {
            return false;
        };
        let label = format!("`{key}`");
        let Some(word) = document::string(self.text, &label, value, &mut self.faults) else {
            return false;
        };
        if !matches!(word, "report" | "deny") {
            self.faults.push(
                self.text.place(value),
                format!("{label} cannot be {word:?}"),
                "write \"report\" or \"deny\"",
            );
        }
        word == "deny"
    }

    pub(super) fn selects(&mut self, value: &Value<'_>) -> Vec<Select> {
        let DeValue::Array(items) = value.get_ref() else {
            let hint = "write [[select]], with two brackets";
            self.wrong("select", "a list of tables", value.get_ref(), value, hint);
            return Vec::new();
        };
        let mut selects: Vec<Select> = Vec::new();
        for item in items {
            let Some(select) = self.select(item) else {
                continue;
            };
            let same = selects.iter().find(|one| one.selector == select.selector);
            if let Some(first) = same {
                let message = format!("{} is selected twice", select.selector);
                let hint = format!("the first is in line {}", first.line);
                self.faults.push(self.text.place(item), message, hint);
            }
            selects.push(select);
        }
        selects
    }

    fn select(&mut self, item: &Value<'_>) -> Option<Select> {
        let DeValue::Table(table) = item.get_ref() else {
            self.wrong(
                "select",
                "a list of tables",
                item.get_ref(),
                item,
                "write [[select]]",
            );
            return None;
        };
        self.keys(table, " in [[select]]", SELECT, &[]);
        for word in SELECT_LATER {
            if let Some((key, _)) = table.get_key_value(*word) {
                self.faults.push(
                    self.text.place(key),
                    format!("`{word}` in [[select]] is {REFUSED}"),
                    "pod labels are not known on the host: name the pod's cgroup",
                );
            }
        }
        let cgroup = table.get("cgroup").and_then(|value| {
            self.selector("cgroup", value, is_path)
                .map(Selector::Cgroup)
        });
        let unit = table
            .get("unit")
            .and_then(|value| self.selector("unit", value, is_unit).map(Selector::Unit));
        let given = SELECT_LATER
            .iter()
            .chain(&["cgroup", "unit"])
            .filter(|key| table.contains_key(**key))
            .count();
        if self.sound && given != 1 {
            self.faults.push(
                self.text.place(item),
                "a [[select]] names one of `cgroup` and `unit`",
                "write a [[select]] for each",
            );
        }
        let Some(value) = table.get("boundary") else {
            if self.sound {
                let hint = "write boundary = \"strict\" for the file strict.toml beside this one";
                self.faults.push(
                    self.text.place(item),
                    "this [[select]] names no `boundary`",
                    hint,
                );
            }
            return None;
        };
        let boundary = self.selector("boundary", value, is_stem)?;
        Some(Select {
            selector: cgroup.or(unit)?,
            boundary,
            origin: self.text.place(value),
            line: self.text.line(item.span().start),
        })
    }

    fn selector(
        &mut self,
        key: &str,
        value: &Value<'_>,
        fits: fn(&str) -> Result<(), &'static str>,
    ) -> Option<String> {
        let label = format!("`{key}`");
        let text = document::string(self.text, &label, value, &mut self.faults)?;
        match fits(text) {
            Ok(()) => Some(text.to_owned()),
            Err(hint) => {
                self.faults.push(
                    self.text.place(value),
                    format!("{label} cannot be {text:?}"),
                    hint,
                );
                None
            }
        }
    }
}

/// One byte is for the end.
fn fits(text: &str) -> bool {
    text.len() < SELECTOR_BYTES && !text.chars().any(char::is_control)
}

fn is_path(text: &str) -> Result<(), &'static str> {
    let rooted = text.strip_prefix('/').filter(|rest| !rest.is_empty());
    let plain = rooted.is_some_and(|rest| {
        rest.split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
    });
    if plain && fits(text) {
        Ok(())
    } else {
        Err(
            "a cgroup path below the root, of at most 255 bytes, as in \"/system.slice/vllm.service\"",
        )
    }
}

fn is_unit(text: &str) -> Result<(), &'static str> {
    let kinds = [".service", ".scope", ".slice"];
    let named = kinds
        .iter()
        .any(|kind| text.strip_suffix(kind).is_some_and(|name| !name.is_empty()));
    if named && !text.contains('/') && fits(text) {
        Ok(())
    } else {
        Err("a unit with its kind, as in \"vllm.service\"")
    }
}

fn is_stem(text: &str) -> Result<(), &'static str> {
    let plain = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if plain {
        Ok(())
    } else {
        Err("the name of a file beside this one, without .toml: letters, digits, dashes")
    }
}
