//! The ring buffer's bytes: whatever the kernel sends becomes records that
//! survive JSON, and folding loses no count.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_abi::Event;
use merestone_agent::flow::{FlowEvent, Fold, Names};
use zerocopy::FromBytes;

fuzz_target!(|bytes: &[u8]| {
    let mut fold = Fold::default();
    let (mut pushed, mut told) = (0_u64, 0_u64);
    let mut tell = |event: &Event, count: u64| {
        told += count;
        let record = FlowEvent::new(event, Names::default(), count);
        assert!(!record.line().contains('\n'));
        let text = serde_json::to_string(&record).expect("a record is JSON");
        let back: FlowEvent = serde_json::from_str(&text).expect("its JSON is a record");
        assert_eq!(back, record);
    };
    for chunk in bytes.chunks(size_of::<Event>()) {
        let Ok(event) = Event::read_from_bytes(chunk) else {
            continue;
        };
        pushed += 1;
        for (event, count) in fold.push(event) {
            tell(&event, count);
        }
        for (event, count) in fold.tick(event.boot_ns) {
            tell(&event, count);
        }
    }
    for (event, count) in fold.finish() {
        tell(&event, count);
    }
    assert_eq!(
        pushed, told,
        "every event is told once, alone or in a count"
    );
});
