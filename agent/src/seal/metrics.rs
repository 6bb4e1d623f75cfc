//! What the sealer counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The sealer's metrics; clones count into the same values.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Time of each quote, reading the PCRs included.
    pub quote_seconds: Histogram,
    /// Epochs sealed.
    pub epochs: IntCounter,
    /// Epochs that could not be sealed at the time, by reason.
    pub failures: IntCounterVec,
    /// 1 while an epoch waits for its quote.
    pub pending: IntGauge,
}

impl Metrics {
    /// Fresh metrics.
    pub fn new() -> Result<Self, prometheus::Error> {
        // From an emulator's half millisecond to a chip's bad second (p95 of
        // ECDSA P-256 on hardware is near 0.6 s).
        let buckets = vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let quote = HistogramOpts::new(
            "merestone_tpm_quote_seconds",
            "Time the TPM took for a quote.",
        );
        Ok(Self {
            quote_seconds: Histogram::with_opts(quote.buckets(buckets))?,
            epochs: IntCounter::new("merestone_epochs_total", "Epochs sealed by the TPM.")?,
            failures: IntCounterVec::new(
                Opts::new(
                    "merestone_epoch_failures_total",
                    "Epochs that could not be sealed at the time.",
                ),
                &["reason"],
            )?,
            pending: IntGauge::new(
                "merestone_epoch_pending",
                "1 while an epoch statement waits for its quote.",
            )?,
        })
    }

    /// Show them in `registry`.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let Self {
            quote_seconds,
            epochs,
            failures,
            pending,
        } = self.clone();
        registry.register(Box::new(quote_seconds))?;
        registry.register(Box::new(epochs))?;
        registry.register(Box::new(failures))?;
        registry.register(Box::new(pending))
    }
}
