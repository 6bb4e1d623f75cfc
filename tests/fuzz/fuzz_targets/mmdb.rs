//! A database of countries or operators: no panic, no more networks than its
//! bytes can pay for, and what is listed is what a look-up says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_agent::geo::{Code, Database, Kind};
use merestone_agent::policy::unmapped;
use std::collections::BTreeSet;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("fuzz.mmdb");
    for kind in [Kind::Country, Kind::Asn] {
        let Ok(database) = Database::of_bytes(path, kind, bytes.to_vec()) else {
            continue;
        };
        let wanted: BTreeSet<Code> = [
            Code::Country(*b"DE"),
            Code::Country(*b"FR"),
            Code::Asn(64_500),
            Code::Asn(64_501),
        ]
        .into();
        for text in [
            "198.18.0.1",
            "203.0.113.200",
            "2001:db8::1",
            "2002:c612:1::1",
        ] {
            // An error is an answer.
            drop(database.entry(text.parse().expect("an address")));
        }
        let Ok(found) = database.networks(&wanted) else {
            continue;
        };
        let most = bytes.len() + 1024;
        assert!(found.values().map(Vec::len).sum::<usize>() <= most);
        for (code, networks) in found {
            assert!(wanted.contains(&code) && code.kind() == kind);
            assert!(!networks.is_empty());
            for pair in networks.windows(2) {
                assert!(pair[0] < pair[1]);
                assert!(!pair[0].covers(&pair[1]) && !pair[1].covers(&pair[0]));
            }
            for network in networks.iter().take(32) {
                let told = database.entry(unmapped(network.address));
                let (own, _) = told.expect("it was read before").expect("it is listed");
                assert_eq!(own, code, "{network}");
            }
        }
    }
});
