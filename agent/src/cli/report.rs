//! `merestone report`: the evidence of a span of time, in one file.

use super::{Exit, Failure, Globals};
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  merestone report --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z --out november.merestone
  merestone-verify bundle november.merestone --trust trust.toml")]
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

    /// Overwrite the file if it exists
    #[arg(long)]
    pub(super) force: bool,
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| format!("{error}; write 2026-11-01T00:00:00Z"))
}

pub(super) fn execute(_: &Globals, _: &Args) -> Result<Exit, Failure> {
    Err(Failure::unconnected("report"))
}
