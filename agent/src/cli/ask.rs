//! Asking the running agent.

use super::{Exit, Failure, output};
use crate::api::{Reply, Request};
use crate::config::Config;
use crate::serve::{Client, ClientError};

/// One question, one answer.
pub(super) fn once(config: &Config, request: &Request) -> Result<Reply, ClientError> {
    Client::connect(&config.api.socket)?.ask_once(request)
}

/// A question that is to be carried out; says what was done.
pub(super) fn done(config: &Config, request: &Request) -> Result<Exit, Failure> {
    match once(config, request)? {
        Reply::Done { detail } => {
            output::say(&detail)?;
            Ok(Exit::Yes)
        }
        other => Err(unexpected(&other)),
    }
}

/// The failure that an answer is where another was wanted.
pub(super) fn unexpected(reply: &Reply) -> Failure {
    match reply {
        Reply::Refused { error, hint } => {
            let failure = Failure::new(Exit::No, error);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        _ => Failure::new(Exit::No, "the agent gave another answer than was asked for")
            .hint("are agent and command of one version?"),
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Self::of(&error);
        match error {
            ClientError::NotRunning { .. } => failure.hint("is it running? see: merestone status"),
            ClientError::Broken { .. } => failure.hint("see its log"),
            ClientError::Strange { .. } => failure.hint("are agent and command of one version?"),
        }
    }
}
