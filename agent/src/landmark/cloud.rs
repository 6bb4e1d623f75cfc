//! Asks the cloud that this host is an instance of for its signed document.
//!
//! Plain HTTP to one address, by default the link-local one that every cloud has, with a deadline
//! and a limit. It believes nothing of what comes: the verifier does, or does not.

use super::LandmarkError;
use merestone_evidence::{CloudDocument, Digest, cloud_audience, cloud_nonce};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most bytes of an answer.
const MOST_BYTES: usize = 32 << 10;

/// A cloud whose metadata service is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Provider {
    /// Amazon EC2, `IMDSv2`.
    Aws,
    /// Azure.
    Azure,
    /// Google Compute Engine.
    Gcp,
}

/// Which cloud to ask, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Metadata {
    /// Which.
    pub provider: Provider,
    /// Its metadata service.
    pub address: SocketAddr,
}

impl Provider {
    /// Reads the word in the configuration.
    pub fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "aws" => Ok(Self::Aws),
            "azure" => Ok(Self::Azure),
            "gcp" => Ok(Self::Gcp),
            _ => Err("write \"aws\", \"azure\" or \"gcp\"".to_owned()),
        }
    }
}

impl Metadata {
    /// The document for the session with this statement.
    pub(super) fn ask(&self, session: &Digest) -> Result<CloudDocument, LandmarkError> {
        let get = |path: &str, header: &str| self.request("GET", path, header);
        match self.provider {
            Provider::Aws => {
                let lasts = "X-aws-ec2-metadata-token-ttl-seconds: 60";
                let token = self.request("PUT", "/latest/api/token", lasts)?;
                let token = String::from_utf8_lossy(&token).trim().to_owned();
                if token.contains(|c: char| c.is_control() || c == ' ') {
                    return Err(answer("a token that is none"));
                }
                let header = format!("X-aws-ec2-metadata-token: {token}");
                let document = get("/latest/dynamic/instance-identity/document", &header)?;
                let signature = get("/latest/dynamic/instance-identity/rsa2048", &header)?;
                Ok(CloudDocument {
                    provider: "aws".to_owned(),
                    document,
                    signature: Some(signature),
                })
            }
            Provider::Azure => {
                let nonce = cloud_nonce(session);
                let path =
                    format!("/metadata/attested/document?api-version=2020-09-01&nonce={nonce}");
                Ok(CloudDocument {
                    provider: "azure".to_owned(),
                    document: get(&path, "Metadata: true")?,
                    signature: None,
                })
            }
            Provider::Gcp => {
                let audience = cloud_audience(session);
                let path = format!(
                    "/computeMetadata/v1/instance/service-accounts/default/identity?audience={audience}&format=full"
                );
                Ok(CloudDocument {
                    provider: "gcp".to_owned(),
                    document: get(&path, "Metadata-Flavor: Google")?,
                    signature: None,
                })
            }
        }
    }

    /// The body of an answer with status 200.
    fn request(&self, method: &str, path: &str, header: &str) -> Result<Vec<u8>, LandmarkError> {
        let failed = |doing| move |source| LandmarkError::Socket { doing, source };
        let until = Instant::now() + PATIENCE;
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)
            .map_err(failed("reach the metadata service"))?;
        // 1.0: the answer ends with the connection, and comes in no chunks.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\n{header}\r\nContent-Length: 0\r\n\r\n",
            self.address
        );
        stream
            .set_write_timeout(Some(PATIENCE))
            .and_then(|()| stream.write_all(request.as_bytes()))
            .map_err(failed("ask the metadata service"))?;
        let mut all = Vec::new();
        let mut part = [0; 4096];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || all.len() > MOST_BYTES {
                return Err(answer("more, or slower, than is waited for"));
            }
            let length = stream
                .set_read_timeout(Some(left))
                .and_then(|()| stream.read(&mut part))
                .map_err(failed("read from the metadata service"))?;
            if length == 0 {
                break;
            }
            all.extend(part.iter().take(length));
        }
        body(&all)
    }
}

fn answer(got: &str) -> LandmarkError {
    LandmarkError::Metadata {
        got: got.to_owned(),
    }
}

/// What follows the head of an answer that says 200.
pub(super) fn body(all: &[u8]) -> Result<Vec<u8>, LandmarkError> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n");
    let Some((head, rest)) = end.and_then(|end| all.split_at_checked(end)) else {
        return Err(answer("no http"));
    };
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        let shown: String = status
            .chars()
            .filter(|c| !c.is_control())
            .take(80)
            .collect();
        return Err(answer(&shown));
    }
    Ok(rest.get(4..).unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers these in turn, and gives what it was asked.
    fn service(answers: Vec<&'static str>) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap();
                asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        (address, asked)
    }

    fn ask(
        provider: Provider,
        answers: Vec<&'static str>,
    ) -> (Result<CloudDocument, LandmarkError>, Vec<String>) {
        let (address, asked) = service(answers);
        let got = Metadata { provider, address }.ask(&Digest([7; 32]));
        (got, asked.join().unwrap())
    }

    #[test]
    fn each_cloud_is_asked_as_it_wants_to_be_with_the_session_in_the_question() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";
        let (got, asked) = ask(
            Provider::Aws,
            vec![
                "HTTP/1.1 200 OK\r\n\r\nTOKEN==",
                "HTTP/1.1 200 OK\r\n\r\n{}",
                "HTTP/1.1 200 OK\r\n\r\nMII=",
            ],
        );
        let got = got.unwrap();
        assert_eq!(
            (got.document, got.signature),
            (b"{}".to_vec(), Some(b"MII=".to_vec()))
        );
        assert!(
            asked[0].starts_with("PUT /latest/api/token HTTP/1.0\r\n"),
            "{asked:?}"
        );
        assert!(
            asked[2].contains("X-aws-ec2-metadata-token: TOKEN==\r\n"),
            "{asked:?}"
        );
        let (got, asked) = ask(Provider::Azure, vec![ok]);
        assert!(got.unwrap().document.is_empty());
        let nonce = format!("nonce={}", cloud_nonce(&Digest([7; 32])));
        assert!(
            asked[0].contains(&nonce) && asked[0].contains("Metadata: true"),
            "{asked:?}"
        );
        let (_, asked) = ask(Provider::Gcp, vec![ok]);
        assert!(asked[0].contains("audience=merestone:0707"), "{asked:?}");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for wrong in ["", "HTTP/1.1 404 Not Found\r\n\r\nno", "200 OK\r\n\r\n"] {
            let (got, _) = ask(Provider::Gcp, vec![wrong]);
            assert!(
                matches!(got, Err(LandmarkError::Metadata { .. })),
                "{wrong:?}: {got:?}"
            );
        }
        let (got, _) = ask(Provider::Aws, vec!["HTTP/1.1 200 OK\r\n\r\na\r\nb: c"]);
        assert!(got.is_err(), "a token is one word");
        let long: &'static str = Box::leak(
            format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MOST_BYTES + 5000)).into_boxed_str(),
        );
        let (got, _) = ask(Provider::Gcp, vec![long]);
        assert!(got.is_err());
        assert!(Provider::from_word("oracle").is_err());
    }
}
