//! One session on disk: a directory with its statement, quote, logs and epochs.
//!
//! ```text
//! sessions/00000001/statement   canonical bytes
//!                   ak          TPMT_PUBLIC of the key that quotes
//!                   boot_log    the firmware's event log, where there is one
//!                   ima_log     the kernel's measurement list, grows in place
//!                   location    a directory: location evidence, each under its digest
//!                   quote       written last: without it the session was never sealed
//!                   epochs      frames: statement, then its quote or why it has none; after
//!                               a quote, where epochs are counted, the certified counter
//!                   gpu         what its GPUs said of themselves, where they do
//!                   nv_start    NV certifications at the start, where the session counts
//!                   nv_end      the same at its end; absent if it did not end by itself
//! ```
//!
//! An epoch statement is on disk before the TPM hears of it. The frame after it
//! is its quote, or the reason it was abandoned; a statement with neither is
//! *pending*, and there is at most one, the last.

use super::{
    LedgerError,
    file::{self, Appended},
    frame::{Frames, Next, frame},
};
use merestone_evidence::{
    Digest, EpochStatement, GpuReport, LocationEvidence, NvCertified, Quote, Record as _,
    SealedEpoch, SessionStatement, leaf_hash,
};
use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

const STATEMENT: u8 = 1;
const QUOTE: u8 = 2;
const ABANDONED: u8 = 3;
const COUNTED: u8 = 4;

const RECORD_LIMIT: usize = EpochStatement::LIMITS.bytes + 1;
const KEY_LIMIT: u64 = 4096;
const QUOTE_LIMIT: u64 = 64 << 10;
const GPU_LIMIT: u64 = 4 << 20;
/// Logs beyond this are left out of the evidence: the verifier reads no more.
pub(crate) const LOG_LIMIT: u64 = 64 << 20;

/// The directory of all sessions.
pub(crate) fn sessions_path(log: &Path) -> PathBuf {
    log.join("sessions")
}

/// Numbers of the sessions on disk, ascending.
pub(crate) fn numbers(log: &Path) -> Result<Vec<u64>, LedgerError> {
    let path = sessions_path(log);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(&path).map_err(LedgerError::io("list", &path))? {
        let name = entry.map_err(LedgerError::io("list", &path))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The files of one session.
#[derive(Debug, Clone)]
pub(crate) struct SessionDir {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
}

/// A session as stored.
#[derive(Debug, Clone)]
pub struct StoredSession {
    /// Its number on this disk, from 1; the statement carries its id.
    pub number: u64,
    /// Canonical bytes of the session statement.
    pub statement: Vec<u8>,
    /// `TPMT_PUBLIC` of the key that quotes.
    pub ak_public: Vec<u8>,
    /// The quote; `None` if the agent died before the TPM gave one.
    pub quote: Option<Quote>,
}

/// The logs of a session's boot, where the host has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLogs {
    /// The firmware's event log.
    pub boot: Option<Vec<u8>>,
    /// The kernel's measurement list.
    pub ima: Option<Vec<u8>>,
}

impl SessionDir {
    pub(crate) fn new(log: &Path, number: u64) -> Self {
        Self {
            number,
            path: sessions_path(log).join(format!("{number:08}")),
        }
    }

    pub(crate) fn create(&self, statement: &[u8], ak_public: &[u8]) -> Result<(), LedgerError> {
        file::make_directory_durable(&self.path)?;
        file::replace(&self.path.join("ak"), ak_public)?;
        file::replace(&self.path.join("statement"), statement)
    }

    pub(crate) fn seal(
        &self,
        quote: &Quote,
        logs: [(&str, Option<&[u8]>); 2],
    ) -> Result<(), LedgerError> {
        for (name, bytes) in logs {
            if let Some(bytes) = bytes {
                file::replace(&self.path.join(name), bytes)?;
            }
        }
        file::replace(&self.path.join("quote"), &encode_quote(quote))
    }

    /// What is stored; `None` for a directory that a crash left empty.
    pub(crate) fn read(&self) -> Result<Option<StoredSession>, LedgerError> {
        let statement_limit = SessionStatement::LIMITS.bytes as u64;
        let Some(statement) = file::read_if_there(&self.path.join("statement"), statement_limit)?
        else {
            return Ok(None);
        };
        let path = self.path.join("quote");
        let quote = file::read_if_there(&path, QUOTE_LIMIT)?;
        Ok(Some(StoredSession {
            number: self.number,
            statement,
            ak_public: file::read(&self.path.join("ak"), KEY_LIMIT)?,
            quote: quote
                .map(|bytes| decode_quote(&path, 0, &bytes))
                .transpose()?,
        }))
    }

    /// The logs of the boot.
    pub(crate) fn read_logs(&self) -> Result<StoredLogs, LedgerError> {
        Ok(StoredLogs {
            boot: self.read_log("boot_log")?,
            ima: self.read_log("ima_log")?,
        })
    }

    /// Keep location evidence under its digest.
    pub(crate) fn keep_location(&self, digest: &Digest, bytes: &[u8]) -> Result<(), LedgerError> {
        let directory = self.path.join("location");
        file::make_directory_durable(&directory)?;
        file::replace(&directory.join(digest.to_string()), bytes)?;
        file::sync_parent(&directory)
    }

    /// Location evidence by its digest; `None` where it is not there.
    pub(crate) fn read_location(&self, digest: &Digest) -> Result<Option<Vec<u8>>, LedgerError> {
        let path = self.path.join("location").join(digest.to_string());
        file::read_if_there(&path, LocationEvidence::LIMITS.bytes as u64)
    }

    fn read_log(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        file::read_if_there(&self.path.join(name), LOG_LIMIT)
    }

    /// Keep what the TPM certified of its memory at the start or at the end.
    pub(crate) fn keep_nv(&self, at: NvAt, certified: &[NvCertified]) -> Result<(), LedgerError> {
        file::replace(&self.path.join(at.name()), &encode_nv(certified))
    }

    /// What was certified then; `None` where nothing was.
    pub(crate) fn read_nv(&self, at: NvAt) -> Result<Option<Vec<NvCertified>>, LedgerError> {
        let path = self.path.join(at.name());
        let bytes = file::read_if_there(&path, QUOTE_LIMIT)?;
        bytes.map(|bytes| decode_nv(&path, 0, &bytes)).transpose()
    }

    /// Keep what GPUs said of themselves.
    pub(crate) fn keep_gpu_reports(&self, reports: &[GpuReport]) -> Result<(), LedgerError> {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail.
        let _infallible =
            minicbor::encode(reports, &mut bytes).map_err(|error| debug_assert!(false, "{error}"));
        file::replace(&self.path.join("gpu"), &bytes)
    }

    /// What GPUs said of themselves; `None` where none did.
    pub(crate) fn read_gpu_reports(&self) -> Result<Option<Vec<GpuReport>>, LedgerError> {
        let path = self.path.join("gpu");
        let bytes = file::read_if_there(&path, GPU_LIMIT)?;
        let read = bytes.map(|bytes| {
            minicbor::decode(&bytes).map_err(|error| {
                LedgerError::damaged(&path, 0, format!("not reports of gpus: {error}"))
            })
        });
        read.transpose()
    }

    pub(crate) fn epochs_path(&self) -> PathBuf {
        self.path.join("epochs")
    }
}

/// When something of the TPM's memory was certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvAt {
    /// At the session's start.
    Start,
    /// At its end.
    End,
}

impl NvAt {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "nv_start",
            Self::End => "nv_end",
        }
    }
}

fn encode_nv(certified: &[NvCertified]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail.
    let _infallible =
        minicbor::encode(certified, &mut bytes).map_err(|error| debug_assert!(false, "{error}"));
    bytes
}

fn decode_nv(path: &Path, offset: u64, bytes: &[u8]) -> Result<Vec<NvCertified>, LedgerError> {
    minicbor::decode(bytes).map_err(|error| {
        LedgerError::damaged(path, offset, format!("not nv certifications: {error}"))
    })
}

fn encode_quote(quote: &Quote) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail.
    let _infallible =
        minicbor::encode(quote, &mut bytes).map_err(|error| debug_assert!(false, "{error}"));
    bytes
}

fn decode_quote(path: &Path, offset: u64, bytes: &[u8]) -> Result<Quote, LedgerError> {
    minicbor::decode(bytes)
        .map_err(|error| LedgerError::damaged(path, offset, format!("not a quote: {error}")))
}

/// What a pass over an epoch file found behind the last complete step.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// Written ahead, neither quoted nor abandoned.
    pub(crate) pending: Option<Vec<u8>>,
    /// End of the last whole frame.
    pub(crate) end: u64,
    /// End of the last quote.
    pub(crate) sealed_end: u64,
}

/// Walk an epoch file up to `to` bytes. A broken frame before `sealed_bytes`
/// is damage; after it, it is where the walk ends.
pub(crate) fn walk(
    path: &Path,
    sealed_bytes: u64,
    to: Option<u64>,
    mut on_epoch: impl FnMut(SealedEpoch),
) -> Result<Tail, LedgerError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && sealed_bytes == 0 => {
            return Ok(Tail::default());
        }
        Err(error) => return Err(LedgerError::io("open", path)(error)),
    };
    let length = file
        .metadata()
        .map_err(LedgerError::io("read", path))?
        .len();
    if length < sealed_bytes {
        return Err(LedgerError::damaged(
            path,
            length,
            format!("{sealed_bytes} bytes of it were sealed"),
        ));
    }
    let mut frames = Frames::new(
        BufReader::new(file),
        0,
        to.unwrap_or(length).min(length),
        RECORD_LIMIT,
    );
    let mut tail = Tail::default();
    // Held back, because its counter may follow.
    let mut last: Option<SealedEpoch> = None;
    loop {
        match frames.next().map_err(LedgerError::io("read", path))? {
            Next::Frame(frame) => {
                let out_of_order =
                    || LedgerError::damaged(path, frame.offset, "a record out of order");
                match frame.data.split_first().ok_or_else(out_of_order)? {
                    (&STATEMENT, statement) if tail.pending.is_none() => {
                        tail.pending = Some(statement.to_vec());
                    }
                    (&QUOTE, quote) => {
                        let statement = tail.pending.take().ok_or_else(out_of_order)?;
                        let epoch = SealedEpoch {
                            statement,
                            quote: decode_quote(path, frame.offset, quote)?,
                            nv: None,
                        };
                        last.replace(epoch).into_iter().for_each(&mut on_epoch);
                        tail.sealed_end = frames.offset();
                    }
                    (&COUNTED, certified) if tail.pending.is_none() => {
                        let epoch = last.as_mut().filter(|epoch| epoch.nv.is_none());
                        let epoch = epoch.ok_or_else(out_of_order)?;
                        epoch.nv = Some(decode_nv(path, frame.offset, certified)?);
                        tail.sealed_end = frames.offset();
                    }
                    (&ABANDONED, _reason) => {
                        tail.pending.take().ok_or_else(out_of_order)?;
                    }
                    _ => return Err(out_of_order()),
                }
            }
            Next::Broken { offset, why } if offset < sealed_bytes => {
                return Err(LedgerError::damaged(path, offset, why));
            }
            Next::Broken { .. } | Next::End => break,
        }
    }
    last.into_iter().for_each(&mut on_epoch);
    tail.end = frames.offset();
    Ok(tail)
}

/// The epoch file of the session that is being written.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Appended,
    end: u64,
    pub(crate) pending: Option<Vec<u8>>,
}

impl Journal {
    /// Open for writing behind what `tail` found, cutting a torn frame.
    pub(crate) fn open(path: PathBuf, tail: Tail) -> Result<Self, LedgerError> {
        let file = Appended::open(&path)?;
        file.cut(tail.end).map_err(LedgerError::io("cut", &path))?;
        file.sync().map_err(LedgerError::io("sync", &path))?;
        file::sync_parent(&path)?;
        Ok(Self {
            path,
            file,
            end: tail.end,
            pending: tail.pending,
        })
    }

    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn write_ahead(&mut self, statement: &[u8]) -> Result<(), LedgerError> {
        if self.pending.is_some() {
            return Err(LedgerError::Order {
                doing: "begin an epoch while one is pending",
            });
        }
        self.append(STATEMENT, statement)?;
        self.pending = Some(statement.to_vec());
        Ok(())
    }

    /// The statement that is now sealed.
    pub(crate) fn seal(&mut self, quote: &Quote) -> Result<Vec<u8>, LedgerError> {
        self.finish(QUOTE, &encode_quote(quote))
    }

    /// The counter, certified for the epoch that was sealed last.
    pub(crate) fn count(&mut self, certified: &[NvCertified]) -> Result<(), LedgerError> {
        if self.pending.is_some() {
            return Err(LedgerError::Order {
                doing: "count an epoch while another is pending",
            });
        }
        self.append(COUNTED, &encode_nv(certified))
    }

    pub(crate) fn abandon(&mut self, reason: &str) -> Result<(), LedgerError> {
        self.finish(ABANDONED, reason.as_bytes()).map(drop)
    }

    fn finish(&mut self, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, LedgerError> {
        let statement = self.pending.clone().ok_or(LedgerError::Order {
            doing: "end an epoch that was not begun",
        })?;
        self.append(kind, bytes)?;
        self.pending = None;
        Ok(statement)
    }

    fn append(&mut self, kind: u8, bytes: &[u8]) -> Result<(), LedgerError> {
        let data: Vec<u8> = std::iter::once(kind).chain(bytes.iter().copied()).collect();
        if data.len() > RECORD_LIMIT {
            return Err(LedgerError::TooBig {
                got: data.len(),
                limit: RECORD_LIMIT,
            });
        }
        let bytes = frame(&data, &leaf_hash(&data));
        let written = self.file.append(&bytes).and_then(|()| self.file.sync());
        if let Err(error) = written {
            let undone = self.file.cut(self.end);
            let doing = if undone.is_ok() {
                "append to"
            } else {
                "append to (and clean up)"
            };
            return Err(LedgerError::io(doing, &self.path)(error));
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}
