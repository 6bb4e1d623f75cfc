//! The other end of the control socket, for the operator's commands.

use crate::api::{Reply, Request};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers there.
    #[error("no agent answers on {path}: {source}")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The talk broke off.
    #[error("the agent hung up: {source}")]
    Broken {
        /// Why.
        source: io::Error,
    },
    /// It said something this version does not understand.
    #[error("the agent said something this command does not understand: {source}")]
    Strange {
        /// Why.
        source: serde_json::Error,
    },
}

/// A connection for one request.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the agent.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self { stream }),
            Err(source) => Err(ClientError::NotRunning {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Asks, and reads the replies as they come.
    pub fn ask(
        mut self,
        request: &Request,
    ) -> Result<impl Iterator<Item = Result<Reply, ClientError>> + use<>, ClientError> {
        let mut line =
            serde_json::to_vec(request).map_err(|source| ClientError::Strange { source })?;
        line.push(b'\n');
        self.stream
            .write_all(&line)
            .map_err(|source| ClientError::Broken { source })?;
        Ok(BufReader::new(self.stream).lines().map(|line| {
            let line = line.map_err(|source| ClientError::Broken { source })?;
            serde_json::from_str(&line).map_err(|source| ClientError::Strange { source })
        }))
    }

    /// Asks what has one answer.
    pub fn ask_once(self, request: &Request) -> Result<Reply, ClientError> {
        self.ask(request)?.next().unwrap_or_else(|| {
            Err(ClientError::Broken {
                source: io::ErrorKind::UnexpectedEof.into(),
            })
        })
    }
}
