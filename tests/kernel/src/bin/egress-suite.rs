//! The egress suite as a plain executable, for virtual machines without cargo.

use std::process::ExitCode;

fn main() -> ExitCode {
    merestone_kernel_tests::suite::main()
}
