//! A TOML file in which every key and value knows its place.
//!
//! The syntax is `toml`'s; this module adds places, strictness and the habit
//! of reporting all faults. It refuses to guess: a value of the wrong type is
//! a fault, never converted.

use super::fault::{Faults, Origin};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// A value with its byte range.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// The text of a file and where its lines begin.
#[derive(Debug)]
pub(crate) struct Text {
    path: PathBuf,
    content: String,
    lines: Vec<usize>,
}

impl Text {
    /// Takes the bytes of `path`; they must be UTF-8, as TOML demands.
    pub(crate) fn new(path: &Path, bytes: Vec<u8>) -> Result<Self, Faults> {
        let (text, broken) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                (
                    String::from_utf8_lossy(error.as_bytes()).into_owned(),
                    Some(at),
                )
            }
        };
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        let this = Self {
            path: path.to_owned(),
            content: text,
            lines,
        };
        let mut faults = Faults::new();
        if let Some(at) = broken {
            faults.push(this.at(at), "is not UTF-8", "save the file as UTF-8 text");
        }
        faults.into_result(this)
    }

    /// The place of a byte offset.
    pub(crate) fn at(&self, offset: usize) -> Origin {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let column = self
            .content
            .get(start..offset)
            .map_or(0, |before| before.chars().count());
        Origin::File {
            path: self.path.clone(),
            line: line.max(1),
            column: column + 1,
        }
    }

    /// The line of a byte offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).max(1)
    }

    /// The place of anything with a span.
    pub(crate) fn place<T>(&self, spanned: &Spanned<T>) -> Origin {
        self.at(spanned.span().start)
    }

    /// Parses, noting every syntax fault; what could be understood is returned.
    pub(crate) fn parse(&self, faults: &mut Faults) -> DeTable<'_> {
        let (table, errors) = DeTable::parse_recoverable(&self.content);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().trim().replace('\n', ", ");
            let hint = if message.contains("duplicate key") {
                "a key or table may be given once; merge them"
            } else {
                ""
            };
            faults.push(self.at(at), message, hint);
        }
        table.into_inner()
    }
}

/// What a value is, in words.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The integer, if it is one and fits.
pub(crate) fn integer(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        _ => None,
    }
}

/// The string, or a fault.
pub(crate) fn string<'v>(
    text: &Text,
    what: &str,
    value: &'v Value<'_>,
    faults: &mut Faults,
) -> Option<&'v str> {
    match value.get_ref() {
        DeValue::String(string) => Some(string),
        other => {
            let message = format!("{what} must be a string, found {}", kind(other));
            faults.push(text.place(value), message, "");
            None
        }
    }
}

/// The list, or a fault.
pub(crate) fn list<'v, 't>(
    text: &Text,
    what: &str,
    value: &'v Value<'t>,
    faults: &mut Faults,
) -> Option<&'v DeArray<'t>> {
    match value.get_ref() {
        DeValue::Array(array) => Some(array),
        other => {
            let message = format!("{what} must be a list, found {}", kind(other));
            faults.push(text.place(value), message, "put it in brackets: [ ]");
            None
        }
    }
}

/// The entry of `known` that `word` was probably meant to be.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance (Levenshtein), one row at a time.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = index;
        let mut previous = index + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&right) {
            let cost = diagonal + usize::from(from != *to);
            diagonal = *cell;
            previous = cost.min(previous + 1).min(*cell + 1);
            *cell = previous;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let text = Text::new(Path::new("f"), "a\nöb = 1\n".into()).unwrap();
        let Origin::File { line, column, .. } = text.at(4) else {
            panic!("a place in a file");
        };
        assert_eq!((line, column), (2, 2));
    }

    #[test]
    fn every_syntax_fault_of_a_file_is_reported() {
        let text = Text::new(Path::new("f"), b"a = \nb = 1\nb = 2\n[t]\n[t]\n".to_vec()).unwrap();
        let mut faults = Faults::new();
        text.parse(&mut faults);
        let faults = faults.into_result(()).unwrap_err().to_string();
        assert_eq!(
            faults.lines().filter(|l| l.starts_with("f:")).count(),
            3,
            "{faults}"
        );
        assert!(faults.contains("f:3:1: duplicate key"), "{faults}");
        assert!(faults.contains("f:5:2: duplicate key"), "{faults}");
    }

    #[test]
    fn a_file_that_is_not_utf8_says_where() {
        let faults = Text::new(Path::new("f"), b"a = 1\nb = \"\xff\"\n".to_vec()).unwrap_err();
        assert!(
            faults.to_string().starts_with("f:2:6: is not UTF-8"),
            "{faults}"
        );
    }

    #[test]
    fn a_misspelt_word_finds_the_one_it_was_meant_to_be() {
        assert_eq!(
            nearest("protocol", &["ports", "protocols"]),
            Some("protocols")
        );
        assert_eq!(nearest("destination", &["ports", "protocols"]), None);
    }
}
