//! The agent and its gateway together: a client beyond the wire asks an
//! inference server in a group that may ask no deputy, over Unix sockets
//! either, and each answer has a receipt that the verifier holds against
//! what the client asked and was answered.
//!
//! Runs on this host as root, and in the guests of `cargo xtask vm`, where BPF
//! LSM refuses the Unix deputies. Where that does not load it says so.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says what it needs by panicking, and what it could not run"
)]

mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::client::Client;
use support::service::{GATEWAY, PATIENCE, SERVER, Service, address};
use support::talker::Talker;
use support::wire::{Wire, within};
use support::{Cgroup, Host, Node, binary, has_swtpm, is_root, swtpm};

const NAME: &str =
    "each_answer_of_a_group_that_may_ask_no_deputy_has_its_receipt_and_counts_once_b49";
const EPERM: &str = "1";
/// A large request, beyond what a socket's buffers hold.
const LARGE: usize = 1 << 20;
/// The least time from the first word of a stream to its end, as the server writes it.
const STREAM: Duration = Duration::from_millis(250);

const BOUNDARY: &str = "name = \"test\"\n[[allow]]\ncidr = [\"198.18.53.0/24\"]\n\
    [deputies]\nloopback = \"deny\"\nunix = \"deny\"\n";
/// What the agent says of Unix deputies where it does not see them.
const UNSEEN: &str =
    "Unix sockets of processes outside the group, which are not even reported (deputies)";

/// What the client keeps of one exchange.
struct Exchange {
    what: &'static str,
    request: Vec<u8>,
    answer: Vec<u8>,
    id: String,
    salt: String,
}

#[test]
fn each_answer_of_a_group_that_may_ask_no_deputy_has_its_receipt_and_counts_once_b49() {
    let in_guest = std::env::var_os("XTASK_VM").is_some();
    skip_unless!(
        is_root() && (in_guest || has_swtpm()),
        format!("{NAME}: needs root and swtpm")
    );
    skip_unless!(
        Command::new("ip").arg("-V").output().is_ok(),
        format!("{NAME}: needs ip")
    );
    let files = tempfile::tempdir().expect("a folder");
    let (_tpm, tcti) = if in_guest {
        (None, "device:/dev/tpmrm0".to_owned())
    } else {
        let (kept, tcti) = swtpm(files.path());
        (Some(kept), tcti)
    };
    let host = Host::new("receipts", &tcti);
    fs::write(host.boundary(), BOUNDARY).expect("writes");
    let needed = if in_guest {
        "\"lsm\", \"records\""
    } else {
        "\"records\""
    };
    let text = fs::read_to_string(&host.config).expect("reads");
    let text = text.replace(
        "[enforcement]",
        &format!("[enforcement]\nrequire = [{needed}]"),
    );
    fs::write(&host.config, text).expect("writes");
    let agent = host.start();
    let wire = Wire::new();
    let node = Node::new("merestone-e2e-receipts");
    let group = Cgroup::new("merestone-e2e-receipts");
    // What the group asks from here on, it asks as a guarded one.
    let service = Service::start(&host, &wire, &group, &node);

    let asked = ask(&wire);
    let models = within(&wire.inside, || {
        let mut client = Client::connect(address(SERVER)).expect("connects");
        client.ask("GET /v1/models", "", b"")
    });
    assert_eq!(models.status, 200, "past the gateway");
    deputies(&host, &group, &node);

    let trust = host.trust(&[]);
    for one in &asked {
        hold_against(&host, &trust, one);
    }
    service.stop();
    account(&host, &asked);
    drop(agent);
}

/// Some exchanges of one client, and the receipts of them.
fn ask(wire: &Wire) -> Vec<Exchange> {
    const CHAT: &str = "POST /v1/chat/completions";
    let large = format!(r#"{{"model":"words","input":"{}"}}"#, "x".repeat(LARGE));
    let plan: [(&'static str, &str, &str, String); 5] = [
        (
            "short",
            "POST /v1/embeddings",
            "",
            r#"{"model":"words","input":"a"}"#.to_owned(),
        ),
        (
            "streamed",
            CHAT,
            "",
            r#"{"model":"words","stream":true}"#.to_owned(),
        ),
        (
            "with a nonce",
            CHAT,
            "Merestone-Nonce: AAECAwQFBgc=\r\n",
            r#"{"model":"words"}"#.to_owned(),
        ),
        ("large", "POST /v1/embeddings", "", large),
        (
            "the same again",
            "POST /v1/embeddings",
            "",
            r#"{"model":"words","input":"a"}"#.to_owned(),
        ),
    ];
    let mut client = within(&wire.outside, || Client::connect(address(GATEWAY))).expect("connects");
    let mut kept = Vec::new();
    for (what, line, more, request) in plan {
        let answer = client.ask(line, more, request.as_bytes());
        assert_eq!(answer.status, 200, "{what}: {}", answer.head);
        if what == "streamed" {
            assert!(answer.took > STREAM, "gathered: {:?}", answer.took);
            assert!(answer.body.ends_with(b"data: [DONE]\n\n"), "{what}");
        }
        let id = answer
            .field("merestone-receipt")
            .expect("each answer has one")
            .to_owned();
        let given = fetch(wire, &id);
        assert_eq!(given["id"], *id, "{what}");
        let salt = given["salt"].as_str().expect("a salt").to_owned();
        kept.push(Exchange {
            what,
            request: request.into_bytes(),
            answer: answer.body,
            id,
            salt,
        });
    }
    kept
}

/// What goes with an answer, from the gateway, as soon as it is there.
fn fetch(wire: &Wire, id: &str) -> Value {
    let mut client = within(&wire.outside, || Client::connect(address(GATEWAY))).expect("connects");
    let target = format!("GET /.well-known/merestone/receipts/{id}");
    let deadline = Instant::now() + PATIENCE;
    let given = loop {
        let given = client.ask(&target, "", b"");
        if given.status == 200 {
            break given.body;
        }
        assert_eq!(given.status, 202, "{}", given.head);
        assert!(Instant::now() < deadline, "no receipt of {id}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let given: Value = serde_json::from_slice(&given).expect("JSON");
    assert_eq!(given["ended"], "complete", "{given}");
    assert_eq!(given["request_whole"], true, "{given}");
    let receipt = given["receipt"].as_str().unwrap_or_default();
    assert!(receipt.len() > 300, "{given}");
    given
}

/// Of all Unix listeners outside, the group reaches the agent's for records alone.
fn deputies(host: &Host, group: &Cgroup, node: &Node) {
    let path = host.file("foreign.sock");
    let foreign = UnixListener::bind(&path).expect("binds");
    foreign.set_nonblocking(true).expect("sets it");
    let free_group = Cgroup::new("merestone-e2e-receipts-free");
    let mut free = Talker::start(&free_group, None);
    let mut guarded = Talker::start(group, Some(node));
    let (foreign_line, control_line) = (
        format!("unix {}", path.display()),
        format!("unix {}", host.file("api.sock").display()),
    );
    assert_eq!(free.try_this(&foreign_line), "sent", "it listens");
    assert!(foreign.accept().is_ok(), "it was heard");
    if !host.is_active("lsm") {
        let status = host.status();
        let uncovered = status["uncovered"].as_array().cloned().unwrap_or_default();
        assert!(uncovered.iter().any(|line| line == UNSEEN), "{status:#}");
        println!(
            "SKIPPED: {NAME}: of it, that a foreign Unix listener is refused: no BPF LSM loads here, as the agent declares"
        );
        return;
    }
    assert_eq!(guarded.try_this(&foreign_line), EPERM, "a foreign listener");
    assert_eq!(guarded.try_this(&control_line), EPERM, "the control socket");
    assert!(foreign.accept().is_err(), "nobody of the group was heard");
    let records = format!("unix {}", host.file("records.sock").display());
    assert_eq!(guarded.try_this(&records), "sent", "the records socket");
    support::eventually("the refusal is told", || {
        host.denied()
            .iter()
            .any(|event| event.to_string().contains("unix"))
    });
}

/// The record on its own, sealed, against what the client has, and against what it has not.
fn hold_against(host: &Host, trust: &Path, one: &Exchange) {
    let file = host.file(&format!("{}.merestone", one.id));
    host.ask(&[
        "receipt",
        &one.id,
        "--wait",
        "--out",
        &file.to_string_lossy(),
    ]);
    let (request, answer) = (host.file("request"), host.file("answer"));
    fs::write(&request, &one.request).expect("writes");
    fs::write(&answer, &one.answer).expect("writes");
    let verify = || {
        let mut verify = Command::new(binary("merestone-verify"));
        verify.arg("receipt").arg(&file).arg("--json");
        verify.arg("--trust").arg(trust).args(["--salt", &one.salt]);
        verify
            .arg("--request")
            .arg(&request)
            .arg("--answer")
            .arg(&answer);
        let output = verify.output().expect("the verifier runs");
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), verdict)
    };
    let (code, verdict) = verify();
    assert_eq!(code, Some(0), "{}: {verdict:#}", one.what);
    let shown = &verdict["receipts"]["shown"][0];
    assert_eq!(verdict["receipts"]["contents"], true, "{verdict:#}");
    assert_eq!(
        (&shown["grade"], &shown["seen_by"]),
        (&"R2".into(), &"kernel and workload".into())
    );

    let mut other = one.answer.clone();
    *other.last_mut().expect("an answer has bytes") ^= 1;
    fs::write(&answer, other).expect("writes");
    let (code, verdict) = verify();
    assert_ne!(
        code,
        Some(0),
        "{}: with another answer {verdict:#}",
        one.what
    );
}

/// The whole report: every inference once, with both connections that it passed over.
fn account(host: &Host, asked: &[Exchange]) {
    // The server's last turns are told when their connections have ended.
    let mut verdict = Value::Null;
    support::eventually("what passed the gateway by is told", || {
        let (_, output) = host.verify("receipts");
        verdict = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(output.status.code(), Some(0), "{verdict:#}");
        verdict["account"]["inferences"]["observed"]
            .as_u64()
            .unwrap_or(0)
            > 0
    });
    let inferences = &verdict["account"]["inferences"];
    let count = |key: &str| inferences[key].as_u64().unwrap_or(u64::MAX);
    assert_eq!(count("bound"), asked.len() as u64, "{inferences:#}");
    // An observed one that a bound one tells again is no inference more.
    let alone = count("observed").checked_sub(count("joined") + count("passed_on"));
    assert_eq!(
        alone,
        Some(1),
        "only what passed the gateway by: {inferences:#}"
    );
    let told = inferences["told"].as_array().cloned().unwrap_or_default();
    for one in asked {
        let of_it: Vec<_> = told
            .iter()
            .filter(|record| record["id"] == *one.id)
            .collect();
        assert_eq!(of_it.len(), 1, "{}: {inferences:#}", one.what);
        let record = of_it[0];
        assert_eq!(record["grade"], "R2", "{record:#}");
        assert_eq!(record["peer"], "198.18.53.9", "{record:#}");
        assert_eq!(record["model"], "words", "{record:#}");
        let is_named =
            |server: &Value, name: &str| server.as_str().is_some_and(|exe| exe.ends_with(name));
        assert!(
            is_named(&record["onward"]["server"], "/merestone-inference"),
            "{record:#}"
        );
        let bytes = record["onward"]["bytes"][0].as_u64().unwrap_or(0);
        assert!(
            bytes > one.request.len() as u64,
            "the whole request: {record:#}"
        );
    }
    let past = told
        .iter()
        .find(|record| record["what"] == "http/1 GET /v1/models");
    assert_eq!(
        past.map(|record| &record["grade"]),
        Some(&"R1".into()),
        "{inferences:#}"
    );
}
