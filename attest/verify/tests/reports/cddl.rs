//! The schema of evidence, held against files by a CDDL tool that is not ours.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test reads files and says what it skipped"
)]

use crate::support::{Maker, START, flow};
use cddl_cat::validate_cbor_bytes;
use merestone_evidence::{Bundle, decode, encode};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn holds(bytes: &[u8]) -> bool {
    let schema = std::fs::read_to_string(root().join("docs/formats/evidence.cddl")).unwrap();
    validate_cbor_bytes("bundle", &schema, bytes).is_ok()
}

/// Every kept file that passes; of the others some are meant to be no evidence at all.
#[test]
fn the_schema_holds_of_every_kept_file_that_passes() {
    let mut seen = 0;
    for case in std::fs::read_dir(root().join("tests/vectors/evidence")).unwrap() {
        let case = case.unwrap().path();
        if std::fs::read_to_string(case.join("expect"))
            .unwrap()
            .trim()
            .ends_with('0')
        {
            let bytes = std::fs::read(case.join("file.cbor")).unwrap();
            assert!(holds(&bytes), "{}", case.display());
            seen += 1;
        }
    }
    assert!(seen > 4);
}

#[test]
fn the_schema_holds_of_the_demos_bundle() {
    let demo = root().join("target/demo/demo.merestone");
    if let Ok(bytes) = std::fs::read(&demo) {
        assert!(holds(&bytes));
    } else {
        println!(
            "SKIPPED: the_schema_holds_of_the_demos_bundle: no {} (cargo xtask demo)",
            demo.display()
        );
    }
}

#[test]
fn the_schema_holds_of_nothing_that_the_decoder_refuses() {
    let good = encode(&Maker::new().bundle());
    assert!(holds(&good));
    let mut maker = Maker::new();
    maker.extra_leaf = Some(b"free text".to_vec());
    assert!(!holds(&encode(&maker.bundle())));
    // An entry with one key more than the format has.
    let mut entry = encode(&flow(START, 1));
    entry[0] += 1;
    entry.extend([0x18, 99, 0]);
    let mut maker = Maker::new();
    maker.extra_leaf = Some(entry);
    assert!(!holds(&encode(&maker.bundle())));
    let (cut, _last) = good.split_at(good.len() - 1);
    assert!(!holds(cut) && decode::<Bundle>(cut).is_err());
}
