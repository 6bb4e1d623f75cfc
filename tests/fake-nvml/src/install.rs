//! Puts a private copy of the library where a test wants it.
//!
//! A copy is another file, so `dlopen` makes another library of it with its own state: tests in one
//! process do not see each other's scenario.

use std::io;
use std::path::{Path, PathBuf};

use crate::scenario::Scenario;

/// A copy of the library with its scenario.
#[derive(Debug, Clone)]
pub struct Installed {
    /// What to `dlopen`.
    pub library: PathBuf,
    /// The scenario beside it.
    pub scenario: PathBuf,
}

impl Installed {
    /// Gives the library another scenario, in one step.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn set(&self, scenario: &Scenario) -> io::Result<()> {
        scenario.write(&self.scenario)
    }
}

/// Copies the built library into `directory`, without the symbols named in `missing` (an older
/// driver does not have them), and writes its scenario beside it.
///
/// # Errors
///
/// What the file system says; `NotFound` when the library was not built.
pub fn install(directory: &Path, scenario: &Scenario, missing: &[&str]) -> io::Result<Installed> {
    let mut bytes = std::fs::read(built()?)?;
    for symbol in missing {
        hide(&mut bytes, symbol)?;
    }
    let library = directory.join("libnvidia-ml-fake.so");
    std::fs::write(&library, bytes)?;
    let mut beside = library.clone().into_os_string();
    beside.push(".toml");
    let installed = Installed {
        library,
        scenario: beside.into(),
    };
    installed.set(scenario)?;
    Ok(installed)
}

/// The library that cargo built beside the running test or binary.
///
/// # Errors
///
/// `NotFound` with the command that builds it.
pub fn built() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    program
        .ancestors()
        .skip(1)
        .take(3)
        .flat_map(|folder| {
            ["libfake_nvml.so", "deps/libfake_nvml.so"].map(|name| folder.join(name))
        })
        .find(|path| path.is_file())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "libfake_nvml.so is not built: cargo build -p fake-nvml",
            )
        })
}

/// Renames a symbol in the file's string tables: the dynamic linker compares names after the hash
/// has matched, so it no longer finds it.
fn hide(bytes: &mut [u8], symbol: &str) -> io::Result<()> {
    let wanted = [b"\0", symbol.as_bytes(), b"\0"].concat();
    let places: Vec<usize> = bytes
        .windows(wanted.len())
        .enumerate()
        .filter(|(_, window)| *window == wanted)
        .map(|(at, _)| at)
        .collect();
    if places.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the fake library has no symbol {symbol} to leave out"),
        ));
    }
    for at in places {
        if let Some(first) = bytes.get_mut(at + 1) {
            *first = b'-';
        }
    }
    Ok(())
}
