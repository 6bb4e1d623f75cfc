//! The kept vectors: every one has a sound page and an attestation result of the same verdict.
#![expect(clippy::disallowed_methods, reason = "a test reads files")]

use crate::dom::sound;
use crate::ear::result;
use crate::paged;
use crate::support::NOW;
use merestone_verify::{Purpose, Trust, verify};
use std::path::Path;

#[test]
fn every_kept_vector_has_a_sound_page_and_an_ear_of_its_verdict() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let case = entry.unwrap().path();
        let trust = std::fs::read_to_string(case.join("trust.toml")).unwrap();
        let expect = std::fs::read_to_string(case.join("expect")).unwrap();
        let purpose = if expect.starts_with("bundle") {
            Purpose::Period
        } else {
            Purpose::Receipt
        };
        let trust = Trust::parse(&trust, "trust.toml").unwrap();
        let bytes = std::fs::read(case.join("file.cbor")).unwrap();
        let verdict = verify(&bytes, &trust, purpose, NOW);
        let page = paged(&verdict, purpose, None, None);
        sound(&page);
        let word = format!("data-verdict=\"{}\"", verdict.verdict.text());
        assert!(page.contains(&word), "{}", case.display());
        let tier = result(&verdict)["ear_status"].as_str().unwrap().to_owned();
        let want: &[&str] = match verdict.exit {
            0 => &["affirming", "warning"],
            3 => &["none"],
            _ => &["contraindicated"],
        };
        assert!(want.contains(&tier.as_str()), "{}: {tier}", case.display());
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
}
