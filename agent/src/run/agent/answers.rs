//! What is asked over the sockets, and what becomes of it. It reads and hands on; only a reload,
//! a grant and a seal change anything.

use super::Agent;
use crate::api::{Reply, Request};
use crate::grant::GrantError;
use crate::run::{self, names, report};
use crate::serve::Call;
use merestone_evidence::Cause;
use tokio::sync::oneshot;

impl Agent {
    pub(super) fn answer(&mut self, call: Call) {
        match call {
            Call::Control { request, reply } => self.control(&request, reply),
            Call::Scrape { reply } => {
                self.exact.read(&self.parts.kernel);
                reply.send(report::exposition(self)).ok();
            }
            Call::Guarded { peer, reply } => {
                reply.send(self.is_guarded(&peer)).ok();
            }
            Call::Record { peer, post, reply } => {
                // The client may have hung up; its record stands.
                reply.send(self.bind(&peer, *post)).ok();
            }
            Call::Ready { reply } => {
                let quote_error = self.parts.sealer.status().error;
                let ready = match (report::enforcing(self), quote_error) {
                    (true, None) => Ok(()),
                    (false, _) => Err("not enforcing".to_owned()),
                    (true, Some(error)) => Err(error),
                };
                reply.send(ready).ok();
            }
        }
    }

    fn control(&mut self, request: &Request, reply: oneshot::Sender<Reply>) {
        let answer = match request {
            Request::Status {} => {
                self.exact.read(&self.parts.kernel);
                Reply::Status(Box::new(report::status(self)))
            }
            Request::Guarded {} => match report::guarded(self) {
                Ok(groups) => Reply::Guarded { groups },
                Err(error) => Reply::Refused {
                    error: format!("the guarded groups cannot be read: {error}"),
                    hint: Some("see the agent's log".to_owned()),
                },
            },
            Request::Names {} => match names::learned(self) {
                Ok(names) => Reply::Names { names },
                Err(error) => Reply::Refused {
                    error: format!("what is learned of names cannot be read: {error}"),
                    hint: Some("see the agent's log".to_owned()),
                },
            },
            Request::Pods {} => Reply::Pods {
                pods: self.pods.known().to_vec(),
            },
            Request::Reload {} => self.reload(),
            Request::OpenGlass { .. }
            | Request::OpenGlassUnsigned { .. }
            | Request::CloseGlass {} => self.break_glass(request),
            Request::GrantApply { message } => self.grant(message),
            Request::GrantList {} => Reply::Grants {
                grants: self.grants.list(),
            },
            Request::GrantRevoke { name } => self.revoke(name),
            Request::Drill {} => return self.drill(reply),
            Request::Seal {} => {
                self.waiting.push(reply);
                self.close_epoch(Cause::Work);
                return;
            }
            Request::Flows { .. } => Reply::Refused {
                error: "flows are read from the store".to_owned(),
                hint: None,
            },
        };
        // The client may have hung up.
        reply.send(answer).ok();
    }

    /// Reads the boundary again; the old one stays where the new one is refused.
    pub(super) fn reload(&mut self) -> Reply {
        sd_notify::notify(&[sd_notify::NotifyState::Reloading]).ok();
        let reply = match self.try_reload() {
            Ok(()) => {
                self.reload_error = None;
                self.log_boundary(None);
                self.log_pods();
                tracing::info!(generation = self.generation, "boundary reloaded");
                Reply::Done {
                    detail: format!(
                        "boundary {} is in force, generation {}",
                        self.parts.boundary.name, self.generation
                    ),
                }
            }
            Err(error) => {
                let error = error.replace('\n', "; ");
                self.reload_error = Some(error.clone());
                self.log_boundary(Some(error.clone()));
                tracing::error!(%error, "the new boundary is refused, the old one stays");
                Reply::Refused {
                    error,
                    hint: Some(format!(
                        "boundary {} stays in force; mend the file and reload",
                        self.parts.boundary.name
                    )),
                }
            }
        };
        self.close_epoch(Cause::Boundary);
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
        reply
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let mut boundary =
            run::load_boundary(&self.parts.config).map_err(|faults| faults.to_string())?;
        self.pods.tell(&self.parts.config.kubernetes, &mut boundary);
        let tables = run::tables(&boundary);
        let installed = tokio::task::block_in_place(|| self.parts.kernel.install(&tables));
        self.generation = installed.map_err(|error| error.to_string())?;
        self.parts.boundary = boundary;
        self.boundary_is_in_force();
        Ok(())
    }

    fn grant(&mut self, message: &str) -> Reply {
        let message = hex::decode(message).unwrap_or_default();
        let (outcome, body) = self.grants.apply(&mut self.parts.kernel, &message);
        self.log(body);
        reply_to(outcome)
    }

    fn revoke(&mut self, name: &str) -> Reply {
        let outcome = self.grants.revoke(&mut self.parts.kernel, name);
        reply_to(outcome.map(|body| {
            self.log(body);
            format!("grant {name:?} is revoked")
        }))
    }
}

fn reply_to(outcome: Result<String, GrantError>) -> Reply {
    match outcome {
        Ok(detail) => Reply::Done { detail },
        Err(error) => Reply::Refused {
            error: error.to_string(),
            hint: None,
        },
    }
}
