//! Entry bundles: what hashes to the leaves of a tile, each behind its length in two bytes.

/// Longest entry: its length is a u16.
pub const MAX_ENTRY: usize = u16::MAX as usize;

/// Why bytes are no entry bundle.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EntriesError {
    /// An entry that no bundle can hold.
    #[error("an entry of {got} bytes, at most {MAX_ENTRY} fit into a bundle")]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// The bytes end inside an entry.
    #[error("the bundle ends inside entry {at}")]
    Truncated {
        /// Which, from 0.
        at: usize,
    },
}

/// An entry as it stands in a bundle.
pub fn entry(data: &[u8]) -> Result<Vec<u8>, EntriesError> {
    let got = data.len();
    let length = u16::try_from(got).map_err(|_length| EntriesError::TooLong { got })?;
    Ok([&length.to_be_bytes()[..], data].concat())
}

/// The entries of a bundle.
pub fn entries(bytes: &[u8]) -> Result<Vec<&[u8]>, EntriesError> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let truncated = EntriesError::Truncated { at: found.len() };
        let (length, data) = rest.split_first_chunk::<2>().ok_or(truncated)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (data, after) = data.split_at_checked(length).ok_or(truncated)?;
        found.push(data);
        rest = after;
    }
    Ok(found)
}
