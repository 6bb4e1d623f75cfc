//! The boundary.

/// What a denial does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The packet is held.
    Enforce,
    /// The packet passes and is reported.
    Audit,
}

impl Mode {
    /// From the word the files use; the error is the hint.
    pub(crate) fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "enforce" => Ok(Self::Enforce),
            "audit" => Ok(Self::Audit),
            _ => Err("write \"enforce\" or \"audit\"".to_owned()),
        }
    }

    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}
