//! A reader over bytes that someone else wrote: every step is bounded, none panics.

/// Why bytes do not have the form they should.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// They end too early.
    #[error("truncated: {wanted} bytes wanted at offset {at}, {left} left")]
    Truncated {
        /// Offset.
        at: usize,
        /// Bytes the next field takes.
        wanted: usize,
        /// Bytes there are.
        left: usize,
    },
    /// They go on after the end.
    #[error("{extra} bytes after the end")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A field has a value that its form does not allow.
    #[error("{field} is {got:#x} at offset {at}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Offset.
        at: usize,
        /// Its value.
        got: u64,
    },
}

/// A position in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(crate) fn take(&mut self, wanted: usize) -> Result<&'b [u8], WireError> {
        let left = self.bytes.len().saturating_sub(self.at);
        let end = self.at.checked_add(wanted);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(WireError::Truncated {
            at: self.at,
            wanted,
            left,
        })?;
        self.at += wanted;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let at = self.at;
        let taken = self.take(N)?;
        taken.try_into().map_err(
            |_length: core::array::TryFromSliceError| WireError::Truncated {
                at,
                wanted: N,
                left: 0,
            },
        )
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn u16_le(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32_le(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A `TPM2B`: a length in two bytes, then as many bytes, at most `limit`.
    pub(crate) fn sized(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<&'b [u8], WireError> {
        let at = self.at;
        let length = self.u16()?;
        if usize::from(length) > limit {
            return Err(WireError::Field {
                field,
                at,
                got: length.into(),
            });
        }
        self.take(length.into())
    }

    /// A little-endian length in four bytes, then as many bytes, at most `limit`.
    pub(crate) fn sized_le(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<&'b [u8], WireError> {
        let at = self.at;
        let got = self.u32_le()?;
        match usize::try_from(got) {
            Ok(length) if length <= limit => self.take(length),
            _ => Err(WireError::Field {
                field,
                at,
                got: got.into(),
            }),
        }
    }

    pub(crate) const fn end(&self) -> Result<(), WireError> {
        match self.bytes.len().saturating_sub(self.at) {
            0 => Ok(()),
            extra => Err(WireError::Trailing { extra }),
        }
    }
}
