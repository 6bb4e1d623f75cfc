//! The egress suite under `cargo test`; see `merestone_kernel_tests::suite`.

use std::process::ExitCode;

fn main() -> ExitCode {
    merestone_kernel_tests::suite::main()
}
