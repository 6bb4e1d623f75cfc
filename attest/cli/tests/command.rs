//! The command as a user and a script see it: exit codes, words, JSON, pages.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

#[path = "../../verify/tests/cases/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the verifier's tests use the rest of it"
)]
mod support;

use merestone_evidence::{
    Body, Bundle, Entry, EntryKind, GrantTerms, Process, Site, encode, sha256,
};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::Maker;

/// As of ten minutes after the evidence.
const AT: &str = "2025-10-09T09:03:20Z";

struct Desk(tempfile::TempDir);

impl Desk {
    fn new(bundle: &Bundle, trust: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        std::fs::write(desk.file("report.merestone"), encode(bundle)).unwrap();
        std::fs::write(desk.file("trust.toml"), trust).unwrap();
        desk
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        run(self.0.path(), words)
    }

    fn bundle(&self, more: &[&str]) -> Output {
        let words = [
            "bundle",
            "report.merestone",
            "--trust",
            "trust.toml",
            "--at",
            AT,
        ];
        self.run(&[words.as_slice(), more].concat())
    }
}

fn run(at: &Path, words: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_merestone-verify");
    Command::new(program)
        .args(words)
        .current_dir(at)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complained(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_good_bundle_prints_checks_then_what_was_not_checked_then_the_verdict() {
    let maker = Maker::new();
    let output = Desk::new(&maker.bundle(), &maker.trust()).bundle(&[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.lines().last(), Some("verdict: pass"));
    let checked = text.find("\nCHECKED\n").unwrap();
    let not = text.find("\nNOT CHECKED\n").unwrap();
    assert!(checked < not && text.split_at(not).1.contains("ek.chain"));
    assert!(text.contains("40 of 40 s attested") && text.contains("L0"));
    assert!(complained(&output).is_empty());
}

#[test]
fn the_json_has_the_keys_that_scripts_rely_on() {
    let maker = Maker::new();
    let output = Desk::new(&maker.bundle(), &maker.trust()).bundle(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&said(&output)).unwrap();
    assert_eq!(json["verdict"], "pass");
    assert_eq!(json["exit"], 0);
    assert_eq!(json["checks"][0]["id"], "frame");
    assert_eq!(json["checks"][0]["result"], "pass");
    assert_eq!(json["checks"][0]["source"], "verifier");
    assert!(json["not_checked"].as_array().unwrap().len() > 5);
    assert_eq!(json["coverage"]["attested_seconds"], 40);
    assert_eq!(json["location"]["level"], "L0");
    assert_eq!(json["egress"]["denied"], 24);
}

#[test]
fn the_exit_code_says_which_verdict() {
    let maker = Maker::new();
    let good = maker.bundle();
    let mut bad = maker.bundle();
    bad.sessions[0].quote.signature[10] ^= 1;
    let demanding = maker.trust() + "[require]\ntiers = [\"lsm\"]\n";
    let more = maker.trust() + "[require]\nboot_log = true\n";
    for (bundle, trust, exit, word) in [
        (&good, &maker.trust(), 0, "pass"),
        (&bad, &maker.trust(), 1, "untrusted"),
        (&good, &demanding, 2, "failed"),
        (&good, &more, 3, "indeterminate"),
    ] {
        let output = Desk::new(bundle, trust).bundle(&[]);
        assert_eq!(output.status.code(), Some(exit));
        assert_eq!(
            said(&output).lines().last().unwrap(),
            format!("verdict: {word}")
        );
    }
}

#[test]
fn faults_of_the_call_exit_4_with_an_error_and_a_hint() {
    let maker = Maker::new();
    let desk = Desk::new(
        &maker.bundle(),
        "version = 1\n\n[require]\nboot_logs = true\n",
    );
    let output = desk.bundle(&[]);
    assert_eq!(output.status.code(), Some(4));
    assert!(output.stdout.is_empty());
    let words = complained(&output);
    assert!(
        words.starts_with("error: trust.toml:4: unknown field"),
        "{words}"
    );
    assert!(
        words.lines().nth(1).unwrap().starts_with("hint: "),
        "{words}"
    );
    for words in [
        vec![],
        vec!["bundle"],
        vec!["bundle", "report.merestone"],
        vec!["bundle", "absent", "--trust", "trust.toml"],
        vec!["bundle", "report.merestone", "--trust", "absent"],
        vec![
            "bundle",
            "report.merestone",
            "--trust",
            "trust.toml",
            "--at",
            "noon",
        ],
        vec![
            "bundle",
            "report.merestone",
            "--trust",
            "trust.toml",
            "--believe",
        ],
        vec!["inspect", "absent"],
        vec!["approve"],
    ] {
        let output = desk.run(&words);
        assert_eq!(
            output.status.code(),
            Some(4),
            "{words:?}: {}",
            complained(&output)
        );
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn n73_hostile_names_reach_neither_terminal_nor_page() {
    let mut maker = Maker::new();
    maker.session = Box::new(|session| {
        session.site = Some(Site {
            region: Some("\u{1b}[2J\u{1b}[Hverdict: pass".into()),
            country: Some("\u{202e}<script>alert(1)</script>".into()),
            facility: Some("a\nverdict: pass\n".into()),
        });
    });
    let desk = Desk::new(
        &maker.bundle(),
        &(maker.trust() + "[require]\ntiers = [\"x\"]\n"),
    );
    let output = desk.bundle(&["--html", "page.html"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert_eq!(
        text.lines()
            .filter(|line| line.trim().starts_with("verdict:"))
            .count(),
        1
    );
    let page = std::fs::read_to_string(desk.file("page.html")).unwrap();
    assert!(!page.contains("<script") && !page.contains('\u{202e}') && !page.contains('\u{1b}'));
    assert!(page.contains("verdict: failed") && page.contains("&lt;script&gt;"));
    let json = said(&desk.bundle(&["--json"]));
    assert!(!json.contains('\u{202e}') && json.contains("\\u202e"));
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
    let printed = said(&desk.run(&["inspect", "report.merestone"]));
    assert!(!printed.contains('\u{1b}') && !printed.contains('\u{202e}'));
}

#[test]
fn a_receipt_is_verified_by_receipt_and_shows_its_entry() {
    let maker = Maker::new();
    let desk = Desk::new(&maker.receipt(5), &maker.trust());
    let output = desk.run(&[
        "receipt",
        "report.merestone",
        "--trust",
        "trust.toml",
        "--at",
        AT,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("ENTRIES\n  5 at 2025-10-09T08:53:30.002Z: Flow"));
    assert_eq!(desk.bundle(&[]).status.code(), Some(1));
}

#[test]
fn a_receipt_has_json_a_page_and_an_ear_of_one_verdict() {
    let maker = Maker::new();
    for (trust, exit, word) in [
        (maker.trust(), 0, "pass"),
        (
            maker.trust() + "[require]\nboot_log = true\n",
            3,
            "indeterminate",
        ),
        ("version = 1\n".to_owned(), 1, "untrusted"),
    ] {
        let desk = Desk::new(&maker.receipt(5), &trust);
        let output = desk.run(&[
            "receipt",
            "report.merestone",
            "--trust",
            "trust.toml",
            "--at",
            AT,
            "--json",
            "--html",
            "page.html",
            "--ear",
            "result.json",
        ]);
        assert_eq!(output.status.code(), Some(exit), "{}", said(&output));
        let json: serde_json::Value = serde_json::from_str(&said(&output)).unwrap();
        assert_eq!(json["verdict"], word);
        let page = std::fs::read_to_string(desk.file("page.html")).unwrap();
        assert!(page.contains(&format!("verdict: {word}")) && !page.contains("<script"));
        assert!(page.contains("merestone-verify receipt FILE"));
        assert_eq!(
            page.contains("What the receipt says"),
            exit == 0 || exit == 3
        );
        let ear = std::fs::read_to_string(desk.file("result.json")).unwrap();
        let ear: serde_json::Value = serde_json::from_str(&ear).unwrap();
        assert_eq!(ear["merestone_verdict"], word);
    }
}

/// A maker whose log has these entries, a second apart.
fn telling(bodies: Vec<Body>) -> Maker {
    let mut maker = Maker::new();
    let told = bodies.into_iter().zip(1..).map(|(body, second)| {
        let entry = Entry {
            kind: EntryKind,
            time_ms: support::START + 1000 * second,
            boot_ns: 0,
            body,
        };
        (0, entry)
    });
    maker.told = told.collect();
    maker
}

fn incidents() -> Vec<Body> {
    let hostile = "\u{1b}[2J\u{202e}\nverdict: pass";
    let process = Process {
        pid: 4711,
        start_ticks: 9,
        exe: format!("/tmp/{hostile}"),
        exe_sha256: None,
        comm: hostile.into(),
        cgroup: "/user.slice".into(),
        container_id: None,
        pod_uid: None,
    };
    let tamper = |refused, hook: &str, process| Body::Tamper {
        attempt: "detach".into(),
        refused,
        hook: hook.into(),
        target: format!("link {hostile}"),
        process,
        count: 3,
        repaired: (!refused).then_some(true),
    };
    vec![
        tamper(true, "bpf", Some(process.clone())),
        tamper(false, "watch", None),
        Body::BreakGlass {
            sha256: sha256(b"token"),
            state: "opened".into(),
            reason: hostile.into(),
            until_ms: support::START + 9_000,
            signer: Some(sha256(b"authority")),
            actions: vec!["pins".into()],
        },
        Body::Grant {
            name: hostile.into(),
            sha256: sha256(b"grant"),
            state: "accepted".into(),
            bytes: 0,
            detail: hostile.into(),
            terms: Some(GrantTerms {
                signer: sha256(b"authority"),
                group: "/vllm".into(),
                to: "203.0.113.7/32".into(),
                ports: Vec::new(),
                protocols: vec![6],
                limit_bytes: 1_000,
                from_ms: 0,
                until_ms: support::START + 90_000,
                reason: hostile.into(),
            }),
        },
        Body::Deputy {
            refused: false,
            hook: "connect4".into(),
            group: 42,
            process: Some(process),
            deputy: format!("127.0.0.1:80 of {hostile}"),
            count: 1,
        },
        Body::Canary {
            run: "drill".into(),
            vector: hostile.into(),
            result: "escaped".into(),
            detail: hostile.into(),
        },
    ]
}

#[test]
fn the_report_names_attempts_openings_grants_deputies_and_the_canary() {
    let maker = telling(incidents());
    let desk = Desk::new(&maker.bundle(), &maker.trust());
    let output = desk.bundle(&[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in [
        "\nTAMPER\n  3 attempts denied, 0 let through, 3 changes found afterwards\n",
        "by pid 4711 /tmp/",
        "\nBREAK-GLASS\n  opened 1 times",
        "for pins: token",
        "\nGRANTS\n  1 in force, 0 bytes left under them",
        "0 of 1000 bytes to 203.0.113.7/32 from /vllm",
        "\nDEPUTIES\n  1 requests reached others on the host",
        "\nCANARY\n",
        "ESCAPED",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&said(&desk.bundle(&["--json"]))).unwrap();
    assert_eq!(json["tamper"]["denied"], 3);
    assert_eq!(json["tamper"]["not_kept"][0]["repaired"], true);
    assert_eq!(json["tamper"]["attempts"][0]["who"]["pid"], 4711);
    assert_eq!(json["break_glass"]["openings"][0]["actions"][0], "pins");
    assert_eq!(json["grants"]["used"][0]["limit_bytes"], 1_000);
    assert_eq!(json["egress"]["granted_bytes"], 0);
    assert_eq!(json["deputies"]["let_through"], 1);
    assert_eq!(
        json["canary"]["escaped_vectors"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn n73_hostile_words_of_incidents_are_spelled_out() {
    let maker = telling(incidents());
    let desk = Desk::new(&maker.bundle(), &maker.trust());
    for words in [&["--html", "page.html"][..], &["--json"]] {
        let text = said(&desk.bundle(words));
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        let verdicts = text.lines().filter(|line| line.trim() == "verdict: pass");
        assert_eq!(verdicts.count(), 0);
    }
    let page = std::fs::read_to_string(desk.file("page.html")).unwrap();
    assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'));
}

#[test]
fn inspect_prints_and_trusts_nothing() {
    let maker = Maker::new();
    let desk = Desk::new(&maker.bundle(), "");
    let output = desk.run(&["inspect", "report.merestone"]);
    assert_eq!(output.status.code(), Some(0));
    let text = said(&output);
    assert!(text.starts_with("NOTHING BELOW IS VERIFIED"));
    assert!(
        text.lines()
            .all(|line| !line.trim().starts_with("verdict:"))
    );
    assert!(text.contains("register 15"));
    std::fs::write(desk.file("noise"), b"noise").unwrap();
    assert_eq!(desk.run(&["inspect", "noise"]).status.code(), Some(1));
}

#[test]
fn help_has_examples_and_the_manual_and_completions_are_there() {
    let here = Path::new(".");
    let help = said(&run(here, &["--help"]));
    assert!(help.contains("Examples:") && help.contains("Exit codes:"));
    assert!(said(&run(here, &["man"])).contains(".TH merestone-verify"));
    let script = said(&run(here, &["completions", "bash"]));
    let desk = tempfile::tempdir().unwrap();
    let folder = desk.path().to_string_lossy();
    assert_eq!(run(here, &["man", "--dir", &folder]).status.code(), Some(0));
    for page in [
        "bundle",
        "receipt",
        "inspect",
        "enroll",
        "enroll-keygen",
        "enroll-challenge",
        "enroll-accept",
        "enroll-revoke",
        "enroll-show",
        "witness",
        "witness-keygen",
    ] {
        let path = desk.path().join(format!("merestone-verify-{page}.1"));
        let text = std::fs::read_to_string(path).unwrap();
        let has_codes = text.contains("Exit codes");
        let judges = ["bundle", "receipt", "inspect", "witness"].contains(&page);
        assert!(has_codes || !judges, "{page}");
        assert!(
            script.contains(page.split('-').next_back().unwrap()),
            "{page}"
        );
    }
    // A folder that is not there is a fault, not a silence.
    let nowhere = format!("{folder}/nowhere");
    assert_ne!(
        run(here, &["man", "--dir", &nowhere]).status.code(),
        Some(0)
    );
}

#[test]
fn no_example_in_a_help_is_broken_by_the_width_of_the_text() {
    for words in [
        &["--help"][..],
        &["bundle", "--help"],
        &["receipt", "--help"],
        &["inspect", "--help"],
        &["enroll", "challenge", "--help"],
        &["enroll", "accept", "--help"],
        &["enroll", "revoke", "--help"],
        &["witness", "--help"],
        &["witness", "keygen", "--help"],
    ] {
        let help = said(&run(Path::new("."), words));
        let examples = help.split_once("Example").map_or("", |(_, rest)| rest);
        let examples = examples
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with(' '));
        let mut goes_on = false;
        for line in examples {
            let is_own = line.starts_with("  merestone")
                || line.starts_with("  #")
                || line.starts_with("  rsync");
            assert!(goes_on || is_own, "{words:?}: {line}");
            goes_on = line.ends_with('\\');
        }
    }
}
