//! Bytes → [`Unverified`]: sizes, then the outer frame, and nothing inside it.

use crate::leaves::Workers;
use crate::refusal::Refusal;
use merestone_evidence::{Bundle, Leaves, Source, open_bundle};

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
pub struct Unverified<'s> {
    /// Its span, where there is one, has no leaves: they are beside it.
    pub(crate) bundle: Bundle,
    pub(crate) leaves: Leaves<'s>,
    pub(crate) workers: Hands<'s>,
    pub(crate) purpose: Purpose,
}

/// Who works on many leaves.
#[derive(Clone, Copy)]
pub(crate) struct Hands<'s>(pub(crate) &'s dyn Workers);

impl core::fmt::Debug for Hands<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("workers")
    }
}

impl<'s> Unverified<'s> {
    /// Reads the outer frame.
    pub fn open(
        source: Source<'s>,
        purpose: Purpose,
        workers: &'s dyn Workers,
    ) -> Result<Self, Refusal> {
        let (bundle, leaves) = open_bundle(source)?;
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
            Purpose::Period | Purpose::Receipt => Ok(Self {
                bundle,
                leaves,
                workers: Hands(workers),
                purpose,
            }),
        }
    }
}
