//! A second machine that has seen the log: its static files are copied without the entries, and
//! `merestone-verify witness` signs what it saw. Here copy and key lie in the demo's own folder;
//! a real witness is somebody else's machine.

use super::parts::{self, Workplace};
use crate::progress::{self, Step};
use crate::shell;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// A copy that is not whole, because the agent published meanwhile, is made again so often.
const TRIES: u32 = 5;

/// What a witness gave back.
#[derive(Debug)]
pub(super) struct Witnessed {
    /// The signed checkpoint.
    pub(super) checkpoint: PathBuf,
    key: String,
}

/// Copies the log and has it cosigned.
pub(super) fn cosign(place: &Workplace) -> Result<Witnessed> {
    let _step = Step::begin(
        "witness",
        "a copy of the log without its entries, followed and signed by a second party",
    );
    let secret = place.file("witness.key");
    let mut keygen = shell::command(parts::binary("merestone-verify"));
    keygen.args(["witness", "keygen", "--name", "demo.example/w1", "--out"]);
    shell::read(keygen.arg(&secret))?;
    let key = fs::read_to_string(place.file("witness.key.pub"))?;
    let log = place.file("state/log");
    let (copy, checkpoint) = (place.file("mirror"), place.file("demo.cosigned"));
    for left in (0..TRIES).rev() {
        mirror(&log.join("tiles"), &copy)?;
        let mut witness = shell::command(parts::binary("merestone-verify"));
        witness.args(["witness", "--from"]).arg(&copy);
        witness.arg("--log").arg(log.join("vkey"));
        witness.arg("--key").arg(&secret);
        witness.arg("--state").arg(place.file("seen"));
        witness.arg("--out").arg(&checkpoint);
        match shell::read(&mut witness) {
            Ok(said) => {
                let told = said.lines().next().unwrap_or_default();
                progress::line(format_args!("    {told}"));
                break;
            }
            Err(error) if left == 0 => return Err(error),
            Err(_published_meanwhile) => {}
        }
    }
    Ok(Witnessed {
        checkpoint,
        key: key.trim().to_owned(),
    })
}

/// The checkpoint first: what it names is in the tiles by then.
fn mirror(tiles: &Path, copy: &Path) -> Result<()> {
    if copy.exists() {
        fs::remove_dir_all(copy)?;
    }
    let into = copy.join("tile");
    fs::create_dir_all(&into)?;
    fs::copy(tiles.join("checkpoint"), copy.join("checkpoint"))
        .context("the agent has published no checkpoint")?;
    for level in fs::read_dir(tiles.join("tile"))? {
        let level = level?;
        if level.file_name() != "entries" {
            let mut cp = shell::command("cp");
            shell::read(cp.arg("-r").arg(level.path()).arg(&into))?;
        }
    }
    Ok(())
}

impl Witnessed {
    /// A trust file like the one given, that asks for this witness too.
    ///
    /// Beside it, because the file of a single receipt carries no checkpoint.
    pub(super) fn pin(&self, trust: &Path, into: &Path) -> Result<()> {
        let text = fs::read_to_string(trust)?;
        let asked = format!("witnesses = [\"{}\"]", self.key);
        let lines = text.lines().map(|line| {
            let is_place = line.starts_with("# witnesses = ");
            if is_place { asked.as_str() } else { line }
        });
        let pinned = lines.collect::<Vec<_>>().join("\n") + "\n";
        if !pinned.contains(&asked) {
            bail!("the trust file has no place for witnesses");
        }
        fs::write(into, pinned)?;
        Ok(())
    }
}
