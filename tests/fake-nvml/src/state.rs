//! What the library remembers between calls: the scenario as last read, and who initialised it.

#![expect(
    unsafe_code,
    reason = "dladdr, to find the file this library was loaded from"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::scenario::Scenario;

/// Which version of the scenario file is in memory. A rename over the file changes the inode, an
/// edit in place the time.
type Stamp = (u64, u64, i64, i64, u64);

/// The library's memory.
pub(crate) struct State {
    scenario: Option<(Stamp, Arc<Scenario>)>,
    /// `nvmlInit` less `nvmlShutdown`.
    pub(crate) initialised: u32,
    /// Event sets by handle: for each GPU index the mask it was registered with.
    pub(crate) sets: BTreeMap<usize, BTreeMap<usize, u64>>,
    /// The next event set's handle.
    pub(crate) next_set: usize,
    /// The highest event id that was delivered.
    pub(crate) delivered: u64,
    /// When the library was loaded, from which energy grows.
    pub(crate) loaded: Option<Instant>,
}

static STATE: Mutex<State> = Mutex::new(State {
    scenario: None,
    initialised: 0,
    sets: BTreeMap::new(),
    next_set: 1,
    delivered: 0,
    loaded: None,
});

/// The state, also after a call panicked while it held the lock: nothing in it is half-written.
pub(crate) fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The scenario as it is in the file now; `None` when there is no readable one.
pub(crate) fn scenario() -> Option<Arc<Scenario>> {
    let path = path()?;
    let now = std::fs::metadata(&path).ok()?;
    let stamp = (
        now.dev(),
        now.ino(),
        now.mtime(),
        now.mtime_nsec(),
        now.size(),
    );
    let mut state = lock();
    if let Some((read, scenario)) = &state.scenario
        && *read == stamp
    {
        return Some(Arc::clone(scenario));
    }
    let parsed = std::fs::read_to_string(&path)
        .map_err(|error| error.to_string())
        .and_then(|text| Scenario::parse(&text));
    match parsed {
        Ok(scenario) => {
            let scenario = Arc::new(scenario);
            state.scenario = Some((stamp, Arc::clone(&scenario)));
            Some(scenario)
        }
        Err(error) => {
            drop(state);
            // There is nobody to return this to; where stderr is gone as well, the code 999 remains.
            writeln!(std::io::stderr(), "fake-nvml: {}: {error}", path.display()).ok();
            None
        }
    }
}

/// The scenario file: the environment's, or the one beside this library.
fn path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FAKE_NVML_SCENARIO") {
        return Some(path.into());
    }
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let here: *const u32 = &raw const crate::merestone_fake_nvml;
    // SAFETY: `here` points into this library, `info` is valid for writes.
    if unsafe { libc::dladdr(here.cast(), &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr gave a NUL-terminated string that lives as long as this library is mapped.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let mut path = OsStr::from_bytes(name.to_bytes()).to_os_string();
    path.push(".toml");
    Some(path.into())
}
