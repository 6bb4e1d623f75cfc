//! The few steps of DER that are taken by hand: where a certificate's signed part ends, and
//! names whose sets vendors leave unsorted, which a strict parser refuses.

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const OID: u8 = 0x06;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
/// `directoryName [4]` of a `GeneralName`; explicit, since a `Name` is a choice.
pub(super) const DIRECTORY_NAME: u8 = 0xa4;

/// One element: its tag, its contents, and all of its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'b> {
    pub(super) tag: u8,
    pub(super) contents: &'b [u8],
    pub(super) whole: &'b [u8],
}

/// The first element of `bytes`, and what comes after it.
pub(super) fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        rest = after;
        let length = digits
            .iter()
            .fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
        // The shortest form, as DER demands: one certificate has one encoding.
        let is_shortest = length >= 0x80 && digits.first().is_some_and(|digit| *digit != 0);
        if !is_shortest {
            return None;
        }
        length
    };
    let (contents, after) = rest.split_at_checked(length)?;
    let whole = bytes.get(..bytes.len().saturating_sub(after.len()))?;
    let element = Element {
        tag,
        contents,
        whole,
    };
    Some((element, after))
}

/// The element that `bytes` is, with nothing after it.
pub(super) fn only(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (element, after) = element(bytes)?;
    (after.is_empty() && element.tag == tag).then_some(element.contents)
}

/// Every element of `bytes`; `None` where something is left over.
pub(super) fn elements(mut bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (element, after) = element(bytes)?;
        all.push(element);
        bytes = after;
    }
    Some(all)
}

/// A positive integer without its leading zero.
pub(super) fn positive(element: &Element<'_>) -> Option<Vec<u8>> {
    if element.tag != INTEGER {
        return None;
    }
    match element.contents {
        [] => None,
        [0] => Some(vec![0]),
        [0, rest @ ..] => rest
            .first()
            .is_some_and(|byte| byte & 0x80 != 0)
            .then(|| rest.to_vec()),
        [first, ..] if first & 0x80 != 0 => None,
        all => Some(all.to_vec()),
    }
}
