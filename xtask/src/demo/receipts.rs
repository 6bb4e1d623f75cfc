//! Two records of the demo, each proven on its own: one that only the kernel saw (R1), one whose
//! digests the gateway gave (R2), held against what the client asked and was answered.

use super::parts::{self, Agent, Server, Workplace};
use crate::progress::{self, Step};
use crate::shell;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::time::Duration;

/// The receipt of a bound record, as a client has it.
#[derive(Debug)]
pub(super) struct Bound {
    id: String,
    salt: String,
}

/// Gets the receipt of the answer before, and asks the server something past the gateway.
pub(super) fn ask(place: &Workplace) -> Result<Bound> {
    let _step = Step::begin(
        "receipts",
        "the gateway gives digests of the answer; what passes it by only the kernel sees",
    );
    let id = std::fs::read_to_string(place.file("receipt.id"))?;
    if id.is_empty() {
        bail!("the answer came without a receipt's id");
    }
    let url = Server::url(&format!("/.well-known/merestone/receipts/{id}"));
    let mut given = Value::Null;
    // Until the agent has signed it.
    shell::within(Duration::from_secs(10), || {
        given = Server::ask("get", &url, &[]).unwrap_or_default();
        given.get("receipt").is_some_and(Value::is_string)
    });
    let text = |key: &str| {
        let text = given
            .get(key)
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        text.with_context(|| format!("the gateway gave no {key}: {given}"))
    };
    let (id, salt, receipt) = (text("id")?, text("salt")?, text("receipt")?);
    let bytes = receipt.len() / 4 * 3;
    progress::line(format_args!(
        "    R2 {id}: a receipt of about {bytes} bytes, at once"
    ));
    Server::ask_past_gateway("/v1/models")?;
    Ok(Bound { id, salt })
}

/// Has each written to a file of its own and verified.
pub(super) fn prove(place: &Workplace, agent: &Agent, bound: &Bound) -> Result<()> {
    let _step = Step::begin("single receipts", "one file each, verified offline");
    let observed = observed(place)?;
    verify(place, agent, "R1", &observed, &[])?;
    let (asked, answered) = (place.file("asked.json"), place.file("answered.json"));
    let held = [
        "--request",
        &asked.to_string_lossy(),
        "--answer",
        &answered.to_string_lossy(),
        "--salt",
        &bound.salt,
    ];
    verify(place, agent, "R2", &bound.id, &held)
}

/// The id of the record that nobody but the kernel told of, from the verified report.
fn observed(place: &Workplace) -> Result<String> {
    let mut verify = shell::command(parts::binary("merestone-verify"));
    verify.arg("bundle").arg(place.file("demo.merestone"));
    verify
        .arg("--trust")
        .arg(place.file("trust.toml"))
        .arg("--json");
    let verdict: Value = serde_json::from_str(&shell::read(&mut verify)?)?;
    let told = verdict
        .pointer("/account/inferences/told")
        .and_then(Value::as_array);
    let told = told.context("the verdict tells of no inferences")?;
    let is_it = |one: &&Value| {
        one.get("grade").and_then(Value::as_str) == Some("R1")
            && one
                .get("what")
                .and_then(Value::as_str)
                .is_some_and(|what| what.ends_with("/v1/models"))
    };
    let id = told
        .iter()
        .find(is_it)
        .and_then(|one| one.get("id"))
        .and_then(Value::as_str);
    id.map(ToOwned::to_owned)
        .with_context(|| format!("no record of GET /v1/models: {told:?}"))
}

fn verify(place: &Workplace, agent: &Agent, grade: &str, id: &str, held: &[&str]) -> Result<()> {
    let file = place.file(&format!("receipt-{grade}.merestone"));
    let file = file.to_string_lossy();
    agent.ask(&["receipt", id, "--wait", "--out", &file])?;
    let mut verify = shell::command(parts::binary("merestone-verify"));
    verify.args(["receipt", &file, "--json", "--trust"]);
    verify.arg(place.file("trust.toml")).args(held);
    let verdict: Value = serde_json::from_str(&shell::read(&mut verify)?)?;
    let word = verdict
        .get("verdict")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let shown = verdict
        .pointer("/receipts/shown/0")
        .context("no receipt was checked")?;
    if word != "pass" || shown.get("grade").and_then(Value::as_str) != Some(grade) {
        bail!("{file}: verdict {word}, receipt {shown}");
    }
    let contents = verdict.pointer("/receipts/contents") == Some(&Value::Bool(true));
    if contents == held.is_empty() {
        bail!("{file}: request and answer were not held against the receipt");
    }
    let bytes = std::fs::metadata(&*file)?.len();
    let seen_by = shown
        .get("seen_by")
        .and_then(Value::as_str)
        .unwrap_or_default();
    progress::line(format_args!(
        "    {grade} {id}: pass, {bytes} bytes, seen by {seen_by}{}",
        if contents {
            "; request and answer are the bound ones"
        } else {
            ""
        }
    ));
    Ok(())
}
