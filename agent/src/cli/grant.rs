//! `merestone grant`: apply, list and revoke signed grants.

use super::{Exit, Failure, Globals, ask, output};
use crate::api::{GrantInfo, Reply, Request};
use crate::grant;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Put a signed grant into force; each counts once
    #[command(after_help = "\
A grant is a TOML file that a signer of [policy] signers has signed:
  name = \"export-7\"
  group = \"/system.slice/vllm.service\"
  to = \"203.0.113.7/32\"
  ports = [443]
  protocols = [\"tcp\"]
  bytes = 1_000_000
  until = 2026-11-02T00:00:00Z
  reason = \"aggregates of the quarter\"

Example:
  merestone sign grant --key authority.pem export.toml
  merestone grant apply export.toml.cose")]
    Apply {
        /// The signed grant
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show the grants, and what was used of them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a grant out of force, for good
    Revoke {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

pub(super) fn execute(globals: &Globals, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Apply { file } => apply(globals, &file),
        Command::List { json } => list(globals, json),
        Command::Revoke { name } => ask::done(&globals.load()?, &Request::GrantRevoke { name }),
    }
}

fn apply(globals: &Globals, file: &Path) -> Result<Exit, Failure> {
    let bytes = crate::config::fault::read(file, grant::LIMIT_BYTES as u64)?;
    let message = hex::encode(bytes);
    ask::done(&globals.load()?, &Request::GrantApply { message })
}

/// What the agent says of its grants.
pub(super) fn all(globals: &Globals) -> Result<Vec<GrantInfo>, Failure> {
    match ask::once(&globals.load()?, &Request::GrantList {})? {
        Reply::Grants { grants } => Ok(grants),
        other => Err(ask::unexpected(&other)),
    }
}

fn list(globals: &Globals, json: bool) -> Result<Exit, Failure> {
    let grants = all(globals)?;
    if json {
        output::json(&grants)?;
        return Ok(Exit::Yes);
    }
    if grants.is_empty() {
        output::say("no grants")?;
    }
    for grant in grants {
        let GrantInfo { terms, .. } = &grant;
        output::say(&format!(
            "{}  {}  {} of {} bytes  {} to {}  until {}  # {}",
            terms.name,
            grant.state,
            grant.used_bytes,
            terms.bytes,
            terms.group,
            terms.to,
            grant.until,
            terms.reason
        ))?;
    }
    Ok(Exit::Yes)
}
