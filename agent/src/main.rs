//! merestone: the host agent and the operator command.

use merestone_agent::cli::{self, Exit};

fn main() -> Exit {
    cli::main(std::env::args_os())
}
