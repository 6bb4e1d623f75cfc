//! Runs other programs: with a clean environment, in a process group of their
//! own that dies with us, and with errors that name the command.
//!
//! It never runs a string through a shell.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::undo::{self, Undo};

/// What `cargo run` and rustup's proxies set and a nested build must not see:
/// `RUSTUP_TOOLCHAIN` and `RUSTC` would leak into the distribution's cargo, and
/// `LD_LIBRARY_PATH` into every program.
fn leaks(name: &str) -> bool {
    const KEPT: [&str; 4] = [
        "CARGO_HOME",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_JOBS",
        "CARGO_INCREMENTAL",
    ];
    const KEPT_PREFIXES: [&str; 4] = ["CARGO_TERM_", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR"];
    if KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    name == "CARGO"
        || name.starts_with("CARGO_")
        || matches!(
            name,
            "LD_LIBRARY_PATH" | "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT"
        )
        || matches!(
            name,
            "RUSTC" | "RUSTDOC" | "RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_BOOTSTRAP"
        )
}

/// A command at the workspace root, without cargo's own variables.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            command.env_remove(&name);
        }
    }
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// The workspace's own cargo: rustup's, as `rust-toolchain.toml` names it.
pub(crate) fn cargo() -> Command {
    let mut cargo = command(home_bin("cargo"));
    if env::var_os("CARGO_TARGET_DIR").is_some() {
        // The agent's build looks under `target/` unless it is told.
        cargo.env("MERESTONE_BPF_OBJECT", crate::build::object_path());
    }
    cargo
}

/// The workspace root.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The workspace's target directory.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(elsewhere) => root().join(elsewhere),
        None => root().join("target"),
    }
}

/// Where cargo keeps its registry and its programs.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
}

/// `name` in cargo's own `bin`, where it is there; otherwise by PATH.
pub(crate) fn home_bin(name: &str) -> PathBuf {
    match cargo_home().map(|home| home.join("bin").join(name)) {
        Some(path) if path.is_file() => path,
        _ => PathBuf::from(name),
    }
}

/// How a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

/// A process, and all it started, that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    group: Option<Pid>,
    name: String,
    _undo: Undo,
}

impl Running {
    /// Starts the command in a process group of its own.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = shown(command);
        let child = command.process_group(0).spawn();
        let child = child.with_context(|| format!("cannot run `{name}`"))?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let undo = Undo::new(move || {
            if let Some(group) = group {
                end_group(group);
            }
        });
        Ok(Self {
            child,
            group,
            name,
            _undo: undo,
        })
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The standard output, once, where it was piped.
    pub(crate) fn lines(&mut self) -> Result<impl Iterator<Item = String> + use<>> {
        let out = self
            .child
            .stdout
            .take()
            .context("the output is not piped")?;
        // Bytes that are no UTF-8 must not end the reading: a guest that
        // crashes writes some.
        Ok(BufReader::new(out).split(b'\n').map_while(|line| {
            let line = line.ok()?;
            Some(
                String::from_utf8_lossy(&line)
                    .trim_end_matches('\r')
                    .to_owned(),
            )
        }))
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot wait for `{}`", self.name))
    }

    /// Waits for the end, however it ends.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait();
        undo::yield_to_interruption();
        status.with_context(|| format!("cannot wait for `{}`", self.name))
    }
}

impl Running {
    /// Ends it at once, as a loss of power ends a machine.
    pub(crate) fn kill(&mut self) {
        if let Some(group) = self.group {
            signal(group, Signal::KILL);
        }
        let mut gone = || !matches!(self.child.try_wait(), Ok(None));
        within(GRACE, &mut gone);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (Ok(None), Some(group)) = (self.child.try_wait(), self.group) {
            signal(group, Signal::TERM);
            let mut child_gone = || !matches!(self.child.try_wait(), Ok(None));
            if !within(GRACE, &mut child_gone) {
                signal(group, Signal::KILL);
                within(GRACE, &mut child_gone);
            }
        }
    }
}

/// How long a test suite gets to tidy up after TERM.
const GRACE: Duration = Duration::from_secs(5);

fn end_group(group: Pid) {
    signal(group, Signal::TERM);
    if !within(GRACE, || test_kill_process_group(group).is_err()) {
        signal(group, Signal::KILL);
    }
}

fn signal(group: Pid, signal: Signal) {
    // The group may be gone already, which is what is wanted.
    if kill_process_group(group, signal).is_err() {}
}

/// Whether `done` says yes before the time is over; asks every 20 ms.
pub(crate) fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs to the end with its output shown; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = Running::start(command)?.wait()?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end and returns the output; anything but success is an error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.output();
    let output = output.with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed: {}: {}",
            shown(command),
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether it runs and succeeds; its output is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
