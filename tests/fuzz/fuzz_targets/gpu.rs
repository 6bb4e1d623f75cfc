//! What a GPU signs: never panics, nothing is left over, and only the recorded report holds under
//! the key of its certificate.
//!
//! The first byte says what the others are: a report, changes to the recorded one, its field of
//! free form, or a chain of certificates as NVML gives it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_fuzz::edited;
use merestone_verify::ek::{Certificate, certificates};
use merestone_verify::gpu::Report;
use std::sync::OnceLock;

const REPORT: &[u8] = include_bytes!("../../vectors/gpu/hopper-report.bin");
const CHAIN: &[u8] = include_bytes!("../../vectors/gpu/hopper-chain.pem");

fn leaf() -> &'static Certificate {
    static LEAF: OnceLock<Certificate> = OnceLock::new();
    LEAF.get_or_init(|| certificates(CHAIN).expect("a chain").remove(0))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    match what % 4 {
        0 => report(rest),
        1 => report(&edited(REPORT, rest)),
        2 => short(rest),
        _ => chain(rest),
    }
});

fn report(bytes: &[u8]) {
    let Ok(report) = Report::parse(bytes) else {
        assert_ne!(bytes, REPORT);
        return;
    };
    assert!(report.measurements.len() <= 255);
    let told: usize = report.measurements.values().map(|one| one.len()).sum();
    assert!(told <= report.record.len() && report.record.len() < bytes.len());
    for text in [report.driver(), report.vbios()].into_iter().flatten() {
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    assert!(
        report
            .firmware()
            .is_none_or(|digest| digest.len() < bytes.len())
    );
    let point = leaf().p384_point().expect("a key of P-384");
    assert_eq!(report.signed_by(point).is_ok(), bytes == REPORT);
    // A point that is the report's own word.
    drop(report.signed_by(bytes.get(..97).unwrap_or_default()));
}

/// A report whose measurements and field of free form are the input's: the first byte how many
/// blocks there are, the next where the first part ends.
fn short(bytes: &[u8]) {
    let Some(([blocks, high, low], rest)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let at = (usize::from(*high) << 8 | usize::from(*low)).min(rest.len());
    let (record, opaque) = rest.split_at(at);
    let opaque = opaque.get(..opaque.len().min(0xffff)).unwrap_or_default();
    let mut out = vec![0x11, 0xe0, 1, 0xff];
    out.extend([7; 32]);
    out.extend([0, 0x11, 0x60, 0, 0, *blocks]);
    let length = u32::try_from(record.len()).unwrap_or(0).to_le_bytes();
    out.extend_from_slice(&length[..3]);
    out.extend_from_slice(record);
    out.extend([9; 32]);
    let length = u16::try_from(opaque.len()).unwrap_or(0).to_le_bytes();
    out.extend(length);
    out.extend_from_slice(opaque);
    out.extend([1; 96]);
    report(&out);
}

fn chain(bytes: &[u8]) {
    let Ok(found) = certificates(bytes) else {
        return;
    };
    for one in &found {
        drop((one.p384_point().map(<[u8]>::len), one.firmware_id()));
        drop(one.signed_by(leaf()));
        if leaf().signed_by(one).is_ok() {
            let sound = certificates(CHAIN).expect("a chain");
            let key = |one: &Certificate| one.p384_point().map(<[u8]>::to_vec).ok();
            assert!(sound.iter().any(|other| key(other) == key(one)));
        }
    }
}
