//! A boundary: no panic, every fault names a line that is there, and what
//! compiles answers for every address near its networks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_abi::Verdict;
use merestone_agent::config::Origin;
use merestone_agent::policy::{self, Network, compile};
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    let path = Path::new("boundary.toml");
    let boundary = match policy::parse(path, bytes.to_vec()) {
        Ok(boundary) => boundary,
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults.list() {
                if let Origin::File { line, column, .. } = &fault.origin {
                    assert!((1..=lines).contains(line), "{fault}");
                    assert!(*column >= 1, "{fault}");
                }
            }
            return;
        }
    };
    let Ok(compiled) = compile(&boundary) else {
        return;
    };
    for prefix in &compiled.prefixes {
        assert!(prefix.bits <= 128);
        assert!((prefix.set as usize) < compiled.sets.len());
    }
    for network in boundary
        .rules
        .iter()
        .flat_map(|rule| &rule.networks)
        .take(64)
    {
        let network: &Network = network;
        for (protocol, port) in [(6, 443), (17, 53), (1, 0), (47, 0)] {
            for fragment in [false, true] {
                let decision = policy::lookup(&compiled, network.address, protocol, port, fragment);
                // Only a rule of the file, or the built-in one, allows.
                assert!(decision.verdict != Verdict::ALLOW || decision.rule != 0);
            }
        }
    }
});
