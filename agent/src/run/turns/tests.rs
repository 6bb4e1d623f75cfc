//! Turns as the kernel would tell them.

use super::told::MOST_FETCH;
use super::waiting::MOST_WAITING;
use super::*;
use crate::gateway::RECEIPTS;

fn turn(head: &[u8]) -> Turn {
    let mut bytes = [0; merestone_abi::TURN_HEAD];
    bytes[..head.len()].copy_from_slice(head);
    Turn {
        started_ns: 5_000_000_000,
        request_ns: 5_000_000_000,
        answered_ns: 6_000_000_000,
        last_ns: 7_000_000_000,
        request_bytes: 100,
        response_bytes: 900,
        cookie: 1,
        group: 7,
        peer: [0; 16],
        owner: 0,
        number: 0,
        peer_port: 40_000,
        local_port: 8000,
        form: Form::HTTP1,
        state: TurnState::OPEN,
        head_bytes: u8::try_from(head.len()).unwrap(),
        half_closed: 0,
        head: bytes,
    }
}

fn turns() -> Turns {
    Turns::new(config::Records {
        enabled: true,
        idle: Duration::from_secs(2),
        leave_out: vec!["/health".to_owned()],
        socket: None,
    })
}

fn facts() -> Facts {
    Facts {
        process: None,
        peer_inside: true,
        gpus: Vec::new(),
        fetches_receipt: false,
        boot_ms: 1_000_000,
    }
}

fn ended(mut turn: Turn, state: TurnState) -> Turn {
    turn.state = state;
    turn
}

#[test]
fn health_checks_are_counted_and_left_out() {
    let mut turns = turns();
    let health = turn(b"GET /health?verbose HTTP/1.1\r\n");
    turns.take(vec![ended(health, TurnState::NEXT)]);
    let due = turns.due(None, 8_000_000_000);
    assert!(turns.entry(&due[0], facts()).is_none());
    assert_eq!((turns.info().observed, turns.info().left_out), (0, 1));
}

#[test]
fn a_silent_turn_is_told_once_and_again_only_when_it_went_on() {
    let mut turns = turns();
    let open = turn(b"POST /v1/completions HTTP/1.1\r\n");
    assert!(turns.due(Some(&[open]), 8_000_000_000).is_empty());
    let due = turns.due(Some(&[open]), 9_500_000_000);
    assert_eq!(
        (due[0].turn, due[0].end, due[0].amends),
        (open, End::Idle, false)
    );
    let first = turns.entry(&due[0], facts()).unwrap();
    assert_eq!((first.started_ms, first.ended_ms), (1_005_000, 1_007_000));
    assert!(turns.due(Some(&[open]), 10_000_000_000).is_empty());
    let mut more = open;
    more.response_bytes += 1;
    let due = turns.due(Some(&[more]), 10_000_000_000);
    assert_eq!(due.len(), 1);
    let second = turns.entry(&due[0], facts()).unwrap();
    assert!(second.amends && second.id == first.id);
    turns.take(vec![ended(more, TurnState::NEXT)]);
    assert!(turns.due(Some(&[]), 11_000_000_000).is_empty());
}

#[test]
fn a_silent_turn_that_went_on_and_ended_is_told_as_an_amendment() {
    let mut turns = turns();
    let open = turn(b"POST /v1/completions HTTP/1.1\r\n");
    let due = turns.due(Some(&[open]), 9_500_000_000);
    turns.entry(&due[0], facts()).unwrap();
    let mut more = ended(open, TurnState::SERVER_CLOSED);
    more.response_bytes += 1;
    turns.take(vec![more]);
    let due = turns.due(None, 10_000_000_000);
    assert!(due[0].amends);
}

const fn sought(started_ms: u64) -> Sought {
    Sought {
        group: 7,
        peer: [0; 16],
        peer_port: 40_000,
        port: 8000,
        started_ms,
        ended_ms: started_ms + 2000,
        boot_ms: 1_000_000,
        is_onward: false,
    }
}

#[test]
fn a_bound_record_takes_the_place_of_its_turn_or_amends_it() {
    // Before it was told: no entry of its own follows.
    let fresh = turns;
    let mut turns = fresh();
    let one = ended(turn(b"POST /v1/a HTTP/1.1\r\n"), TurnState::NEXT);
    turns.take(vec![one]);
    let joined = turns.join(&[], &sought(1_005_000)).unwrap();
    assert_eq!((joined.end, joined.amends), (End::Next, false));
    assert!(turns.due(None, 8_000_000_000).is_empty());
    assert!(turns.join(&[], &sought(1_005_000)).is_none(), "once");
    // While it is open: told again only when more comes, and then as an amendment.
    let mut turns = fresh();
    let open = turn(b"POST /v1/a HTTP/1.1\r\n");
    assert!(!turns.join(&[open], &sought(1_005_000)).unwrap().amends);
    turns.take(vec![ended(open, TurnState::CLIENT_CLOSED)]);
    assert!(turns.due(None, 8_000_000_000).is_empty());
    // After it was told.
    let mut turns = fresh();
    turns.take(vec![one]);
    let due = turns.due(None, 8_000_000_000);
    turns.entry(&due[0], facts()).unwrap();
    assert!(turns.join(&[], &sought(1_005_000)).unwrap().amends);
}

#[test]
fn of_many_turns_on_a_connection_the_nearest_in_time_is_joined() {
    let mut turns = turns();
    let mut second = turn(b"POST /v1/b HTTP/1.1\r\n");
    second.number = 1;
    second.started_ns += 300_000_000;
    let first = ended(turn(b"POST /v1/a HTTP/1.1\r\n"), TurnState::NEXT);
    turns.take(vec![first]);
    let joined = turns.join(&[second], &sought(1_005_010)).unwrap();
    assert_eq!(joined.turn.number, 0);
    let joined = turns.join(&[second], &sought(1_005_010)).unwrap();
    assert_eq!(joined.turn.number, 1);
    let mut other = sought(1_005_000);
    other.group = 8;
    assert!(turns.join(&[first], &other).is_none(), "another group's");
    let mut later = turns;
    assert!(later.join(&[second], &sought(1_900_000)).is_none());
}

#[test]
fn what_a_gateway_passed_on_is_no_turn_of_its_own_and_only_on_loopback() {
    let onward = |peer: [u8; 4]| Sought {
        peer: std::net::Ipv4Addr::from(peer).to_ipv6_mapped().octets(),
        is_onward: true,
        ..sought(1_005_000)
    };
    let of = |peer: [u8; 4]| {
        let mut turn = turn(b"POST /v1/a HTTP/1.1\r\n");
        turn.peer = onward(peer).peer;
        turn
    };
    let mut kept = turns();
    let here = of([127, 0, 0, 1]);
    let joined = kept.join(&[here], &onward([127, 0, 0, 1])).unwrap();
    assert!(!joined.amends);
    kept.take(vec![ended(here, TurnState::NEXT)]);
    assert!(kept.due(None, 8_000_000_000).is_empty());
    // What more it had would be told, as an amendment.
    let mut kept = turns();
    kept.join(&[here], &onward([127, 0, 0, 1])).unwrap();
    let mut more = ended(here, TurnState::NEXT);
    more.response_bytes += 1;
    kept.take(vec![more]);
    assert!(kept.due(None, 8_000_000_000)[0].amends);
    // Somebody else's is told on its own, whatever a process says.
    let away = of([192, 0, 2, 7]);
    assert!(kept.join(&[away], &onward([192, 0, 2, 7])).is_none());
    // So is one that began before the client asked, or that is no HTTP/1.
    let mut early = here;
    early.cookie = 2;
    early.started_ns -= 1_500_000_000;
    assert!(kept.join(&[early], &onward([127, 0, 0, 1])).is_none());
    let mut tls = here;
    (tls.cookie, tls.form) = (3, Form::TLS);
    assert!(kept.join(&[tls], &onward([127, 0, 0, 1])).is_none());
}

#[test]
fn only_the_whole_path_of_a_receipt_with_few_bytes_is_its_fetching() {
    let path = |path: &str| turn(format!("GET {path} HTTP/1.1\r\n").as_bytes());
    let fetch = path(&format!("{RECEIPTS}{}", "0a".repeat(16)));
    assert_eq!(receipt_asked(&fetch), Some([10; 16]));
    let mut long = fetch;
    long.response_bytes = MOST_FETCH + 1;
    assert_eq!(receipt_asked(&long), None);
    let mut cut = fetch;
    cut.head_bytes = 64;
    assert_eq!(receipt_asked(&cut), None);
    for other in ["/v1/a".to_owned(), format!("{RECEIPTS}{}", "0a".repeat(15))] {
        assert_eq!(receipt_asked(&path(&other)), None);
    }
    let mut turns = turns();
    turns.take(vec![ended(fetch, TurnState::NEXT)]);
    let due = turns.due(None, 8_000_000_000);
    let facts = Facts {
        fetches_receipt: true,
        ..facts()
    };
    assert!(turns.entry(&due[0], facts).is_none());
    assert_eq!((turns.info().observed, turns.info().left_out), (0, 1));
}

#[test]
fn who_asks_for_a_receipt_before_it_is_there_waits_a_while_to_be_told() {
    const SECOND: u64 = 1_000_000_000;
    let fetch = turn(format!("GET {RECEIPTS}{} HTTP/1.1\r\n", "0a".repeat(16)).as_bytes());
    let mut turns = turns();
    turns.take(vec![
        ended(fetch, TurnState::NEXT),
        ended(turn(b"GET /v1/a HTTP/1.1\r\n"), TurnState::NEXT),
    ]);
    turns.await_receipts(8 * SECOND, |_| false);
    assert_eq!(turns.due(None, 8 * SECOND).len(), 1, "the other is told");
    turns.await_receipts(9 * SECOND, |_| false);
    assert!(turns.due(None, 9 * SECOND).is_empty());
    turns.await_receipts(10 * SECOND, |id| *id == [10; 16]);
    assert_eq!(turns.due(None, 10 * SECOND).len(), 1, "it is there");
    turns.take(vec![ended(fetch, TurnState::NEXT)]);
    turns.await_receipts(10 * SECOND, |_| false);
    turns.await_receipts(17 * SECOND, |_| false);
    assert_eq!(turns.due(None, 17 * SECOND).len(), 1, "it does not come");
    let many = vec![ended(fetch, TurnState::NEXT); MOST_WAITING + 1];
    turns.take(many);
    turns.await_receipts(8 * SECOND, |_| false);
    assert_eq!(turns.due(None, 8 * SECOND).len(), 1, "no more wait");
    turns.await_no_receipts();
    assert_eq!(turns.due(None, 8 * SECOND).len(), MOST_WAITING, "the end");
}

#[test]
fn what_was_left_out_and_goes_on_beyond_a_receipt_is_told_after_all() {
    let mut turns = turns();
    let open = turn(format!("GET {RECEIPTS}{} HTTP/1.1\r\n", "0a".repeat(16)).as_bytes());
    let fetch = || Facts {
        fetches_receipt: true,
        ..facts()
    };
    let due = turns.due(Some(&[open]), 9_500_000_000);
    assert!(turns.entry(&due[0], fetch()).is_none());
    let mut more = ended(open, TurnState::NEXT);
    more.response_bytes = MOST_FETCH + 1;
    turns.take(vec![more]);
    let due = turns.due(None, 11_000_000_000);
    assert!(!turns.entry(&due[0], facts()).unwrap().amends);
    assert_eq!(turns.info().observed, 1);
}

#[test]
fn a_silent_health_check_is_counted_once() {
    let mut turns = turns();
    let open = turn(b"GET /health HTTP/1.1\r\n");
    let due = turns.due(Some(&[open]), 9_500_000_000);
    assert!(turns.entry(&due[0], facts()).is_none());
    assert!(turns.due(Some(&[open]), 10_500_000_000).is_empty());
    turns.take(vec![ended(open, TurnState::NEXT)]);
    assert!(turns.due(None, 11_000_000_000).is_empty());
    assert_eq!(turns.info().left_out, 1);
}

#[test]
fn what_the_group_sent_is_taken_from_before_the_request_until_now() {
    let mut turns = turns();
    let reading = |boot_ns, denied| Reading {
        boot_ns,
        ms: boot_ns / 1_000_000,
        groups: BTreeMap::from([(
            7,
            GroupCount {
                denied,
                ..GroupCount::default()
            },
        )]),
    };
    turns
        .readings
        .extend([reading(4_900_000_000, 3), reading(8_000_000_000, 5)]);
    let egress = turns.egress(7, 5_000_000_000).unwrap();
    assert_eq!(
        (egress.denied, egress.from_ms, egress.to_ms),
        (2, 4900, 8000)
    );
    assert!(turns.egress(7, 4_000_000_000).is_none(), "not known");
}
