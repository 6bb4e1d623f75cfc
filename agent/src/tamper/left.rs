//! What an agent writes down of what it leaves, and what the next one makes of
//! what it finds.
//!
//! The record is a file in the state directory; what is pinned in the kernel
//! tells the rest. Both are only as good as who may write them, so nothing is
//! decided by them: whatever was found, the new agent installs its own.

use crate::bpf::{Hook, Left, Program};
use merestone_evidence::Body;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const NAME: &str = "enforcement.json";

/// What an agent leaves behind.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The boot it is of.
    pub boot_id: String,
    /// The agent's process.
    pub pid: u32,
    /// When this was written, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Whether it ended in order.
    pub ended: bool,
    /// SHA-256 of the boundary file, in hex.
    pub boundary: String,
    /// Its generation in the kernel.
    pub generation: u32,
    /// SHA-256 of the eBPF object, in hex.
    pub object: String,
    /// The kernel's number of each attached program, by hook.
    pub programs: BTreeMap<String, u32>,
    /// Whether the tamper tier was active.
    pub protected: bool,
}

impl Record {
    /// What the last agent wrote; none where there was none. A file that cannot
    /// be read is told as such.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, String> {
        let path = state_dir.join(NAME);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| error.to_string())?,
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    /// Replaces the file as a whole.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let new: PathBuf = state_dir.join(format!("{NAME}.new"));
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, state_dir.join(NAME))
    }

    /// The programs' part.
    pub fn programs(programs: &[Program]) -> BTreeMap<String, u32> {
        let each = programs.iter();
        each.map(|program| (program.name.to_owned(), program.id))
            .collect()
    }
}

fn entry(what: &str, kept: bool, detail: String) -> Body {
    Body::Found {
        what: what.to_owned(),
        kept,
        detail,
    }
}

/// Compares what the last agent wrote with what this one found.
pub fn found(
    record: Result<Option<Record>, String>,
    left: &Left,
    hooks: &[Hook],
    boot_id: &str,
) -> Vec<Body> {
    let mut entries = Vec::new();
    let record = match record {
        Ok(record) => record,
        Err(error) => {
            entries.push(entry("record", false, format!("cannot be read: {error}")));
            None
        }
    };
    let here = record.as_ref().filter(|record| record.boot_id == boot_id);
    match (&record, here, left.was_there) {
        (None, _, false) => return entries, // the first start
        (Some(_), None, false) => {
            let detail = "the host was started anew, which no pinned program outlives";
            entries.push(entry("boot", false, detail.to_owned()));
            return entries;
        }
        (_, Some(_), false) => {
            let detail = "no pin is left: guarded groups were not held until now, unless another \
                          process kept the links";
            entries.push(entry("pins", false, detail.to_owned()));
        }
        _ => {
            entries.push(links(here, left, hooks));
            entries.push(maps(left));
            entries.extend(here.map(|record| generation(record, left)));
        }
    }
    entries.push(gap(here, left));
    if left.was_protected {
        let detail = "attempts on programs, maps and pins were refused meanwhile";
        entries.push(entry("tamper", true, detail.to_owned()));
    } else if here.is_some_and(|record| record.protected) {
        let detail = "the tamper tier was active and is not any more";
        entries.push(entry("tamper", false, detail.to_owned()));
    }
    entries
}

fn links(record: Option<&Record>, left: &Left, hooks: &[Hook]) -> Body {
    let mut wrong = Vec::new();
    // Without a record: what this build attaches should have been there.
    let Some(record) = record else {
        let missing = left.missing_hooks(hooks);
        let detail = if missing.is_empty() {
            "every hook had its link; no record of its programs".to_owned()
        } else {
            format!("without a link: {}", missing.join(", "))
        };
        return entry("links", missing.is_empty(), detail);
    };
    for (hook, expected) in &record.programs {
        let known = left.links.iter().find(|(name, _)| *name == hook);
        match known.map(|(_, program)| program) {
            Some(Some(program)) if program == expected => {}
            Some(Some(program)) => wrong.push(format!(
                "{hook} runs program {program}, not the {expected} that was left"
            )),
            Some(None) => wrong.push(format!("{hook} has no link that is attached")),
            None => wrong.push(format!("{hook} is no hook of this build")),
        }
    }
    let detail = if wrong.is_empty() {
        let count = record.programs.len();
        format!("{count} hooks run the programs that were left")
    } else {
        wrong.join("; ")
    };
    entry("links", wrong.is_empty(), detail)
}

fn maps(left: &Left) -> Body {
    if left.missing_maps.is_empty() {
        let groups = left.guarded_groups;
        return entry(
            "maps",
            true,
            format!("all pinned; {groups} guarded cgroups"),
        );
    }
    let missing = left.missing_maps.join(", ");
    entry("maps", false, format!("without a pin: {missing}"))
}

fn generation(record: &Record, left: &Left) -> Body {
    let got = left.settings.generation;
    let digest = &record.boundary;
    if got == record.generation {
        let detail = format!("generation {got}, of the boundary sha256:{digest}");
        return entry("boundary", true, detail);
    }
    let detail = format!(
        "generation {got}, not the {} that was left",
        record.generation
    );
    entry("boundary", false, detail)
}

fn gap(record: Option<&Record>, left: &Left) -> Body {
    let since = left.silence.map_or_else(
        || "it is not known since when".to_owned(),
        |silence| format!("for {}.{:03} s", silence.as_secs(), silence.subsec_millis()),
    );
    let (who, ended) = match record {
        Some(record) => (format!("agent {}", record.pid), record.ended),
        None => ("an agent".to_owned(), false),
    };
    let how = if ended {
        "had ended in order"
    } else if left.end_seen {
        "had been killed, or had failed"
    } else {
        "was gone without the kernel having seen its end"
    };
    let held = if left.denied_all {
        "everything of guarded groups was refused meanwhile"
    } else if left.was_there {
        "guarded groups were held by what was pinned"
    } else {
        "nothing is known to have held guarded groups"
    };
    let detail = format!("{who} {how}; silent {since}; {held}");
    entry("agent_gap", ended, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn record() -> Record {
        Record {
            boot_id: "b".to_owned(),
            pid: 7,
            generation: 3,
            programs: BTreeMap::from([("cgroup_skb/egress".to_owned(), 11)]),
            ..Record::default()
        }
    }

    fn left() -> Left {
        Left {
            was_there: true,
            links: BTreeMap::from([("cgroup_skb/egress", Some(11))]),
            settings: merestone_abi::Settings {
                generation: 3,
                ..Default::default()
            },
            silence: Some(Duration::from_millis(61_250)),
            end_seen: true,
            ..Left::default()
        }
    }

    fn say(record: Result<Option<Record>, String>, left: &Left) -> Vec<(String, bool, String)> {
        let bodies = found(record, left, &[], "b").into_iter();
        bodies
            .filter_map(|body| match body {
                Body::Found { what, kept, detail } => Some((what, kept, detail)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn what_was_kept_is_told_as_kept_with_the_gap() {
        let told = say(Ok(Some(record())), &left());
        let kept = |what: &str| told.iter().any(|(name, kept, _)| name == what && *kept);
        assert!(
            kept("links") && kept("maps") && kept("boundary"),
            "{told:?}"
        );
        let (_, orderly, detail) = told.iter().find(|(what, ..)| what == "agent_gap").unwrap();
        assert!(!orderly && detail.contains("61.250 s"), "{detail}");
    }

    #[test]
    fn what_was_not_kept_is_told_as_not_kept() {
        let mut changed = left();
        changed.links = BTreeMap::from([("cgroup_skb/egress", Some(12))]);
        changed.settings.generation = 4;
        changed.missing_maps = vec!["GROUPS"];
        let told = say(Ok(Some(record())), &changed);
        for what in ["links", "maps", "boundary"] {
            assert!(
                told.iter().any(|(name, kept, _)| name == what && !kept),
                "{what}: {told:?}"
            );
        }
    }

    #[test]
    fn pins_that_are_gone_in_the_same_boot_are_no_first_start_b58() {
        let told = say(Ok(Some(record())), &Left::default());
        assert!(
            told.iter().any(|(what, kept, _)| what == "pins" && !kept),
            "{told:?}"
        );
        assert_eq!(say(Ok(None), &Left::default()), []);
        let mut earlier = record();
        earlier.boot_id = "a".to_owned();
        let told = say(Ok(Some(earlier)), &Left::default());
        assert!(
            matches!(&told[..], [(what, false, _)] if what == "boot"),
            "{told:?}"
        );
        let told = say(Err("spoiled".to_owned()), &left());
        assert!(told.iter().any(|(what, kept, _)| what == "record" && !kept));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(folder.path()), Ok(None));
        record().write(folder.path()).unwrap();
        assert_eq!(Record::read(folder.path()), Ok(Some(record())));
        fs::write(folder.path().join(NAME), b"{}").unwrap();
        assert!(Record::read(folder.path()).is_err());
    }
}
