//! The checks in their order. Each stage takes the value that only the stage before can make.

use crate::account::Account;
use crate::boot::BootChecked;
use crate::coverage::Coverage;
use crate::enrolment::{self, Vouched};
use crate::frame::{Purpose, Unverified};
use crate::geotag;
use crate::gpu::{self, GpuAttested};
use crate::incidents::Incidents;
use crate::key::KeyTrusted;
use crate::leaves::{OneByOne, Workers};
use crate::log::LogChecked;
use crate::policy::{self, Matter};
use crate::quote::QuoteChecked;
use crate::receipts::{Contents, Receipts};
use crate::refusal::Refusal;
use crate::report::{Egress, Location, ReceiptEntry};
use crate::trust::Trust;
use crate::verdict::{CheckId, Tally, Verdict};
use merestone_evidence::Source;

/// Judges a file. `now_ms` is the time of the verdict: only age and future are judged by it.
pub fn verify(bytes: &[u8], trust: &Trust, purpose: Purpose, now_ms: u64) -> Verdict {
    verify_contents(bytes, trust, purpose, &Contents::default(), now_ms)
}

/// The same, with a request or an answer in hand that the receipt in the file is held against.
pub fn verify_contents(
    bytes: &[u8],
    trust: &Trust,
    purpose: Purpose,
    contents: &Contents,
    now_ms: u64,
) -> Verdict {
    let source = Source::Memory(bytes);
    verify_stored(source, trust, purpose, contents, now_ms, &OneByOne)
}

/// The same of a file that need not be in memory. The leaves are read twice, about a megabyte at
/// a time, and worked on by `workers`; the verdict is the same whoever they are.
pub fn verify_stored(
    source: Source<'_>,
    trust: &Trust,
    purpose: Purpose,
    contents: &Contents,
    now_ms: u64,
    workers: &dyn Workers,
) -> Verdict {
    let mut tally = Tally::new();
    let unverified = Unverified::open(source, purpose, workers);
    let size = source.size();
    let Some((log, vouched)) = stages(unverified, size, trust, contents, &mut tally) else {
        return verdict(tally, None);
    };
    let incidents = Incidents::of(&log, &trust.require);
    let gpus_attested = gpu::check(&log, trust.gpu.as_ref(), &mut tally);
    let coverage = Coverage::of(&log.bundle, &log.sessions, &incidents.unproven());
    let geotag = geotag::judge(&log.sessions, &vouched);
    let shown = Shown {
        account: Account::of(&log, &coverage),
        coverage,
        location: Location::of(&log.sessions, geotag.as_ref().ok().and_then(Option::as_ref)),
        egress: Egress::of(&log.sessions, &log.notable, incidents.grants.bytes),
        incidents,
        gpus_attested,
        entries: log
            .proven
            .iter()
            .map(|(at, entry)| ReceiptEntry::of(*at, entry))
            .collect(),
        receipts: log.receipts.clone(),
    };
    let matter = Matter {
        log: &log,
        coverage: &shown.coverage,
        egress: &shown.egress,
        location: &shown.location,
        geotag: &geotag,
        incidents: &shown.incidents,
        now_ms,
    };
    enrolment::judge(&vouched, trust.authority.as_ref(), &log, now_ms, &mut tally);
    policy::check(&matter, trust, &mut tally);
    verdict(tally, Some(shown))
}

/// The log, and the certificates that the key in it is believed by.
fn stages(
    unverified: Result<Unverified<'_>, Refusal>,
    bytes: u64,
    trust: &Trust,
    contents: &Contents,
    tally: &mut Tally,
) -> Option<(LogChecked, Vec<Vouched>)> {
    let unverified = match unverified {
        Ok(unverified) => unverified,
        Err(refusal) => {
            tally.fail(CheckId::Frame, &refusal);
            return None;
        }
    };
    tally.pass(CheckId::Frame, format!("{bytes} bytes, one canonical item"));
    let key = KeyTrusted::check(unverified, trust, tally)?;
    let vouched = key.vouched.clone();
    let quotes = QuoteChecked::check(key, tally)?;
    let boot = BootChecked::check(quotes, trust, tally)?;
    let log = LogChecked::check(boot, trust, contents, tally)?;
    Some((log, vouched))
}

struct Shown {
    coverage: Coverage,
    location: Location,
    egress: Egress,
    incidents: Incidents,
    account: Account,
    gpus_attested: Vec<GpuAttested>,
    entries: Vec<ReceiptEntry>,
    receipts: Receipts,
}

fn verdict(tally: Tally, shown: Option<Shown>) -> Verdict {
    let (outcome, checks, not_checked) = tally.finish();
    let mut verdict = Verdict {
        verdict: outcome,
        exit: outcome.exit(),
        checks,
        not_checked,
        coverage: None,
        location: None,
        egress: None,
        account: None,
        tamper: None,
        break_glass: None,
        grants: None,
        deputies: None,
        canary: None,
        gpus_attested: Vec::new(),
        receipts: None,
        entries: Vec::new(),
    };
    if let Some(shown) = shown {
        verdict.coverage = Some(shown.coverage);
        verdict.location = Some(shown.location);
        verdict.egress = Some(shown.egress);
        verdict.account = Some(shown.account);
        verdict.tamper = Some(shown.incidents.tamper);
        verdict.break_glass = Some(shown.incidents.break_glass);
        verdict.grants = Some(shown.incidents.grants);
        verdict.deputies = Some(shown.incidents.deputies);
        verdict.canary = Some(shown.incidents.canary);
        verdict.gpus_attested = shown.gpus_attested;
        verdict.receipts = Some(shown.receipts);
        verdict.entries = shown.entries;
    }
    verdict
}
