//! `hold`: orders on its input, one JSON object a line on its output.

use super::{Boundary, Log, Places};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) fn launch(
    program: &Path,
    places: &Places,
    boundary: &Boundary,
    log: Arc<Log>,
) -> Result<Child> {
    let mut command = Command::new(program);
    command
        .arg(&places.pins)
        .arg(&places.cgroups)
        .arg(boundary.allow.join(","));
    if boundary.audit {
        command.arg("--audit");
    }
    let mut child = command
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if let Some(output) = child.stdout.take() {
        let log = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                match line.as_str() {
                    "ready" => log.take(r#"{"ready": true}"#),
                    line => log.take(line),
                }
            }
        });
    }
    if let Some(errors) = child.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                log.complain(&line);
            }
        });
    }
    Ok(child)
}

/// Gives an order and waits for the answer that has `key` in it.
pub(super) fn ask(child: &mut Child, log: &Log, order: &str, key: &str) -> Result<Value> {
    log.forget_answers();
    let input = child.stdin.as_mut().context("the holder has no input")?;
    writeln!(input, "{order}")?;
    input.flush()?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Some(answer) = log.answer(key) {
            return Ok(answer
                .get(key)
                .filter(|inner| inner.is_object())
                .cloned()
                .unwrap_or(answer));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("the holder does not answer {order:?}: {}", log.complaint())
}

pub(super) fn reload(child: &mut Child, log: &Log, boundary: &Boundary) -> Result<()> {
    let audit = if boundary.audit { " audit" } else { "" };
    let deputies = if boundary.deny_deputies {
        " deny-deputies"
    } else {
        ""
    };
    let order = format!("boundary {}{audit}{deputies}", boundary.allow.join(","));
    ask(child, log, &order, "installed").map(drop)
}
