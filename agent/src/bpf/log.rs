//! What the programs of a debug build say of themselves, through aya-log.
//!
//! A release object says nothing: a log line in a hook costs more than the
//! hook. Nothing is ever decided or attested by these lines.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// Hands each line on to tracing.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!(target: "merestone::ebpf", module = record.target(), "{}", record.args());
    }

    fn flush(&self) {}
}

/// The lines of the programs, where they have any.
pub(super) struct Lines(Option<EbpfLogger<ToTracing>>);

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

impl Lines {
    /// An object built without the feature `log` has none.
    pub(super) fn of(ebpf: &mut Ebpf) -> Self {
        Self(EbpfLogger::init_with_logger(ebpf, ToTracing).ok())
    }

    /// Hands on what has come.
    pub(super) fn flush(&mut self) {
        if let Some(logger) = &mut self.0 {
            logger.flush();
        }
    }
}
