//! What the rest of the agent knows and the sealer does not: the inputs of
//! statements. Each is a claim of the agent; the quote says when and on which
//! machine it was made, not that it is true.

use super::counting::Declared;
use merestone_evidence::{
    Agent, Boundary, Canary, Cause, ClockQuality, Counter, Digest, EpochKind, EpochStatement,
    GpuEnergy, GpuInventory, Kernel, Loss, Program, RecordCounts, SessionId, SessionKind,
    SessionStatement, Site, Tier, TpmInfo,
};

/// Everything in a session statement but what the sealer adds: ids, key, TPM,
/// registers, and the state of the tree.
#[derive(Debug, Clone)]
pub struct SessionInputs {
    /// The agent program.
    pub agent: Agent,
    /// The boundary in force.
    pub boundary: Boundary,
    /// Digest of the eBPF object.
    pub object_sha256: Digest,
    /// The kernel programs loaded from it.
    pub programs: Vec<Program>,
    /// Every tier, active or not.
    pub tiers: Vec<Tier>,
    /// Ways out that nothing covers.
    pub uncovered: Vec<String>,
    /// The GPUs.
    pub gpu: GpuInventory,
    /// The kernel.
    pub kernel: Kernel,
    /// Where the operator says this is.
    pub site: Option<Site>,
    /// Tiers the configuration requires.
    pub require: Vec<String>,
}

/// Everything in an epoch statement but what the sealer adds. Counts are
/// cumulative over the session.
#[derive(Debug, Clone)]
pub struct EpochInputs {
    /// The boundary in force.
    pub boundary: Boundary,
    /// Digest of the eBPF object.
    pub object_sha256: Digest,
    /// Exact decisions.
    pub counters: Vec<Counter>,
    /// Losses.
    pub lost: Vec<Loss>,
    /// Names of the tiers in force.
    pub tiers: Vec<String>,
    /// Ways out that nothing covers.
    pub uncovered: Vec<String>,
    /// State of the GPU monitor.
    pub gpu_state: String,
    /// Energy counters.
    pub gpu_energy: Vec<GpuEnergy>,
    /// Guarded groups.
    pub groups: u64,
    /// Quality of the wall clock.
    pub clock: ClockQuality,
    /// The canary, where it is switched on.
    pub canary: Option<Canary>,
}

/// What the sealer adds to a session.
pub(super) struct SessionFacts {
    pub(super) node: String,
    pub(super) session: SessionId,
    pub(super) previous: Option<Digest>,
    pub(super) started_ms: u64,
    pub(super) session_key: [u8; 32],
    pub(super) tpm: TpmInfo,
    pub(super) pcrs: Vec<u8>,
    pub(super) chain_pcr: u8,
    pub(super) tree: (u64, Digest),
    pub(super) declared: Declared,
}

/// What the sealer adds to an epoch.
pub(super) struct EpochFacts {
    pub(super) node: String,
    pub(super) session: SessionId,
    pub(super) sequence: u64,
    pub(super) previous: Digest,
    pub(super) opened_ms: u64,
    pub(super) closed_ms: u64,
    pub(super) size_before: u64,
    pub(super) tree: (u64, Digest),
    pub(super) records: RecordCounts,
    pub(super) cause: Cause,
    pub(super) counter: Option<u64>,
}

impl SessionInputs {
    pub(super) fn statement(self, facts: SessionFacts) -> SessionStatement {
        let Self {
            agent,
            boundary,
            object_sha256,
            programs,
            tiers,
            uncovered,
            gpu,
            kernel,
            site,
            require,
        } = self;
        let SessionFacts {
            node,
            session,
            previous,
            started_ms,
            session_key,
            tpm,
            pcrs,
            chain_pcr,
            tree,
            declared,
        } = facts;
        let (tree_size, tree_root) = tree;
        SessionStatement {
            kind: SessionKind,
            node,
            session,
            previous,
            started_ms,
            session_key,
            agent,
            boundary,
            object_sha256,
            programs,
            tiers,
            uncovered,
            gpu,
            tpm,
            pcrs,
            chain_pcr,
            kernel,
            tree_size,
            tree_root,
            site,
            require,
            counters: declared.counters,
            geotag: declared.geotag,
        }
    }
}

impl EpochInputs {
    pub(super) fn statement(self, facts: EpochFacts) -> EpochStatement {
        let Self {
            boundary,
            object_sha256,
            counters,
            lost,
            tiers,
            uncovered,
            gpu_state,
            gpu_energy,
            groups,
            clock,
            canary,
        } = self;
        let EpochFacts {
            node,
            session,
            sequence,
            previous,
            opened_ms,
            closed_ms,
            size_before,
            tree,
            records,
            cause,
            counter,
        } = facts;
        let (size_after, root) = tree;
        EpochStatement {
            kind: EpochKind,
            node,
            session,
            sequence,
            previous,
            opened_ms,
            closed_ms,
            size_before,
            size_after,
            root,
            boundary,
            object_sha256,
            counters,
            lost,
            tiers,
            uncovered,
            gpu_state,
            gpu_energy,
            groups,
            cause,
            clock,
            canary,
            counter,
            records: Some(records),
        }
    }
}
