//! Whose a listening port is. Ports that were free a moment ago may be another test's by now, and
//! a TPM that answers there is that test's, which talks to one of us at a time.

use std::fs;

/// Whether this very process listens on these TCP ports of IPv4.
pub(crate) fn listens(pid: u32, ports: [u16; 2]) -> bool {
    let held = |socket: &str| {
        let files = fs::read_dir(format!("/proc/{pid}/fd"));
        let mut files = files.into_iter().flatten().flatten();
        files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket))
    };
    // Of its own network namespace, which need not be that of our first thread.
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    ports.into_iter().all(|port| {
        table.lines().any(|line| {
            // Documentation/networking/proc_net_tcp.rst: 0A is TCP_LISTEN, the tenth word the inode.
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, "0A", ..] = *words else {
                return false;
            };
            local.ends_with(&format!(":{port:04X}"))
                && words
                    .get(9)
                    .is_some_and(|inode| held(&format!("socket:[{inode}]")))
        })
    })
}
