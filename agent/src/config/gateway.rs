//! `[gateway]`, and where the agent takes records.

use super::read::Reader;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `[gateway]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gateway {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The inference server, `host:port`.
    pub to: String,
    /// Whether a request for which there can be no receipt is refused.
    pub require_receipts: bool,
    /// Directories and files of weights; empty to look what the server opened.
    pub model_files: Vec<PathBuf>,
    /// Where the gateway answers /metrics.
    pub metrics: Option<SocketAddr>,
    /// How long the server may be silent before its answer begins.
    pub timeout: Duration,
    /// How long receipts are kept for their clients.
    pub keep: Duration,
}

pub(super) fn gateway(reader: &mut Reader) -> Gateway {
    let hour = Duration::from_secs(3600);
    Gateway {
        listen: reader.parsed("gateway.listen", ([127, 0, 0, 1], 8000).into(), address),
        to: reader.parsed("gateway.to", "127.0.0.1:8001".to_owned(), server),
        require_receipts: reader.boolean("gateway.require_receipts", false),
        model_files: reader
            .list("gateway.model_files", absolute)
            .unwrap_or_default(),
        metrics: reader.parsed("gateway.metrics", None, |text| address(text).map(Some)),
        timeout: reader.duration(
            "gateway.timeout",
            Duration::from_secs(600),
            Duration::from_secs(1)..=hour * 24,
        ),
        keep: reader.duration("gateway.keep", hour, Duration::from_secs(10)..=hour * 24),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let hint = "write address:port, as in \"127.0.0.1:8000\" or \"[::1]:8000\"";
    text.parse().ok().ok_or_else(|| hint.to_owned())
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(path);
    }
    Err("write the absolute path of a directory or file of weights".to_owned())
}

/// `http://host:port`, without a path: the client's path is passed as it is.
fn server(text: &str) -> Result<String, String> {
    let hint = "write \"http://127.0.0.1:8001\": plain HTTP, host, port, no path";
    let rest = text.strip_prefix("http://").ok_or(hint)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or(hint)?;
    let port: u16 = port.parse().ok().ok_or(hint)?;
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_address =
        inner.is_some_and(|inner| inner.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()));
    let is_name = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if port > 0 && (is_address || is_name) {
        return Ok(format!("{host}:{port}"));
    }
    Err(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_plain_http_with_host_and_port() {
        assert_eq!(
            server("http://127.0.0.1:8001").as_deref(),
            Ok("127.0.0.1:8001")
        );
        assert_eq!(server("http://[::1]:80/").as_deref(), Ok("[::1]:80"));
        assert_eq!(
            server("http://vllm.internal:8001").as_deref(),
            Ok("vllm.internal:8001")
        );
        for wrong in [
            "127.0.0.1:8001",
            "https://a:1",
            "http://a",
            "http://a:0",
            "http://a:1/v1",
            "http://u@a:1",
            "http://[a]:1",
            "http://:1",
        ] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }
}
