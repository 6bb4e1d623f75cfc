//! Runs a command, or the whole suite, on real kernels in a virtual machine
//! with a measured boot, a TPM, IMA and BPF LSM.
//!
//! It needs no root and no KVM, and leaves only what the guest handed back,
//! under `target/vm/out`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    programs::Program,
    progress::{self, Step},
    shell,
    undo::{self, Undo},
    vm::{
        disk::Disk,
        kernel::Series,
        machine::{End, Machine},
    },
};

mod archive;
pub(crate) mod disk;
pub(crate) mod kernel;
pub(crate) mod machine;
pub(crate) mod manager;
mod modules;
mod packages;

/// What goes into a guest beside the base system.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Programs: the file here, the place there.
    pub(crate) programs: Vec<(PathBuf, String)>,
    /// Programs that get a root directory of their own.
    pub(crate) alone: Vec<(PathBuf, String)>,
    /// Other files.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Variables of the command.
    pub(crate) environment: Vec<(String, String)>,
    /// The shell script to run.
    pub(crate) command: String,
    /// systemd is the first process, and the command a unit of it.
    pub(crate) managed: bool,
    /// The guest's clock counts its instructions.
    pub(crate) counted: bool,
}

impl Load {
    /// Test programs under /merestone/tests, binaries under /merestone/bin.
    pub(crate) fn add_programs(&mut self, programs: &[Program]) {
        for program in programs {
            let place = if program.is_test {
                format!("{}/{}", disk::TESTS, program.name())
            } else {
                format!("{}/{}", disk::BIN, program.target)
            };
            self.programs.push((program.path.clone(), place));
        }
    }
}

/// How a guest ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The command's exit status.
    pub(crate) status: i32,
    /// What it left in /merestone/out.
    pub(crate) out: PathBuf,
}

/// Boots one kernel, runs the command in it and powers it off.
pub(crate) fn boot(
    series: Series,
    load: &Load,
    limit: Duration,
    line: impl FnMut(&str),
) -> Result<Outcome> {
    let kernel = kernel::find(series)
        .with_context(|| format!("no Linux {series} guest kernel here; run `cargo xtask setup`"))?;
    let _step = Step::begin(
        format!("Linux {series}"),
        "boots in a virtual machine (about 20 s)",
    );
    let directory = tempfile::Builder::new().prefix("merestone-vm-").tempdir()?;
    let path = directory.path().to_owned();
    let _undo = Undo::new(move || drop(directory));
    let image = path.join("disk");
    write_disk(&path.join("root"), &image, series, load)?;
    let out = shell::target().join(format!("vm/out/{series}"));
    let machine = Machine {
        kernel: &kernel,
        directory: &path,
        disk: &image,
        counted: load.counted,
        limit,
    };
    let status = machine.run(&out, line);
    // An interrupted guest is no failed one: say nothing, start nothing.
    undo::yield_to_interruption();
    Ok(Outcome {
        status: status?,
        out,
    })
}

/// One boot of several.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boot {
    /// Which TPM is in the machine.
    pub(crate) tpm: &'static str,
    /// How it has to end.
    pub(crate) end: End,
}

/// Boots one machine again and again, on one disk and with one set of firmware variables; each
/// boot's files are unpacked into a directory of its number. The kernel's command line tells the
/// boots apart, so that each is measured differently.
pub(crate) fn boots(
    series: Series,
    load: &Load,
    boots: &[Boot],
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<PathBuf> {
    let kernel = kernel::find(series)
        .with_context(|| format!("no Linux {series} guest kernel here; run `cargo xtask setup`"))?;
    let directory = tempfile::Builder::new().prefix("merestone-vm-").tempdir()?;
    let path = directory.path().to_owned();
    let _undo = Undo::new(move || drop(directory));
    let image = path.join("disk");
    write_disk(&path.join("root"), &image, series, load)?;
    let out = shell::target().join(format!("vm/boots/{series}"));
    let machine = Machine {
        kernel: &kernel,
        directory: &path,
        disk: &image,
        counted: load.counted,
        limit,
    };
    machine.prepare()?;
    for (number, boot) in (1..).zip(boots) {
        let _step = Step::begin(format!("Linux {series}"), "boots again (about 20 s)");
        if !path.join(boot.tpm).exists() {
            machine.insert_tpm(boot.tpm)?;
        }
        let more = format!(" merestone.boot={number}");
        let end = machine.power_on(boot.tpm, &more, &out.join(number.to_string()), &mut line);
        undo::yield_to_interruption();
        let end = end?;
        if end != boot.end {
            bail!("boot {number} ended with {end:?}, not {:?}", boot.end);
        }
        if end == End::PowerLost {
            // As any machine does at its next start; 1 says that it mended something.
            let mut check = shell::command("/sbin/e2fsck");
            let status = check.args(["-f", "-y"]).arg(&image).status();
            if !matches!(status.map(|status| status.code()), Ok(Some(0 | 1))) {
                bail!("the disk cannot be mended after boot {number}");
            }
        }
    }
    Ok(out)
}

fn write_disk(root: &Path, image: &Path, series: Series, load: &Load) -> Result<()> {
    let mut disk = Disk::new(root)?;
    for (host, place) in &load.programs {
        disk.program(host, place)?;
    }
    for (host, place) in &load.alone {
        disk.alone(host, place)?;
    }
    for (host, place) in &load.files {
        disk.copy(host, place)?;
    }
    let host = series.to_string().replace('.', "-");
    let mut variables = vec![
        ("XTASK_VM".to_owned(), series.to_string()),
        ("XTASK_VM_HOST".to_owned(), format!("merestone-{host}")),
        ("XTASK_BIN_DIR".to_owned(), format!("/{}", disk::BIN)),
    ];
    variables.extend(load.environment.iter().cloned());
    let lines = variables
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", quote(value)));
    let environment: String = lines.collect();
    disk.script("merestone/environment", &environment)?;
    disk.script("merestone/command", &load.command)?;
    disk.script("merestone/init", include_str!("guest/init.sh"))?;
    disk.script("merestone/run", include_str!("guest/run.sh"))?;
    if load.managed {
        manager::install(&disk)?;
    }
    disk.write(image)
}

/// One word for a shell, whatever is in it.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs one command on each kernel and shows what it prints.
pub(crate) fn command(
    kernels: &[Series],
    mut load: Load,
    words: &[String],
    limit: Duration,
) -> Result<()> {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    load.command = quoted.join(" ");
    let mut failed = Vec::new();
    for series in kernels {
        let began = Instant::now();
        let outcome = boot(*series, &load, limit, |line| progress::line(line))?;
        let seconds = began.elapsed().as_secs();
        progress::line(format_args!(
            "Linux {series}: exit status {} after {seconds} s, files in {}",
            outcome.status,
            outcome.out.display()
        ));
        if outcome.status != 0 {
            failed.push(series.to_string());
        }
    }
    if !failed.is_empty() {
        bail!("the command failed on Linux {}", failed.join(" and "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_stays_one_word() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
