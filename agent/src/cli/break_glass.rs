//! `merestone break-glass`: lets an operator in, for a time, and on the record.

use super::{Exit, Failure, Globals, ask, output};
use crate::api::{Reply, Request};
use crate::signed::LIMIT_BYTES;
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Open protection by a signed token, or, where no signer is named, by asking
    #[command(after_help = "\
A token is signed with `merestone sign break-glass`, and says:
  host = \"node-7\"                      # `node` of that host
  reason = \"pins are on a full disk\"
  not_before = 2026-03-01T08:00:00Z
  until = 2026-03-01T09:00:00Z          # at most 4 hours later
  actions = [\"pins\", \"bpf\"]             # bpf pins signal trace mount succeed, or all
  nonce = \"c2f1a09b77\"

It opens once, ends by the kernel's own clock, and is an entry of the evidence.

Example:
  merestone break-glass open token.toml.cose")]
    Open {
        /// The signed token
        #[arg(value_name = "FILE", required_unless_present = "unsigned")]
        file: Option<PathBuf>,

        /// Ask without a token: only where no signer is named
        #[arg(long, conflicts_with = "file", requires = "reason")]
        unsigned: bool,

        /// Why, with --unsigned
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,

        /// For how long, with --unsigned
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        seconds: u64,

        /// For what, with --unsigned
        #[arg(
            long,
            value_name = "ACTION",
            value_delimiter = ',',
            default_value = "all"
        )]
        actions: Vec<String>,
    },
    /// Close it before its time
    Close,
    /// Say whether it is open (exit 0 open, 1 closed)
    #[command(after_help = "Example:\n  merestone break-glass status && echo open")]
    Status,
}

pub(super) fn execute(globals: &Globals, command: Command) -> Result<Exit, Failure> {
    let config = globals.load()?;
    match command {
        Command::Open {
            file: Some(file), ..
        } => {
            let message = crate::config::fault::read(&file, LIMIT_BYTES as u64)?;
            let token = hex::encode(message);
            ask::done(&config, &Request::OpenGlass { token })
        }
        Command::Open {
            reason,
            seconds,
            actions,
            ..
        } => ask::done(
            &config,
            &Request::OpenGlassUnsigned {
                reason: reason.unwrap_or_default(),
                seconds,
                actions,
            },
        ),
        Command::Close => ask::done(&config, &Request::CloseGlass {}),
        Command::Status => match ask::once(&config, &Request::Status {})? {
            Reply::Status(status) => {
                if let Some(open) = status.tamper.break_glass {
                    output::say(&open.line())?;
                    Ok(Exit::Yes)
                } else {
                    output::say("closed")?;
                    Ok(Exit::No)
                }
            }
            other => Err(ask::unexpected(&other)),
        },
    }
}
