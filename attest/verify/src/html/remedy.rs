//! What a reader can do about a check that does not hold, in plain words.
//!
//! Advice, never judgement: it depends on the check and not on the file, so that nothing that a
//! file says can talk a reader into trusting it. No advice has a reader take a value from the file.

use crate::verdict::{CheckId, CheckResult, Outcome};

const CHANGED: &str = "Ask for the file again and compare its SHA-256 with the sender's: it may have been damaged on its way. If an \
     undamaged copy is refused too, it was made or changed by something other than the agent and its TPM: rely on nothing in it, \
     keep it, and have the host examined.";
const OTHER_KEY: &str = "Ask the operator whether the host's TPM or its key was renewed. If so, have the authority enrol it again and take the \
     new name from the authority, never from this file. If not, the file comes from another machine: rely on nothing in it.";
const ENROLMENT: &str = "Ask the authority that enrolled the host, not the operator: for its certificate of this key, or for what it knows of \
     the one in the file.";
const COMPLETE: &str = "Ask the operator for a file that is whole: the same period again, from the host's own log. If the agent cannot make one, \
     something was taken out or a part of the log was lost; the reason has to come from outside this file.";
const SIGNER: &str = "Ask the operator what ran and why it is not among what your policy accepts. If it is known and meant to be accepted, add its \
     digest to the trust policy from a source of your own; if nobody can say, treat the host as changed.";
const PLACE: &str = "Ask the operator where the host stood then, and for evidence of the level that your policy asks for: a geotag written by an \
     auditor (L1), a cloud's signed document (L2), landmarks' measurements (L3).";
const GPU: &str = "Ask the operator which GPUs the host had and in what mode, and for a file of a session in which they answered: the agent asks \
     them at its start.";
const INCIDENT: &str = "Ask the operator to explain the events that the section on enforcement lists, one by one. Until they are explained, take it \
     that data may have left in the time that it names.";
const TOLERATED: &str = "See the section on egress for what left or could have, and ask the operator why. If you accept it, the trust policy can say \
     so; the time in question stays as it is.";
const MEASURED_BOOT: &str = "Ask the operator what was started on that host then, and for the boot log and IMA list of that session. If they do not explain \
     the registers, other software than the one shown was running.";
const CLOCK: &str = "Ask the operator about the host's clock and its time service. Take times in this file only as exact as the TPM's clock, which \
     the difference is told against.";
const GAP: &str = "Ask the operator what the host did in the time that is not attested: switched off, or running without the agent. What ran then is \
     not shown, and no later file can show it.";
const WITNESS: &str = "Ask the witness itself, not the operator, for the newest checkpoint of this log, and judge again with it (`checkpoints` in the \
     trust policy). If the witness saw more than the file has, ask the operator for what is missing.";

/// What to do about a check that fails, or that the policy asks for and that could not be made.
#[expect(clippy::too_many_lines, reason = "an arm for each check")]
pub(super) const fn remedy(id: CheckId, result: CheckResult, verdict: Outcome) -> &'static str {
    let missing = matches!(result, CheckResult::NotChecked);
    let wrong = !missing && matches!(verdict, Outcome::Untrusted);
    match id {
        CheckId::Frame => {
            "Ask for the file again: it is cut, damaged, or no file of this kind. A single record is judged with `merestone-verify \
             receipt`, a period with `merestone-verify bundle`."
        }
        CheckId::TrustNode => {
            "Check that this is the host you meant. If it is, take its key's name from its enrolment or its authority, never from this \
             file, and pin it in the trust policy."
        }
        CheckId::AkName | CheckId::AkHierarchy => OTHER_KEY,
        CheckId::AkAttributes if missing => {
            "This program does not know that kind of key. Use a newer release, or have the host enrolled with a key of a kind it knows."
        }
        CheckId::AkAttributes => {
            "The pinned key could sign anything it is given, not only what its TPM saw. Have the host enrolled anew with an \
             attestation key; evidence under this one proves nothing."
        }
        CheckId::EkChain
        | CheckId::Enrolment
        | CheckId::EnrolmentValidity
        | CheckId::EnrolmentRevocation => ENROLMENT,
        CheckId::EnrolmentSite | CheckId::Location => PLACE,
        CheckId::QuoteSignature
        | CheckId::QuoteForm
        | CheckId::QuoteBinding
        | CheckId::QuoteSelection
        | CheckId::QuotePcrs
        | CheckId::Statements
        | CheckId::ChainRegister
        | CheckId::NvCertified
        | CheckId::LogSizes
        | CheckId::LogLeaves
        | CheckId::LogInclusion
        | CheckId::LogEntries
            if wrong =>
        {
            CHANGED
        }
        CheckId::BootLog | CheckId::BootIma | CheckId::PolicyPcrs => MEASURED_BOOT,
        CheckId::ClockCounters if wrong => CHANGED,
        CheckId::ClockCounters | CheckId::ClockSafe | CheckId::ClockWall | CheckId::LogEntries => {
            CLOCK
        }
        CheckId::LogWitness => WITNESS,
        CheckId::Receipts if missing => {
            "Ask whoever served the inference for the receipt's file again, once the epoch with its record is sealed (`merestone receipt`)."
        }
        CheckId::Receipts => {
            "Check that request, answer and salt are those of this receipt. If they are, the receipt and the sealed record say different \
             things: rely on neither, and ask whoever served the inference."
        }
        CheckId::GpuAttestation
        | CheckId::GpuMeasurements
        | CheckId::GpuBinding
        | CheckId::PolicyGpu => GPU,
        CheckId::Tamper
        | CheckId::BreakGlass
        | CheckId::Grants
        | CheckId::Deputies
        | CheckId::Canary => INCIDENT,
        CheckId::PolicyPeriod => {
            "Ask the operator for a file of the whole period that you asked for (`merestone report --from … --to …`)."
        }
        CheckId::PolicyCoverage | CheckId::PolicyDark => GAP,
        CheckId::PolicyAge => {
            "Ask the operator for a file that was made now, and look at this machine's clock."
        }
        CheckId::PolicyBoundary | CheckId::PolicyObject | CheckId::PolicyAgent => SIGNER,
        CheckId::PolicyMode
        | CheckId::PolicyTiers
        | CheckId::PolicyUncovered
        | CheckId::PolicyEgress
        | CheckId::PolicyLost => TOLERATED,
        CheckId::PolicyTpm => {
            "The TPM is a program: whoever runs it can make it sign anything. Ask for evidence from a host with a chip."
        }
        // Holes and ends: also where nothing could be looked at.
        CheckId::ChainOrder
        | CheckId::ChainReplay
        | CheckId::LogConsistency
        | CheckId::LogTail
        | CheckId::QuoteSignature
        | CheckId::QuoteForm
        | CheckId::QuoteBinding
        | CheckId::QuoteSelection
        | CheckId::QuotePcrs
        | CheckId::Statements
        | CheckId::ChainRegister
        | CheckId::NvCertified
        | CheckId::LogSizes
        | CheckId::LogLeaves
        | CheckId::LogInclusion => COMPLETE,
    }
}
