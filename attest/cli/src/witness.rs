//! `merestone-verify witness`: a second machine that has seen the log.
//!
//! It reads a copy of the static files, shows for itself that the log is the one it knew, grown,
//! and signs that with the time. It signs nothing that is smaller than or unlike what it signed
//! before: both checkpoints are then kept, for they are the proof. What it signs is on its own
//! disk before anybody gets it (N57).

use crate::args::{Cosign, Keys, Witness};
use crate::fault::{Fault, USAGE};
use crate::files::{self, now_ms};
use merestone_evidence::{Digest, empty_root, leaf_hash, sha256};
use merestone_tlog::{
    Algorithm, Checkpoint, MAX_ENTRY, MAX_NOTE, Note, ReplayError, Signer, Tile, TileSource,
    VerifierKey, entries, entries_path, replay,
};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

const MAX_KEY: u64 = 4096;
const UNTRUSTED: u8 = 1;
const INDETERMINATE: u8 = 3;
const COPY_AGAIN: &str =
    "copy the log's static files again, the checkpoint first, and call this once more";

/// What was done, for people.
pub(crate) fn run(witness: Witness) -> Result<String, Fault> {
    match (witness.command, witness.cosign) {
        (Some(Keys::Keygen { name, out }), _) => keygen(&name, &out),
        (None, Some(args)) => cosign(&args),
        (None, None) => Err(refused(
            USAGE,
            "nothing to do".to_owned(),
            "merestone-verify witness --help",
        )),
    }
}

fn refused(exit: u8, error: String, hint: &'static str) -> Fault {
    Fault::Refused { exit, error, hint }
}

fn keygen(name: &str, out: &Path) -> Result<String, Fault> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Fault::random)?;
    let signer = Signer::from_seed(name, Algorithm::Cosignature, &seed).map_err(|error| {
        let hint = "call it like a url without its scheme: example.org/w1";
        refused(USAGE, error.to_string(), hint)
    })?;
    let key = signer.verifier();
    let beside = files::with_suffix(out, ".pub");
    files::write_new(
        out,
        format!("{}\n", signer.secret()).as_bytes(),
        files::Mode::Private,
    )?;
    files::write_new(&beside, format!("{key}\n").as_bytes(), files::Mode::Public)?;
    Ok(format!(
        "{}: the private key\n{}: the public key; verifiers pin it\n{key}\n",
        out.display(),
        beside.display()
    ))
}

fn cosign(args: &Cosign) -> Result<String, Fault> {
    let signer = signer(&args.key)?;
    let logs = args.log.iter().map(|log| log_key(log));
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    let (note, checkpoint) = shown(&args.from, &logs)?;
    let state = State::open(&args.state, &checkpoint.origin)?;
    let known = state.known(&signer.verifier())?;
    let (tree, since_s) = known.as_ref().map_or_else(
        || ((0, empty_root()), 0),
        |known| ((known.checkpoint.size, known.checkpoint.root), known.time_s),
    );
    let mut copy = Copy {
        from: &args.from,
        entries: args.entries,
    };
    // A clock that was set back does not make what was seen later older.
    let time_s = (now_ms()? / 1000).max(since_s);
    if let Err(error) = compare(tree, &checkpoint, &mut copy) {
        return Err(state.refuse(&error, known.as_ref(), &note, time_s));
    }
    let mut signed = note.only(&logs);
    signed.add(signer.sign(note.text(), time_s));
    let bytes = signed.bytes();
    state.keep(&bytes)?;
    if let Some(out) = &args.out {
        files::replace(out, &bytes, files::Mode::Public)?;
    }
    let new = checkpoint.size.saturating_sub(tree.0);
    Ok(format!(
        "{}: {} leaves, {new} of them new; signed as {} at {}\n{}: the signed checkpoint\n",
        checkpoint.origin,
        checkpoint.size,
        signer.name(),
        files::rfc3339(time_s * 1000),
        args.out
            .as_ref()
            .unwrap_or(&state.folder.join("checkpoint"))
            .display()
    ))
}

fn signer(path: &Path) -> Result<Signer, Fault> {
    let text = files::text(path, MAX_KEY, "merestone-verify witness keygen makes one")?;
    let signer = Signer::parse(text.trim_end());
    let signer = signer
        .ok()
        .filter(|key| key.algorithm() == Algorithm::Cosignature);
    signer.ok_or_else(|| {
        let error = format!("{} is no private key of a witness", path.display());
        refused(USAGE, error, "merestone-verify witness keygen makes one")
    })
}

/// The key itself, or a file with it.
fn log_key(text: &str) -> Result<VerifierKey, Fault> {
    let hint = "the host shows it in `merestone enroll trust`, as key of [log]";
    let own;
    let text = if text.contains('+') {
        text
    } else {
        own = files::text(Path::new(text), MAX_KEY, hint)?;
        own.trim_end()
    };
    let key = VerifierKey::parse(text).map_err(|error| refused(USAGE, error.to_string(), hint))?;
    if key.algorithm() == Algorithm::Ed25519 {
        return Ok(key);
    }
    let error = "a log's key is of type 0x01, this is a witness's".to_owned();
    Err(refused(USAGE, error, hint))
}

/// The checkpoint of the copy, signed by a key of its log.
fn shown(from: &Path, logs: &[VerifierKey]) -> Result<(Note, Checkpoint), Fault> {
    let path = from.join("checkpoint");
    let bytes = files::read(&path, MAX_NOTE as u64)?;
    let bad = |why: String| {
        let error = format!("{}: {why}", path.display());
        refused(UNTRUSTED, error, "nothing was signed")
    };
    let note = Note::parse(&bytes).map_err(|error| bad(error.to_string()))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| bad(error.to_string()))?;
    let mut signed = false;
    for key in logs.iter().filter(|key| key.name() == checkpoint.origin) {
        let time = note
            .signed_by(key)
            .map_err(|error| bad(error.to_string()))?;
        signed |= time.is_some();
    }
    if signed {
        return Ok((note, checkpoint));
    }
    Err(bad(format!(
        "no --log key signed it; it says it is of {}",
        checkpoint.origin
    )))
}

fn compare(
    known: (u64, Digest),
    now: &Checkpoint,
    copy: &mut Copy<'_>,
) -> Result<(), ReplayError<String>> {
    // Two roots for one size need no tile to be a fork.
    if known.0 == now.size && known.1 != now.root {
        return Err(ReplayError::Fork {
            size: known.0,
            got: now.root,
            want: known.1,
        });
    }
    replay(known, now, copy)
}

/// The static files.
struct Copy<'d> {
    from: &'d Path,
    entries: bool,
}

impl Copy<'_> {
    /// A file, or the full one that took the place of a partial one.
    fn either(&self, partial: &str, full: &str, limit: usize) -> Result<Vec<u8>, String> {
        let path = self.from.join(partial);
        let path = if path.exists() {
            path
        } else {
            self.from.join(full)
        };
        files::read(&path, limit as u64).map_err(|fault| fault.to_string())
    }
}

impl TileSource for Copy<'_> {
    type Error = String;

    fn tile(&mut self, tile: Tile) -> Result<Vec<u8>, String> {
        let full = Tile { width: 256, ..tile };
        let mut bytes = self.either(&tile.path(), &full.path(), 256 * 32)?;
        bytes.truncate(usize::from(tile.width) * 32);
        Ok(bytes)
    }

    fn leaves(&mut self, tile: Tile, hashes: &[Digest]) -> Result<(), String> {
        if !self.entries {
            return Ok(());
        }
        let name = entries_path(tile.index, tile.width);
        let limit = 256 * (MAX_ENTRY + 2);
        let bytes = self.either(&name, &entries_path(tile.index, 256), limit)?;
        let found = entries(&bytes).map_err(|error| format!("{name}: {error}"))?;
        let mut found = found.iter().map(|data| leaf_hash(data));
        if hashes.iter().all(|hash| found.next() == Some(*hash)) {
            return Ok(());
        }
        Err(format!("{name}: an entry does not hash to its leaf"))
    }
}

/// What this witness signed last.
struct Known {
    note: Note,
    checkpoint: Checkpoint,
    time_s: u64,
}

/// The folder of one log: `checkpoint`, and `forks` where it was not the log that was known.
/// Named as c2sp.org/tlog-witness does, so that it can be served as it is.
struct State {
    folder: PathBuf,
    /// Held as long as this is.
    _lock: File,
}

impl State {
    fn open(state: &Path, origin: &str) -> Result<Self, Fault> {
        let folder = state.join(sha256(origin.as_bytes()).to_string());
        let lock = folder.join("lock");
        let open = || {
            std::fs::create_dir_all(&folder)?;
            File::create(&lock)
        };
        let file = open().map_err(|error| Fault::write(&lock, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                folder,
                _lock: file,
            }),
            Err(TryLockError::WouldBlock) => Err(refused(
                USAGE,
                format!("{} is in use by another witness", folder.display()),
                "wait for it to end",
            )),
            Err(TryLockError::Error(error)) => Err(Fault::write(&lock, &error)),
        }
    }

    fn known(&self, own: &VerifierKey) -> Result<Option<Known>, Fault> {
        let path = self.folder.join("checkpoint");
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read(&path, MAX_NOTE as u64)?;
        let note = Note::parse(&bytes).ok();
        let known = note.and_then(|note| {
            let time_s = note.signed_by(own).ok()??;
            let checkpoint = Checkpoint::parse(note.text()).ok()?;
            Some(Known {
                note,
                checkpoint,
                time_s,
            })
        });
        known.map(Some).ok_or_else(|| {
            let error = format!("{} is not what this key signed", path.display());
            refused(
                USAGE,
                error,
                "give the key that this state belongs to, or restore the state",
            )
        })
    }

    /// On the disk before it is given to anybody.
    fn keep(&self, bytes: &[u8]) -> Result<(), Fault> {
        let path = self.folder.join("checkpoint");
        let part = self.folder.join("checkpoint.part");
        // Left by a run that was cut off before anything was handed out.
        drop(std::fs::remove_file(&part));
        files::replace(&path, bytes, files::Mode::Public)?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| Fault::write(&self.folder, &error))
    }

    /// Why nothing is signed; two checkpoints that cannot both be of one log are kept.
    fn refuse(
        &self,
        error: &ReplayError<String>,
        known: Option<&Known>,
        shown: &Note,
        time_s: u64,
    ) -> Fault {
        let (ReplayError::Shrunk { .. } | ReplayError::Fork { .. }, Some(known)) = (error, known)
        else {
            return refused(INDETERMINATE, error.to_string(), COPY_AGAIN);
        };
        let folder = self.folder.join("forks").join(time_s.to_string());
        let write = |name: &str, note: &Note| {
            let path = folder.join(name);
            if path.exists() {
                return Ok(());
            }
            files::write_new(&path, &note.bytes(), files::Mode::Public)
        };
        let kept = std::fs::create_dir_all(&folder)
            .map_err(|error| Fault::write(&folder, &error))
            .and_then(|()| write("known", &known.note))
            .and_then(|()| write("shown", shown));
        match kept {
            Ok(()) => refused(
                UNTRUSTED,
                format!("{error}; both checkpoints are in {}", folder.display()),
                "nothing was signed; keep them: two checkpoints that one key signed and that cannot both be of one log are the proof of a split view",
            ),
            Err(fault) => fault,
        }
    }
}
