//! Boot event logs of real machines, made by their firmware.

use merestone_verify::boot::EventLog;
use std::path::{Path, PathBuf};

fn vectors() -> Option<PathBuf> {
    let base = std::env::var_os("MERESTONE_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let folder = base.join("tcg-eventlogs");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is absent", folder.display());
    None
}

#[test]
fn every_real_event_log_parses_and_replays() {
    let Some(folder) = vectors() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let log =
            EventLog::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let registers = log.replay();
        println!(
            "{}: {} events, {registers:02x?}",
            path.display(),
            log.events
        );
        for register in [0, 4, 7] {
            assert!(
                registers.contains_key(&register),
                "{}: {register}",
                path.display()
            );
        }
        seen += 1;
    }
    assert!(seen >= 7);
}
