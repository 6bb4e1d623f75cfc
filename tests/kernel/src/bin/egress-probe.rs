//! One vector, one process: tries to get out, and says what it was told.

use std::process::ExitCode;

fn main() -> ExitCode {
    let code = std::env::args()
        .nth(1)
        .map_or(2, |orders| merestone_kernel_tests::probe::main(&orders));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
