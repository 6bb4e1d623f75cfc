//! Every byte of a file matters: one changed, cut out, cut off or added never passes and never
//! panics, but for bytes that nobody signs, each with the reason by its name.
//!
//! A few thousand changes in every run; a hundred thousand by `cargo xtask test`, optimised.
#![expect(clippy::disallowed_methods, reason = "a test reads files")]

use crate::good::measured;
use crate::hostile::Seeded;
use crate::support::{Key, Maker, NOW};
use merestone_evidence::{Bundle, decode, encode, sha256};
use merestone_verify::{Purpose, Trust, Verdict, verify};
use std::collections::BTreeMap;
use std::path::Path;

/// Why a changed file may still pass. Anything else that passes is a fault of the verifier.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Free {
    /// When the file was written: nothing rests on it (docs/formats/evidence.cddl).
    Created,
    /// The period that the producer claims; the gaps are judged in it, and a policy's `from` and
    /// `to` pin it.
    Period,
    /// A boot event's data, type or digest of another bank: firmware measured none of them into
    /// the registers that are quoted (N16).
    BootEvent,
    /// An IMA entry's SHA-1 column or template name: the SHA-256 bank has the template data.
    ImaColumn,
}

/// A file that passes as it is.
pub(crate) struct Good {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trust: Trust,
    pub(crate) purpose: Purpose,
}

impl Good {
    pub(crate) fn made(maker: &Maker, trust: &str) -> Self {
        Self {
            bytes: encode(&maker.bundle()),
            trust: Trust::parse(trust, "trust.toml").unwrap(),
            purpose: Purpose::Period,
        }
    }

    fn kept(case: &Path) -> Option<Self> {
        let text = |name: &str| std::fs::read_to_string(case.join(name)).unwrap();
        let purpose = match text("expect").trim() {
            "bundle 0" => Purpose::Period,
            "receipt 0" => Purpose::Receipt,
            _ => return None,
        };
        Some(Self {
            bytes: std::fs::read(case.join("file.cbor")).unwrap(),
            trust: Trust::parse(&text("trust.toml"), "trust.toml").unwrap(),
            purpose,
        })
    }

    pub(crate) fn verdict(&self, bytes: &[u8]) -> Verdict {
        verify(bytes, &self.trust, self.purpose, NOW)
    }

    fn exit(&self, bytes: &[u8]) -> u8 {
        self.verdict(bytes).exit
    }
}

/// Those that are kept, and those that are made now.
pub(crate) fn goods() -> Vec<Good> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
    cases.sort_by_key(|case| case.as_ref().unwrap().path());
    let kept = cases.iter().map(|case| case.as_ref().unwrap().path());
    let mut goods: Vec<_> = kept.filter_map(|case| Good::kept(&case)).collect();
    assert!(goods.len() > 5, "{} kept files pass", goods.len());
    let (mut maker, trust) = measured();
    maker.epochs = 1;
    goods.push(Good::made(&maker, &trust));
    let mut maker = Maker::with(Key::rsa());
    maker.epochs = 2;
    goods.push(Good::made(&maker, &maker.trust()));
    for good in &goods {
        assert_eq!(good.exit(&good.bytes), 0);
    }
    goods
}

/// One byte changed, one bit flipped, one byte added, one taken out, a stretch taken out or
/// doubled, the end cut off, or something after it.
pub(crate) fn change(good: &[u8], random: &mut Seeded) -> Vec<u8> {
    let mut bad = good.to_vec();
    let at = random.next(bad.len());
    let byte = u8::try_from(random.next(256)).unwrap();
    let end = (at + 1 + random.next(64)).min(bad.len());
    match random.next(8) {
        0 => bad[at] = byte,
        1 => bad.insert(at, byte),
        2 => drop(bad.remove(at)),
        3 => drop(bad.drain(at..end)),
        4 => {
            let twice = bad[at..end].to_vec();
            bad.splice(at..at, twice);
        }
        5 => bad.truncate(at),
        6 => bad.push(byte),
        _ => bad[at] ^= 1 << random.next(8),
    }
    bad
}

/// Makes `rounds` changes from a seed; how many of those that passed have which reasons.
fn storm(goods: &[Good], rounds: usize, seed: u64) -> BTreeMap<Vec<Free>, usize> {
    let mut random = Seeded::new(seed);
    let mut passed = BTreeMap::new();
    for round in 0..rounds {
        let good = &goods[round % goods.len()];
        let bad = change(&good.bytes, &mut random);
        if bad == good.bytes || good.exit(&bad) != 0 {
            continue;
        }
        let why = reasons(&good.bytes, &bad);
        let file = round % goods.len();
        let why = why.unwrap_or_else(|| panic!("round {round} of file {file}, seed {seed:#x}"));
        *passed.entry(why).or_insert(0) += 1;
    }
    passed
}

/// The fields that differ, if every difference is one that may be.
fn reasons(good: &[u8], bad: &[u8]) -> Option<Vec<Free>> {
    let (mut good, mut bad): (Bundle, Bundle) = (decode(good).ok()?, decode(bad).ok()?);
    let mut why = Vec::new();
    if core::mem::take(&mut good.created_ms) != core::mem::take(&mut bad.created_ms) {
        why.push(Free::Created);
    }
    let period = |bundle: &mut Bundle| {
        let from = core::mem::take(&mut bundle.from_ms);
        (from, core::mem::take(&mut bundle.to_ms))
    };
    if period(&mut good) != period(&mut bad) {
        why.push(Free::Period);
    }
    if good.sessions.len() != bad.sessions.len() {
        return None;
    }
    for (good, bad) in good.sessions.iter_mut().zip(&mut bad.sessions) {
        let logs = [good.boot_log.take(), bad.boot_log.take()];
        if logs[0] != logs[1] {
            let [good, bad] = logs.map(|log| extended(&log?));
            (good.is_some() && good == bad).then(|| why.push(Free::BootEvent))?;
        }
        let lists = [good.ima_log.take(), bad.ima_log.take()];
        if lists[0] != lists[1] {
            let [good, bad] = lists.map(|list| measured_data(&list?));
            (good.is_some() && good == bad).then(|| why.push(Free::ImaColumn))?;
        }
    }
    (good == bad && !why.is_empty()).then_some(why)
}

/// A walk over little-endian structures; no code of the verifier's is used.
struct Walk<'b>(&'b [u8]);

impl<'b> Walk<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        let taken = self.take(bytes)?.iter().rev();
        Some(taken.fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }
}

/// Register and SHA-256 digest of what a boot log says was extended.
fn extended(log: &[u8]) -> Option<Vec<(usize, Vec<u8>)>> {
    let mut walk = Walk(log);
    walk.take(28)?;
    let length = walk.number(4)?;
    walk.take(length)?;
    let mut out = Vec::new();
    while !walk.0.is_empty() && !walk.0.starts_with(&[0xff; 8]) {
        let (register, kind) = (walk.number(4)?, walk.number(4)?);
        let mut sha256 = Vec::new();
        for _ in 0..walk.number(4)? {
            match walk.number(2)? {
                0x0004 => drop(walk.take(20)?),
                0x000b => sha256 = walk.take(32)?.to_vec(),
                _ => return None,
            }
        }
        let length = walk.number(4)?;
        walk.take(length)?;
        if kind != 3 {
            out.push((register, sha256));
        }
    }
    Some(out)
}

/// What an IMA list says was measured: the digest of each entry's data, or that it is a violation.
fn measured_data(list: &[u8]) -> Option<Vec<(bool, merestone_evidence::Digest)>> {
    let mut walk = Walk(list);
    let mut out = Vec::new();
    while !walk.0.is_empty() {
        (walk.number(4)? == 10).then_some(())?;
        let is_violation = walk.take(20)?.iter().all(|byte| *byte == 0);
        let length = walk.number(4)?;
        walk.take(length)?;
        let length = walk.number(4)?;
        let data = walk.take(length)?;
        // A violation extends all ones, whatever its data.
        let data = if is_violation { &[][..] } else { data };
        out.push((is_violation, sha256(data)));
    }
    Some(out)
}

/// The reasons are those expected, and rare.
fn judge(passed: &BTreeMap<Vec<Free>, usize>, rounds: usize) {
    let sum: usize = passed.values().sum();
    #[expect(clippy::print_stdout, reason = "a report of a long test")]
    let () = println!("{rounds} changes, {sum} passed, each with its reason: {passed:?}");
    assert!(sum * 20 < rounds, "{passed:?}");
    let single = |why: &Vec<Free>| why.len() == 1;
    assert!(passed.keys().all(single), "{passed:?}");
}

#[test]
fn no_change_of_a_byte_passes_but_of_those_that_nobody_signs() {
    let goods = goods();
    judge(&storm(&goods, 4_000, 0x6d65_7265_7374_6f6e), 4_000);
}

#[test]
#[ignore = "half a minute or more; `cargo xtask test` runs it"]
fn no_change_of_a_hundred_thousand_passes_but_of_bytes_that_nobody_signs() {
    let goods = &goods();
    let passed = std::thread::scope(|scope| {
        let halves =
            [0x6d65_7265, 0x7374_6f6e].map(|seed| scope.spawn(move || storm(goods, 50_000, seed)));
        let mut sum = BTreeMap::new();
        for half in halves {
            for (why, count) in half.join().unwrap() {
                *sum.entry(why).or_insert(0) += count;
            }
        }
        sum
    });
    judge(&passed, 100_000);
    // None of the reasons is there for nothing.
    assert_eq!(passed.len(), 4, "{passed:?}");
}
