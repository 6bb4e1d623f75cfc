//! Asks before anything is done as root.
//!
//! Root, `--yes` and `CI=true` are not asked. Without a terminal and without
//! root nothing is done: the command is printed for the reader to run.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{progress, shell};

/// Who may be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consent {
    given: bool,
}

impl Consent {
    /// `yes` is the flag `--yes`.
    pub(crate) fn new(yes: bool) -> Self {
        Self {
            given: yes || env::var_os("CI").is_some_and(|value| value == "true"),
        }
    }

    /// Runs one command as root, asking first where that is needed.
    pub(crate) fn run(self, program: &str, args: &[&str], why: &str) -> Result<()> {
        if is_root() {
            progress::line(format_args!("    {program} {}", args.join(" ")));
            return shell::run(shell::command(program).args(args).envs(QUIET_APT));
        }
        let shown = format!("sudo {program} {}", args.join(" "));
        if !self.given && !ask(&shown, why)? {
            bail!("refused; run `{shown}`, which {why}, then start again");
        }
        // In our own process group: sudo reads the password from the terminal.
        let mut sudo = Command::new("sudo");
        sudo.arg(program).args(args).stdin(Stdio::inherit());
        let status = sudo
            .status()
            .with_context(|| format!("cannot run `{shown}`"))?;
        if !status.success() {
            bail!("`{shown}` failed: {status}");
        }
        Ok(())
    }
}

const QUIET_APT: [(&str, &str); 1] = [("DEBIAN_FRONTEND", "noninteractive")];

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn ask(command: &str, why: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("needs root and nobody can be asked here; it {why}; run `{command}`");
    }
    let mut out = io::stdout().lock();
    write!(out, "This {why}:\n    {command}\nrun it? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
