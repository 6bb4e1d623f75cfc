//! The kernel modules that a guest loads, each after those it depends on.
//!
//! Debian's packages carry no `modules.dep` (depmod writes it at installation),
//! so the order comes from the `depends=` line that each module carries.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{shell, vm::kernel::Kernel};

/// The modules wanted, and those they need, as `(name, bytes)` in load order.
pub(crate) fn in_order(kernel: &Kernel, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    walk(&kernel.modules.join("kernel"), &mut files)?;
    let built_in = fs::read_to_string(kernel.modules.join("modules.builtin"))?;
    let mut order = Order {
        files,
        built_in,
        loaded: Vec::new(),
    };
    for name in wanted {
        order.add(name, kernel)?;
    }
    Ok(order.loaded)
}

struct Order {
    files: Vec<PathBuf>,
    built_in: String,
    loaded: Vec<(String, Vec<u8>)>,
}

impl Order {
    fn add(&mut self, name: &str, kernel: &Kernel) -> Result<()> {
        if self.loaded.iter().any(|(loaded, _)| loaded == name) {
            return Ok(());
        }
        let built_in = self.built_in.lines().map(Path::new);
        if built_in
            .into_iter()
            .any(|path| module_name(path).as_deref() == Some(name))
        {
            return Ok(());
        }
        let file = self
            .files
            .iter()
            .find(|path| module_name(path).as_deref() == Some(name));
        let file = file.with_context(|| {
            format!(
                "Linux {} has no module `{name}`: not in {}",
                kernel.series,
                kernel.modules.display()
            )
        })?;
        let bytes = read_module(file)?;
        for dependency in dependencies(&bytes) {
            self.add(&dependency, kernel)?;
        }
        self.loaded.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// The kernel's name of a module file: `-` and `_` are the same to it.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, _) = file.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = directory.read_dir();
    for entry in entries.with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn read_module(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "ko") {
        return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let mut unpack = shell::command("xz");
    unpack
        .args(["--decompress", "--stdout"])
        .stdin(File::open(file)?);
    let output = unpack.output().context("cannot run `xz`")?;
    if !output.status.success() {
        bail!("`xz` could not unpack {}", file.display());
    }
    Ok(output.stdout)
}

/// What `modinfo --field depends` prints, from the module's bytes.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module
        .windows(FIELD.len())
        .position(|window| window == FIELD)
    else {
        return Vec::new();
    };
    let value = module
        .iter()
        .skip(at + FIELD.len())
        .copied()
        .take_while(|byte| *byte != 0);
    let value = String::from_utf8_lossy(&value.collect::<Vec<u8>>()).replace('-', "_");
    value
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_must_be_loaded_before_it() {
        let module = b"\x7fELF\0license=GPL\0depends=virtio,virtio-ring\0name=x\0";
        assert_eq!(dependencies(module), ["virtio", "virtio_ring"]);
        assert!(dependencies(b"\0depends=\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }
}
