//! Names, and the form in which they are looked up.
//!
//! A name's key is its text backwards in lower case, then a zero:
//! `a.example.eu` is `ue.elpmaxe.a\0`. A wildcard's key ends with its dot and
//! without the zero, so that one longest-prefix match finds the most specific
//! of all rules: `*.example.eu` is `ue.elpmaxe.`, which is a prefix of every
//! name below, at any depth, and not of `example.eu` itself.

/// Bytes of a key. The kernel's trie holds 256, four of which say whose it is
/// (kernel/bpf/lpm_trie.c `LPM_DATA_SIZE_MAX`).
pub const KEY_BYTES: usize = 252;

/// A name's key, padded with zeros.
pub type Key = [u8; KEY_BYTES];

/// The key that nothing was written to.
pub const OPEN_KEY: Key = [0; KEY_BYTES];

/// The longest name on the wire, without the zero at its end (RFC 1035 §3.1).
pub(crate) const WIRE_BYTES: u32 = 254;

/// What a byte of a label is in a key: letters in lower case, digits, `-` and
/// `_`; 0 for all others, which no name of a rule has and which could be taken
/// for a dot or an end.
static FOLDED: [u8; 256] = folded();

const fn folded() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        if character.is_ascii_alphanumeric() || character == b'-' || character == b'_' {
            table[byte] = character.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
}

#[inline(always)]
pub(crate) fn fold(byte: u8) -> u8 {
    FOLDED[byte as usize]
}

/// The key of a rule's name, `a.example.eu` or `*.example.eu`, and how many of
/// its bits must match. None for what is not such a name.
#[must_use]
pub fn pattern_key(text: &str) -> Option<(Key, u32)> {
    let (rest, wildcard) = match text.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| fold(byte) != 0)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if rest.len() >= KEY_BYTES || !rest.split('.').all(is_label) {
        return None;
    }
    let mut key = OPEN_KEY;
    for (slot, byte) in key.iter_mut().zip(rest.bytes().rev()) {
        *slot = if byte == b'.' { byte } else { fold(byte) };
    }
    if wildcard && let Some(slot) = key.get_mut(rest.len()) {
        *slot = b'.';
    }
    // The dot of a wildcard and the zero of a name both count.
    let bytes = u32::try_from(rest.len() + 1).ok()?;
    Some((key, bytes * 8))
}

/// Writes the text of a key into `text` and says how long it is. A wildcard's
/// dot is not told from a name's end.
#[must_use]
pub fn key_text<'t>(key: &Key, text: &'t mut [u8; KEY_BYTES]) -> &'t str {
    let length = key.iter().position(|byte| *byte == 0).unwrap_or(KEY_BYTES);
    for (slot, byte) in text.iter_mut().zip(key.iter().take(length).rev()) {
        *slot = *byte;
    }
    let text = text.get(..length).unwrap_or_default();
    core::str::from_utf8(text).unwrap_or_default()
}
