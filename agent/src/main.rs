//! merestone: the host agent and the operator command.

fn main() {}
