//! Socket marks: how a socket is held that no guarded cgroup holds.
//!
//! A mark names the process that made the socket, where that process might
//! become guarded by its tree, or the group that judges it. A mark with a
//! group is final: whoever holds the socket later, it stays judged. The last
//! verdict lies in the mark too (`verdicts`).

use crate::guarded::{self, Subject};
use crate::maps::SOCKETS;
use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use core::ffi::c_void;
use core::ptr;
use merestone_abi::SocketMark;

/// The mark of a socket; with [`BPF_SK_STORAGE_GET_F_CREATE`] made where there
/// is none. Only full sockets have one (net/core/bpf_sk_storage.c).
#[inline(always)]
pub(crate) fn storage(sk: *mut c_void, flags: u32) -> Option<&'static mut SocketMark> {
    if sk.is_null() {
        return None;
    }
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: `sk` is a socket or null by the context's type; the verifier
    // refuses anything else.
    let mark = unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), u64::from(flags)) };
    // SAFETY: the helper returns the socket's mark or null. Two writers can
    // race; both write a guarded group, and either of them is right.
    unsafe { mark.cast::<SocketMark>().as_mut() }
}

/// Marks a socket that a guarded task makes or uses. False: it could not be.
#[inline(always)]
pub(crate) fn mark(sk: *mut c_void, subject: &Subject) -> bool {
    let Some(mark) = storage(sk, BPF_SK_STORAGE_GET_F_CREATE) else {
        return false;
    };
    if mark.group == 0 {
        mark.boundary = subject.boundary;
        mark.owner = subject.tgid;
        mark.group = subject.group;
    }
    true
}

/// Remembers who made a socket, in case its tree becomes guarded later.
#[inline(always)]
pub(crate) fn own(sk: *mut c_void, tgid: u32) -> bool {
    let Some(mark) = storage(sk, BPF_SK_STORAGE_GET_F_CREATE) else {
        return false;
    };
    mark.owner = tgid;
    true
}

/// The process that made or last used a socket; 0 where nobody knows.
#[inline(always)]
pub(crate) fn owner(sk: *mut c_void) -> u32 {
    storage(sk, 0).map_or(0, |mark| mark.owner)
}

/// What a socket is judged as by its own mark.
#[inline(always)]
pub(crate) fn subject(sk: *mut c_void) -> Option<Subject> {
    let mark = storage(sk, 0)?;
    if mark.group == 0 {
        // Its maker may have become guarded since, or just have ended.
        let maker = guarded::task_even_ended(mark.owner)?;
        mark.boundary = maker.boundary;
        mark.group = maker.group;
    }
    Some(Subject {
        group: mark.group,
        tgid: mark.owner,
        boundary: mark.boundary,
    })
}
