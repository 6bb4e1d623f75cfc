//! Gives up capabilities for real, in a process of one thread.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test without the usual harness"
)]

use merestone_agent::privilege::{Capability, CapabilityError, drop_to, effective, wanted};

fn main() {
    let held = effective().expect("/proc is mounted");
    if !held.missing().is_empty() {
        println!("SKIPPED: a_drop_leaves_the_wanted_capabilities_and_nothing_else needs root");
        return;
    }
    a_drop_leaves_the_wanted_capabilities_and_nothing_else();
    println!("test a_drop_leaves_the_wanted_capabilities_and_nothing_else ... ok");
}

fn a_drop_leaves_the_wanted_capabilities_and_nothing_else() {
    let before = effective().expect("readable");
    assert!(before.has(Capability::DacOverride));
    let keep = wanted(None);
    let dropped = drop_to(&keep).expect("drops");
    assert_eq!(dropped.kept, keep);
    assert!(dropped.given_up > 0);

    let after = effective().expect("readable");
    assert!(after.missing().is_empty());
    assert!(!after.has(Capability::DacOverride));
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a line of the status").trim().to_owned()
    };
    assert_eq!(field("CapEff:"), field("CapPrm:"));
    assert_eq!(field("CapEff:"), field("CapBnd:"));
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");

    let error = drop_to(&[Capability::DacOverride]).expect_err("it is gone");
    assert!(matches!(error, CapabilityError::Lost { .. }), "{error}");
}
