//! `merestone run`: a configuration file, an event log, and its own commands.

use super::{Boundary, Log, Places};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

fn config(places: &Places) -> PathBuf {
    places.home.join("merestone.toml")
}

fn write_boundary(places: &Places, boundary: &Boundary) -> Result<()> {
    let networks: Vec<_> = boundary
        .allow
        .iter()
        .map(|cidr| format!("{cidr:?}"))
        .collect();
    let mode = if boundary.audit { "audit" } else { "enforce" };
    let deputies = if boundary.deny_deputies {
        "deny"
    } else {
        "report"
    };
    let text = format!(
        "name = \"lab\"\n[[allow]]\ncidr = [{}]\n[mode]\ndefault = \"{mode}\"\n\
         [deputies]\nloopback = \"{deputies}\"\nunix = \"{deputies}\"\n",
        networks.join(", ")
    );
    Ok(fs::write(places.home.join("boundary.toml"), text)?)
}

/// `$MERESTONE_CONFIG_EXTRA` is appended: what the machine's TPM needs.
fn write_config(places: &Places) -> Result<()> {
    let home = places.home.display();
    let extra = std::env::var("MERESTONE_CONFIG_EXTRA").unwrap_or_default();
    let text = format!(
        "boundary = \"{home}/boundary.toml\"\nstate_dir = \"{home}/state\"\n\
         [api]\nsocket = \"{home}/merestone.sock\"\n\
         [metrics]\nlisten = \"127.0.0.1:0\"\n\
         [enforcement]\nmode = \"enforce\"\ncgroup_root = \"{}\"\npin_dir = \"{}\"\nrequire = []\ntamper = false\n\
         [events]\njsonl = \"{home}/events.jsonl\"\n{extra}\n",
        places.cgroups.display(),
        places.pins.display()
    );
    Ok(fs::write(config(places), text)?)
}

pub(super) fn launch(
    program: &Path,
    places: &Places,
    boundary: &Boundary,
    log: Arc<Log>,
) -> Result<Child> {
    write_boundary(places, boundary)?;
    write_config(places)?;
    let events = places.home.join("events.jsonl");
    let first = !events.exists();
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&events)?;
    let mut child = Command::new(program)
        .arg("run")
        .arg("--config")
        .arg(config(places))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if let Some(errors) = child.stderr.take() {
        let log = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                log.complain(&line);
            }
        });
    }
    if first {
        // One follower for all lives of the agent: the log only grows.
        std::thread::spawn(move || follow(&events, &log));
    }
    Ok(child)
}

fn follow(events: &Path, log: &Log) {
    let Ok(file) = fs::File::open(events) else {
        return;
    };
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    // Ends with the home directory: the suite is over then.
    while events.exists() {
        match reader.read_line(&mut line) {
            Ok(1..) if line.ends_with('\n') => {
                log.take(line.trim_end());
                line.clear();
            }
            Ok(_) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return,
        }
    }
}

fn run(program: &Path, places: &Places, words: &[&str]) -> Result<Output> {
    let output = Command::new(program)
        .args(words)
        .arg("--config")
        .arg(config(places))
        .output()?;
    Ok(output)
}

/// `merestone status` says 0 when it enforces.
pub(super) fn ready(program: &Path, places: &Places) -> bool {
    run(program, places, &["status"]).is_ok_and(|output| output.status.success())
}

pub(super) fn status(program: &Path, places: &Places) -> Result<Value> {
    let output = run(program, places, &["status", "--json"])?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("merestone status --json printed no JSON: {said}")
    })
}

/// `merestone guarded --json`: the groups as they are.
pub(super) fn guarded(program: &Path, places: &Places) -> Result<Value> {
    let output = run(program, places, &["guarded", "--json"])?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("merestone guarded --json printed no JSON: {said}")
    })
}

pub(super) fn reload(program: &Path, places: &Places, boundary: &Boundary) -> Result<()> {
    write_boundary(places, boundary)?;
    let output = run(program, places, &["policy", "reload"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unexpected argument") {
        bail!("merestone policy reload does not take --config: {said}");
    }
    ensure!(output.status.success(), "merestone policy reload: {said}");
    Ok(())
}

/// Whether all of a drill held; none where there is no such command.
pub(super) fn drill(program: &Path, places: &Places) -> Result<Option<bool>> {
    let known = Command::new(program).args(["drill", "--help"]).output()?;
    if !known.status.success() {
        return Ok(None);
    }
    let output = run(program, places, &["drill"])?;
    Ok(Some(output.status.success()))
}
