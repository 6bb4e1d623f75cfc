//! The guest's disk: an ext4 image with programs, every library they load,
//! and busybox for the rest. Made without root, thrown away after the run.
//!
//! Programs are stripped: IMA hashes each one that the guest runs.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Where programs of ours are in the guest.
pub(crate) const BIN: &str = "merestone/bin";
/// Where test programs are in the guest.
pub(crate) const TESTS: &str = "merestone/tests";
/// Where other files are in the guest.
pub(crate) const FILES: &str = "merestone/files";

/// The host's own tools that tests call and busybox has only a part of.
const TOOLS: [&str; 5] = ["ip", "tc", "nsenter", "unshare", "tpm2"];
/// Loaded by name at run time, so `ldd` does not show them.
const LOADED_AT_RUN_TIME: [&str; 2] = ["libtss2-tcti-device.so.0", "libtss2-tcti-swtpm.so.0"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// A tree that becomes the guest's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    libraries: BTreeSet<PathBuf>,
}

impl Disk {
    /// The base system in `root`, which must be empty.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        for directory in [
            "dev", "proc", "sys", "tmp", "run", "root", "etc", "var/lib", "var/log",
        ] {
            fs::create_dir_all(root.join(directory))?;
        }
        for directory in [
            "usr/bin",
            "usr/sbin",
            "usr/lib64",
            LIBRARIES,
            BIN,
            TESTS,
            FILES,
        ] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::create_dir_all(root.join("merestone/out"))?;
        for link in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{link}"), root.join(link))?;
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\n")?;
        fs::write(
            root.join("etc/hosts"),
            "127.0.0.1 localhost\n::1 localhost\n",
        )?;
        let mut disk = Self {
            root: root.to_owned(),
            libraries: BTreeSet::new(),
        };
        disk.add_tools()?;
        Ok(disk)
    }

    fn add_tools(&mut self) -> Result<()> {
        for tool in TOOLS {
            let place =
                ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|at| Path::new(at).join(tool));
            if let Some(path) = place.iter().find(|path| path.is_file()) {
                self.program(path, &format!("usr/bin/{tool}"))?;
            }
        }
        for library in LOADED_AT_RUN_TIME {
            let path = Path::new("/").join(LIBRARIES).join(library);
            self.add_libraries_of(&path)?;
            self.libraries.insert(path);
        }
        fs::copy("/bin/busybox", self.root.join("usr/bin/busybox"))?;
        let applets = shell::read(shell::command("/bin/busybox").arg("--list"))?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            let path = self.root.join("usr/bin").join(applet);
            if !path.exists() {
                symlink("busybox", path)?;
            }
        }
        Ok(())
    }

    /// A program or library of the host at `place`, stripped, with its libraries.
    pub(crate) fn program(&mut self, host: &Path, place: &str) -> Result<()> {
        self.add_libraries_of(host)?;
        let guest = self.make_room(place)?;
        let mut strip = shell::command("objcopy");
        shell::read(strip.arg("--strip-debug").arg(host).arg(&guest))?;
        fs::set_permissions(&guest, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// A program alone under `place`, with its libraries and nothing else to
    /// load: for what must run where only it is installed.
    pub(crate) fn alone(&self, host: &Path, place: &str) -> Result<()> {
        let name = host.file_name().context("a program has a name")?;
        for file in libraries_of(host)?
            .iter()
            .map(PathBuf::as_path)
            .chain([host])
        {
            let inside = if file == host {
                Path::new("/").join(name)
            } else {
                file.to_owned()
            };
            let inside = inside.strip_prefix("/").unwrap_or(&inside).to_owned();
            let guest = self.make_room(&format!("{place}/{}", inside.display()))?;
            fs::copy(file, &guest).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        Ok(())
    }

    /// A file of the host, as it is.
    pub(crate) fn copy(&self, host: &Path, place: &str) -> Result<()> {
        let guest = self.make_room(place)?;
        fs::copy(host, &guest).with_context(|| format!("cannot copy {}", host.display()))?;
        Ok(())
    }

    /// A script.
    pub(crate) fn script(&self, place: &str, text: &str) -> Result<()> {
        let guest = self.make_room(place)?;
        fs::write(&guest, text)?;
        fs::set_permissions(&guest, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// A text that is no script.
    pub(crate) fn text(&self, place: &str, text: &str) -> Result<()> {
        let guest = self.make_room(place)?;
        fs::write(&guest, text).with_context(|| format!("cannot write {}", guest.display()))
    }

    fn make_room(&self, place: &str) -> Result<PathBuf> {
        let guest = self.root.join(place);
        if let Some(directory) = guest.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(guest)
    }

    fn add_libraries_of(&mut self, program: &Path) -> Result<()> {
        self.libraries.extend(libraries_of(program)?);
        Ok(())
    }

    /// Writes the image; its free space is for what the guest writes.
    pub(crate) fn write(self, image: &Path) -> Result<()> {
        for library in &self.libraries {
            // The loader is named by its path, all others are searched for.
            let name = library.file_name().context("a library has a name")?;
            let loader = name.to_string_lossy().starts_with("ld-linux");
            let directory = if loader { "usr/lib64" } else { LIBRARIES };
            fs::copy(library, self.root.join(directory).join(name))?;
        }
        let used = shell::read(shell::command("du").args(["-sm"]).arg(&self.root))?;
        let used = used
            .split_whitespace()
            .next()
            .and_then(|used| used.parse::<u64>().ok());
        let megabytes = used.context("`du` did not say a size")? + 512;
        let mut make = shell::command("/sbin/mke2fs");
        make.args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-m",
            "0",
            "-O",
            "^has_journal",
            "-d",
        ]);
        make.arg(&self.root).arg(image).arg(format!("{megabytes}M"));
        shell::read(&mut make)?;
        Ok(())
    }
}

/// Every library that the loader would load for `program`, by path.
pub(crate) fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = shell::command("ldd")
        .arg(program)
        .output()
        .context("cannot run `ldd`")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        // What `ldd` says and fails with for a static program.
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("not a dynamic") || error.contains("not a dynamic") {
            return Ok(Vec::new());
        }
        bail!("`ldd {}` failed: {}", program.display(), error.trim());
    }
    parse_ldd(&said)
}

fn parse_ldd(said: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in said.lines() {
        if line.contains("not found") {
            bail!("a library is missing on this machine: {}", line.trim());
        }
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        found.extend(path.map(PathBuf::from));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_by_path_and_missing_ones_by_refusal() {
        let said = "\tlinux-vdso.so.1 (0x7f)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let paths = parse_ldd(said).unwrap();
        assert_eq!(
            paths,
            ["/lib/x/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
        assert!(parse_ldd("\tlibx.so => not found\n").is_err());
        assert!(parse_ldd("\tstatically linked\n").unwrap().is_empty());
    }
}
