//! `merestone report`: the evidence of a span of time, in one file.

use super::{Exit, Failure, Globals, ask, output};
use crate::api::{Reply, Request};
use crate::config::Config;
use crate::export;
use crate::serve::ClientError;
use merestone_tlog::MAX_NOTE;
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  merestone report --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z --out november.merestone
  merestone-verify bundle november.merestone --trust trust.toml
  # with what a witness signed (docs/log.md):
  merestone report --from 2026-11-01T00:00:00Z --checkpoint cosigned.checkpoint \\
    --out november.merestone")]
pub(super) struct Args {
    /// Where the span begins, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(super) from: OffsetDateTime,

    /// Where it ends, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(super) to: Option<OffsetDateTime>,

    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,

    /// Carry this checkpoint, as a witness gave it back [default: the best of `STATE_DIR/log/cosigned`]
    #[arg(long, value_name = "FILE")]
    pub(super) checkpoint: Option<PathBuf>,

    /// Put the receipts of its records in too; about 600 bytes each
    #[arg(long)]
    pub(super) receipts: bool,

    /// Overwrite the file if it exists
    #[arg(long)]
    pub(super) force: bool,
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| format!("{error}; write 2026-11-01T00:00:00Z"))
}

pub(super) fn execute(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let sealed = seal(&config)?;
    let now = OffsetDateTime::now_utc();
    let checkpoint = match &args.checkpoint {
        Some(file) => Some(crate::config::fault::read(file, MAX_NOTE as u64)?),
        None => None,
    };
    let bundle = export::bundle_with(
        &config.state_dir,
        milliseconds(args.from),
        milliseconds(args.to.unwrap_or(now)),
        args.receipts,
        checkpoint.as_deref(),
    )
    .map_err(|error| Failure::of(&error))?;
    output::file(&args.out, &bundle, args.force)?;
    output::say(&format!(
        "{}: {} bytes; {sealed}",
        args.out.display(),
        bundle.len()
    ))?;
    Ok(Exit::Yes)
}

/// Has the running agent seal what it has, so that the report is complete up
/// to now. Without an agent the report ends with its last quote.
fn seal(config: &Config) -> Result<String, Failure> {
    match ask::once(config, &Request::Seal {}) {
        Ok(Reply::Done { detail }) => Ok(detail),
        Ok(other) => Err(ask::unexpected(&other)),
        Err(ClientError::NotRunning { .. }) => {
            Ok("no agent is running: it ends with the last quote".to_owned())
        }
        Err(error) => Err(error.into()),
    }
}

fn milliseconds(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}
