//! The page: whole, harmless, and saying what the verdict says.

use crate::dom::{Element, sound};
use crate::receipt::made::observed;
use crate::support::{Log, Maker, NOW, START};
use crate::{HOSTILE, judged, keep, shown, within};
use merestone_evidence::{
    Body, Bundle, Digest, Entry, EntryKind, GpuDevice, GpuDuring, Inference, Loss, Site, Tier,
    encode, sha256,
};
use merestone_verify::CheckResult;

fn text(elements: &[Element]) -> &str {
    let body = elements.iter().find(|element| element.name == "body");
    &body.unwrap().text
}

#[track_caller]
fn verdict_of(elements: &[Element]) -> (String, String) {
    let section = elements
        .iter()
        .find(|element| element.attribute("id") == Some("verdict"))
        .unwrap();
    let of = |name| section.attribute(name).unwrap().to_owned();
    assert!(
        section
            .text
            .contains(&format!("verdict: {}", of("data-verdict")))
    );
    (of("data-verdict"), of("data-exit"))
}

/// One bundle and policy for each verdict.
fn each() -> [(Bundle, String); 4] {
    let maker = Maker::new();
    let mut bad = maker.bundle();
    bad.sessions[0].quote.signature[10] ^= 1;
    let with = |more: &str| maker.trust() + "[require]\n" + more;
    [
        (maker.bundle(), maker.trust()),
        (bad, maker.trust()),
        (maker.bundle(), with("tiers = [\"lsm\"]\n")),
        (maker.bundle(), with("boot_log = true\n")),
    ]
}

#[test]
fn every_page_is_well_formed_needs_nothing_and_says_the_verdict_of_the_json() {
    for (exit, (bundle, trust)) in each().iter().enumerate() {
        let verdict = judged(bundle, trust);
        assert_eq!(usize::from(verdict.exit), exit);
        let elements = sound(&shown(&verdict));
        let json = serde_json::to_value(&verdict).unwrap();
        let want = (json["verdict"].as_str().unwrap(), json["exit"].to_string());
        let got = verdict_of(&elements);
        assert_eq!((got.0.as_str(), got.1), want);
        for check in &verdict.checks {
            assert!(text(&elements).contains(check.id), "{}", check.id);
            assert!(text(&elements).contains(&check.detail), "{}", check.detail);
        }
    }
}

#[test]
fn what_was_not_checked_stands_before_every_claim_and_what_was_asked_for_first() {
    let [.., (bundle, trust)] = each();
    let verdict = judged(&bundle, &trust);
    assert!(
        verdict
            .not_checked
            .iter()
            .any(|one| one.id == "boot.log" && one.required)
    );
    assert!(
        verdict
            .not_checked
            .iter()
            .any(|one| one.id == "boot.ima" && !one.required)
    );
    let page = shown(&verdict);
    let at = |what: &str| page.find(what).unwrap_or_else(|| panic!("no {what}"));
    // The count stands above whatever fails, and before the list.
    assert!(at("id=\"verdict\"") < at("href=\"#open\""));
    assert!(at("href=\"#open\"") < at("id=\"open\""));
    assert!(at("id=\"open\"") < at("id=\"place\""));
    assert!(at("Asked for by the policy.") < at("ek.chain"));
}

#[test]
fn whatever_decides_the_verdict_stands_first_with_what_was_found_and_what_to_do() {
    for (bundle, trust) in each() {
        let verdict = judged(&bundle, &trust);
        let elements = sound(&shown(&verdict));
        let first = elements
            .iter()
            .find(|element| element.attribute("id") == Some("verdict"));
        let first = &first.unwrap().text;
        let passes = verdict.exit == 0;
        assert_eq!(first.contains("What to do: "), !passes, "{first}");
        let failing = verdict.checks.iter();
        let failing = failing.filter(|check| check.result == CheckResult::Fail);
        let asked = verdict.not_checked.iter().filter(|one| one.required);
        let deciding: Vec<_> = failing
            .map(|check| check.id)
            .chain(asked.map(|one| one.id))
            .collect();
        assert_eq!(deciding.is_empty(), passes);
        for id in deciding {
            assert!(first.contains(id), "{id}");
        }
    }
}

#[test]
fn an_untrusted_file_makes_no_claim_on_its_page() {
    let mut maker = Maker::new();
    maker.session = Box::new(|session| {
        session.site = Some(Site {
            region: Some("claimed-region".into()),
            country: Some("claimed-country".into()),
            facility: Some("claimed-facility".into()),
        });
        session.boundary.name = "claimed-boundary".into();
        session.kernel.release = "claimed-kernel".into();
        session.uncovered = vec!["claimed-uncovered".into()];
    });
    let good = sound(&shown(&judged(&maker.bundle(), &maker.trust())));
    assert!(text(&good).contains("claimed-region") && text(&good).contains("claimed-kernel"));
    // Spoiled at the start, in the middle and at the end of the checks.
    let spoils: [fn(&mut Bundle); 4] = [
        |bundle| bundle.node = "claimed-node".into(),
        |bundle| bundle.sessions[0].quote.signature[10] ^= 1,
        |bundle| drop(bundle.sessions[0].epochs.remove(1)),
        |bundle| bundle.span.as_mut().unwrap().leaves.swap(0, 1),
    ];
    for spoil in spoils {
        let mut bundle = maker.bundle();
        spoil(&mut bundle);
        let verdict = judged(&bundle, &maker.trust());
        assert_eq!(verdict.exit, 1);
        let elements = sound(&shown(&verdict));
        let words = text(&elements);
        for claim in [
            "region",
            "country",
            "facility",
            "boundary",
            "kernel",
            "uncovered",
        ] {
            assert!(!words.contains(&format!("claimed-{claim}")), "{claim}");
        }
        assert!(words.contains("No claim is shown"));
        for id in [
            "place",
            "time",
            "egress",
            "gpus",
            "sessions",
            "inferences",
            "enforcement",
            "events",
        ] {
            assert!(
                elements.iter().all(|one| one.attribute("id") != Some(id)),
                "{id}"
            );
        }
        assert!(!words.contains("Here: in part") && !words.contains("Here: as far"));
    }
}

#[test]
fn n73_hostile_strings_in_every_place_do_nothing_on_the_page() {
    let mut maker = Maker::new();
    let hostile = || HOSTILE.to_owned();
    maker.session = Box::new(move |session| {
        session.site = Some(Site {
            region: Some(hostile()),
            country: Some(hostile()),
            facility: Some(hostile()),
        });
        session.boundary.name = hostile();
        session.agent.version = hostile();
        session.kernel.release = hostile();
        session.tpm.manufacturer = hostile();
        session.tpm.firmware = hostile();
        session.uncovered = vec![hostile()];
        session.tiers = vec![Tier {
            name: hostile(),
            active: true,
            detail: hostile(),
        }];
        session.gpu.state = hostile();
        session.gpu.devices = vec![GpuDevice {
            uuid: hostile(),
            name: hostile(),
            pci: Some(hostile()),
            memory_bytes: Some(1 << 36),
            vbios: Some(hostile()),
            confidential: Some(hostile()),
        }];
    });
    maker.epoch = Box::new(move |_, epoch| {
        for counter in &mut epoch.counters {
            counter.hook = hostile();
            counter.protocol = hostile();
        }
        epoch.lost = vec![Loss {
            reason: hostile(),
            count: 1,
        }];
        epoch.gpu_state = hostile();
    });
    let body = Body::Tamper {
        attempt: hostile(),
        refused: false,
        hook: hostile(),
        target: hostile(),
        process: None,
        count: 3,
        repaired: None,
    };
    maker.extra_leaf = Some(encode(&Entry {
        kind: EntryKind,
        time_ms: START + 5,
        boot_ns: 5,
        body,
    }));
    let verdict = judged(&maker.bundle(), &maker.trust());
    assert_eq!(verdict.exit, 2, "{:#?}", verdict.checks);
    let page = shown(&verdict);
    keep("hostile", &page);
    let elements = sound(&page);
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<svg/"));
    assert!(text(&elements).matches("<script>alert(1)</script>").count() > 12);
    assert!(
        text(&elements).contains(
            "\\u{202e}\\u{2066}\\u{1b}[2J\\u{0}\\u{85}\\u{200b}\\u{e0041}\\u{a}\\u{d}&amp;"
        )
    );
    assert_eq!(verdict_of(&elements).0, "failed");
}

#[test]
fn the_time_line_shows_the_gap_between_two_boots_and_what_lies_outside_the_file() {
    let maker = Maker::new();
    let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
    let first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    let last = sha256(&first.epochs.last().unwrap().statement);
    tpm.resets += 1;
    tpm.pcrs.insert(15, Digest::ZERO);
    let second = maker.seal_session(&mut tpm, &mut log, Some(last), START + 60_000, 2);
    let bundle = maker.pack(vec![first, second], &log, START, START + 100_000);
    let verdict = judged(&bundle, &maker.trust());
    assert_eq!(verdict.exit, 0);
    let bars = |page: &str| page.matches("url(#h)").count();
    let whole = shown(&verdict);
    let elements = sound(&whole);
    assert!(text(&elements).contains("1 min 20 s attested, 20 s not."));
    assert!(text(&elements).contains("the host went down while the agent ran"));
    assert_eq!(bars(&whole), 1);
    let wider = within(&verdict, Some(START - 20_000), Some(NOW));
    let elements = sound(&wider);
    assert!(text(&elements).contains("This is the period asked for."));
    assert!(text(&elements).contains("outside the period of this file"));
    assert!(text(&elements).contains("1 min 20 s attested, 9 min 0 s not."));
    assert_eq!(bars(&wider), 3);
    let narrow = within(&verdict, Some(START + 1000), Some(START + 2000));
    assert!(text(&sound(&narrow)).contains("1.0 s attested, 0 ms not."));
    // Ends before it begins: drawn as nothing, not a panic.
    sound(&within(&verdict, Some(NOW), Some(START)));
}

#[test]
fn a_page_of_a_year_with_many_gaps_stays_small() {
    let mut maker = Maker::new();
    maker.epochs = 400;
    maker.leaves_each = 0;
    maker.epoch = Box::new(|_, epoch| epoch.closed_ms -= 1000);
    let bundle = maker.bundle();
    let verdict = judged(&bundle, &maker.trust());
    let page = shown(&verdict);
    sound(&page);
    assert!(page.len() < 200_000, "{} bytes", page.len());
    assert!(page.contains("more: "));
}

#[test]
fn it_says_plainly_that_single_inferences_are_not_recorded() {
    let maker = Maker::new();
    let verdict = judged(&maker.bundle(), &maker.trust());
    let elements = sound(&shown(&verdict));
    assert!(text(&elements).contains("This file has no record of single inferences."));
    for article in [
        "GDPR Art. 5(2)",
        "GDPR Art. 30",
        "AI Act Art. 12",
        "AI Act Art. 19",
        "AI Act Art. 26",
    ] {
        assert!(text(&elements).contains(article));
    }
    assert!(text(&elements).contains("does not prove compliance"));
}

#[test]
fn an_inference_is_shown_with_its_grade_and_no_more_than_was_seen() {
    let mut maker = Maker::new();
    let observed = Inference {
        started_ms: START,
        answered_ms: None,
        ended_ms: START + 250,
        request_bytes: 120,
        response_bytes: 4096,
        group: 1,
        peer: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 9],
        path: Some("/v1/<b>".into()),
        gpu_use: Some(vec![GpuDuring {
            gpu: 0,
            from_ms: START - 500,
            to_ms: START + 500,
            energy_millijoules: Some(312_000),
            busy_percent: Some(88),
            group_percent: None,
            group_memory_bytes: Some(3 << 30),
        }]),
        ..observed(7, 40_000)
    };
    maker.extra_leaf = Some(encode(&Entry {
        kind: EntryKind,
        time_ms: START + 300,
        boot_ns: 5,
        body: Body::Inference(Box::new(observed)),
    }));
    let verdict = judged(&maker.bundle(), &maker.trust());
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    let inferences = &verdict.account.as_ref().unwrap().inferences;
    assert_eq!((inferences.observed, inferences.bound), (1, 0));
    let elements = sound(&shown(&verdict));
    assert!(text(&elements).contains("1 observed (R1), 0 bound (R2)"));
    assert!(text(&elements).contains("http/1 POST /v1/<b>, 120 bytes in"));
    assert!(text(&elements).contains("198.18.0.9, inside"));
    assert!(text(&elements).contains("all of it 312 J, busy 88 %, with 3\u{202f}072 MiB"));
    assert!(!text(&elements).contains("no record of single inferences"));
}
