//! What the running agent keeps of all this: the count of attempts, what is
//! open, and the record it leaves.
//!
//! It holds no kernel map itself; its owner passes the kernel in.

use super::glass::{self, Open, Refusal};
use super::left::{self, Record};
use super::used::Used;
use crate::api::{BreakGlassInfo, TamperCount, TamperInfo};
use crate::bpf::{Finding, Kernel};
use crate::clock;
use crate::config::Config;
use crate::signed::Signers;
use anyhow::{Context as _, Result};
use merestone_abi::Attempt;
use merestone_evidence::{Body, Digest};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the kernel's state is compared with what was left.
const LOOK: Duration = Duration::from_secs(1);
/// How often the record is written when nothing changes.
const RECORD: Duration = Duration::from_secs(60);

/// Something for the log, with the line that alerts a person, if one should.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The entry.
    pub body: Body,
    /// The alert.
    pub alert: Option<String>,
}

/// The agent's watch over enforcement.
#[derive(Debug)]
pub struct Watch {
    node: String,
    state_dir: PathBuf,
    on_loss: String,
    signers: Signers,
    used: Used,
    attempts: BTreeMap<(String, bool), u64>,
    open: Option<Open>,
    looked: Option<Instant>,
    recorded: Option<Instant>,
    record: Record,
}

/// An attempt, as the log, the metric and the alert name it.
#[must_use]
pub fn attempt_name(attempt: Attempt) -> String {
    attempt
        .name()
        .map_or_else(|| format!("attempt-{}", attempt.0), str::to_ascii_lowercase)
}

impl Watch {
    /// Reads signers and used tokens: refused before anything is attached.
    pub fn open(config: &Config) -> Result<Self> {
        let named = if config.break_glass.signers.is_empty() {
            &config.policy.signers
        } else {
            &config.break_glass.signers
        };
        let signers = Signers::load(named).context("[break_glass] signers cannot be read")?;
        let used = Used::open(&config.state_dir).context("cannot read which tokens were used")?;
        Ok(Self {
            node: config.node.clone(),
            state_dir: config.state_dir.clone(),
            on_loss: config.enforcement.on_agent_loss.word().to_owned(),
            signers,
            used,
            attempts: BTreeMap::new(),
            open: None,
            looked: None,
            recorded: None,
            record: Record::default(),
        })
    }

    /// What a start has to tell of what it found; from here on it is recorded
    /// what this agent leaves.
    pub fn begin(&mut self, kernel: &Kernel, record: Record) -> Vec<Told> {
        let before = Record::read(&self.state_dir);
        let left = kernel.left();
        let mut told: Vec<_> = left::found(before, left, kernel.hooks(), &record.boot_id)
            .into_iter()
            .map(|body| {
                let alert = match &body {
                    Body::Found {
                        what,
                        kept: false,
                        detail,
                    } if !matches!(what.as_str(), "boot" | "agent_gap") => {
                        Some(format!("found {what} not as it was left: {detail}"))
                    }
                    _ => None,
                };
                Told { body, alert }
            })
            .collect();
        let glass = left.glass;
        if glass.until_boot_ns > clock::boot_ns() {
            let left_ms = (glass.until_boot_ns - clock::boot_ns()) / 1_000_000;
            let open = Open {
                sha256: glass.token,
                until_boot_ns: glass.until_boot_ns,
                token: super::Token {
                    reason: "found open at the start".to_owned(),
                    until_ms: clock::now_ms().saturating_add(left_ms),
                    actions: glass.actions,
                },
                signer: None,
            };
            told.push(state(&open, "opened", open.token.reason.clone()));
            self.open = Some(open);
        }
        self.record = record;
        self.write_record();
        told
    }

    /// Whether it is time for another look.
    pub fn is_due(&mut self) -> bool {
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if due {
            self.looked = Some(Instant::now());
        }
        due
    }

    /// What the look found, and what came to its end by itself.
    pub fn round(&mut self, findings: &[Finding]) -> Vec<Told> {
        let mut told: Vec<_> = findings.iter().map(|one| self.found(one)).collect();
        if let Some(open) = self
            .open
            .take_if(|open| open.until_boot_ns <= clock::boot_ns())
        {
            told.push(state(&open, "closed", "its time is over".to_owned()));
        }
        if self.recorded.is_none_or(|at| at.elapsed() >= RECORD) {
            self.write_record();
        }
        told
    }

    fn found(&mut self, finding: &Finding) -> Told {
        let attempt = attempt_name(finding.attempt);
        self.count(&attempt, false, 1);
        let outcome = match &finding.repaired {
            Ok(()) => "put back".to_owned(),
            Err(error) => format!("not put back: {error}"),
        };
        let target = format!("{}; {outcome}", finding.target);
        Told {
            alert: Some(format!("tamper {attempt} found by the watch: {target}")),
            body: Body::Tamper {
                attempt,
                refused: false,
                hook: "watch".to_owned(),
                target,
                process: None,
                count: 1,
                repaired: Some(finding.repaired.is_ok()),
            },
        }
    }

    /// Counts attempts that the kernel told of.
    pub fn count(&mut self, attempt: &str, refused: bool, count: u64) {
        *self
            .attempts
            .entry((attempt.to_owned(), refused))
            .or_default() += count;
    }

    /// Opens protection by a signed token.
    pub fn open_by_token(
        &mut self,
        kernel: &mut Kernel,
        message: &[u8],
    ) -> (Result<String, Refusal>, Told) {
        let opened = glass::by_token(&self.signers, &mut self.used, &self.node, message);
        let sha256 = merestone_evidence::sha256(message).0;
        self.opened(kernel, opened, sha256)
    }

    /// Opens protection because root asks, where nobody could sign.
    pub fn open_by_root(
        &mut self,
        kernel: &mut Kernel,
        reason: String,
        seconds: u64,
        actions: &[String],
    ) -> (Result<String, Refusal>, Told) {
        let opened = glass::by_root(&self.signers, reason, seconds, actions);
        self.opened(kernel, opened, [0; 32])
    }

    fn opened(
        &mut self,
        kernel: &mut Kernel,
        opened: Result<Open, Refusal>,
        sha256: [u8; 32],
    ) -> (Result<String, Refusal>, Told) {
        let applied = opened.and_then(|open| {
            glass::apply(kernel, Some(&open))?;
            Ok(open)
        });
        match applied {
            Ok(open) => {
                let told = state(&open, "opened", open.token.reason.clone());
                let names = glass::actions(open.token.actions).join(", ");
                let seconds = open.token.until_ms.saturating_sub(clock::now_ms()) / 1000;
                self.open = Some(open);
                (Ok(format!("open for {seconds} s, for: {names}")), told)
            }
            Err(refusal) => {
                let reason = refusal.to_string();
                let told = Told {
                    alert: Some(format!("break-glass refused: {reason}")),
                    body: Body::BreakGlass {
                        sha256: Digest(sha256),
                        state: "refused".to_owned(),
                        reason,
                        until_ms: 0,
                        signer: None,
                        actions: Vec::new(),
                    },
                };
                (Err(refusal), told)
            }
        }
    }

    /// Closes protection before its time.
    pub fn close(&mut self, kernel: &mut Kernel) -> (Result<String, Refusal>, Option<Told>) {
        if let Err(refusal) = glass::apply(kernel, None) {
            return (Err(refusal), None);
        }
        match self.open.take() {
            Some(open) => {
                let told = state(&open, "closed", "by the operator".to_owned());
                (Ok("closed".to_owned()), Some(told))
            }
            None => (Ok("it was not open".to_owned()), None),
        }
    }

    /// Another boundary is in force.
    pub fn installed(&mut self, boundary: String, generation: u32) {
        self.record.boundary = boundary;
        self.record.generation = generation;
        self.write_record();
    }

    /// The agent ends in order.
    pub fn end(&mut self) {
        self.record.ended = true;
        self.write_record();
    }

    fn write_record(&mut self) {
        self.recorded = Some(Instant::now());
        self.record.time_ms = clock::now_ms();
        if let Err(error) = self.record.write(&self.state_dir) {
            tracing::error!(%error, "cannot write down what is enforced; the next start knows less");
        }
    }

    /// For status and metrics.
    pub fn info(&self) -> TamperInfo {
        let attempts = self.attempts.iter();
        TamperInfo {
            on_agent_loss: self.on_loss.clone(),
            attempts: attempts
                .map(|((attempt, refused), count)| TamperCount {
                    attempt: attempt.clone(),
                    refused: *refused,
                    count: *count,
                })
                .collect(),
            break_glass: self.open.as_ref().map(|open| BreakGlassInfo {
                token: hex::encode(open.sha256),
                reason: open.token.reason.clone(),
                until_ms: open.token.until_ms,
                actions: glass::actions(open.token.actions),
            }),
        }
    }
}

fn state(open: &Open, state: &str, reason: String) -> Told {
    let names = glass::actions(open.token.actions).join(", ");
    Told {
        alert: Some(format!("break-glass {state} for {names}: {reason}")),
        body: Body::BreakGlass {
            sha256: Digest(open.sha256),
            state: state.to_owned(),
            reason,
            until_ms: open.token.until_ms,
            signer: open.signer.map(Digest),
            actions: glass::actions(open.token.actions),
        },
    }
}
