//! Bytes that nobody meant, and the chance that the other cases draw from.

use crate::support::{Maker, NOW};
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
