//! The words of the boundary beyond its rules' networks and ports: countries,
//! operators, deputies, selects, the version.

use super::parse::Parser;
use super::{Deputies, Place, PodSelector, Select, Selector, Selects};
use crate::config::document::{self, Value};
use crate::geo::Code;
use merestone_abi::SELECTOR_BYTES;
use toml::de::{DeTable, DeValue};

const DEPUTIES: &[&str] = &["loopback", "unix"];
const SELECT: &[&str] = &["cgroup", "unit", "pod", "boundary"];
const POD: &[&str] = &["namespace", "labels"];

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
            let same = selects.iter().find(|one| one.selects == select.selects);
            if let Some(first) = same {
                let message = format!("{} is selected twice", select.selects);
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
        let cgroup = table.get("cgroup").and_then(|value| {
            self.selector("cgroup", value, is_path)
                .map(Selector::Cgroup)
        });
        let unit = table
            .get("unit")
            .and_then(|value| self.selector("unit", value, is_unit).map(Selector::Unit));
        let pods = table.get("pod").and_then(|value| self.pods(value));
        let given = ["cgroup", "unit", "pod"]
            .iter()
            .filter(|key| table.contains_key(**key))
            .count();
        if self.sound && given != 1 {
            self.faults.push(
                self.text.place(item),
                "a [[select]] names one of `cgroup`, `unit` and `pod`",
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
            selects: match cgroup.or(unit) {
                Some(place) => Selects::Place(place),
                None => Selects::Pods(pods?),
            },
            boundary,
            origin: self.text.place(value),
            line: self.text.line(item.span().start),
        })
    }

    /// `{ namespace = "…", labels = { app = "…" } }`.
    fn pods(&mut self, value: &Value<'_>) -> Option<PodSelector> {
        let hint = "write pod = { namespace = \"serving\", labels = { app = \"vllm\" } }";
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong("pod", "a table", value.get_ref(), value, hint);
            return None;
        };
        self.keys(table, " in `pod`", POD, &[]);
        let namespace = table.get("namespace");
        let namespace = namespace.map(|value| self.selector("namespace", value, is_namespace));
        let mut labels = std::collections::BTreeMap::new();
        match table.get("labels").map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Table(given))) => {
                for (key, value) in given {
                    let name: &str = key.get_ref();
                    if let Err(hint) = is_label(name) {
                        let message = format!("{name:?} is not the key of a label");
                        self.faults.push(self.text.place(key), message, hint);
                    }
                    if let Some(text) = self.selector("label", value, is_label_value) {
                        labels.insert(name.to_owned(), text);
                    }
                }
            }
            Some((value, other)) => self.wrong("labels", "a table", other, value, hint),
            None => {}
        }
        let says_nothing = namespace.is_none() && labels.is_empty();
        if self.sound && says_nothing && self.faults.is_empty() {
            let message = "this `pod` names neither a namespace nor a label";
            self.faults.push(self.text.place(value), message, hint);
        }
        Some(PodSelector {
            namespace: match namespace {
                Some(given) => Some(given?),
                None => None,
            },
            labels,
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

/// RFC 1123, as Kubernetes has it.
fn is_namespace(text: &str) -> Result<(), &'static str> {
    let plain = (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain {
        Ok(())
    } else {
        Err("a namespace: at most 63 small letters, digits and dashes")
    }
}

/// A name with dots and underscores, perhaps below a domain and a slash.
fn is_label(text: &str) -> Result<(), &'static str> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let domain = |prefix: &str| {
        (1..=253).contains(&prefix.len())
            && prefix.split('.').all(|part| is_namespace(part).is_ok())
    };
    if prefix.is_none_or(domain) && !name.is_empty() && is_label_value(name).is_ok() {
        Ok(())
    } else {
        Err("write it as Kubernetes does, as in app or \"app.kubernetes.io/name\"")
    }
}

fn is_label_value(text: &str) -> Result<(), &'static str> {
    let ends = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    let plain = text.len() <= 63
        && ends(text.bytes().next())
        && ends(text.bytes().last())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if plain {
        Ok(())
    } else {
        Err("the value of a label: at most 63 letters, digits, dots, dashes and underscores")
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
