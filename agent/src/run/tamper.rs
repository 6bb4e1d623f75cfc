//! The loop's part in keeping enforcement: once a second it looks, and what it
//! or the kernel found goes into the log, to the operator and to the metric.

use super::agent::Agent;
use super::{entries, report};
use crate::api::{Reply, Request};
use crate::clock;
use crate::flow::{FlowEvent, Names, ProcessInfo};
use crate::tamper::{Record, Refusal, Told, attempt_name};
use merestone_abi::{Attempt, Event, Hook, Verdict};
use merestone_evidence::Body;

/// What is left behind, as things are now.
fn record(agent: &Agent) -> Record {
    let kernel = &agent.parts.kernel;
    let tiers = kernel.tiers();
    Record {
        boot_id: clock::boot_id(),
        pid: std::process::id(),
        time_ms: clock::now_ms(),
        ended: false,
        boundary: hex::encode(agent.parts.boundary.digest),
        generation: agent.generation,
        object: Agent::object_digest().to_string(),
        programs: Record::programs(kernel.programs()),
        protected: tiers
            .iter()
            .any(|tier| tier.name == "tamper" && tier.active),
    }
}

impl Agent {
    /// Tells what this start found, first of all.
    pub(super) fn begin_watch(&mut self) {
        let record = record(self);
        for told in self.parts.watch.begin(&self.parts.kernel, record) {
            self.told(told);
        }
    }

    /// To be called at each tick; looks once a second.
    pub(super) fn watch(&mut self) {
        if !self.parts.watch.is_due() {
            return;
        }
        let mut findings = match self.parts.kernel.watch() {
            Ok(findings) => findings,
            Err(error) => {
                tracing::error!(%error, "cannot look whether all is as it was left");
                return;
            }
        };
        for finding in &mut findings {
            if finding.attempt == Attempt::BOUNDARY {
                finding.repaired = self.install_again();
            }
        }
        for told in self.parts.watch.round(&findings) {
            self.told(told);
        }
    }

    fn install_again(&mut self) -> Result<(), String> {
        let tables = super::tables(&self.parts.boundary);
        let installed = tokio::task::block_in_place(|| self.parts.kernel.install(&tables));
        self.generation = installed.map_err(|error| error.to_string())?;
        self.boundary_is_in_force();
        Ok(())
    }

    /// Writes down which boundary is in force now.
    pub(super) fn boundary_is_in_force(&mut self) {
        let digest = hex::encode(self.parts.boundary.digest);
        self.parts.watch.installed(digest, self.generation);
    }

    fn told(&mut self, told: Told) {
        let Told { body, alert } = told;
        if let Some(alert) = alert {
            tracing::warn!(target: "merestone::alert", "{alert}");
        }
        // What the watch finds has no event of the kernel's; operators read
        // both in one place.
        if let Body::Tamper {
            attempt, target, ..
        } = &body
        {
            let event = Event {
                boot_ns: clock::boot_ns(),
                kind: merestone_abi::EventKind::TAMPER,
                hook: Hook::WATCH,
                reason: merestone_abi::Reason::TAMPER,
                ..Event::default()
            };
            let names = self.names(&event, ProcessInfo::default());
            let mut event = FlowEvent::new(&event, names, 1);
            event.attempt = Some(attempt.clone());
            event.target = Some(target.clone());
            self.jsonl.write(&event);
            self.parts.store.push(event);
        }
        self.log(body);
    }

    pub(super) fn names(&self, event: &Event, process: ProcessInfo) -> Names {
        Names {
            time: report::rfc3339(report::event_ms(event)),
            mode: report::mode_word(&self.parts.boundary).to_owned(),
            boundary: report::boundary_info(&self.parts.boundary),
            gpu: Vec::new(),
            name: None,
            process,
        }
    }

    /// An attempt that the kernel saw, or the end of the agent before this one.
    pub(super) fn tell_tamper(&mut self, event: &Event, process: ProcessInfo, count: u64) {
        let attempt = Attempt(u8::try_from(event.major).unwrap_or(0));
        if attempt == Attempt::AGENT_ENDED {
            self.log(Body::Found {
                what: "agent_end".to_owned(),
                kept: true,
                detail: format!(
                    "the kernel saw agent {} end at {}",
                    event.other,
                    report::rfc3339(report::event_ms(event))
                ),
            });
            return;
        }
        let refused = event.verdict == Verdict::DENY;
        let name = attempt_name(attempt);
        self.parts.watch.count(&name, refused, count);
        let mut target = self.parts.kernel.target_of(attempt, event);
        if !refused {
            target.push_str(", let through: break-glass is open");
        }
        self.log(Body::Tamper {
            attempt: name.clone(),
            refused,
            hook: entries::code_name(event.hook.name(), event.hook.0),
            target: target.clone(),
            process: entries::process(&process),
            count,
            repaired: None,
        });
        let names = self.names(event, process);
        let mut event = FlowEvent::new(event, names, count);
        event.attempt = Some(name);
        event.target = Some(target);
        tracing::warn!(target: "merestone::alert", "{}", event.line());
        self.jsonl.write(&event);
        self.parts.store.push(event);
    }

    /// Break-glass, asked for on the control socket.
    pub(super) fn break_glass(&mut self, request: &Request) -> Reply {
        let (kernel, watch) = (&mut self.parts.kernel, &mut self.parts.watch);
        let (done, told) = match request {
            Request::OpenGlass { token } => match hex::decode(token) {
                Ok(message) => {
                    let (done, told) = watch.open_by_token(kernel, &message);
                    (done, Some(told))
                }
                Err(error) => {
                    return Reply::Refused {
                        error: format!("the token did not arrive whole: {error}"),
                        hint: None,
                    };
                }
            },
            Request::OpenGlassUnsigned {
                reason,
                seconds,
                actions,
            } => {
                let (done, told) = watch.open_by_root(kernel, reason.clone(), *seconds, actions);
                (done, Some(told))
            }
            _ => watch.close(kernel),
        };
        if let Some(told) = told {
            self.told(told);
        }
        match done {
            Ok(detail) => Reply::Done { detail },
            Err(refusal) => Reply::Refused {
                hint: hint(&refusal),
                error: refusal.to_string(),
            },
        }
    }
}

fn hint(refusal: &Refusal) -> Option<String> {
    match refusal {
        Refusal::NeedsToken => {
            Some("sign one with: merestone sign break-glass --key KEY FILE".to_owned())
        }
        _ => None,
    }
}
