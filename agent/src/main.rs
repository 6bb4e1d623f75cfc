//! merestone: the host agent and the operator command.

use merestone_agent::canary;
use merestone_agent::cli;
use std::ffi::OsString;
use std::process::{ExitCode, Termination as _};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The agent's own child, which is no command of the operator's.
    if let [_, first, rest @ ..] = arguments.as_slice()
        && first == canary::CHILD
    {
        return ExitCode::from(canary::child(rest));
    }
    cli::main(arguments).report()
}
