//! BER made DER: clouds write their envelopes with lengths left open and strings in pieces.

/// Nesting beyond this is refused.
const DEEPEST: u8 = 24;
/// Bytes beyond this are not read.
pub(super) const MOST_BYTES: usize = 64 << 10;

const OCTETS: u8 = 0x04;
const OCTETS_IN_PIECES: u8 = 0x24;
const CONSTRUCTED: u8 = 0x20;

/// The one element that `bytes` is, in DER as far as lengths and octet strings go.
pub(super) fn der(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > MOST_BYTES {
        return None;
    }
    let (element, after) = element(bytes, 0)?;
    after.is_empty().then_some(element)
}

fn element(bytes: &[u8], depth: u8) -> Option<(Vec<u8>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    if depth > DEEPEST || tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, mut rest) = rest.split_first()?;
    let is_constructed = tag & CONSTRUCTED != 0;
    if first == 0x80 {
        if !is_constructed {
            return None;
        }
        let mut inside = Vec::new();
        loop {
            if let [0, 0, after @ ..] = rest {
                return Some((written(tag, &inside)?, after));
            }
            let (child, after) = element(rest, depth + 1)?;
            inside.extend(piece(tag, child)?);
            rest = after;
        }
    }
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        rest = after;
        if digits.len() > 4 {
            return None;
        }
        digits
            .iter()
            .fold(0, |sum: usize, digit| sum << 8 | usize::from(*digit))
    };
    let (mut contents, after) = rest.split_at_checked(length)?;
    if !is_constructed {
        return Some((written(tag, contents)?, after));
    }
    let mut inside = Vec::new();
    while !contents.is_empty() {
        let (child, after) = element(contents, depth + 1)?;
        inside.extend(piece(tag, child)?);
        contents = after;
    }
    Some((written(tag, &inside)?, after))
}

/// What a child adds to its parent: of a string in pieces, only what is in the piece.
fn piece(parent: u8, child: Vec<u8>) -> Option<Vec<u8>> {
    if parent != OCTETS_IN_PIECES {
        return Some(child);
    }
    crate::ek::der::only(&child, OCTETS).map(<[u8]>::to_vec)
}

fn written(tag: u8, contents: &[u8]) -> Option<Vec<u8>> {
    let tag = if tag == OCTETS_IN_PIECES { OCTETS } else { tag };
    let mut out = vec![tag];
    match u8::try_from(contents.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length = u32::try_from(contents.len()).ok()?.to_be_bytes();
            let digits: Vec<u8> = length.into_iter().skip_while(|digit| *digit == 0).collect();
            out.push(0x80 | u8::try_from(digits.len()).ok()?);
            out.extend(digits);
        }
    }
    out.extend(contents);
    Some(out)
}
