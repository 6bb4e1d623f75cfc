//! Where the TPM is: the `[tpm] tcti` string, parsed and tried.
//!
//! Only the two transports the agent is tested with are accepted. Trying the
//! address first, before the TPM stack sees it, gives the operator the system's
//! own reason in one line instead of the stack's log.

use crate::TpmError;
use std::{
    fmt,
    fs::OpenOptions,
    io,
    net::{TcpStream, ToSocketAddrs as _},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};
use tss_esapi::TctiNameConf;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A TPM's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A device node; `/dev/tpmrm0` goes through the kernel's resource manager.
    Device(PathBuf),
    /// A software TPM. Commands go to `port`, control to `port + 1`.
    Swtpm {
        /// Host name or address.
        host: String,
        /// The command port.
        port: u16,
    },
}

impl FromStr for Address {
    type Err = TpmError;

    fn from_str(text: &str) -> Result<Self, TpmError> {
        let refused = || TpmError::Address {
            got: text.to_owned(),
        };
        if let Some(path) = text.strip_prefix("device:") {
            if path.is_empty() {
                return Err(refused());
            }
            return Ok(Self::Device(PathBuf::from(path)));
        }
        let options = text.strip_prefix("swtpm:").ok_or_else(refused)?;
        let (mut host, mut port) = (None, None);
        for option in options.split(',') {
            match option.split_once('=') {
                Some(("host", value)) if host.is_none() && !value.is_empty() => {
                    host = Some(value.to_owned());
                }
                // The control port is the next one, so 65535 cannot be used.
                Some(("port", value)) if port.is_none() => {
                    port = value
                        .parse()
                        .ok()
                        .filter(|port| (1..u16::MAX).contains(port));
                    if port.is_none() {
                        return Err(refused());
                    }
                }
                _ => return Err(refused()),
            }
        }
        match (host, port) {
            (Some(host), Some(port)) => Ok(Self::Swtpm { host, port }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(out, "device:{}", path.display()),
            Self::Swtpm { host, port } => write!(out, "swtpm:host={host},port={port}"),
        }
    }
}

impl Address {
    /// The same address as the TPM stack writes it.
    pub(crate) fn tcti(&self) -> Result<TctiNameConf, TpmError> {
        TctiNameConf::from_str(&self.to_string()).map_err(|_source| TpmError::Address {
            got: self.to_string(),
        })
    }

    /// Find out whether something answers, without speaking to it.
    ///
    /// A device is opened and closed again. Of a software TPM only the control
    /// port is connected to: some are started to end when a connection to the
    /// command port closes.
    pub(crate) fn try_reach(&self) -> Result<(), TpmError> {
        match self {
            Self::Device(path) => {
                let opened = OpenOptions::new().read(true).write(true).open(path);
                opened.map(drop).map_err(|source| self.unreachable(&source))
            }
            Self::Swtpm { host, port } => {
                let control = port.saturating_add(1);
                connect(host, control).map_err(|source| self.unreachable(&source))
            }
        }
    }

    pub(crate) fn unreachable(&self, source: &io::Error) -> TpmError {
        let hint = match (self, source.kind()) {
            (Self::Device(_), io::ErrorKind::NotFound) => {
                "enable the TPM in the firmware and load its driver, or set [tpm] tcti"
            }
            (Self::Device(_), io::ErrorKind::PermissionDenied) => {
                "run as root, or give the service access to the device"
            }
            (Self::Device(_), io::ErrorKind::ResourceBusy) => {
                "another process holds it; use device:/dev/tpmrm0, which can be shared"
            }
            (Self::Device(_), _) => "check the device and its driver, or set [tpm] tcti",
            (Self::Swtpm { .. }, _) => {
                "start it (its control port is the next one) or set [tpm] tcti"
            }
        };
        TpmError::Unreachable {
            address: self.clone(),
            cause: source.kind().to_string(),
            hint,
        }
    }
}

fn connect(host: &str, port: u16) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_stream) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_documentation_are_read_and_written_back() {
        for text in ["device:/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(
            "swtpm:port=2321,host=localhost".parse::<Address>().unwrap(),
            Address::Swtpm {
                host: "localhost".into(),
                port: 2321
            }
        );
    }

    #[test]
    fn anything_else_is_refused_with_both_forms_in_the_message() {
        for text in [
            "",
            "device",
            "device:",
            "swtpm",
            "swtpm:",
            "swtpm:host=a",
            "swtpm:port=1",
            "swtpm:host=a,port=0",
            "swtpm:host=a,port=65535",
            "swtpm:host=a,port=1,port=2",
            "swtpm:host=a,port=1,path=/x",
            "tabrmd:bus_name=a.b",
            "mssim:host=a,port=1",
        ] {
            let message = text.parse::<Address>().unwrap_err().to_string();
            assert!(
                message.contains("device:/dev/tpmrm0") && message.contains("swtpm:host="),
                "{message}"
            );
        }
    }

    #[test]
    fn a_missing_device_says_what_to_do_in_one_line() {
        let address: Address = "device:/nonexistent/tpm".parse().unwrap();
        let message = address.try_reach().unwrap_err().to_string();
        assert_eq!(
            message,
            "cannot reach the TPM at device:/nonexistent/tpm: entity not found; \
             enable the TPM in the firmware and load its driver, or set [tpm] tcti"
        );
    }
}
