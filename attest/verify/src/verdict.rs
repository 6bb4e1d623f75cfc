//! The list of checks, what became of each, and the verdict over all of them.
//!
//! The verdict is the worst of the checks, in the order untrusted, failed, indeterminate, pass:
//! evidence that is wrong says nothing, so nothing outweighs it; a violation that is shown
//! outweighs something that could not be looked at.

use crate::account::Account;
use crate::coverage::Coverage;
use crate::gpu::GpuAttested;
use crate::incidents::{BreakGlass, CanaryReport, Deputies, Grants, Tamper};
use crate::location::Location;
use crate::receipts::Receipts;
use crate::refusal::{Grade, Refusal};
use crate::report::{Egress, ReceiptEntry};
use serde::Serialize;
use std::collections::BTreeSet;

/// Who stands behind what a check looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The verifier's own reading of the file.
    Verifier,
    /// The regulator's trust policy.
    Trust,
    /// The TPM's signature.
    Tpm,
    /// The firmware's and kernel's logs, as far as registers confirm them.
    Boot,
    /// The agent, as sealed by the TPM.
    Agent,
    /// The operator's word.
    Operator,
    /// The GPU.
    Gpu,
}

macro_rules! checks {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $source:ident;)*) => {
        /// A check, in the order they are listed (docs/formats/checks.md). Ids are stable.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum CheckId {
            $($(#[doc = $doc])+ $variant,)*
        }

        /// Every check, in order.
        pub const CHECKS: &[CheckId] = &[$(CheckId::$variant,)*];

        impl CheckId {
            /// The id in every output.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// What holds when it passes, as a sentence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)*
                }
            }

            /// Who stands behind what it looks at.
            #[must_use]
            pub const fn source(self) -> Source {
                match self {
                    $(Self::$variant => Source::$source,)*
                }
            }
        }
    };
}

checks! {
    /// The file has an allowed size and one well-formed frame.
    Frame = "frame", Verifier;
    /// A key is pinned for the node.
    TrustNode = "trust.node", Trust;
    /// The endorsement key's certificate leads to a vendor.
    EkChain = "ek.chain", Tpm;
    /// Someone saw the attestation key live in that TPM.
    Enrolment = "enrolment", Trust;
    /// Its certificate was valid when the evidence was sealed.
    EnrolmentValidity = "enrolment.validity", Trust;
    /// Its certificate is not revoked.
    EnrolmentRevocation = "enrolment.revocation", Trust;
    /// Authority and host state the same place.
    EnrolmentSite = "enrolment.site", Trust;
    /// The key in the file is the pinned one.
    AkName = "ak.name", Trust;
    /// The attestation key can only sign what its TPM says.
    AkAttributes = "ak.attributes", Tpm;
    /// Every quote is signed by the attestation key.
    QuoteSignature = "quote.signature", Tpm;
    /// Every quote is a quote: magic, type, nothing left over.
    QuoteForm = "quote.form", Tpm;
    /// The attestation key hangs under the endorsement hierarchy.
    AkHierarchy = "ak.hierarchy", Tpm;
    /// Every quote is over its own statement.
    QuoteBinding = "quote.binding", Tpm;
    /// Every quote selects exactly the registers shown, SHA-256 bank alone.
    QuoteSelection = "quote.selection", Tpm;
    /// The values shown are those quoted.
    QuotePcrs = "quote.pcrs", Tpm;
    /// Statements are well formed and of this node.
    Statements = "statements", Agent;
    /// The chain register cannot be reset.
    ChainRegister = "chain.register", Tpm;
    /// Counters and geotag are certified by the TPM, and nobody else can write them.
    NvCertified = "nv.certified", Tpm;
    /// The boot event log replays to the quoted registers.
    BootLog = "boot.log", Boot;
    /// The IMA list replays to the quoted register.
    BootIma = "boot.ima", Boot;
    /// TPM clock and counters only grow.
    ClockCounters = "clock.counters", Tpm;
    /// The TPM's clock cannot have been set back.
    ClockSafe = "clock.safe", Tpm;
    /// Wall clock and TPM clock go alike.
    ClockWall = "clock.wall", Tpm;
    /// Sessions and epochs follow one another without a hole.
    ChainOrder = "chain.order", Agent;
    /// The chain register holds the epochs and nothing else.
    ChainReplay = "chain.replay", Tpm;
    /// Tree sizes are contiguous and counters only grow.
    LogSizes = "log.sizes", Agent;
    /// Every leaf is there and leads to the sealed roots.
    LogLeaves = "log.leaves", Tpm;
    /// The log outside the leaves shown only grew.
    LogConsistency = "log.consistency", Tpm;
    /// Leaves shown one by one are in sealed trees.
    LogInclusion = "log.inclusion", Tpm;
    /// Every leaf is an entry.
    LogEntries = "log.entries", Agent;
    /// Nothing was cut from the end.
    LogTail = "log.tail", Tpm;
    /// Others saw the same log.
    LogWitness = "log.witness", Verifier;
    /// Records were receipted by the session key.
    Receipts = "receipts", Agent;
    /// The GPU attests itself.
    GpuAttestation = "gpu.attestation", Gpu;
    /// What the GPU measured of itself is accepted.
    GpuMeasurements = "gpu.measurements", Gpu;
    /// The GPU is in this host.
    GpuBinding = "gpu.binding", Gpu;
    /// The place it ran at is an accepted one.
    Location = "location", Operator;
    /// Enforcement was not found changed.
    Tamper = "tamper", Agent;
    /// Protection was not opened.
    BreakGlass = "break_glass", Agent;
    /// What left under grants kept to them.
    Grants = "grants", Agent;
    /// Nobody outside a group was asked on its host.
    Deputies = "deputies", Agent;
    /// Tries to get out were made, and none did.
    Canary = "canary", Agent;
    /// The period asked for is in the file.
    PolicyPeriod = "policy.period", Trust;
    /// The period is attested without long gaps.
    PolicyCoverage = "policy.coverage", Trust;
    /// No GPU worked between sessions, beyond being idle.
    PolicyDark = "policy.dark", Trust;
    /// The evidence is fresh and not of the future.
    PolicyAge = "policy.age", Trust;
    /// The boundary is an accepted one.
    PolicyBoundary = "policy.boundary", Trust;
    /// The boundary was enforced.
    PolicyMode = "policy.mode", Trust;
    /// The eBPF object is an accepted one.
    PolicyObject = "policy.object", Trust;
    /// The agent is an accepted one.
    PolicyAgent = "policy.agent", Trust;
    /// The tiers asked for were in force.
    PolicyTiers = "policy.tiers", Trust;
    /// Every way out is covered.
    PolicyUncovered = "policy.uncovered", Trust;
    /// Nothing left that should not have.
    PolicyEgress = "policy.egress", Trust;
    /// Little enough was lost.
    PolicyLost = "policy.lost", Trust;
    /// The TPM is a chip.
    PolicyTpm = "policy.tpm", Trust;
    /// The GPU library is the real one.
    PolicyGpu = "policy.gpu", Trust;
    /// Registers have the wanted values.
    PolicyPcrs = "policy.pcrs", Trust;
}

/// What became of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// It holds.
    Pass,
    /// It doesn't.
    Fail,
    /// It was not made.
    NotChecked,
}

/// One check and what became of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// Stable id.
    pub id: &'static str,
    /// What became of it.
    pub result: CheckResult,
    /// In words.
    pub detail: String,
    /// Who stands behind what it looked at.
    pub source: Source,
}

/// The verdict.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Sound and as the policy asks.
    Pass,
    /// Something required was not there.
    Indeterminate,
    /// Sound and against the policy.
    Failed,
    /// A signature, hash or structure is wrong.
    Untrusted,
}

impl Outcome {
    /// The exit code.
    #[must_use]
    pub const fn exit(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Untrusted => 1,
            Self::Failed => 2,
            Self::Indeterminate => 3,
        }
    }

    /// The word after `verdict:`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Untrusted => "untrusted",
            Self::Failed => "failed",
            Self::Indeterminate => "indeterminate",
        }
    }
}

impl From<Grade> for Outcome {
    fn from(grade: Grade) -> Self {
        match grade {
            Grade::Indeterminate => Self::Indeterminate,
            Grade::Failed => Self::Failed,
            Grade::Untrusted => Self::Untrusted,
        }
    }
}

/// Something the verdict does not rest on.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NotChecked {
    /// The check.
    pub id: &'static str,
    /// Why it was not made.
    pub detail: String,
    /// The trust policy asks for it: without it there is no pass.
    pub required: bool,
}

/// Everything there is to say about a file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[must_use]
pub struct Verdict {
    /// The verdict.
    pub verdict: Outcome,
    /// The exit code.
    pub exit: u8,
    /// Every check, in order.
    pub checks: Vec<Check>,
    /// Those that were not made.
    pub not_checked: Vec<NotChecked>,
    /// What time is attested.
    pub coverage: Option<Coverage>,
    /// The place it ran at is an accepted one.
    pub location: Option<Location>,
    /// What tried to leave.
    pub egress: Option<Egress>,
    /// What the sealed statements and entries tell, session by session.
    pub account: Option<Account>,
    /// Attempts on enforcement, and what was found of it.
    pub tamper: Option<Tamper>,
    /// Openings of protection.
    pub break_glass: Option<BreakGlass>,
    /// What left under grants.
    pub grants: Option<Grants>,
    /// Who was asked on the host.
    pub deputies: Option<Deputies>,
    /// What tries to get out came to.
    pub canary: Option<CanaryReport>,
    /// GPUs that attested themselves.
    pub gpus_attested: Vec<GpuAttested>,
    /// What the receipts in the file come to.
    pub receipts: Option<Receipts>,
    /// The entries that single proofs show.
    pub entries: Vec<ReceiptEntry>,
}

/// The checks made so far.
#[derive(Debug)]
pub(crate) struct Tally {
    outcome: Outcome,
    checks: Vec<(CheckId, CheckResult, String)>,
    /// Asked for by the policy and not made.
    demanded: BTreeSet<CheckId>,
}

impl Tally {
    pub(crate) const fn new() -> Self {
        Self {
            outcome: Outcome::Pass,
            checks: Vec::new(),
            demanded: BTreeSet::new(),
        }
    }

    pub(crate) fn pass(&mut self, id: CheckId, detail: impl Into<String>) {
        self.checks.push((id, CheckResult::Pass, detail.into()));
    }

    /// Not made, and the policy does not ask for it.
    pub(crate) fn skip(&mut self, id: CheckId, detail: impl Into<String>) {
        self.checks
            .push((id, CheckResult::NotChecked, detail.into()));
    }

    /// Not made although the policy asks for it.
    pub(crate) fn missing(&mut self, id: CheckId, detail: impl Into<String>) {
        self.outcome = self.outcome.max(Outcome::Indeterminate);
        self.demanded.insert(id);
        self.checks
            .push((id, CheckResult::NotChecked, detail.into()));
    }

    /// Refused. What cannot be evaluated is not called wrong.
    pub(crate) fn fail(&mut self, id: CheckId, refusal: &Refusal) {
        let grade = refusal.grade();
        self.outcome = self.outcome.max(grade.into());
        let result = match grade {
            Grade::Indeterminate => {
                self.demanded.insert(id);
                CheckResult::NotChecked
            }
            Grade::Failed | Grade::Untrusted => CheckResult::Fail,
        };
        self.checks.push((id, result, refusal.to_string()));
    }

    /// Every check in order; one that was never reached says so.
    pub(crate) fn finish(self) -> (Outcome, Vec<Check>, Vec<NotChecked>) {
        let mut checks = Vec::new();
        let mut not_checked = Vec::new();
        for &id in CHECKS {
            let made = self.checks.iter().filter(|(made, ..)| *made == id);
            let mut made = made.peekable();
            if made.peek().is_none() {
                checks.push(check(id, CheckResult::NotChecked, NOT_REACHED.to_owned()));
            }
            checks.extend(made.map(|(_, result, detail)| check(id, *result, detail.clone())));
            let own = checks
                .iter()
                .rev()
                .take_while(|check| check.id == id.text());
            let mut skipped: Vec<_> = own
                .filter(|check| check.result == CheckResult::NotChecked)
                .map(|check| NotChecked {
                    id: check.id,
                    detail: check.detail.clone(),
                    required: self.demanded.contains(&id),
                })
                .collect();
            skipped.reverse();
            not_checked.append(&mut skipped);
        }
        (self.outcome, checks, not_checked)
    }
}

/// What is said of a check that an earlier one kept from being made.
pub(crate) const NOT_REACHED: &str = "not reached: an earlier check did not pass";

const fn check(id: CheckId, result: CheckResult, detail: String) -> Check {
    Check {
        id: id.text(),
        result,
        detail,
        source: id.source(),
    }
}
