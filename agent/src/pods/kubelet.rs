//! One question to the kubelet: `GET /pods`.
//!
//! Over TLS its certificate is checked against the configured authority alone;
//! there is no way to leave that out. In the clear it is asked on loopback
//! only, and then without a token. Token and authority are read anew for each
//! question, because both are rotated under the agent.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// For the whole question, from the connection to the answer's last byte.
const DEADLINE: Duration = Duration::from_secs(5);
/// What an answer may have; a full node's is about a third of it.
pub const MOST_BYTES: usize = 32 << 20;
/// A token or a bundle of certificates.
const MOST_FILE_BYTES: u64 = 1 << 20;

/// Where the kubelet is, and how it is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kubelet {
    /// Over TLS.
    pub secure: bool,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What is asked for.
    pub path: String,
    /// The name its certificate must have; the host where none is set.
    pub server_name: Option<String>,
    /// The authority of its certificate, PEM.
    pub ca_file: Option<PathBuf>,
    /// What the agent shows.
    pub token_file: Option<PathBuf>,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// Nobody listens.
    #[error("no connection to the kubelet at {at}: {source}")]
    Connect {
        /// Where.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// Whoever listens is not the kubelet, or not by this authority.
    #[error("no TLS with {at}: {source}; see [kubernetes] ca_file and server_name")]
    Tls {
        /// Where.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// The token or the authority cannot be read.
    #[error("{} cannot be used: {detail}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// It refuses to say.
    #[error("the kubelet answers {status}{hint}")]
    Status {
        /// The code.
        status: u16,
        /// What to do.
        hint: &'static str,
    },
    /// It does not speak HTTP, or stopped.
    #[error("the kubelet's answer cannot be read: {detail}")]
    Http {
        /// Why.
        detail: String,
    },
    /// It says more than any node has to say.
    #[error("the kubelet's answer is longer than {MOST_BYTES} bytes")]
    Long,
    /// It takes too long.
    #[error("the kubelet did not answer within {} seconds", DEADLINE.as_secs())]
    Late,
}

impl Kubelet {
    /// From a URL; the error is the hint.
    pub fn parse(url: &str) -> Result<Self, String> {
        let form = || {
            "write \"https://127.0.0.1:10250\", or \"http://127.0.0.1:10255/pods\" for the \
             read-only port"
                .to_owned()
        };
        let parsed: hyper::Uri = url.parse().map_err(|_| form())?;
        let secure = match parsed.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(form()),
        };
        let authority = parsed.authority().ok_or_else(form)?;
        if authority.as_str().contains('@') || parsed.query().is_some() {
            return Err(form());
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .map_or(host, |inner| inner.strip_suffix(']').unwrap_or(inner));
        if host.is_empty() {
            return Err(form());
        }
        let is_loopback =
            host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if !secure && !is_loopback {
            return Err("over plain HTTP only on loopback: anybody on the way could name the pods; write https://".to_owned());
        }
        let path = match parsed.path() {
            "" | "/" => "/pods",
            path => path,
        };
        Ok(Self {
            secure,
            host: host.to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if secure { 10250 } else { 10255 }),
            path: path.to_owned(),
            server_name: None,
            ca_file: None,
            token_file: None,
        })
    }

    /// Host and port.
    #[must_use]
    pub fn at(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// As it was written.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{}", self.at(), self.path)
    }
}

/// Asks once.
pub async fn fetch(kubelet: &Kubelet) -> Result<Vec<u8>, KubeletError> {
    let asked = tokio::time::timeout(DEADLINE, ask(kubelet)).await;
    asked.unwrap_or(Err(KubeletError::Late))
}

async fn ask(kubelet: &Kubelet) -> Result<Vec<u8>, KubeletError> {
    let at = kubelet.at();
    // Before anybody is spoken to.
    let bearer = bearer(kubelet.token_file.as_deref())?;
    let tls = match kubelet.secure {
        true => Some(tls(kubelet)?),
        false => None,
    };
    let stream = TcpStream::connect((kubelet.host.as_str(), kubelet.port)).await;
    let stream = stream.map_err(|source| KubeletError::Connect {
        at: at.clone(),
        source,
    })?;
    match tls {
        None => get(stream, kubelet, bearer).await,
        Some((connector, name)) => {
            let stream = connector.connect(name, stream).await;
            let stream = stream.map_err(|source| KubeletError::Tls { at, source })?;
            get(stream, kubelet, bearer).await
        }
    }
}

async fn get<S>(
    stream: S,
    kubelet: &Kubelet,
    bearer: Option<HeaderValue>,
) -> Result<Vec<u8>, KubeletError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let http = |error: hyper::Error| KubeletError::Http {
        detail: error.to_string(),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(http)?;
    // Ends with this question, whatever becomes of it.
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let mut request = hyper::Request::get(&kubelet.path)
        .header(HOST, kubelet.at())
        .header(ACCEPT, "application/json");
    if let Some(bearer) = bearer {
        request = request.header(AUTHORIZATION, bearer);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| KubeletError::Http {
            detail: error.to_string(),
        })?;
    let answer = sender.send_request(request).await.map_err(http)?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(KubeletError::Status {
            status,
            hint: hint(status),
        });
    }
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(KubeletError::Long),
        Err(error) => Err(KubeletError::Http {
            detail: error.to_string(),
        }),
    }
}

fn hint(status: u16) -> &'static str {
    match status {
        401 => ": it does not know the token; see [kubernetes] token_file",
        403 => {
            ": the token's account may not read nodes/pods, or nodes/proxy before Kubernetes 1.33"
        }
        404 => ": is this the kubelet?",
        _ => "",
    }
}

fn bearer(token_file: Option<&Path>) -> Result<Option<HeaderValue>, KubeletError> {
    let Some(path) = token_file else {
        return Ok(None);
    };
    let fault = |detail: String| KubeletError::File {
        path: path.to_owned(),
        detail,
    };
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| fault(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(fault("it is empty".to_owned()));
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| fault("it is not a token".to_owned()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn tls(kubelet: &Kubelet) -> Result<(TlsConnector, ServerName<'static>), KubeletError> {
    let path = kubelet.ca_file.clone().unwrap_or_default();
    let fault = |detail: String| KubeletError::File {
        path: path.clone(),
        detail,
    };
    let bytes = read(&path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fault("there is no certificate in it".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = kubelet.server_name.as_ref().unwrap_or(&kubelet.host);
    let name = ServerName::try_from(name.clone()).map_err(|error| KubeletError::Tls {
        at: kubelet.at(),
        source: io::Error::other(error),
    })?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn read(path: &Path) -> Result<Vec<u8>, KubeletError> {
    use std::io::Read as _;
    let read = || {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(MOST_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: io::Error| KubeletError::File {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_is_named_by_a_url() {
        let found = Kubelet::parse("https://node-1").unwrap();
        assert_eq!(found.url(), "https://node-1:10250/pods");
        let found = Kubelet::parse("https://[2001:db8::1]:10250/").unwrap();
        assert_eq!(found.url(), "https://[2001:db8::1]:10250/pods");
        let found = Kubelet::parse("http://127.0.0.1:10255/pods").unwrap();
        assert!(!found.secure);
        assert_eq!(found.url(), "http://127.0.0.1:10255/pods");
        for wrong in [
            "",
            "127.0.0.1:10250",
            "ftp://127.0.0.1",
            "https://",
            "https://user:word@127.0.0.1",
            "https://127.0.0.1/pods?x=1",
            "http://203.0.113.7:10255",
            "http://node-1:10255/pods",
        ] {
            assert!(Kubelet::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
