//! Terms and books; what the kernel counts is tested with the kernel.

use super::*;
use crate::signed::Signed;

const TEXT: &str = "\
name = \"export-7\"
group = \"/system.slice/vllm.service\"
to = \"203.0.113.7/32\"
ports = [443, \"8000-8100\"]
protocols = [\"tcp\"]
bytes = 1_000_000
from = 2026-11-01T00:00:00Z
until = \"2026-11-02T00:00:00Z\"
reason = \"aggregates of the quarter\"
";

fn record(text: &str) -> Record {
    let signed = Signed {
        signer: [1; 32],
        payload: text.into(),
        sha256: Sha256::digest(text).into(),
    };
    Record::new(Terms::parse(text.as_bytes()).unwrap(), &signed)
}

#[test]
fn terms_are_read_and_compiled() {
    let terms = Terms::parse(TEXT.as_bytes()).unwrap();
    assert_eq!(terms.ports, [(443, 443), (8000, 8100)]);
    assert_eq!(terms.until_ms - terms.from_ms, 86_400_000);
    assert_eq!(terms.until(), "2026-11-02T00:00:00Z");
    let now_ms = terms.from_ms + 1000;
    let grant = terms.compile(7, 9, 5_000_000_000, now_ms);
    assert_eq!(grant.from_boot_ns, 4_000_000_000);
    assert_eq!(grant.until_boot_ns, 5_000_000_000 + 86_399 * 1_000_000_000);
    assert_eq!((grant.group, grant.id, grant.ports), (7, 9, 2));
    assert_eq!(grant.mask, [0xff; 16]);
    assert_eq!(grant.protocols, [6, 0, 0, 0]);
}

#[test]
fn terms_match_what_they_name_and_nothing_else() {
    let terms = Terms::parse(TEXT.as_bytes()).unwrap();
    let to = |text: &str| crate::policy::mapped(text.parse().unwrap());
    assert!(terms.matches(to("203.0.113.7"), 6, 443));
    assert!(terms.matches(to("203.0.113.7"), 6, 8100));
    assert!(!terms.matches(to("203.0.113.7"), 6, 80));
    assert!(!terms.matches(to("203.0.113.7"), 17, 443));
    assert!(!terms.matches(to("203.0.113.8"), 6, 443));
}

#[test]
fn terms_that_cannot_be_honoured_are_refused() {
    for (from, to) in [
        ("\"203.0.113.7/32\"", "\"::/0\""),
        ("\"203.0.113.7/32\"", "\"0.0.0.0/0\""),
        ("\"203.0.113.7/32\"", "\"203.0.113.7\""),
        ("1_000_000", "0"),
        ("1_000_000", "-1"),
        ("\"2026-11-02T00:00:00Z\"", "\"2026-10-01T00:00:00Z\""),
        ("\"2026-11-02T00:00:00Z\"", "2026-11-02T00:00:00"),
        ("\"tcp\"", "\"icmp\""),
        ("\"tcp\"", "\"quic\""),
        ("443,", "0,"),
        ("\"8000-8100\"", "1,2,3,4"),
        ("/system.slice", "system.slice"),
        ("/system.slice", "/.."),
        ("export-7", "export 7"),
        ("reason", "season"),
    ] {
        let text = TEXT.replace(from, to);
        assert_ne!(text, TEXT);
        assert!(Terms::parse(text.as_bytes()).is_err(), "{to}");
    }
}

#[test]
fn a_grant_is_remembered_under_whatever_signature() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    let mut first = record(TEXT);
    first.place = Some(0);
    book.push(first).unwrap();
    assert_eq!(book.free(), Some(1));
    for record in book.active_mut() {
        record.end(State::Expired);
    }
    book.write().unwrap();
    let book = Book::open(directory.path()).unwrap();
    let mut again = record(TEXT);
    again.sha256 = "00".repeat(32);
    assert_eq!(book.seen(&again).unwrap().state, State::Expired);
    assert_eq!(book.free(), Some(0));
    let other = record(&TEXT.replace("export-7", "export-8"));
    assert!(book.seen(&other).is_none());
}

#[test]
fn broken_books_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("grants.json"), "[{}]").unwrap();
    assert!(matches!(
        Book::open(directory.path()),
        Err(GrantError::Book { .. })
    ));
}
