//! What a database says of a network, in the forms its makers use.
//!
//! The country is where the network is (`country.iso_code`), not where it is
//! registered: that key is not read. Records of other shapes name no code.

use super::Kind;
use serde::Deserialize;
use std::fmt;

/// A country or an autonomous system.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Code {
    /// ISO 3166-1 alpha-2, capitals.
    Country([u8; 2]),
    /// An autonomous system's number.
    Asn(u32),
}

impl Code {
    /// The database that knows it.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Country(_) => Kind::Country,
            Self::Asn(_) => Kind::Asn,
        }
    }

    /// Two capital letters.
    #[must_use]
    pub fn country(text: &str) -> Option<Self> {
        let letters: [u8; 2] = text.as_bytes().try_into().ok()?;
        letters
            .iter()
            .all(u8::is_ascii_uppercase)
            .then_some(Self::Country(letters))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Country([a, b]) => write!(f, "{}{}", char::from(*a), char::from(*b)),
            Self::Asn(number) => write!(f, "AS{number}"),
        }
    }
}

/// The keys that are read; all others are passed over.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    #[serde(default)]
    country: Option<Country>,
    #[serde(default)]
    country_code: Option<String>,
    #[serde(default)]
    autonomous_system_number: Option<u32>,
    #[serde(default)]
    asn: Option<Asn>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Country {
    Place {
        #[serde(default)]
        iso_code: Option<String>,
    },
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Asn {
    Number(u32),
    Text(String),
}

impl Record {
    pub(super) fn code(&self, kind: Kind) -> Option<Code> {
        match kind {
            Kind::Country => match &self.country {
                Some(Country::Place {
                    iso_code: Some(code),
                }) => Code::country(code),
                Some(Country::Text(code)) if code.len() == 2 => Code::country(code),
                _ => Code::country(self.country_code.as_deref()?),
            },
            Kind::Asn => self
                .autonomous_system_number
                .or_else(|| match self.asn.as_ref()? {
                    Asn::Number(number) => Some(*number),
                    Asn::Text(text) => text.strip_prefix("AS")?.parse().ok(),
                })
                .map(Code::Asn),
        }
    }
}
