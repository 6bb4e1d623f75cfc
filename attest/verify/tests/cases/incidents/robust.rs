//! What nobody meant: entries of random states, numbers and texts, sealed as they are.

use super::{entry, everything};
use crate::hostile::Seeded;
use crate::support::{Maker, NOW};
use merestone_evidence::{Body, Digest, Entry, decode, encode};
use merestone_verify::{Purpose, Trust, verify};

const STATES: [&str; 12] = [
    "accepted",
    "used",
    "spent",
    "expired",
    "revoked",
    "refused",
    "opened",
    "closed",
    "escaped",
    "watch",
    "boundary",
    "\u{202e}\u{0}",
];

const STRICT: &str = "[require]\ndeputies = \"none\"\ncanary = true\n";

fn number(random: &mut Seeded) -> u64 {
    match random.next(4) {
        0 => 0,
        1 => u64::MAX,
        2 => random.next(2_000) as u64,
        _ => crate::support::START + random.next(100_000) as u64,
    }
}

fn text(random: &mut Seeded) -> String {
    STATES[random.next(STATES.len())].to_owned()
}

/// One field of an entry becomes something else.
fn spoil(body: &mut Body, random: &mut Seeded) {
    match body {
        Body::Tamper {
            attempt,
            refused,
            hook,
            count,
            repaired,
            ..
        } => match random.next(5) {
            0 => *attempt = text(random),
            1 => *refused = !*refused,
            2 => *hook = text(random),
            3 => *count = number(random),
            _ => *repaired = [None, Some(true), Some(false)][random.next(3)],
        },
        Body::BreakGlass {
            sha256,
            state,
            until_ms,
            signer,
            ..
        } => match random.next(4) {
            0 => *sha256 = Digest::ZERO,
            1 => *state = text(random),
            2 => *until_ms = number(random),
            _ => *signer = None,
        },
        Body::Grant {
            state,
            bytes,
            terms,
            ..
        } => match (random.next(6), terms) {
            (0, _) => *state = text(random),
            (1, _) => *bytes = number(random),
            (2, terms) => *terms = None,
            (3, Some(terms)) => terms.limit_bytes = number(random),
            (4, Some(terms)) => terms.until_ms = number(random),
            (_, Some(terms)) => terms.to = text(random),
            _ => {}
        },
        Body::Deputy {
            refused,
            deputy,
            count,
            ..
        } => match random.next(3) {
            0 => *refused = !*refused,
            1 => *deputy = text(random),
            _ => *count = number(random),
        },
        Body::Canary { result, vector, .. } => {
            *result = text(random);
            *vector = text(random);
        }
        _ => {}
    }
}

#[test]
fn no_sealed_entry_panics_the_checks_and_none_that_tells_of_an_incident_passes() {
    let good = everything();
    let mut random = Seeded::new(0x6b65_7074_2061_6c6c);
    let mut maker = Maker::new();
    (maker.epochs, maker.leaves_each) = (1, 1);
    let bundle_of = |maker: &Maker| encode(&maker.bundle());
    let strict = Trust::parse(&(maker.trust() + STRICT), "trust.toml").unwrap();
    let lax = maker.trust()
        + "[require]\npermit = [\"tamper\", \"break_glass\", \"break_glass_unsigned\", \"grants\"]\n";
    let lax = Trust::parse(&lax, "trust.toml").unwrap();
    for _ in 0..100 {
        let mut told: Vec<Entry> = good.told.iter().map(|(_, entry)| entry.clone()).collect();
        for _ in 0..=random.next(6) {
            let at = random.next(told.len());
            spoil(&mut told[at].body, &mut random);
            let other = random.next(told.len());
            told.swap(at, other);
            if random.next(4) == 0 {
                told[other].time_ms = number(&mut random);
            }
        }
        maker.told = told.into_iter().map(|entry| (0, entry)).collect();
        let bytes = bundle_of(&maker);
        assert_ne!(verify(&bytes, &strict, Purpose::Period, NOW).exit, 0);
        let verdict = verify(&bytes, &lax, Purpose::Period, NOW);
        assert!(verdict.tamper.is_some(), "{:?}", verdict.checks);
    }
}

#[test]
fn twenty_thousand_mutations_of_entries_decode_or_are_refused_and_never_panic() {
    let mut random = Seeded::new(0x0065_6e74_7269_6573);
    let mut told = everything().told;
    told.push((0, entry(7_000, super::tamper::denied("kill"))));
    let good: Vec<_> = told.iter().map(|(_, entry)| encode(entry)).collect();
    let mut decoded = Vec::new();
    for _ in 0..20_000 {
        let mut bytes = good[random.next(good.len())].clone();
        for _ in 0..=random.next(3) {
            let at = random.next(bytes.len().max(1));
            match random.next(4) {
                _ if bytes.is_empty() => {}
                0 => bytes.truncate(at),
                1 => bytes.insert(at, u8::try_from(random.next(256)).unwrap()),
                2 => drop(bytes.remove(at)),
                _ => bytes[at] ^= 1 << random.next(8),
            }
        }
        if let Ok(entry) = decode::<Entry>(&bytes) {
            // Whatever is accepted has one spelling.
            assert_eq!(encode(&entry), bytes);
            decoded.push((0, entry));
        }
    }
    assert!(decoded.len() > 1_000, "{}", decoded.len());
    // What decodes is sealed as it is, and judged.
    let mut maker = Maker::new();
    (maker.epochs, maker.leaves_each) = (1, 1);
    let strict = Trust::parse(&(maker.trust() + STRICT), "trust.toml").unwrap();
    for some in decoded.chunks(500) {
        maker.told = some.to_vec();
        let verdict = verify(&encode(&maker.bundle()), &strict, Purpose::Period, NOW);
        assert!(
            verdict.tamper.is_some() && verdict.exit != 0,
            "{:?}",
            verdict.checks
        );
    }
}
