//! The part of `bench egress` that needs systemd: its own program for
//! `IPAddressDeny=`, in virtual machines of which it is the first process.
//!
//! It needs no root and no KVM. What is missing is an error that names it; a
//! page never says less in silence.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use super::{MEASURE, PAGE, program, write};
use crate::{
    build,
    progress::{self, Step},
    setup, shell,
    sudo::Consent,
    vm::{self, Load, disk, kernel::Series},
};

/// Its heading; it goes from there to the end of the page.
const HEADING: &str = "\n## systemd's own program\n";
/// The part of the page that a guest leaves.
const LEFT: &str = "systemd.md";
const LIMIT: Duration = Duration::from_secs(1800);

const HEAD: &str = "
What is called *systemd's design* above is rebuilt, so that it can be measured where systemd does not run. Here it is beside the
real one: Debian 12's systemd is the first process of a virtual machine and starts a unit with `IPAddressDeny=any` and an
`IPAddressAllow=` line for each of the same 1,000 prefixes; the unit's process is the one that is measured.

**None of this is time.** The machine is emulated (QEMU without KVM, one processor) and its clock counts instructions, a nanosecond
each to the guest, so that whatever else the machine beneath it does changes nothing. A miss of the cache counts as a hit does, a
mitigation as the instructions that it is made of: a ratio says how much more there is to do, not how much longer it takes on
hardware, for which see above. The scenarios are those of *Calls*, measured in turns in the same way, with fewer calls a round.
Merestone has its LSM programs too in these guests, and the one processor also runs the reader of its events, which elsewhere
may have another.
";

/// What this part needs and how to come by it, before anything is measured.
pub(super) fn prepare(consent: Consent) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "systemd's own program is measured in x86-64 guests; `--no-vm` leaves it out"
    );
    let hint = "systemd's own program is measured in virtual machines; `--no-vm` leaves it out";
    for program in ["qemu-system-x86_64", "swtpm"] {
        if !shell::succeeds(shell::command(program).arg("--version")) {
            bail!("no {program}, run `cargo xtask setup`: {hint}");
        }
    }
    setup::guests(consent).context(hint)
}

/// Measures in a guest of each kernel; writes that part of the page.
pub(super) fn measure(quick: bool) -> Result<()> {
    let mut section = format!("{HEADING}{HEAD}\n{}\n", origin()?);
    for series in Series::ALL.into_iter().rev() {
        let part = one(series, quick)?;
        section.push('\n');
        section.push_str(&part);
    }
    if quick {
        progress::line(section);
        return Ok(());
    }
    let path = shell::root().join(PAGE);
    let old = fs::read_to_string(&path)
        .with_context(|| format!("no {}; measure the host first", path.display()))?;
    let (host, _) = split(&old);
    write(&path, &format!("{host}{section}"))
}

/// When, and which programs of Merestone's.
fn origin() -> Result<String> {
    let date = shell::read(shell::command("date").args(["-u", "+%F"]))?;
    let digest = shell::read(shell::command("sha256sum").arg(build::object_path()))?;
    let digest = digest.get(..16).context("`sha256sum` said nothing")?;
    Ok(format!(
        "Measured on {}; Merestone's programs {digest}, optimised.",
        date.trim()
    ))
}

fn one(series: Series, quick: bool) -> Result<String> {
    let _step = Step::begin(
        "systemd's own program",
        "in a guest whose clock counts instructions (some minutes)",
    );
    let quick = if quick { " --quick" } else { "" };
    let load = Load {
        programs: vec![(program(MEASURE), format!("{}/{MEASURE}", disk::BIN))],
        command: format!("{MEASURE} systemd{quick} >/merestone/out/{LEFT}"),
        managed: true,
        counted: true,
        ..Load::default()
    };
    let outcome = vm::boot(series, &load, LIMIT, |line| progress::line(line))?;
    if outcome.status != 0 {
        bail!(
            "the measurement in the guest failed with status {}",
            outcome.status
        );
    }
    read(&outcome.out.join(LEFT))
}

fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).context("the guest left nothing")?;
    ensure!(
        text.starts_with("### Linux "),
        "the guest left no part of the page"
    );
    Ok(text)
}

/// A page as what the host measured and what the guests did.
pub(super) fn split(page: &str) -> (&str, &str) {
    page.split_at(page.find(HEADING).unwrap_or(page.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_the_page_stays_when_the_other_is_written() {
        let host = "# Benchmarks\n\ntext of ## systemd's own program\n";
        let section = format!("{HEADING}\ntables\n");
        assert_eq!(split(&format!("{host}{section}")), (host, section.as_str()));
        assert_eq!(split(host), (host, ""));
    }
}
