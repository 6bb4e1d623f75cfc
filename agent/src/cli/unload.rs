//! `merestone unload`: the operator's explicit wish to hold nothing any more.

use super::{Exit, Failure, Globals, output};
use crate::bpf;
use crate::clock;
use crate::serve::Client;
use merestone_abi::Glass;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Guarded groups can reach anything afterwards, until the agent runs again. The evidence stays.

Example:
  systemctl stop merestone && merestone unload --yes")]
pub(super) struct Args {
    /// Yes, let guarded groups go
    #[arg(long)]
    pub(super) yes: bool,
}

pub(super) fn execute(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    let config = globals.load()?;
    if !args.yes {
        return Err(
            Failure::new(Exit::Usage, "this lets every guarded group go")
                .hint("if that is what you want: merestone unload --yes"),
        );
    }
    if Client::connect(&config.api.socket).is_ok() {
        return Err(Failure::new(Exit::No, "an agent is running")
            .hint("stop it first; it would report what no longer holds"));
    }
    if let Some(guard) = bpf::guard(&config.enforcement.pin_dir)
        && guard.is_armed
        && !guard.lets_through(Glass::PINS, clock::boot_ns())
    {
        return Err(Failure::new(
            Exit::No,
            "the pins are protected, and no break-glass is open",
        )
        .hint(
            "start the agent, open one with `merestone break-glass open`, stop the agent, \
                 and unload while it is open",
        ));
    }
    bpf::unload(&config.enforcement.pin_dir).map_err(|error| Failure::of(&error))?;
    output::say("nothing is held any more")?;
    Ok(Exit::Yes)
}
