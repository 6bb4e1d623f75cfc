//! Which TPM a certificate speaks of: the directory name in its subject alternative name.
//!
//! TCG EK Credential Profile 2.5, 3.2.9: manufacturer, model and version as attributes
//! `2.23.133.2.1` to `.3`. Vendors put them in one relative name or in three, in any order, and
//! add names of other forms beside it; all of that is read.

use super::der::{self, DIRECTORY_NAME, OID, SEQUENCE, SET, element, elements, only};

/// 2.23.133.2, as DER writes it.
const TCG_AT: [u8; 4] = [0x67, 0x81, 0x05, 0x02];
/// Longest value that is kept.
const MAX_VALUE: usize = 128;

/// What a certificate says of its TPM.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// `id:` and the vendor's number in hexadecimal, as certified.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// Firmware version.
    pub version: String,
}

impl Identity {
    /// Reads a `SubjectAltName`'s value. `Err` says what is not as the profile wants it.
    pub(super) fn read(san: &[u8]) -> Result<Self, &'static str> {
        let names = only(san, SEQUENCE)
            .and_then(elements)
            .ok_or("its subject alternative name is malformed")?;
        let mut found = Vec::new();
        for name in names.iter().filter(|name| name.tag == DIRECTORY_NAME) {
            let one = directory_name(name.contents)
                .ok_or("the directory name in its subject alternative name is malformed")?;
            found.extend(one);
        }
        let mut identity = Self::default();
        for (number, value) in found {
            let slot = match number {
                1 => &mut identity.manufacturer,
                2 => &mut identity.model,
                3 => &mut identity.version,
                _ => continue,
            };
            if !slot.is_empty() {
                return Err("its subject alternative name names a TPM twice");
            }
            *slot = value;
        }
        let named = [&identity.manufacturer, &identity.model, &identity.version];
        if named.iter().any(|value| value.is_empty()) {
            return Err(
                "its subject alternative name lacks the TPM's manufacturer, model or version",
            );
        }
        Ok(identity)
    }

    /// The vendor's number as the text it mostly is: `id:494E5443` is `INTC`.
    #[must_use]
    pub fn vendor(&self) -> String {
        let number = self
            .manufacturer
            .strip_prefix("id:")
            .and_then(|digits| hex::decode(digits).ok())
            .filter(|bytes| bytes.len() == 4);
        let text = number.and_then(|bytes| {
            let text: Vec<u8> = bytes.into_iter().filter(|byte| *byte != 0).collect();
            let is_text = !text.is_empty()
                && text
                    .iter()
                    .all(|byte| byte.is_ascii_graphic() || *byte == b' ');
            is_text.then(|| String::from_utf8_lossy(&text).trim_end().to_owned())
        });
        text.unwrap_or_else(|| self.manufacturer.clone())
    }
}

/// The TCG attributes of a `Name`, by their last number.
fn directory_name(contents: &[u8]) -> Option<Vec<(u8, String)>> {
    let mut found = Vec::new();
    for relative in elements(only(contents, SEQUENCE)?)? {
        if relative.tag != SET {
            return None;
        }
        for attribute in elements(relative.contents)? {
            if attribute.tag != SEQUENCE {
                return None;
            }
            let (kind, rest) = element(attribute.contents)?;
            let (value, rest) = element(rest)?;
            if kind.tag != OID || !rest.is_empty() {
                return None;
            }
            if let Some([number]) = kind.contents.strip_prefix(&TCG_AT) {
                found.push((*number, text(&value)?));
            }
        }
    }
    Some(found)
}

/// A string of any of the types that names are written in.
fn text(value: &der::Element<'_>) -> Option<String> {
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    const TELETEX: u8 = 0x14;
    const IA5: u8 = 0x16;
    if !matches!(value.tag, UTF8 | PRINTABLE | TELETEX | IA5) || value.contents.len() > MAX_VALUE {
        return None;
    }
    let text = core::str::from_utf8(value.contents).ok()?;
    let is_plain = !text.is_empty() && !text.chars().any(char::is_control);
    is_plain.then(|| text.to_owned())
}
