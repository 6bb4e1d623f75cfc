//! The command line.

use clap::{Args as Group, Parser, Subcommand};
use merestone_verify::Trust;
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Verify what a Merestone agent left as evidence, offline.
///
/// Needs no root, no TPM and no network. It believes only the keys that the trust policy
/// names, and it says what it did not check.
#[derive(Debug, Parser)]
#[command(
    name = "merestone-verify",
    version,
    after_help = "Exit codes:
  0  pass
  1  untrusted: a signature, a hash or a structure is wrong
  2  failed: sound, and against the trust policy
  3  indeterminate: something required was not there
  4  usage: the call or the trust policy has a fault
The worst of the checks decides, in the order 1, 2, 3, 0.

Examples:
  merestone-verify bundle november.merestone --trust trust.toml
  merestone-verify bundle november.merestone --trust trust.toml --html november.html
  merestone-verify receipt one.merestone --trust trust.toml --json
  merestone-verify inspect november.merestone"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Verify a whole period
    #[command(after_help = "Examples:
  merestone-verify bundle november.merestone --trust trust.toml
  merestone-verify bundle november.merestone --trust trust.toml --json | jq .verdict
  merestone-verify bundle november.merestone --trust trust.toml --at 2026-12-01T00:00:00Z
  merestone-verify bundle november.merestone --trust trust.toml --html november.html \\
    --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z
  merestone-verify bundle november.merestone --trust trust.toml --ear november.jwt --ear-key key.pem")]
    Bundle {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        reports: Reports,
        #[command(flatten)]
        period: Period,
        /// Judge as of this time instead of now
        #[arg(long, value_name = "RFC3339", value_parser = instant)]
        at: Option<u64>,
    },
    /// Verify a file that shows single entries
    #[command(after_help = "Example:
  merestone-verify receipt one.merestone --trust trust.toml")]
    Receipt {
        #[command(flatten)]
        common: Common,
        /// Judge as of this time instead of now
        #[arg(long, value_name = "RFC3339", value_parser = instant)]
        at: Option<u64>,
    },
    /// Print what a file says, and trust nothing of it
    #[command(after_help = "Example:
  merestone-verify inspect november.merestone | less")]
    Inspect {
        /// The file; `-` reads standard input
        file: PathBuf,
    },
    /// Print a completion script
    #[command(hide = true)]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

#[derive(Debug, Group)]
pub(crate) struct Common {
    /// The file; `-` reads standard input
    pub(crate) file: PathBuf,
    /// The trust policy: which keys to believe, what evidence must show
    #[arg(long, value_name = "TRUST.TOML")]
    pub(crate) trust: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What else to write.
#[derive(Debug, Group)]
pub(crate) struct Reports {
    /// Write a page for people too
    #[arg(long, value_name = "OUT")]
    pub(crate) html: Option<PathBuf>,
    /// Write the result as an EAT Attestation Result (EAR) too
    #[arg(long, value_name = "OUT")]
    pub(crate) ear: Option<PathBuf>,
    /// Sign the EAR with this private key, as a JWT: PKCS#8 PEM, Ed25519 or P-256
    #[arg(long, value_name = "KEY.PEM", requires = "ear")]
    pub(crate) ear_key: Option<PathBuf>,
}

/// The period to account for; the policy's own demands stay.
#[derive(Clone, Copy, Debug, Default, Group)]
pub(crate) struct Period {
    /// The file's period has to begin no later; the page's time line begins here
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) from: Option<u64>,
    /// The file's period has to end no earlier; the page's time line ends here
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) to: Option<u64>,
}

impl Period {
    /// Only ever asks for more than the policy does.
    pub(crate) fn demand(self, trust: &mut Trust) {
        let require = &mut trust.require;
        require.from_ms = self.from.into_iter().chain(require.from_ms).min();
        require.to_ms = self.to.into_iter().chain(require.to_ms).max();
    }
}

fn instant(text: &str) -> Result<u64, String> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    let millis = parsed.map(|at| at.unix_timestamp_nanos() / 1_000_000);
    millis
        .and_then(|millis| u64::try_from(millis).ok())
        .ok_or_else(|| "want a time like 2026-01-31T12:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::Args;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
