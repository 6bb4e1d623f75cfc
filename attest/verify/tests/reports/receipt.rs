//! The page of one receipt.

#[path = "../cases/support/receipts.rs"]
pub(crate) mod made;

use crate::dom::{Element, sound};
use crate::support::{Maker, NOW, judge_bytes};
use crate::{HOSTILE, keep, paged};
use made::{SALT, bound, claims, entry, key, sign};
use merestone_evidence::{Blob, Bundle, Inference, answer_digest, encode, request_digest};
use merestone_verify::{Contents, Purpose, Trust, Verdict, verify_contents};

/// A bound record with this model.
fn record(model: &str) -> Inference {
    let mut record = bound(3, 40_000, 13);
    (record.request_bytes, record.response_bytes) = (1234, 98_765);
    if let Some(binding) = &mut record.binding {
        binding.model = Some(model.into());
    }
    record
}

/// The file of a receipt for a record with this model, and the policy.
fn file(model: &str) -> (Bundle, String) {
    let mut maker = Maker::new();
    maker.session = Box::new(|session| session.session_key = key().verifying_key().to_bytes());
    let entry = entry(record(model));
    let mut claims = claims(&maker, 0, &entry);
    claims.nonce = Some(vec![0x5a; 32]);
    maker.told = vec![(0, entry)];
    let mut bundle = maker.receipt(0);
    bundle.receipts = Some(vec![Blob::from(sign(&claims, &key()))]);
    (bundle, maker.trust())
}

fn shown(verdict: &Verdict, name: &str) -> (String, Vec<Element>) {
    let page = paged(verdict, Purpose::Receipt, None, None);
    keep(name, &page);
    let elements = sound(&page);
    (page, elements)
}

fn text(elements: &[Element]) -> &str {
    let body = elements.iter().find(|element| element.name == "body");
    &body.unwrap().text
}

#[test]
fn the_page_of_a_receipt_says_what_it_is_about_and_nothing_of_the_period() {
    let (bundle, trust) = file("mini");
    let verdict = judge_bytes(&encode(&bundle), &trust, Purpose::Receipt);
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    let (page, elements) = shown(&verdict, "receipt");
    let words = text(&elements);
    let receipt = &verdict.receipts.as_ref().unwrap().shown[0];
    for wanted in [
        receipt.id.as_str(),
        receipt.nonce.as_deref().unwrap(),
        receipt.request.as_deref().unwrap(),
        receipt.answer.as_deref().unwrap(),
        "R2, seen by the kernel and workload",
        "http/1 POST /v1/chat/completions, 1\u{202f}234 bytes in, 98\u{202f}765 out",
        "198.18.0.2, inside the boundary",
        "Not compared: none was given.",
        "merestone-verify receipt FILE",
        "verdict: pass",
    ] {
        assert!(words.contains(wanted), "{wanted}");
    }
    for id in [
        "time",
        "egress",
        "gpus",
        "enforcement",
        "events",
        "inferences",
        "law",
    ] {
        assert!(
            elements.iter().all(|one| one.attribute("id") != Some(id)),
            "{id}"
        );
        assert!(!page.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    // What was not checked stands before the claim here too.
    assert!(page.find("id=\"open\"") < page.find("id=\"receipt\""));
}

#[test]
fn what_was_compared_is_said_and_a_wrong_answer_refuses_the_receipt_with_advice() {
    let (bundle, trust) = file("mini");
    let trust = Trust::parse(&trust, "trust.toml").unwrap();
    let judged = |answer: &[u8]| {
        let contents = Contents {
            request: Some(request_digest(&SALT, b"asked")),
            answer: Some(answer_digest(&SALT, answer)),
        };
        let bytes = encode(&bundle);
        verify_contents(&bytes, &trust, Purpose::Receipt, &contents, NOW)
    };
    let (_, elements) = shown(&judged(b"answered"), "receipt-compared");
    assert!(text(&elements).contains("Compared: what was given is what the record binds."));
    let verdict = judged(b"another answer");
    assert_eq!(verdict.exit, 1);
    let (_, elements) = shown(&verdict, "receipt-refused");
    let words = text(&elements);
    assert!(words.contains("verdict: untrusted") && words.contains("No claim is shown"));
    assert!(
        words
            .contains("What to do: Check that request, answer and salt are those of this receipt.")
    );
    assert!(!words.contains("What the receipt says"));
}

#[test]
fn n73_hostile_strings_in_a_receipt_do_nothing_on_its_page() {
    let (bundle, trust) = file(HOSTILE);
    let verdict = judge_bytes(&encode(&bundle), &trust, Purpose::Receipt);
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    let (page, elements) = shown(&verdict, "receipt-hostile");
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<svg/"));
    assert!(text(&elements).contains("<script>alert(1)</script>"));
}
