//! A walk over CBOR that allocates nothing and accepts only the deterministic form.
//!
//! It runs before any decoder: after it, every length in the bytes is backed by
//! bytes, nesting is bounded, and there is exactly one item and nothing after it.
//! It doesn't know which map keys a type has; re-encoding does that.

/// Why bytes are not one deterministic CBOR item within bounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// More bytes than this kind of object may have.
    #[error("{got} bytes where at most {limit} are allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes end inside an item.
    #[error("truncated at byte {at}")]
    Truncated {
        /// Offset of the item.
        at: usize,
    },
    /// Arrays and maps are nested too deep.
    #[error("nested deeper than {limit} at byte {at}")]
    TooDeep {
        /// Offset of the item.
        at: usize,
        /// Levels allowed.
        limit: usize,
    },
    /// A length or number is not in its shortest form.
    #[error("not the shortest form at byte {at}")]
    NotShortest {
        /// Offset of the item.
        at: usize,
    },
    /// Indefinite length, tag, float, undefined: never used here.
    #[error("initial byte {initial:#04x} at byte {at} is not used in this format")]
    Forbidden {
        /// Offset of the item.
        at: usize,
        /// The byte.
        initial: u8,
    },
    /// Text that is not UTF-8.
    #[error("text at byte {at} is not utf-8")]
    NotText {
        /// Offset of the item.
        at: usize,
    },
    /// Bytes after the end of the item.
    #[error("{extra} bytes after the end")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

impl ShapeError {
    /// The same of bytes in which everything behind `from` stands `by` further on.
    pub(crate) const fn moved(mut self, from: usize, by: usize) -> Self {
        match &mut self {
            Self::Truncated { at }
            | Self::TooDeep { at, .. }
            | Self::NotShortest { at }
            | Self::Forbidden { at, .. }
            | Self::NotText { at } => {
                if *at > from {
                    *at = at.saturating_add(by);
                }
            }
            Self::TooLong { .. } | Self::Trailing { .. } => {}
        }
        self
    }
}

/// Checks that `bytes` is one deterministic item at most `depth` levels deep.
pub(crate) fn check(bytes: &[u8], depth: usize) -> Result<(), ShapeError> {
    let mut walk = Walk { bytes, at: 0 };
    // Items still open at each level; a plain stack, so that depth costs no recursion.
    let mut open: [u64; MAX_DEPTH] = [0; MAX_DEPTH];
    let limit = depth.min(MAX_DEPTH);
    let mut level = 0;
    loop {
        let at = walk.at;
        let children = walk.item()?;
        if children > 0 {
            if level >= limit {
                return Err(ShapeError::TooDeep { at, limit });
            }
            if let Some(slot) = open.get_mut(level) {
                *slot = children;
            }
            level += 1;
            continue;
        }
        // The item is complete: close every level it completes.
        loop {
            if level == 0 {
                return walk.end();
            }
            let Some(left) = open.get_mut(level - 1) else {
                return Err(ShapeError::TooDeep { at, limit });
            };
            *left -= 1;
            if *left > 0 {
                break;
            }
            level -= 1;
        }
    }
}

/// More than any format here needs.
const MAX_DEPTH: usize = 32;

struct Walk<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Walk<'_> {
    /// Passes one head (and its string, if it has one); returns the number of children.
    fn item(&mut self) -> Result<u64, ShapeError> {
        let at = self.at;
        let initial = self.byte(at)?;
        let value = self.argument(at, initial)?;
        let left = (self.bytes.len() - self.at) as u64;
        match initial >> 5 {
            0 | 1 => Ok(0),
            major @ (2 | 3) => {
                let length = usize::try_from(value)
                    .ok()
                    .filter(|&length| length as u64 <= left);
                let length = length.ok_or(ShapeError::Truncated { at })?;
                let string = self.bytes.get(self.at..self.at + length);
                self.at += length;
                if major == 3 && string.is_none_or(|text| core::str::from_utf8(text).is_err()) {
                    return Err(ShapeError::NotText { at });
                }
                Ok(0)
            }
            // Each child takes a byte at least, so a count beyond what is left is a lie.
            4 if value <= left => Ok(value),
            5 if value <= left / 2 => Ok(value * 2),
            4 | 5 => Err(ShapeError::Truncated { at }),
            7 if matches!(initial, 0xf4 | 0xf5) => Ok(0),
            _ => Err(ShapeError::Forbidden { at, initial }),
        }
    }

    fn argument(&mut self, at: usize, initial: u8) -> Result<u64, ShapeError> {
        let (width, floor) = match initial & 0x1f {
            small @ 0..=23 => return Ok(u64::from(small)),
            // Floats and long simple values share these: refused by `item` in their own name.
            24..=27 if initial >> 5 == 7 => return Err(ShapeError::Forbidden { at, initial }),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return Err(ShapeError::Forbidden { at, initial }),
        };
        let mut value = 0;
        for _ in 0..width {
            value = value << 8 | u64::from(self.byte(at)?);
        }
        if value < floor {
            return Err(ShapeError::NotShortest { at });
        }
        Ok(value)
    }

    fn byte(&mut self, at: usize) -> Result<u8, ShapeError> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte.ok_or(ShapeError::Truncated { at })
    }

    fn end(&self) -> Result<(), ShapeError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            extra => Err(ShapeError::Trailing { extra }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ShapeError, check};

    #[test]
    fn n38_every_other_spelling_of_a_number_is_refused() {
        assert_eq!(check(&[0x18, 0x18], 4), Ok(()));
        assert_eq!(
            check(&[0x18, 0x17], 4),
            Err(ShapeError::NotShortest { at: 0 })
        );
        assert_eq!(
            check(&[0x19, 0, 0xff], 4),
            Err(ShapeError::NotShortest { at: 0 })
        );
        assert_eq!(
            check(&[0x9f, 0xff], 4),
            Err(ShapeError::Forbidden {
                at: 0,
                initial: 0x9f
            })
        );
        assert_eq!(
            check(&[0xf9, 0, 0], 4),
            Err(ShapeError::Forbidden {
                at: 0,
                initial: 0xf9
            })
        );
        assert_eq!(
            check(&[0xc0, 0], 4),
            Err(ShapeError::Forbidden {
                at: 0,
                initial: 0xc0
            })
        );
        assert_eq!(
            check(&[0xf6], 4),
            Err(ShapeError::Forbidden {
                at: 0,
                initial: 0xf6
            })
        );
        assert_eq!(
            check(&[0x01, 0x01], 4),
            Err(ShapeError::Trailing { extra: 1 })
        );
        assert_eq!(check(&[0x61, 0xff], 4), Err(ShapeError::NotText { at: 0 }));
    }

    #[test]
    fn n48_huge_counts_and_deep_nesting_are_refused_without_allocating() {
        let huge = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(check(&huge, 4), Err(ShapeError::Truncated { at: 0 }));
        let map = [0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
        assert_eq!(check(&map, 4), Err(ShapeError::Truncated { at: 0 }));
        let string = [0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(check(&string, 4), Err(ShapeError::Truncated { at: 0 }));
        let mut deep = vec![0x81; 5000];
        deep.push(0);
        assert_eq!(
            check(&deep, 4),
            Err(ShapeError::TooDeep { at: 4, limit: 4 })
        );
        assert_eq!(
            check(&deep, 9000),
            Err(ShapeError::TooDeep { at: 32, limit: 32 })
        );
    }

    #[test]
    fn nested_items_close_where_they_should() {
        assert_eq!(check(&[0x82, 0x81, 0x01, 0xa1, 0x00, 0x80], 4), Ok(()));
        assert_eq!(check(&[], 4), Err(ShapeError::Truncated { at: 0 }));
        assert_eq!(
            check(&[0x82, 0x01], 4),
            Err(ShapeError::Truncated { at: 0 })
        );
    }
}
