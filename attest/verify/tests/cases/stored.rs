//! A file that is not in memory is judged like one that is, and one that changes while it is
//! read is refused.

use crate::every_byte::{Good, change, goods};
use crate::hostile::Seeded;
use crate::support::{Maker, NOW};
use merestone_evidence::{Bundle, Source, Stored, decode, open_bundle};
use merestone_verify::{CheckResult, Contents, Purpose, Workers, verify_stored};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file; from the reading of that number on it has other bytes.
struct File {
    bytes: Vec<u8>,
    later: Option<(usize, Vec<u8>)>,
    readings: AtomicUsize,
}

impl File {
    fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            later: None,
            readings: AtomicUsize::new(0),
        }
    }
}

impl Stored for File {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn fill(&self, at: u64, into: &mut [u8]) -> Result<(), String> {
        let reading = self.readings.fetch_add(1, Ordering::Relaxed);
        let bytes = match &self.later {
            Some((from, later)) if reading >= *from => later,
            _ => &self.bytes,
        };
        let at = usize::try_from(at).map_err(|error| error.to_string())?;
        let found = bytes.get(at..at + into.len()).ok_or("too short")?;
        into.copy_from_slice(found);
        Ok(())
    }
}

/// Two threads, and the last job first.
struct Backwards;

impl Workers for Backwards {
    fn run(&self, jobs: usize, job: &(dyn Fn(usize) + Sync)) {
        let (even, odd): (Vec<_>, Vec<_>) = (0..jobs).rev().partition(|job| job % 2 == 0);
        std::thread::scope(|scope| {
            for half in [even, odd] {
                scope.spawn(move || half.into_iter().for_each(job));
            }
        });
    }
}

fn judged(good: &Good, file: &File) -> merestone_verify::Verdict {
    let source = Source::Stored(file);
    let contents = Contents::default();
    verify_stored(
        source,
        &good.trust,
        good.purpose,
        &contents,
        NOW,
        &Backwards,
    )
}

#[test]
fn what_is_left_in_its_file_is_judged_like_what_is_in_memory() {
    let mut random = Seeded::new(0x0073_746f_7265_6400);
    let goods = goods();
    for round in 0..600 {
        let good = &goods[round % goods.len()];
        let bytes = match round / goods.len() {
            0 => good.bytes.clone(),
            _ => change(&good.bytes, &mut random),
        };
        let whole = decode::<Bundle>(&bytes).map(|_| ()).is_ok();
        assert_eq!(
            open_bundle(Source::Memory(&bytes)).is_ok(),
            whole,
            "{round}"
        );
        let file = File::new(&bytes);
        assert_eq!(open_bundle(Source::Stored(&file)).is_ok(), whole, "{round}");
        let stored = judged(good, &file);
        let memory = good.verdict(&bytes);
        assert_eq!(stored.exit, memory.exit, "{round}");
        let checks = |verdict: &merestone_verify::Verdict| format!("{:?}", verdict.checks);
        assert_eq!(checks(&stored), checks(&memory), "{round}");
    }
}

#[test]
fn many_runs_of_leaves_are_judged_like_one_and_in_their_order() {
    let mut maker = Maker::new();
    maker.epochs = 3;
    maker.leaves_each = 12_000;
    let good = Good::made(&maker, &maker.trust());
    assert!(good.bytes.len() > 3 << 20, "{}", good.bytes.len());
    let (_, leaves) = open_bundle(Source::Memory(&good.bytes)).unwrap();
    assert!(leaves.runs().len() > 2 && leaves.count() == 36_000);
    let stored = judged(&good, &File::new(&good.bytes));
    let memory = good.verdict(&good.bytes);
    assert_eq!(stored.exit, 0);
    assert_eq!(stored.account, memory.account);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let maker = Maker::new();
    let good = Good::made(&maker, &maker.trust());
    let bundle: Bundle = decode(&good.bytes).unwrap();
    let last = bundle.span.unwrap().leaves.pop().unwrap();
    let at = good
        .bytes
        .windows(last.len())
        .rposition(|window| window == &last[..]);
    let mut other = good.bytes.clone();
    // A digit of the name of a reason: an entry still, and another one.
    other[at.unwrap() + last.len() - 3] ^= 1;
    let readings = |later: Option<(usize, Vec<u8>)>| {
        let mut file = File::new(&good.bytes);
        file.later = later;
        let verdict = judged(&good, &file);
        (verdict, file.readings.into_inner())
    };
    let (verdict, all) = readings(None);
    assert_eq!(verdict.exit, 0);
    for from in 0..all {
        let (verdict, _) = readings(Some((from, other.clone())));
        let refused = verdict
            .checks
            .iter()
            .find(|check| check.result == CheckResult::Fail);
        let refused = refused.unwrap_or_else(|| panic!("changed from reading {from} of {all}"));
        assert!(refused.id.starts_with("log."), "{from}: {refused:?}");
        assert_eq!(verdict.exit, 1);
    }
    let (verdict, _) = readings(Some((1, vec![0; 10])));
    assert_eq!(verdict.exit, 1);
    assert_eq!(good.purpose, Purpose::Period);
}
