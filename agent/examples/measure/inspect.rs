//! What the kernel says about programs that somebody else has loaded: which are
//! on a cgroup, what they are called, of which instructions they are.

use crate::bpf::{AttachType, Insn, call, owned, program};
use anyhow::{Context as _, Result, ensure};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

// include/uapi/linux/bpf.h
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const GET_INFO: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
/// `BPF_PSEUDO_MAP_FD`, in an instruction that loads 64 bits.
const OF_A_MAP: u8 = 1;
const LOADS_64_BITS: u8 = 0x18;

#[repr(C)]
#[derive(Default)]
struct Query {
    cgroup: i32,
    at: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: [u32; 5],
}

/// The numbers of the programs that are attached to this very cgroup.
pub(crate) fn attached(cgroup: BorrowedFd<'_>, at: AttachType) -> Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let mut attr = Query {
        cgroup: cgroup.as_raw_fd(),
        at: at as u32,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len())?,
        ..Query::default()
    };
    call(PROG_QUERY, &mut attr).context("cannot ask which programs are on a cgroup")?;
    Ok(ids.into_iter().take(attr.count as usize).collect())
}

#[repr(C)]
struct GetInfo {
    object: i32,
    size: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    native_size: u32,
    size: u32,
    native: u64,
    instructions: u64,
    loaded_ns: u64,
    user: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key: u32,
    value: u32,
    most: u32,
    flags: u32,
    name: [u8; 16],
}

/// What makes a map: kind, size of key and value, how many elements, flags.
pub(crate) type Shape = [u32; 5];

/// A program as the kernel has it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) kind: u32,
    /// Bytes of machine code; 0 where it is interpreted.
    pub(crate) native_bytes: u32,
    /// As the verifier left them, with maps by the order of their first use.
    pub(crate) instructions: Vec<Insn>,
    pub(crate) maps: Vec<Shape>,
}

fn info<T>(object: &OwnedFd, about: &mut T) -> Result<()> {
    let mut attr = GetInfo {
        object: object.as_raw_fd(),
        size: u32::try_from(size_of::<T>())?,
        info: std::ptr::from_mut(about) as u64,
    };
    call(GET_INFO, &mut attr).context("cannot ask about a program or a map")?;
    Ok(())
}

/// Looks at a program.
pub(crate) fn look(id: u32) -> Result<Seen> {
    let program = program(id)?;
    let mut sizes = ProgramInfo::default();
    info(&program, &mut sizes)?;
    let mut instructions = vec![Insn::default(); sizes.size as usize / size_of::<Insn>()];
    let mut about = ProgramInfo {
        size: sizes.size,
        instructions: instructions.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    info(&program, &mut about)?;
    ensure!(
        about.instructions != 0,
        "the kernel does not show the program's instructions"
    );
    let mut maps = Vec::new();
    for instruction in &mut instructions {
        if instruction.code == LOADS_64_BITS && instruction.registers >> 4 == OF_A_MAP {
            let id = u32::try_from(instruction.immediate)?;
            let known = maps.iter().position(|(known, _)| *known == id);
            let order = if let Some(order) = known {
                order
            } else {
                maps.push((id, shape(id)?));
                maps.len() - 1
            };
            instruction.immediate = i32::try_from(order)?;
        }
    }
    let name = about.name.split(|byte| *byte == 0).next();
    Ok(Seen {
        name: String::from_utf8_lossy(name.unwrap_or_default()).into_owned(),
        kind: about.kind,
        native_bytes: about.native_size,
        instructions,
        maps: maps.into_iter().map(|(_, shape)| shape).collect(),
    })
}

fn shape(id: u32) -> Result<Shape> {
    let mut attr = [id, 0, 0];
    let map = owned(call(MAP_GET_FD_BY_ID, &mut attr).context("no such map")?);
    let mut about = MapInfo::default();
    info(&map, &mut about)?;
    Ok([about.kind, about.key, about.value, about.most, about.flags])
}
