//! TPM commands as bytes, for the few that `tss-esapi` does not have (NV certify, NV write lock).
//!
//! A command is a header, handles, password authorizations and parameters (TPM 2.0 part 1 §18,
//! part 3 §23 and §31); it goes over the same device or port as the TPM stack's own. Nothing of
//! a response is believed beyond its length and its code.

use crate::{Address, TpmError};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

const ST_NO_SESSIONS: u16 = 0x8001;
const ST_SESSIONS: u16 = 0x8002;
const RS_PW: u32 = 0x4000_0009;
const HEADER: usize = 10;
/// Longer than any response of a TPM (`MAX_RESPONSE_SIZE` of the PC client profile is 4096).
const LONGEST: usize = 8192;
/// Warnings that mean "send it again": part 2 §6.6.3, `TPM_RC_YIELDED`, `TESTING`, `NV_RATE`, `RETRY`.
const AGAIN: [u32; 4] = [0x908, 0x90A, 0x920, 0x922];
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// A command before it is sent.
#[derive(Debug)]
pub(crate) struct Command<'a> {
    pub(crate) doing: &'static str,
    pub(crate) code: u32,
    pub(crate) handles: &'a [u32],
    /// One password for each of the first handles.
    pub(crate) passwords: &'a [&'a [u8]],
    pub(crate) parameters: Vec<u8>,
}

impl Command<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut body: Vec<u8> = Vec::new();
        for handle in self.handles {
            body.extend(handle.to_be_bytes());
        }
        let tag = if self.passwords.is_empty() {
            ST_NO_SESSIONS
        } else {
            let mut area = Vec::new();
            for password in self.passwords {
                area.extend(RS_PW.to_be_bytes());
                area.extend([0, 0, 1]);
                sized(&mut area, password);
            }
            body.extend(u32::try_from(area.len()).unwrap_or(u32::MAX).to_be_bytes());
            body.extend(area);
            ST_SESSIONS
        };
        body.extend(&self.parameters);
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut bytes = tag.to_be_bytes().to_vec();
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.code.to_be_bytes());
        bytes.extend(body);
        bytes
    }
}

/// A `TPM2B`; nothing of ours is longer than its two bytes of length can say.
pub(crate) fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(bytes.iter().take(usize::from(length)));
}

/// A response's parameters, read from the front.
#[derive(Debug)]
pub(crate) struct Answer(Vec<u8>, usize);

impl Answer {
    pub(crate) fn sized(&mut self) -> Option<Vec<u8>> {
        let length = self.take(2)?;
        let length = u16::from_be_bytes(length.try_into().ok()?);
        self.take(length.into())
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let end = self.1.checked_add(length)?;
        let taken = self.0.get(self.1..end)?.to_vec();
        self.1 = end;
        Some(taken)
    }

    pub(crate) fn rest(self) -> Vec<u8> {
        self.0.get(self.1..).unwrap_or_default().to_vec()
    }
}

/// An open way to the TPM.
#[derive(Debug)]
pub(crate) enum Wire {
    Device(File),
    Tcp(TcpStream),
}

impl Wire {
    pub(crate) fn open(address: &Address) -> Result<Self, TpmError> {
        let opened = match address {
            Address::Device(path) => OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .map(Self::Device),
            Address::Swtpm { host, port } => {
                TcpStream::connect((host.as_str(), *port)).and_then(|stream| {
                    stream.set_nodelay(true)?;
                    Ok(Self::Tcp(stream))
                })
            }
        };
        opened.map_err(|source| address.unreachable(&source))
    }

    /// Send a command until the TPM takes it; its parameters.
    pub(crate) fn run(&mut self, command: &Command<'_>) -> Result<Answer, TpmError> {
        let doing = command.doing;
        let bytes = command.bytes();
        let mut code = 0;
        for _try in 0..TRIES {
            let response = self.exchange(&bytes).map_err(|source| TpmError::Command {
                doing,
                cause: source.to_string(),
            })?;
            let (body, got) = parsed(response).ok_or(TpmError::Answer {
                what: "a response",
                why: "not of the length it says".into(),
            })?;
            if got == 0 {
                // A response with sessions says how long its parameters are.
                let mut answer = Answer(body, 0);
                if command.passwords.is_empty() {
                    return Ok(answer);
                }
                let length = answer.take(4).and_then(|length| {
                    let length = u32::from_be_bytes(length.try_into().ok()?);
                    answer.take(usize::try_from(length).ok()?)
                });
                let parameters = length.ok_or(TpmError::Answer {
                    what: "a response",
                    why: "its parameters are cut off".into(),
                })?;
                return Ok(Answer(parameters, 0));
            }
            code = got;
            if !AGAIN.contains(&got) {
                break;
            }
            thread::sleep(PAUSE);
        }
        Err(TpmError::Refused { doing, code })
    }

    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            // The driver takes a command in one write and gives its response in one read.
            Self::Device(file) => {
                file.write_all(command)?;
                let mut response = vec![0; LONGEST];
                let length = file.read(&mut response)?;
                response.truncate(length);
                Ok(response)
            }
            Self::Tcp(stream) => {
                stream.write_all(command)?;
                let mut response = vec![0; HEADER];
                stream.read_exact(&mut response)?;
                let length = response.get(2..6).and_then(|bytes| bytes.try_into().ok());
                let length = length.map_or(0, u32::from_be_bytes);
                let length = usize::try_from(length).unwrap_or(LONGEST);
                if !(HEADER..=LONGEST).contains(&length) {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("a response of {length} bytes"),
                    ));
                }
                response.resize(length, 0);
                if let Some(rest) = response.get_mut(HEADER..) {
                    stream.read_exact(rest)?;
                }
                Ok(response)
            }
        }
    }
}

/// What follows the header, and the response code.
fn parsed(response: Vec<u8>) -> Option<(Vec<u8>, u32)> {
    let length = u32::from_be_bytes(response.get(2..6)?.try_into().ok()?);
    let code = u32::from_be_bytes(response.get(6..HEADER)?.try_into().ok()?);
    if usize::try_from(length).ok()? != response.len() {
        return None;
    }
    let mut response = response;
    Some((response.split_off(HEADER), code))
}
