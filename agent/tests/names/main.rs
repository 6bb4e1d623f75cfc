//! Named destinations against the running kernel: a guarded process in one
//! network namespace, a resolver and the hosts it names in another.
//!
//! Needs root, cgroup v2, bpffs, iproute2 and an agent built with the object;
//! each test says so and passes where they are not there.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failing helper is a failing test; a skipped one says so"
)]

mod child;
mod resolver;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use merestone_abi::{EventKind, Hook, Reason};
use resolver::{OTHER, TRUSTED, TRUSTED_V6, host};
use stage::{Stage, compiled, tables};
use std::os::fd::AsFd as _;
use std::time::Duration;
use wire::{hex, question, with_edns};

/// What the child is to do; see [`child`].
const ORDERS: &str = "MERESTONE_TEST_ORDERS";
const A: u16 = 1;
const AAAA: u16 = 28;

fn skipped<T>(name: &str, why: &str) -> Option<T> {
    println!("SKIPPED: names {name}: {why}");
    None
}

/// Not a test: what a child process runs.
#[test]
fn child() {
    if let Ok(network) = std::env::var("MERESTONE_TEST_NETWORK") {
        // Of this thread and those it starts: `ip netns exec` would hide /sys.
        let network = std::fs::File::open(network).unwrap();
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(network.as_fd(), Some(kind)).unwrap();
    }
    match std::env::var(ORDERS).as_deref() {
        Ok("resolve") => resolver::serve(),
        Ok("obey") => child::obey(),
        _ => {}
    }
}

impl Stage {
    fn guarded(name: &str) -> Option<Self> {
        let mut stage = Self::set(name)?;
        assert_eq!(stage.order("guard"), "ENXIO");
        Some(stage)
    }

    fn send(&mut self, to: &str, message: &[u8]) -> String {
        let to = if to.contains(':') {
            format!("[{to}]:53")
        } else {
            format!("{to}:53")
        };
        self.order(&format!("udp 0 {to} {}", hex(message)))
    }

    /// Asks the trusted resolver for an IPv4 address.
    fn ask(&mut self, name: &str) -> String {
        self.send(TRUSTED, &question(0x1234, name, A))
    }

    /// Exact count of egress decisions.
    fn egress(&self, verdict: &str) -> u64 {
        let counters = self.kernel.counters().unwrap();
        let of_egress = counters.iter().filter(|counter| {
            let name = counter.verdict.name().unwrap_or_default();
            counter.hook == Hook::EGRESS && name.eq_ignore_ascii_case(verdict)
        });
        of_egress.map(|counter| counter.count).sum()
    }

    fn connect(&mut self, last: u8) -> String {
        self.order(&format!("tcp {}", host(last)))
    }
}

type Body = fn(&mut Stage);

/// What is tried, each on a stage that is as new.
const BODIES: [(&str, Body); 10] = [
    ("outside", on_outside),
    ("form", on_form),
    ("learned", on_learned),
    ("time", on_time),
    ("alias", on_alias),
    ("rebinding", on_rebinding),
    ("denied", on_denied),
    ("own", on_own),
    ("trust", on_trust),
    ("spoofed", on_spoofed),
];

fn alone(name: &str, body: Body) {
    if !support::is_done_by("all_of_it_on_one_stage", name)
        && let Some(mut stage) = Stage::guarded(name)
    {
        body(&mut stage);
    }
}

#[test]
fn all_of_it_on_one_stage() {
    if !support::is_quick() {
        skipped::<()>(
            "one stage",
            "each test has its own, without MERESTONE_QUICK",
        );
        return;
    }
    let Some(mut stage) = Stage::guarded("own") else {
        return;
    };
    for (name, body) in BODIES {
        println!("names: {name}");
        stage.renew();
        body(&mut stage);
    }
}

#[test]
fn a_question_for_a_name_outside_never_reaches_a_resolver_b47() {
    alone("outside", on_outside);
}

fn on_outside(stage: &mut Stage) {
    for name in [
        "c2ecret.attacker.test",
        "registry.example.eu.attacker.test",
        "xregistry.example.eu",
        "a.registry.example.eu",
        "example.eu",
        "storage.example.eu",
        "xstorage.example.eu",
        "eu",
        "",
    ] {
        assert_eq!(stage.ask(name), "EPERM", "{name}");
        assert_eq!(stage.send(OTHER, &question(1, name, A)), "EPERM", "{name}");
    }
    assert_eq!(stage.reached(), Vec::<String>::new());
    let event = std::iter::from_fn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let next = async {
            let next = stage.events.next();
            tokio::time::timeout(Duration::from_secs(2), next).await
        };
        runtime.block_on(next).ok()?.ok()
    })
    .find(|event| event.kind == EventKind::FLOW && event.reason == Reason::NAME)
    .unwrap();
    assert_eq!(
        stage.kernel.name_of(&event).as_deref(),
        Some("c2ecret.attacker.test")
    );
    assert_eq!(stage.ask("registry.example.eu"), "ok 1");
    assert_eq!(stage.ask("a.b.storage.example.eu"), "ok 1");
    assert_eq!(
        stage.reached(),
        ["asked registry.example.eu", "asked a.b.storage.example.eu"]
    );
}

#[test]
fn what_is_not_one_plain_question_is_refused_b45_b47() {
    alone("form", on_form);
}

#[expect(clippy::too_many_lines, reason = "one form after the other")]
fn on_form(stage: &mut Stage) {
    let name = "registry.example.eu";
    let plain = question(7, name, A);
    let edit = |at: usize, value: u8| {
        let mut message = plain.clone();
        message[at] = value;
        message
    };
    let trailing = [&plain[..], b"secret"].concat();
    let label = |byte: u8| {
        let mut message = question(7, "aaaa.storage.example.eu", A);
        message[14] = byte;
        message
    };
    let two = {
        let mut message = edit(5, 2);
        message.extend(wire::labels("secret.attacker.test"));
        message.extend(wire::words(&[A, 1]));
        message
    };
    let last = plain.len() - 1;
    let refused = [
        ("an answer", edit(2, 0x81)),
        ("an update", edit(2, 0x28)),
        ("authoritative", edit(2, 0x05)),
        ("a code", edit(3, 3)),
        ("the reserved bit", edit(3, 0x40)),
        ("no question", edit(5, 0)),
        ("two questions", two),
        ("an answer record", edit(7, 1)),
        ("an authority record", edit(9, 1)),
        ("a record that is not there", edit(11, 1)),
        ("another class", edit(last, 3)),
        ("any type", edit(last - 2, 255)),
        ("the null type", edit(last - 2, 10)),
        ("bytes after the end", trailing),
        ("a cut name", plain[..20].to_vec()),
        ("a dot in a label", label(b'.')),
        ("a zero in a label", label(0)),
        ("a space in a label", label(b' ')),
        ("a high byte in a label", label(0xe4)),
        ("a compression pointer", edit(12, 0xc0)),
        ("padding", with_edns(7, name, &[0, 12, 0, 4, 1, 2, 3, 4])),
        (
            "a client subnet",
            with_edns(7, name, &[0, 8, 0, 4, 0, 1, 0, 0]),
        ),
        (
            "a long cookie",
            with_edns(7, name, &[&[0, 10, 0, 41][..], &[1; 41]].concat()),
        ),
        ("EDNS version 1", {
            let mut message = with_edns(7, name, &[]);
            let at = plain.len() + 6;
            message[at] = 1;
            message
        }),
    ];
    for (what, message) in &refused {
        assert_eq!(stage.send(TRUSTED, message), "EPERM", "{what}");
    }
    let to = format!("{TRUSTED}:53");
    let hexed = hex(&plain);
    for (what, order) in [
        ("pages of the sender's", format!("zerocopy {to} {hexed}")),
        (
            "two datagrams at once",
            format!("segments {to} {hexed}{hexed}"),
        ),
        (
            "answering as a resolver",
            format!("udp 53 198.18.0.9:4000 {hexed}"),
        ),
        ("DNS over TCP", format!("tcp {to}")),
        ("DNS over TLS", format!("tcp {TRUSTED}:853")),
        ("DNS over QUIC", format!("udp 0 {TRUSTED}:853 {hexed}")),
        ("a stub on loopback", format!("udp 0 127.0.0.53:53 {hexed}")),
    ] {
        assert_eq!(stage.order(&order), "EPERM", "{what}");
    }
    assert_eq!(stage.reached(), Vec::<String>::new());

    let cookie = [&[0, 10, 0, 8][..], &[7; 8]].concat();
    let server = [&[0, 10, 0, 24][..], &[7; 24]].concat();
    let fine = [
        edit(13, b'R'),
        edit(3, 0x30),
        with_edns(7, name, &[]),
        with_edns(7, name, &cookie),
        with_edns(7, name, &server),
        question(7, name, 65),
    ];
    for message in &fine {
        assert_eq!(stage.send(TRUSTED, message), "ok 1");
    }
    assert_eq!(stage.reached().len(), fine.len());
}

#[test]
fn an_address_is_reachable_once_a_trusted_resolver_has_named_it() {
    alone("learned", on_learned);
}

fn on_learned(stage: &mut Stage) {
    assert_eq!(stage.connect(7), "EPERM", "before it was asked for");
    assert_eq!(
        stage.send(OTHER, &question(1, "registry.example.eu", A)),
        "ok 1"
    );
    assert_eq!(
        stage.connect(7),
        "EPERM",
        "named by somebody who is not trusted"
    );
    assert_eq!(stage.ask("ReGiStRy.example.EU"), "ok 1");
    assert_eq!(stage.connect(7), "ok");
    assert_eq!(
        stage.order("tcp 203.0.113.7:8443"),
        "EPERM",
        "the rule names port 443"
    );
    assert_eq!(stage.ask("shared.storage.example.eu"), "ok 1");
    assert_eq!(
        stage.order("tcp 203.0.113.7:8443"),
        "ok",
        "another name, another rule"
    );
    assert_eq!(stage.connect(7), "ok", "and the first one still holds");

    let six = question(2, "registry.example.eu", AAAA);
    assert_eq!(stage.order("tcp [2001:db8:66::7]:443"), "EPERM");
    assert_eq!(stage.send(TRUSTED_V6, &six), "ok 1");
    assert_eq!(stage.order("tcp [2001:db8:66::7]:443"), "ok");

    let known = stage.kernel.learned().unwrap();
    let registry = known
        .iter()
        .filter(|known| known.name == "registry.example.eu");
    assert_eq!(registry.count(), 2, "{known:?}");

    // A reload keeps what its rules still list, and nothing else.
    stage.kernel.install(&tables(true)).unwrap();
    assert_eq!(stage.connect(7), "ok");
    stage.kernel.install(&tables(false)).unwrap();
    assert_eq!(stage.order("tcp [2001:db8:66::7]:443"), "EPERM");
    assert_eq!(stage.ask("registry.example.eu"), "EPERM");
    assert_eq!(stage.connect(7), "ok", "by the other name");
}

#[test]
fn an_address_whose_time_is_over_takes_no_new_connection() {
    alone("time", on_time);
}

fn on_time(stage: &mut Stage) {
    assert_eq!(stage.ask("brief.storage.example.eu"), "ok 1");
    assert_eq!(stage.order(&format!("keep stream {}", host(8))), "ok");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(stage.connect(8), "EPERM");
    stage.kernel.expire_names().unwrap();
    assert!(stage.kernel.learned().unwrap().is_empty());
    // What was opened in time goes on, also when it has to be judged again.
    assert_eq!(stage.order("write stream"), "ok");
    let before = stage.egress("allow");
    stage.kernel.install(&tables(true)).unwrap();
    assert_eq!(stage.order("write stream"), "ok");
    std::thread::sleep(Duration::from_millis(300));
    assert!(stage.egress("allow") > before, "the segment left");
    assert_eq!(stage.connect(8), "EPERM");
    assert_eq!(stage.ask("brief.storage.example.eu"), "ok 1");
    assert_eq!(stage.connect(8), "ok");
}

#[test]
fn an_alias_is_followed_and_a_stranger_s_record_is_not_learned() {
    alone("alias", on_alias);
}

fn on_alias(stage: &mut Stage) {
    assert_eq!(stage.ask("alias.storage.example.eu"), "ok 1");
    assert_eq!(stage.connect(9), "ok");
    assert_eq!(stage.ask("stranger.storage.example.eu"), "ok 1");
    assert_eq!(stage.connect(21), "ok");
    for last in [20, 22] {
        assert_eq!(stage.connect(last), "EPERM", "{last}");
    }
}

#[test]
fn a_name_opens_neither_this_host_nor_the_network_behind_the_wall() {
    alone("rebinding", on_rebinding);
}

fn on_rebinding(stage: &mut Stage) {
    assert_eq!(stage.ask("rebinding.storage.example.eu"), "ok 1");
    assert_eq!(stage.kernel.learned().unwrap(), []);
    assert_eq!(stage.order("tcp 10.1.2.3:443"), "EPERM");
}

#[test]
fn a_deny_by_name_holds_the_question_and_wins_over_other_names() {
    alone("denied", on_denied);
}

fn on_denied(stage: &mut Stage) {
    assert_eq!(stage.ask("a.bad.storage.example.eu"), "EPERM");
    assert_eq!(stage.reached(), Vec::<String>::new());
    // The two have one address.
    assert_eq!(stage.ask("full.storage.example.eu"), "ok 1");
    assert_eq!(stage.order("tcp 203.0.113.60:8443"), "ok");
    assert_eq!(stage.ask("half.storage.example.eu"), "ok 1");
    assert_eq!(stage.order("tcp 203.0.113.60:8443"), "EPERM");
    assert_eq!(stage.connect(60), "ok");
}

#[test]
fn an_address_of_this_host_is_private_whatever_its_number() {
    alone("own", on_own);
}

fn on_own(stage: &mut Stage) {
    // The agent's own network namespace gets the address that the name has.
    Stage::own_address();
    stage.kernel.expire_names().unwrap();
    assert_eq!(stage.ask("mine.storage.example.eu"), "ok 1");
    assert_eq!(stage.kernel.learned().unwrap(), []);
    assert_eq!(stage.connect(61), "EPERM");
}

#[test]
fn a_resolver_that_is_trusted_no_more_takes_its_answers_along() {
    alone("trust", on_trust);
}

fn on_trust(stage: &mut Stage) {
    assert_eq!(stage.ask("registry.example.eu"), "ok 1");
    let known = stage.kernel.learned().unwrap();
    assert_eq!(known[0].resolver.to_string(), TRUSTED);
    assert_eq!(stage.connect(7), "ok");
    let other = "name = \"n\"\n[[allow]]\ncidr = [\"198.18.0.0/24\"]\n\
                 [[allow]]\nname = [\"registry.example.eu\"]\n\
                 [resolvers]\ntrust = [\"198.18.0.8\"]\n";
    stage.kernel.install(&compiled(other)).unwrap();
    assert_eq!(stage.connect(7), "EPERM");
    assert_eq!(
        stage.send(OTHER, &question(1, "registry.example.eu", A)),
        "ok 1"
    );
    assert_eq!(stage.connect(7), "ok");
}

#[test]
fn an_answer_that_is_not_the_one_is_not_learned() {
    alone("spoofed", on_spoofed);
}

fn on_spoofed(stage: &mut Stage) {
    for first in [
        "loop",
        "cut",
        "long",
        "truncated",
        "failed",
        "otherid",
        "othercase",
        "othername",
        "question",
        "spoofed",
        "twice",
    ] {
        let said = stage.ask(&format!("{first}.storage.example.eu"));
        assert!(said.starts_with("ok"), "{first}: {said}");
    }
    // Each is asked for, and none of them but what the rightful answers gave.
    let known: Vec<_> = stage.kernel.learned().unwrap();
    let known: Vec<_> = known
        .iter()
        .map(|known| known.address.to_string())
        .collect();
    assert!(
        known
            .iter()
            .all(|address| ["203.0.113.31", "203.0.113.50"].contains(&address.as_str())),
        "{known:?}"
    );
    assert_eq!(stage.connect(40), "EPERM", "from another address and port");
    assert_eq!(
        stage.connect(32),
        "EPERM",
        "the second answer to one question"
    );
    assert_eq!(stage.ask("many.storage.example.eu"), "ok 1");
    assert_eq!(stage.connect(100), "ok");
    assert_eq!(
        stage.connect(163),
        "EPERM",
        "past the records that are read"
    );
}
