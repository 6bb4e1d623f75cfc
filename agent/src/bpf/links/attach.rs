//! Puts the program on one link: by a pinned tcx link, or before Linux 6.6 as
//! a filter of the clsact qdisc, which needs no pin to stay.
//!
//! It comes first on the link, before whoever else is there: another program
//! that says "done" would end the walk (net/core/dev.c `tcx_run`).

use super::namespaces::Found;
use super::netlink;
use crate::bpf::coverage;
use crate::bpf::error::innermost;
use crate::bpf::hooks::LINK;
use crate::bpf::standing::Making;
use crate::bpf::sys::{self, AttachType};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use aya::programs::{SchedClassifier, TcAttachType};
use rustix::net::{AddressFamily, SocketType, netdevice};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The filter's place: the first priority, and a handle nobody else uses.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x6d65);

/// Whether this kernel knows tcx links (since 6.6).
pub(super) fn uses_netlink() -> bool {
    !coverage::kernel_is_at_least((6, 6))
}

/// The program and the places it is attached from.
pub(super) struct Attacher {
    program: SchedClassifier,
    place: PathBuf,
    making: Making,
    netlink: bool,
}

impl Attacher {
    pub(super) fn new(program: SchedClassifier, place: PathBuf, making: Making) -> Self {
        Self {
            program,
            place,
            making,
            netlink: uses_netlink(),
        }
    }

    /// Begins to hear of a namespace's links.
    #[expect(clippy::unused_self, reason = "only an attacher begins")]
    pub(super) fn begin(&self, found: &Found) -> io::Result<OwnedFd> {
        found.enter()?;
        netlink::listen()
    }

    /// Attaches to the links of a namespace that are not in `held` yet.
    pub(super) fn sync(
        &mut self,
        found: &Found,
        held: &mut BTreeSet<u32>,
        fault: &mut Option<String>,
    ) {
        let name = |index: u32| format!("link {index} of network namespace {}", found.inode);
        let there = match found.enter().and_then(|()| netlink::links()) {
            Ok(there) => there,
            Err(error) => {
                fault.get_or_insert(format!("network namespace {}: {error}", found.inode));
                return;
            }
        };
        held.retain(|index| there.contains(index));
        for index in there {
            if held.contains(&index) {
                continue;
            }
            match self.attach(found.inode, index) {
                Ok(()) => {
                    held.insert(index);
                }
                // The program is there (kernel/bpf/mprog.c `bpf_mprog_attach`).
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                    held.insert(index);
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    fault.get_or_insert(format!("{}: {error}", name(index)));
                }
            }
        }
    }

    fn attach(&mut self, inode: u64, index: u32) -> io::Result<()> {
        if self.netlink {
            return self.attach_filter(index);
        }
        let program = self.program.fd().map_err(io::Error::other)?;
        let place = &self.place;
        self.making.link(|| {
            let link = sys::link_network(program, index, AttachType::LinkEgress)?;
            let pin = place.join(pin_name(inode, index));
            let new = place.join("new");
            if new.exists() {
                fs::remove_file(&new)?;
            }
            Ok((link, new, pin))
        })
    }

    fn attach_filter(&mut self, index: u32) -> io::Result<()> {
        let name = device(index)?;
        // It may be there already; if not, the next call says so.
        qdisc_add_clsact(&name).ok();
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        });
        let egress = TcAttachType::Egress;
        let attached = self.program.attach_with_options(&name, egress, options);
        let attached = attached.or_else(|_there| {
            // An agent before this one has left its own: put in its place.
            let old = SchedClassifierLink::attached(&name, egress, PRIORITY, HANDLE, None)
                .map_err(aya::programs::tc::TcError::IoError)?;
            self.program.attach_to_link(old)
        });
        let link = attached
            .and_then(|id| self.program.take_link(id))
            .map_err(|error| io::Error::other(innermost(&error)))?;
        // Dropped, it would be detached; it is to stay.
        let _stays = std::mem::ManuallyDrop::new(link);
        Ok(())
    }

    /// Removes the pins of links that are gone.
    pub(super) fn forget(&self, alive: &BTreeMap<u64, &BTreeSet<u32>>) {
        let entries = fs::read_dir(&self.place).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let Some((inode, index)) = name.to_str().and_then(read_name) else {
                continue;
            };
            if !alive
                .get(&inode)
                .is_some_and(|links| links.contains(&index))
            {
                // A pin that stays holds nothing.
                fs::remove_file(entry.path()).ok();
            }
        }
    }
}

fn pin_name(inode: u64, index: u32) -> String {
    format!("{inode}_{index}")
}

fn read_name(name: &str) -> Option<(u64, u32)> {
    let (inode, index) = name.split_once('_')?;
    Some((inode.parse().ok()?, index.parse().ok()?))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// A link's name in the calling thread's namespace.
fn device(index: u32) -> io::Result<String> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(netdevice::index_to_name(&socket, index)?)
}

/// Takes the filters off the links of the calling thread's namespace.
pub(super) fn detach_here() {
    for index in netlink::links().unwrap_or_default() {
        if let Ok(name) = device(index) {
            // Most have none.
            qdisc_detach_program(&name, TcAttachType::Egress, LINK).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_s_name_reads_back_and_the_program_s_is_none() {
        assert_eq!(
            read_name(&pin_name(4_026_531_840, 7)),
            Some((4_026_531_840, 7))
        );
        assert_eq!(read_name("program"), None);
        assert_eq!(read_name("program_new"), None);
    }
}
