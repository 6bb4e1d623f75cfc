//! Bytes that nobody meant: flips, cuts and additions never pass and never panic.

use crate::good::measured;
use crate::support::{Maker, NOW};
use merestone_evidence::encode;
use merestone_verify::{Purpose, Trust, verify};

/// Steps of xorshift64*: the same spoilings in every run.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let wide = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        usize::try_from(wide % below as u64).unwrap()
    }
}

/// Changes that the verdict does not rest on: when the file was written, and the period the
/// producer claims, which the policy can pin.
fn unsealed(bytes: &[u8], good: &[u8]) -> bool {
    let blank = |bytes: &[u8]| {
        let mut bundle: merestone_evidence::Bundle = merestone_evidence::decode(bytes).ok()?;
        bundle.created_ms = 0;
        bundle.from_ms = 0;
        bundle.to_ms = 0;
        // Data of boot events is not measured (N16), nor the SHA-1 column of the kernel's list.
        for session in &mut bundle.sessions {
            session.boot_log = None;
            session.ima_log = None;
        }
        Some(bundle)
    };
    blank(bytes).is_some_and(|bundle| Some(bundle) == blank(good))
}

fn storm(maker: &Maker, trust: &str, rounds: usize, seed: u64) {
    let good = encode(&maker.bundle());
    let trust = Trust::parse(trust, "trust.toml").unwrap();
    assert_eq!(verify(&good, &trust, Purpose::Period, NOW).exit, 0);
    let mut random = Seeded(seed);
    let mut passed = 0;
    for round in 0..rounds {
        let mut bad = good.clone();
        let at = random.next(bad.len());
        match random.next(4) {
            0 => bad.truncate(at),
            1 => bad.insert(at, u8::try_from(random.next(256)).unwrap()),
            2 => drop(bad.remove(at)),
            _ => bad[at] ^= 1 << random.next(8),
        }
        let exit = verify(&bad, &trust, Purpose::Period, NOW).exit;
        if bad != good && exit == 0 {
            assert!(
                unsealed(&bad, &good),
                "round {round}: byte {at} of {}",
                good.len()
            );
            passed += 1;
        }
        let _receipt = verify(&bad, &trust, Purpose::Receipt, NOW);
    }
    assert!(
        passed * 20 < rounds,
        "{passed} of {rounds} changes did not matter"
    );
}

#[test]
fn no_random_change_of_a_bundle_passes() {
    let mut maker = Maker::new();
    maker.epochs = 2;
    storm(&maker, &maker.trust(), 3000, 0x6d65_7265_7374_6f6e);
}

#[test]
fn no_random_change_of_a_bundle_with_boot_logs_passes() {
    let (mut maker, trust) = measured();
    maker.epochs = 1;
    storm(&maker, &trust, 2000, 0x0073_746f_6e65_6d61);
}

#[test]
fn n48_headers_that_promise_more_than_there_is_are_refused_at_once() {
    let trust = Trust::parse(&Maker::new().trust(), "trust.toml").unwrap();
    let mut deep = vec![0xa1; 100_000];
    deep.push(0);
    for bytes in [
        &[][..],
        &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x9b, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00],
        &[0x5b, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00],
        &deep,
    ] {
        assert_eq!(verify(bytes, &trust, Purpose::Period, NOW).exit, 1);
    }
}
