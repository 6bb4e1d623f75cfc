//! `merestone enroll`: what a verifier must know of this host beforehand.

use super::{Exit, Failure, Globals, output};
use crate::config::Config;
use crate::export::{self, TrustInputs};
use crate::ledger::Reader;
use crate::policy;
use merestone_evidence::{Digest, SessionStatement, decode, sha256};
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

    /// Accept this boundary file too, beside the configured one; may be given
    /// again
    #[arg(long, value_name = "FILE")]
    pub(super) boundary: Vec<PathBuf>,

    /// Overwrite the file if it exists
    #[arg(long)]
    pub(super) force: bool,
}

pub(super) fn execute(globals: &Globals, command: Command) -> Result<Exit, Failure> {
    let Command::Trust(args) = command;
    let config = globals.load()?;
    let inputs = inputs(&config, &args.boundary)?;
    output::file(
        &args.out,
        export::trust_file(&inputs).as_bytes(),
        args.force,
    )?;
    output::say(&format!(
        "{}: node {}, attestation key {}\ncarry it to the verifier by a way you trust",
        args.out.display(),
        inputs.node,
        hex::encode(&inputs.ak_name)
    ))?;
    Ok(Exit::Yes)
}

/// From the last session that was sealed: what it says is what the TPM signed.
fn inputs(config: &Config, more: &[PathBuf]) -> Result<TrustInputs, Failure> {
    let sessions = Reader::open(&config.state_dir).and_then(|reader| reader.sessions());
    let sessions = sessions.map_err(|error| Failure::of(&error))?;
    let Some(last) = sessions.last() else {
        let message = format!(
            "no session was sealed yet in {}",
            config.state_dir.display()
        );
        return Err(Failure::new(Exit::No, message).hint("run the agent first: merestone run"));
    };
    let statement: SessionStatement =
        decode(&last.statement).map_err(|error| Failure::of(&error))?;
    let sources = policy::Sources::of(config)?;
    let load = |file: &std::path::Path| policy::load_with(file, &sources);
    let mut boundaries = vec![Digest(load(&config.boundary)?.digest)];
    for file in more {
        boundaries.push(Digest(load(file)?.digest));
    }
    // The Name: TPM 2.0 Part 1, 16; the algorithm is SHA-256 (0x000b).
    let mut ak_name = vec![0x00, 0x0b];
    ak_name.extend(sha256(&last.ak_public).0);
    Ok(TrustInputs {
        node: statement.node,
        ak_name,
        boundaries,
        software_tpm: statement.tpm.software,
        test_gpu_library: statement.gpu.test_library,
        require: statement.require,
    })
}
