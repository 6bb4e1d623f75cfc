//! Single inferences, as far as the log tells of them.

use crate::coverage::rfc3339;
use core::net::Ipv6Addr;
use merestone_evidence::{GpuDuring, Grade, GroupEgress, Inference};
use serde::Serialize;

/// Inferences told one by one.
const MOST_TOLD: usize = 200;

/// What the log tells of single inferences.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Inferences {
    /// Seen by the kernel alone.
    pub observed: u64,
    /// Bound to digests that a process of the group gave.
    pub bound: u64,
    /// Of the bound ones, those that the kernel's own record was written before: they are among
    /// the observed ones too, and no inference more.
    pub joined: u64,
    /// Of the observed ones, those that a gateway's bound record holds as its own request to its
    /// server: no inference more either.
    pub passed_on: u64,
    /// Entries that tell more of an inference told before.
    pub amendments: u64,
    /// The first of them, one by one, amendments among them.
    pub told: Vec<InferenceTold>,
    /// Those beyond.
    pub left_out: u64,
}

/// One entry about an inference.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct InferenceTold {
    /// Which one.
    pub id: String,
    /// `R1`, seen by the kernel, or `R2`, bound by a process of the group.
    pub grade: &'static str,
    /// First byte of the request.
    pub started: String,
    /// From then to the last byte, in milliseconds.
    pub took_ms: u64,
    /// What the bytes were, and method and path where they could be read.
    pub what: String,
    /// Bytes each way, requests first.
    pub bytes: (u64, u64),
    /// Who asked.
    pub peer: String,
    /// Whether the boundary lets the group send there.
    pub peer_inside: bool,
    /// The server's executable, where it is known.
    pub server: Option<String>,
    /// Where a gateway passed it on, its server's executable, and bytes each way.
    pub onward: Option<OnwardTold>,
    /// GPUs that the group used when it ended.
    pub gpus: Vec<String>,
    /// What they did meanwhile, as far as NVML was read before and after.
    pub gpu_use: Vec<GpuUseTold>,
    /// What the group sent meanwhile; absent where it is not known.
    pub egress: Option<EgressTold>,
    /// The model, as whoever bound it named it.
    pub model: Option<String>,
    /// Who saw it: `kernel`, `kernel and workload`, or `workload` alone.
    pub seen_by: &'static str,
}

/// What the group of an inference sent meanwhile, whoever it was for, by the kernel's counters.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct EgressTold {
    /// The counters were read then, before it began.
    pub from: String,
    /// And then, after it ended.
    pub to: String,
    /// Packets let through.
    pub allowed: u64,
    /// Their bytes.
    pub allowed_bytes: u64,
    /// Refusals.
    pub denied: u64,
    /// What would have been refused.
    pub audited: u64,
}

/// What a GPU did meanwhile.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct GpuUseTold {
    /// Which.
    pub gpu: String,
    /// Between the two readings, in milliseconds.
    pub read_ms: u64,
    /// Energy of the whole GPU between them.
    pub energy_millijoules: Option<u64>,
    /// How busy the whole GPU was.
    pub busy_percent: Option<u32>,
    /// What processes of the group had of its multiprocessors.
    pub group_percent: Option<u32>,
    /// Memory that they held.
    pub group_memory_bytes: Option<u64>,
}

impl GpuUseTold {
    fn of(one: &GpuDuring, gpus: &[String]) -> Self {
        let at = usize::try_from(one.gpu).ok();
        let gpu = at.and_then(|at| gpus.get(at)).cloned();
        Self {
            gpu: gpu.unwrap_or_else(|| "a GPU that the record does not name".to_owned()),
            read_ms: one.to_ms.saturating_sub(one.from_ms),
            energy_millijoules: one.energy_millijoules,
            busy_percent: one.busy_percent,
            group_percent: one.group_percent,
            group_memory_bytes: one.group_memory_bytes,
        }
    }
}

/// What passed between a gateway and its server.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct OnwardTold {
    /// The server's executable, where it is known.
    pub server: Option<String>,
    /// Bytes each way, requests first.
    pub bytes: (u64, u64),
    /// From the first byte to the last, in milliseconds.
    pub took_ms: u64,
}

impl Inferences {
    pub(super) fn see(&mut self, one: &Inference) {
        let sum = match (one.grade, one.amends) {
            (Grade::Observed, true) => &mut self.amendments,
            (Grade::Observed, false) => &mut self.observed,
            (Grade::Bound, _) => &mut self.bound,
        };
        *sum = sum.saturating_add(1);
        if one.grade == Grade::Bound && one.amends {
            self.joined = self.joined.saturating_add(1);
        }
        if one.onward.as_ref().is_some_and(|onward| onward.amends) {
            self.passed_on = self.passed_on.saturating_add(1);
        }
        if self.told.len() < MOST_TOLD {
            self.told.push(InferenceTold::of(one));
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// Whether the log tells of none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

impl EgressTold {
    fn of(sent: &GroupEgress) -> Self {
        let GroupEgress {
            from_ms,
            to_ms,
            allowed,
            allowed_bytes,
            denied,
            audited,
        } = *sent;
        Self {
            from: rfc3339(from_ms),
            to: rfc3339(to_ms),
            allowed,
            allowed_bytes,
            denied,
            audited,
        }
    }
}

impl InferenceTold {
    fn of(one: &Inference) -> Self {
        let words = [Some(&one.form), one.method.as_ref(), one.path.as_ref()];
        let words: Vec<_> = words.into_iter().flatten().map(String::as_str).collect();
        Self {
            id: hex::encode(one.id),
            grade: match one.grade {
                Grade::Observed => "R1",
                Grade::Bound => "R2",
            },
            started: rfc3339(one.started_ms),
            took_ms: one.ended_ms.saturating_sub(one.started_ms),
            what: words.join(" "),
            bytes: (one.request_bytes, one.response_bytes),
            peer: Ipv6Addr::from(one.peer).to_canonical().to_string(),
            peer_inside: one.peer_inside,
            server: one.process.as_ref().map(|process| process.exe.clone()),
            onward: one.onward.as_ref().map(|onward| OnwardTold {
                server: onward.process.as_ref().map(|process| process.exe.clone()),
                bytes: (onward.request_bytes, onward.response_bytes),
                took_ms: onward.ended_ms.saturating_sub(onward.started_ms),
            }),
            gpus: one.gpus.clone(),
            gpu_use: one
                .gpu_use
                .iter()
                .flatten()
                .map(|during| GpuUseTold::of(during, &one.gpus))
                .collect(),
            egress: one.egress.as_ref().map(EgressTold::of),
            model: one.binding.as_ref().and_then(|bound| bound.model.clone()),
            seen_by: crate::receipts::seen_by(one),
        }
    }
}
