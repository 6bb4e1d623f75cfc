//! `merestone enroll`: what a verifier must know of this host beforehand.

use super::{Exit, Failure, Globals};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write a trust.toml that pins this host's attestation key
    #[command(after_help = "\
The file says which key this host signs with; it does not say that the key is in a real TPM.
Carry it to the verifier by a way you trust.

Example:
  merestone enroll trust --out trust.toml")]
    Trust(Trust),
}

#[derive(Debug, clap::Args)]
pub(super) struct Trust {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,

    /// Overwrite the file if it exists
    #[arg(long)]
    pub(super) force: bool,
}

pub(super) fn execute(_: &Globals, command: Command) -> Result<Exit, Failure> {
    let Command::Trust(_) = command;
    Err(Failure::unconnected("enroll trust"))
}
