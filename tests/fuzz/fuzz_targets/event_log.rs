//! A boot event log: never panics, and replays the same twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_verify::boot::EventLog;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(log) = EventLog::parse(bytes) {
        assert_eq!(log.replay(), log.replay());
        assert!(log.extends.len() < log.events);
    }
});
