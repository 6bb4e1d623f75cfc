//! Writes judged files for other verifiers to try.
//!
//! To `tests/vectors/evidence` where `MERESTONE_KEEP_VECTORS` is set: the first file of every test
//! that is not to pass, and of every good one, under the name of its test, which is the sentence
//! that it shows. To the folder that `MERESTONE_EXPORT` names: every file that any test judges.

use merestone_verify::Purpose;
use std::path::Path;

pub(super) fn vector(bytes: &[u8], trust: &str, purpose: Purpose, exit: u8) {
    if let Some(folder) = std::env::var_os("MERESTONE_EXPORT") {
        let name = std::thread::current()
            .name()
            .unwrap_or_default()
            .replace("::", "-");
        // One name, many files: each gets the number that is free.
        let free = (0..10_000)
            .map(|number| Path::new(&folder).join(format!("{name}-{number:03}")))
            .find(|case| !case.exists());
        write(&free.unwrap(), bytes, trust, purpose, exit);
    }
    if std::env::var_os("MERESTONE_KEEP_VECTORS").is_none() {
        return;
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let test = name.rsplit("::").next().unwrap_or_default();
    // What an inventory is not called shows in a verdict that passes.
    if exit == 0 && !name.starts_with("good::") && !test.starts_with("n65_") {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/evidence")
        .join(test);
    if folder.exists() {
        return;
    }
    write(&folder, bytes, trust, purpose, exit);
}

fn write(folder: &Path, bytes: &[u8], trust: &str, purpose: Purpose, exit: u8) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("file.cbor"), bytes).unwrap();
    std::fs::write(folder.join("trust.toml"), trust).unwrap();
    let command = match purpose {
        Purpose::Period => "bundle",
        Purpose::Receipt => "receipt",
    };
    std::fs::write(folder.join("expect"), format!("{command} {exit}\n")).unwrap();
}
