//! A distinguished name, for comparing and for showing.
//!
//! Two names are the same when every attribute is, in whatever string type and case it is
//! written (RFC 5280, 7.1), and in whatever order the attributes of one relative name stand.

use super::der::{Element, OID, SEQUENCE, SET, element, elements, only};
use core::fmt::Write as _;

/// Longest name that is shown.
const MAX_SHOWN: usize = 200;

/// A distinguished name: of each relative name the attributes, by kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Name(Vec<Vec<Attribute>>);

#[derive(Clone, Debug)]
struct Attribute {
    kind: Vec<u8>,
    /// Lower case, for comparing.
    value: Vec<u8>,
    /// As written.
    text: String,
}

impl PartialEq for Attribute {
    fn eq(&self, other: &Self) -> bool {
        (&self.kind, &self.value) == (&other.kind, &other.value)
    }
}

impl Eq for Attribute {}

impl Name {
    pub(super) fn read(name: &Element<'_>) -> Option<Self> {
        let relative = elements(only(name.whole, SEQUENCE)?)?;
        relative
            .iter()
            .map(attributes)
            .collect::<Option<_>>()
            .map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For people: no control characters, and not without end.
    pub(super) fn shown(&self) -> String {
        let mut text = String::new();
        for attribute in self.0.iter().flatten() {
            let gap = if text.is_empty() { "" } else { ", " };
            let label = label(&attribute.kind);
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{gap}{label}{}", attribute.text);
        }
        if text.is_empty() {
            return "(a certificate with an empty subject)".to_owned();
        }
        let plain = text.chars().map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        });
        plain.take(MAX_SHOWN).collect()
    }
}

fn attributes(relative: &Element<'_>) -> Option<Vec<Attribute>> {
    if relative.tag != SET {
        return None;
    }
    let mut all = Vec::new();
    for attribute in elements(relative.contents)? {
        let (kind, rest) = element(only(attribute.whole, SEQUENCE)?)?;
        let (value, rest) = element(rest)?;
        if kind.tag != OID || !rest.is_empty() {
            return None;
        }
        all.push(Attribute {
            kind: kind.contents.to_vec(),
            value: value.contents.to_ascii_lowercase(),
            text: String::from_utf8_lossy(value.contents).into_owned(),
        });
    }
    all.sort_by(|one, other| (&one.kind, &one.value).cmp(&(&other.kind, &other.value)));
    Some(all)
}

/// The letters that RFC 4514 gives the usual attributes.
fn label(kind: &[u8]) -> &'static str {
    match kind {
        [0x55, 4, 3] => "CN=",
        [0x55, 4, 6] => "C=",
        [0x55, 4, 7] => "L=",
        [0x55, 4, 8] => "ST=",
        [0x55, 4, 10] => "O=",
        [0x55, 4, 11] => "OU=",
        _ => "",
    }
}
