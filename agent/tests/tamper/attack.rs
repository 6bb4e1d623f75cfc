//! What root tries: each attack by name, and what the kernel answered.

use crate::stage::{CGROUP, PINS, STATE};
use crate::sys;
use merestone_abi::{MAX_PREFIXES, SELECTOR_BYTES as SELECTOR};
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

// include/uapi/linux/bpf.h, enum bpf_cmd
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const PROG_LOAD: i32 = 5;
const OBJ_GET: i32 = 7;
pub(super) const PROG_GET_FD_BY_ID: i32 = 13;
pub(super) const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const LINK_UPDATE: i32 = 29;
pub(super) const LINK_GET_FD_BY_ID: i32 = 30;
const LINK_DETACH: i32 = 34;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_TEST_RUN: i32 = 10;
const F_RDONLY: u32 = 1 << 3;
// enum bpf_prog_type
const PROG_TYPE_SOCKET_FILTER: u32 = 1;
const PROG_TYPE_TRACEPOINT: u32 = 5;
const PROG_TYPE_CGROUP_SKB: u32 = 8;
const PROG_TYPE_TRACING: u32 = 26;
const PROG_TYPE_LSM: u32 = 29;
// enum bpf_attach_type
const MODIFY_RETURN: u32 = 26;
const LSM_MAC: u32 = 27;
const MOV_R0_0: u64 = 0xb7;
const EXIT: u64 = 0x95;
/// Writes eight bytes of whatever process runs it.
const WRITE_USER: [u64; 8] = [
    0x0000_0000_fff8_0a7a, // *(u64 *)(r10 - 8) = 0
    0x0000_1000_0000_01b7, // r1 = 4096
    0x0000_0000_0000_a2bf, // r2 = r10
    0xffff_fff8_0000_0207, // r2 += -8
    0x0000_0008_0000_03b7, // r3 = 8
    0x0000_0024_0000_0085, // probe_write_user
    MOV_R0_0,
    EXIT,
];
const CGROUP_INET_EGRESS: u32 = 1;

/// The name of an error, short.
pub(super) fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::EACCES) => "EACCES".to_owned(),
        _ => error.to_string(),
    }
}

/// Carries out `what`, an attack and perhaps a number.
pub(super) fn obey(what: &str) -> String {
    let mut words = what.split(' ');
    let attack = words.next().unwrap();
    let number: u32 = words.next().map_or(0, |word| word.parse().unwrap());
    let pins = PathBuf::from(std::env::var(PINS).unwrap());
    match try_it(attack, number, &pins) {
        Ok(_) => "done".to_owned(),
        Err(error) => errno(&error),
    }
}

/// On maps, links and programs.
fn try_it(attack: &str, number: u32, pins: &Path) -> io::Result<i64> {
    let egress = pins.join("links/egress");
    match attack {
        "detach" => sys::bpf(LINK_DETACH, &mut [get(&egress)?]),
        "replace" => sys::bpf(LINK_UPDATE, &mut [get(&egress)?, permissive()?, 0, 0]),
        "link-by-id" => {
            let link = sys::bpf(LINK_GET_FD_BY_ID, &mut [number])?;
            sys::bpf(LINK_DETACH, &mut [descriptor(link)?])
        }
        "any-by-id" => any_by_id(number),
        "program-by-id" => sys::bpf(PROG_GET_FD_BY_ID, &mut [number]),
        "read-map-by-id" => sys::bpf(MAP_GET_FD_BY_ID, &mut [number, 0, F_RDONLY]),
        "write-by-program" => write_by_program(number, 0).and_then(|_| write_by_program(number, 1)),
        "map-by-id" => {
            let map = sys::bpf(MAP_GET_FD_BY_ID, &mut [number, 0, 0])?;
            disarm(descriptor(map)?)
        }
        "settings" => write(get(&pins.join("SETTINGS"))?, &[0; 4], &[0xff; 16]),
        "prefixes" => {
            // Everything is inside, in the trie of the first generation.
            let mut key = [0; 24];
            key[0] = 32;
            let trie = inner(get(&pins.join("PREFIXES"))?, 1)?;
            write(trie, &key, &2048_u32.to_ne_bytes())
        }
        "other-trie" => {
            let tries = get(&pins.join("PREFIXES"))?;
            let own = descriptor(trie()?)?;
            write(tries, &1_u32.to_ne_bytes(), &own.to_ne_bytes())
        }
        "groups" => forget_first::<8>(get(&pins.join("GROUPS"))?),
        "names" => forget_first::<260>(get(&pins.join("NAMES"))?),
        "resolvers" => forget_first::<24>(get(&pins.join("RESOLVERS"))?),
        "selectors" => forget_first::<SELECTOR>(get(&pins.join("SELECTORS"))?),
        "selected" => {
            let server = fs::metadata(own_cgroup("server"))?.ino();
            let mut entry = [0; 16];
            entry
                .iter_mut()
                .zip(server.to_ne_bytes())
                .for_each(|(slot, byte)| *slot = byte);
            write(get(&pins.join("SELECTED"))?, &server.to_ne_bytes(), &entry)
        }
        "use-grant" => write(get(&pins.join("GRANT_USES"))?, &[0; 4], &[1; 24]),
        "unuse-grant" => write(get(&pins.join("GRANT_USES"))?, &[0; 4], &[0; 24]),
        "grant" => write(get(&pins.join("GRANTS"))?, &[1, 0, 0, 0], &[0xff; 96]),
        "armed" => disarm(get(&pins.join("ARMED"))?),
        "stance" => write(get(&pins.join("STANCE"))?, &[0; 4], &1_u32.to_ne_bytes()),
        _ => on_process(attack, number).unwrap_or_else(|| elsewhere(attack, number, pins)),
    }
}

/// On the agent's process; none where it is another kind of attack.
fn on_process(attack: &str, number: u32) -> Option<io::Result<i64>> {
    Some(match attack {
        "freeze" => fs::write(own_cgroup("agent/cgroup.freeze"), "1").map(|()| 0),
        "thaw" => fs::write(own_cgroup("agent/cgroup.freeze"), "0").map(|()| 0),
        "freeze-above" => fs::write(own_cgroup("cgroup.freeze"), "0").map(|()| 0),
        "cgroup-kill" => open_to_write(&own_cgroup("agent/cgroup.kill")),
        "memory-limit" => open_to_write(&own_cgroup("agent/memory.max")),
        "threads-limit" => open_to_write(&own_cgroup("agent/pids.max")),
        "processor-limit" => open_to_write(&own_cgroup("agent/cpu.max")),
        "switch-memory" => {
            let switch = own_cgroup("cgroup.subtree_control");
            let off = fs::write(&switch, "-memory");
            off.and_then(|()| fs::write(switch, "+memory")).map(|()| 0)
        }
        "kill" => sys::kill(number, libc::SIGKILL),
        "stop" => sys::kill(number, libc::SIGSTOP),
        "term" => sys::kill(number, libc::SIGTERM),
        "usr1" => sys::kill(number, libc::SIGUSR1),
        "trace" => sys::attach(number),
        "memory" => open_to_write(Path::new(&format!("/proc/{number}/mem"))),
        "write-memory" => sys::write_memory(number),
        "take-descriptor" => sys::take_descriptor(number),
        "limit" => sys::limit_processor_time(number),
        _ => return None,
    })
}

/// On the file systems and the kernel.
fn elsewhere(attack: &str, number: u32, pins: &Path) -> io::Result<i64> {
    let egress = pins.join("links/egress");
    let path = |path: &Path| path.to_string_lossy().into_owned();
    match attack {
        "modify-return" => load(PROG_TYPE_TRACING, MODIFY_RETURN, number, &[MOV_R0_0, EXIT]),
        "override" => load(PROG_TYPE_LSM, LSM_MAC, number, &[MOV_R0_0, EXIT]),
        "write-user" => load(PROG_TYPE_TRACEPOINT, 0, 0, &WRITE_USER),
        "kexec" => sys::kexec_nothing(),
        "device-memory" => open_to_write(Path::new("/dev/mem")),
        "sysrq" => open_to_write(Path::new("/proc/sysrq-trigger")),
        "ftrace" => {
            let knob = "/proc/sys/kernel/ftrace_enabled";
            fs::write(knob, "0").map(|()| 0)
        }
        "ftrace-on" => fs::write("/proc/sys/kernel/ftrace_enabled", "1").map(|()| 0),
        "bind-and-unpin" => {
            // Where it was let be removed before, the agent puts it back.
            let deadline = Instant::now() + Duration::from_secs(20);
            while !pins.join("links/egress").exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
            let bound = pins.with_file_name("bound");
            let bound = Path::new("/tmp").join(bound.file_name().unwrap_or_default());
            fs::create_dir_all(&bound)?;
            sys::bind(&path(pins), &path(&bound))?;
            let done = fs::remove_file(bound.join("links/egress"));
            sys::unmount(&path(&bound), libc::MNT_DETACH)?;
            done.map(|()| 0)
        }
        "cgroup-detach" => {
            let cgroup = fs::File::open(own_cgroup(""))?;
            let target = descriptor(cgroup.as_raw_fd().into())?;
            sys::bpf(PROG_DETACH, &mut [target, 0, CGROUP_INET_EGRESS])
        }
        "cgroup-attach" => {
            let cgroup = fs::File::open(own_cgroup(""))?;
            let target = descriptor(cgroup.as_raw_fd().into())?;
            sys::bpf(
                PROG_ATTACH,
                &mut [target, permissive()?, CGROUP_INET_EGRESS, 0],
            )
        }
        "cover-state" => sys::mount("tmpfs", &std::env::var(STATE).unwrap_or_default(), 0),
        "unpin" => fs::remove_file(&egress).map(|()| 0),
        "unpin-all" => fs::remove_dir_all(pins).map(|()| 0),
        "move-pins" => fs::rename(pins, pins.with_file_name("elsewhere")).map(|()| 0),
        "put-pin" => fs::create_dir(pins.join("another")).map(|()| 0),
        "unmount" => sys::unmount(&path(mount_of(pins)), 0),
        "unmount-lazily" => sys::unmount(&path(mount_of(pins)), libc::MNT_DETACH),
        "mount-over" => sys::mount("tmpfs", &path(mount_of(pins)), 0),
        "mount-over-pins" => sys::mount("tmpfs", &path(pins), 0),
        other => Err(io::Error::other(format!("no attack is called {other}"))),
    }
}

/// Tries every small id of a kind of object, until one is refused.
fn any_by_id(command: u32) -> io::Result<i64> {
    let command = i32::try_from(command).map_err(io::Error::other)?;
    for id in 1..4096 {
        match sys::bpf(command, &mut [id, 0, 0]) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
            _ => {}
        }
    }
    Ok(0)
}

fn open_to_write(path: &Path) -> io::Result<i64> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    Ok(file.as_raw_fd().into())
}

fn own_cgroup(below: &str) -> PathBuf {
    PathBuf::from(std::env::var(CGROUP).unwrap_or_default()).join(below)
}

fn mount_of(pins: &Path) -> &Path {
    pins.parent().unwrap()
}

fn descriptor(number: i64) -> io::Result<u32> {
    u32::try_from(number).map_err(io::Error::other)
}

/// Opens a pin.
fn get(path: &Path) -> io::Result<u32> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let [low, high] = sys::halves(path.as_ptr());
    descriptor(sys::bpf(OBJ_GET, &mut [low, high, 0, 0])?)
}

fn write(map: u32, key: &[u8], value: &[u8]) -> io::Result<i64> {
    let [key_low, key_high] = sys::halves(key.as_ptr());
    let [value_low, value_high] = sys::halves(value.as_ptr());
    let mut attr = [map, 0, key_low, key_high, value_low, value_high, 0, 0];
    sys::bpf(MAP_UPDATE_ELEM, &mut attr)
}

/// Opens the map in a slot of a map of maps, by its id.
fn inner(outer: u32, slot: u32) -> io::Result<u32> {
    const MAP_LOOKUP_ELEM: i32 = 1;
    let mut id = [0_u32; 1];
    let key = slot.to_ne_bytes();
    let [key_low, key_high] = sys::halves(key.as_ptr());
    let [low, high] = sys::halves(id.as_mut_ptr());
    let mut attr = [outer, 0, key_low, key_high, low, high, 0, 0];
    sys::bpf(MAP_LOOKUP_ELEM, &mut attr)?;
    let [id] = std::hint::black_box(id);
    descriptor(sys::bpf(MAP_GET_FD_BY_ID, &mut [id, 0, 0])?)
}

/// Says that nothing is guarded.
fn disarm(map: u32) -> io::Result<i64> {
    write(map, &[0; 4], &[0; 8])?;
    write(map, &1_u32.to_ne_bytes(), &[0; 8])
}

/// A trie like those of the boundary, empty.
fn trie() -> io::Result<i64> {
    const MAP_CREATE: i32 = 0;
    const LPM_TRIE: u32 = 11;
    const NO_PREALLOC_RDONLY_PROG: u32 = 1 | 1 << 7;
    let mut attr = [LPM_TRIE, 24, 4, MAX_PREFIXES, NO_PREALLOC_RDONLY_PROG];
    sys::bpf(MAP_CREATE, &mut attr)
}

fn forget_first<const N: usize>(map: u32) -> io::Result<i64> {
    const MAP_GET_NEXT_KEY: i32 = 4;
    let mut key = [0_u8; N];
    let [low, high] = sys::halves(key.as_mut_ptr());
    sys::bpf(MAP_GET_NEXT_KEY, &mut [map, 0, 0, 0, low, high])?;
    sys::bpf(MAP_DELETE_ELEM, &mut [map, 0, low, high])
}

/// Loads a program that lets everything pass.
fn permissive() -> io::Result<u32> {
    const MOV_R0_1: u64 = 0x0000_0001_0000_00b7;
    let code = [MOV_R0_1, EXIT];
    descriptor(load(PROG_TYPE_CGROUP_SKB, CGROUP_INET_EGRESS, 0, &code)?)
}

fn load(kind: u32, attached: u32, function: u32, code: &[u64]) -> io::Result<i64> {
    let [code_low, code_high] = sys::halves(code.as_ptr());
    let licence = c"GPL";
    let [licence_low, licence_high] = sys::halves(licence.as_ptr());
    let mut attr = [0_u32; 30];
    attr[0] = kind;
    attr[1] = u32::try_from(code.len()).map_err(io::Error::other)?;
    (attr[2], attr[3]) = (code_low, code_high);
    (attr[4], attr[5]) = (licence_low, licence_high);
    attr[17] = attached;
    attr[27] = function;
    sys::bpf(PROG_LOAD, &mut attr)
}

/// Empties an element of a map of 8 byte values by a program of one's own: the
/// verifier does not ask how the descriptor may be used.
fn write_by_program(map: u32, element: u64) -> io::Result<i64> {
    let map = sys::bpf(MAP_GET_FD_BY_ID, &mut [map, 0, F_RDONLY])?;
    let map = u64::try_from(map).map_err(io::Error::other)?;
    let code = [
        0x0000_0000_fffc_0a62 | element << 32, // *(u32 *)(r10 - 4) = element
        0x0000_0000_fff0_0a7a,                 // *(u64 *)(r10 - 16) = 0
        0x0000_0000_0000_1118 | map << 32,     // r1 = map
        0,
        0x0000_0000_0000_a2bf, // r2 = r10
        0xffff_fffc_0000_0207, // r2 += -4
        0x0000_0000_0000_a3bf, // r3 = r10
        0xffff_fff0_0000_0307, // r3 += -16
        0x0000_0000_0000_04b7, // r4 = 0
        0x0000_0002_0000_0085, // map_update_elem
        MOV_R0_0,
        EXIT,
    ];
    let program = descriptor(load(PROG_TYPE_SOCKET_FILTER, 0, 0, &code)?)?;
    let packet = [0_u8; 64];
    let [low, high] = sys::halves(packet.as_ptr());
    sys::bpf(
        PROG_TEST_RUN,
        &mut [program, 0, 64, 0, low, high, 0, 0, 0, 0],
    )
}

/// The kernel's own number (BTF) of a function.
pub(super) fn function(name: &str) -> u32 {
    let btf = btf_rs::Btf::from_file("/sys/kernel/btf/vmlinux").unwrap();
    let ids = btf.resolve_ids_by_name(name).unwrap();
    *ids.first().unwrap()
}

/// The ids of the egress link, its program, and the map ARMED.
pub(super) fn ids(pins: &Path) -> (u32, u32, u32) {
    let info = |path: &Path| {
        let mut info = [0_u32; 8];
        let [low, high] = sys::halves(info.as_mut_ptr());
        let fd = get(path).unwrap();
        sys::bpf(OBJ_GET_INFO_BY_FD, &mut [fd, 32, low, high]).unwrap();
        // Written through the pointer, which the compiler cannot see.
        std::hint::black_box(info)
    };
    let link = info(&pins.join("links/egress"));
    let map = info(&pins.join("ARMED"));
    (link[1], link[2], map[1])
}
