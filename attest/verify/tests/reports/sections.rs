//! The page's sections: in the order a reader needs them, bounded, harmless, and in words.

use crate::dom::{Element, sound};
use crate::support::{Maker, START, flow};
use crate::{HOSTILE, judged, shown};
use merestone_evidence::{
    Binding, Body, Digest, End, Entry, EntryKind, FlowVerdict, Grade, GrantTerms, Inference,
    Process, encode, sha256,
};

fn text(elements: &[Element]) -> &str {
    let body = elements.iter().find(|element| element.name == "body");
    &body.unwrap().text
}

fn entry(after_ms: u64, body: Body) -> Entry {
    Entry {
        kind: EntryKind,
        time_ms: START + after_ms,
        boot_ns: after_ms * 1_000_000,
        body,
    }
}

/// A turn whose every string is this one.
fn exchange(number: u64, grade: Grade, word: &str) -> Inference {
    let process = Process {
        pid: 7,
        start_ticks: 9,
        exe: word.into(),
        exe_sha256: None,
        comm: word.into(),
        cgroup: word.into(),
        container_id: Some(word.into()),
        pod_uid: Some(word.into()),
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id[8] = u8::from(grade == Grade::Bound);
    Inference {
        id,
        grade,
        started_ms: START + number % 9_000,
        answered_ms: None,
        ended_ms: START + number % 9_000 + 250,
        request_bytes: 120,
        response_bytes: 4096,
        group: 1,
        process: Some(process.clone()),
        peer: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 9],
        peer_port: 40_000,
        port: 8000,
        peer_inside: true,
        form: word.into(),
        method: Some(word.into()),
        path: Some(word.into()),
        end: End::Next,
        gpus: vec![word.into()],
        egress: None,
        amends: false,
        binding: (grade == Grade::Bound).then(|| Binding {
            request: sha256(b"asked"),
            response: sha256(b"answered"),
            model: Some(word.into()),
            model_sha256: None,
            process: Some(process),
            status: Some(200),
        }),
        turn: None,
        onward: None,
        gpu_use: None,
    }
}

#[test]
fn place_time_inferences_egress_and_gpus_come_in_this_order_and_the_checks_after_them() {
    let maker = Maker::new();
    let page = shown(&judged(&maker.bundle(), &maker.trust()));
    let places = [
        "verdict",
        "open",
        "place",
        "time",
        "inferences",
        "egress",
        "gpus",
        "checks",
        "law",
    ];
    let places = places.map(|id| page.find(&format!("id=\"{id}\"")).unwrap());
    assert!(places.is_sorted(), "{places:?}");
    let links: Vec<String> = sound(&page)
        .iter()
        .filter(|one| one.name == "a")
        .filter_map(|one| one.attribute("href")?.strip_prefix('#'))
        .filter(|id| page.contains(&format!("id=\"{id}\"")))
        .map(str::to_owned)
        .collect();
    assert!(links.len() > 9);
}

#[test]
fn each_section_says_who_stands_behind_it_and_what_was_not_checked_of_it() {
    let maker = Maker::new();
    let page = shown(&judged(&maker.bundle(), &maker.trust()));
    let elements = sound(&page);
    let section = |id| {
        let of =
            |one: &&Element| one.name == "section" && one.attribute("aria-labelledby") == Some(id);
        elements.iter().find(of).unwrap().text.clone()
    };
    for id in [
        "place",
        "time",
        "egress",
        "gpus",
        "enforcement",
        "sessions",
        "events",
    ] {
        assert!(section(id).contains("Source: "), "{id}");
    }
    assert!(section("checks").contains("Rests on: "));
    for (id, check) in [
        ("time", "log.tail"),
        ("time", "log.witness"),
        ("time", "policy.dark"),
        ("gpus", "gpu.attestation"),
        ("gpus", "gpu.binding"),
    ] {
        assert!(section(id).contains(check), "{id}: {check}");
    }
    assert!(section("place").contains("every session states its place"));
    // As the checks name it.
    assert!(section("sessions").contains("Session 0"));
}

#[test]
fn names_of_hooks_and_reasons_stand_beside_words_for_them() {
    let mut maker = Maker::new();
    maker.leaf = Box::new(|opened, number| {
        let mut entry = flow(opened + number, number);
        if let Body::Flow {
            verdict, reason, ..
        } = &mut entry.body
            && number == 1
        {
            *verdict = FlowVerdict::Audit;
            *reason = "of_another_agent".into();
        }
        encode(&entry)
    });
    let elements = sound(&shown(&judged(&maker.bundle(), &maker.trust())));
    let words = text(&elements);
    for phrase in [
        "a connection was begun connect4",
        "no rule of the boundary allows it no_rule",
        "let out, only watched",
        "of_another_agent",
    ] {
        assert!(words.contains(phrase), "{phrase}");
    }
}

#[test]
fn a_page_of_many_inferences_stays_small_and_says_how_many_it_shows() {
    let mut maker = Maker::new();
    maker.leaves_each = 5_000;
    maker.leaf = Box::new(|opened, number| {
        let record = exchange(opened + number, Grade::Observed, "/v1/chat/completions");
        encode(&entry(300, Body::Inference(Box::new(record))))
    });
    let verdict = judged(&maker.bundle(), &maker.trust());
    let page = shown(&verdict);
    let elements = sound(&page);
    assert!(page.len() < 200_000, "{} bytes", page.len());
    let words = text(&elements);
    assert!(words.contains("20\u{202f}000 observed (R1)"));
    assert!(words.contains("the first 100 of 20\u{202f}000"));
    assert!(words.contains("And 19\u{202f}900 more"));
}

/// Every kind of entry that the page tells of, with this word wherever a word stands.
fn bodies(word: &str) -> Vec<Body> {
    let hostile = || word.to_owned();
    let process = exchange(0, Grade::Observed, word).process;
    vec![
        Body::Inference(Box::new(exchange(1, Grade::Observed, word))),
        Body::Inference(Box::new(exchange(2, Grade::Bound, word))),
        Body::Found {
            what: hostile(),
            kept: false,
            detail: hostile(),
        },
        Body::BreakGlass {
            sha256: Digest([1; 32]),
            state: "opened".into(),
            reason: hostile(),
            until_ms: START + 20_000,
            signer: Some(Digest([2; 32])),
            actions: vec![hostile()],
        },
        Body::Grant {
            name: hostile(),
            sha256: Digest([3; 32]),
            state: "accepted".into(),
            bytes: 0,
            detail: hostile(),
            terms: Some(GrantTerms {
                signer: Digest([4; 32]),
                group: hostile(),
                to: hostile(),
                ports: Vec::new(),
                protocols: Vec::new(),
                limit_bytes: 1000,
                from_ms: START,
                until_ms: START + 20_000,
                reason: hostile(),
            }),
        },
        Body::Deputy {
            refused: false,
            hook: hostile(),
            group: 1,
            process,
            deputy: hostile(),
            count: 1,
        },
        Body::Canary {
            run: hostile(),
            vector: hostile(),
            result: "escaped".into(),
            detail: hostile(),
        },
        Body::LogKey {
            key: hostile(),
            previous: Some(hostile()),
        },
        Body::Lost {
            reason: hostile(),
            count: 1,
        },
    ]
}

#[test]
fn n73_hostile_strings_in_records_and_incidents_do_nothing_on_the_page() {
    let mut maker = Maker::new();
    let told = (1..).zip(bodies(HOSTILE));
    maker.told = told.map(|(at, body)| (0, entry(at, body))).collect();
    let verdict = judged(&maker.bundle(), &maker.trust());
    assert_eq!(verdict.exit, 2, "{:#?}", verdict.checks);
    let page = shown(&verdict);
    let elements = sound(&page);
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<svg/"));
    let words = text(&elements);
    let seen = words.matches("<script>alert(1)</script>").count();
    assert!(seen > 25, "{seen}");
    for id in ["inferences", "enforcement", "events"] {
        let of =
            |one: &&Element| one.name == "section" && one.attribute("aria-labelledby") == Some(id);
        let section = elements.iter().find(of).unwrap();
        assert!(section.text.contains("<script>alert(1)</script>"), "{id}");
    }
}
