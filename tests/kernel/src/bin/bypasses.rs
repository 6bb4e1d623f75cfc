//! Writes or checks docs/bypasses.md; see `merestone_kernel_tests::bypasses`.
#![expect(clippy::print_stderr, reason = "what is wrong is what it says")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match merestone_kernel_tests::bypasses::main(&arguments) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
