//! Bytes → [`Unverified`]: sizes, then the outer frame, and nothing inside it.

use crate::refusal::Refusal;
use merestone_evidence::{Bundle, decode};

/// What a file is asked to show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// A whole period, with every leaf.
    Period,
    /// Single leaves.
    Receipt,
}

/// A file whose outer frame is well formed. Nothing in it is believed; statements, quotes and
/// leaves are bytes.
#[derive(Debug)]
pub struct Unverified {
    pub(crate) bundle: Bundle,
    pub(crate) purpose: Purpose,
}

impl Unverified {
    /// Reads the outer frame.
    pub fn open(bytes: &[u8], purpose: Purpose) -> Result<Self, Refusal> {
        let bundle: Bundle = decode(bytes)?;
        if bundle.sessions.is_empty() {
            return Err(Refusal::Purpose {
                got: "the file holds no session",
                want: "there is nothing to verify",
            });
        }
        match purpose {
            Purpose::Period if bundle.span.is_none() && !bundle.proofs.is_empty() => {
                Err(Refusal::Purpose {
                    got: "the file is a receipt: it shows single leaves",
                    want: "verify it with `receipt`",
                })
            }
            Purpose::Receipt if bundle.span.is_some() || bundle.proofs.is_empty() => {
                Err(Refusal::Purpose {
                    got: "the file is not a receipt: it has no single proofs or a span of leaves",
                    want: "verify it with `bundle`",
                })
            }
            Purpose::Period | Purpose::Receipt => Ok(Self { bundle, purpose }),
        }
    }
}
