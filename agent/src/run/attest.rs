//! GPUs asked to attest themselves: once for each session, over the digest of its statement.
//!
//! Nothing waits for them. What they answer lies with the session and goes into bundles; a GPU
//! that cannot answer, or an agent that ends before it does, leaves a session without a report.

use super::agent::Agent;
use merestone_evidence::{Digest, GpuReport};

/// What was asked last.
#[derive(Debug, Default)]
pub(super) struct Asked(Option<Digest>);

/// To be called every second.
pub(super) fn follow(agent: &mut Agent) {
    let gpu = &agent.parts.gpu;
    let statement = agent.parts.sealer.status().statement;
    if let Some(statement) = statement
        && agent.asked.0 != Some(statement)
    {
        gpu.attest(statement.0);
        agent.asked.0 = Some(statement);
    }
    let Some((nonce, answers)) = gpu.attested() else {
        return;
    };
    if statement != Some(Digest(nonce)) || answers.is_empty() {
        return;
    }
    let reports: Vec<_> = answers
        .into_iter()
        .map(|answer| GpuReport {
            uuid: answer.uuid,
            report: answer.report,
            certificates: answer.certificates,
        })
        .collect();
    let count = reports.len();
    match agent
        .parts
        .ledger
        .keep_gpu_reports(&Digest(nonce), &reports)
    {
        Ok(()) => tracing::info!(count, "GPUs attested themselves for this session"),
        Err(error) => tracing::error!(%error, "what GPUs attested is not kept"),
    }
}
