//! `merestone receipt`: one record, its receipt and its proof, in one file.

use super::{Exit, Failure, Globals, output};
use crate::clock;
use crate::config::Config;
use crate::export::{self, Found};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How often it is looked whether the epoch is sealed by now.
const LOOK: Duration = Duration::from_millis(250);
/// How long after its time an epoch may take: the TPM signs it, and can be slow.
const QUOTE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The id is in the Merestone-Receipt header of a gateway's answer, in the answer of POST /v1/records,
and, for every record, in the JSON of merestone-verify bundle.

Example:
  merestone receipt 7f3a5c0e9d1b4826a0c4e8f211d3b597 --out one.merestone
  merestone-verify receipt one.merestone --trust trust.toml

Exit status:
  0  written    1  not sealed yet, or no receipt has that id    2  usage    3  could not be answered")]
pub(super) struct Args {
    /// The receipt's id: 32 hexadecimal digits
    #[arg(value_name = "ID", value_parser = id)]
    pub(super) id: [u8; 16],

    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,

    /// Wait until the epoch that covers it is sealed
    #[arg(long)]
    pub(super) wait: bool,

    /// Overwrite the file if it exists
    #[arg(long)]
    pub(super) force: bool,
}

fn id(text: &str) -> Result<[u8; 16], String> {
    let mut id = [0; 16];
    hex::decode_to_slice(text, &mut id)
        .map_err(|_digits| "an id is 32 hexadecimal digits".to_owned())?;
    Ok(id)
}

pub(super) fn execute(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let deadline = Instant::now() + config.evidence.epoch + QUOTE;
    loop {
        let found = export::receipt(&config.state_dir, &args.id);
        match found.map_err(|error| Failure::of(&error))? {
            Found::Sealed(file) => {
                output::file(&args.out, &file, args.force)?;
                output::say(&format!("{}: {} bytes", args.out.display(), file.len()))?;
                return Ok(Exit::Yes);
            }
            Found::Unknown => {
                let id = hex::encode(args.id);
                let hint = "receipts are kept on the host that issued them, under its state_dir";
                let error = format!("no receipt has the id {id}");
                return Err(Failure::new(Exit::No, error).hint(hint.to_owned()));
            }
            Found::Unsealed { .. } if args.wait && Instant::now() < deadline => {
                std::thread::sleep(LOOK);
            }
            Found::Unsealed { issued_s, index } => {
                return Err(unsealed(&config, args.wait, issued_s, index));
            }
        }
    }
}

fn unsealed(config: &Config, waited: bool, issued_s: u64, index: u64) -> Failure {
    // Both are rounded up.
    let due_s = issued_s.saturating_add(2 + config.evidence.epoch.as_secs());
    let due = i64::try_from(due_s)
        .ok()
        .and_then(|due| OffsetDateTime::from_unix_timestamp(due).ok());
    let due = due.and_then(|due| due.format(&Rfc3339).ok());
    let due = due.unwrap_or_else(|| format!("{due_s} s"));
    let error = format!("leaf {index} is not sealed yet");
    if waited || due_s < clock::now_ms() / 1000 {
        let hint = format!(
            "its epoch was due at {due}; merestone status says why the TPM has not sealed it, or that no agent runs"
        );
        return Failure::new(Exit::No, error).hint(hint);
    }
    let hint = format!("its epoch is sealed at about {due}; ask again then, or pass --wait");
    Failure::new(Exit::No, error).hint(hint)
}
