//! The question to the kubelet, against a stand-in: in the clear, over TLS
//! with an authority of its own, and against those that lie, refuse, hang or
//! say too much. Needs no root.

#![expect(clippy::unwrap_used, reason = "a failing helper is a failing test")]

use merestone_agent::pods::{Kubelet, KubeletError, MOST_BYTES, fetch, parse, watch};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const LIST: &str = r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[
 {"metadata":{"name":"vllm-0","namespace":"serving","uid":"6a3e5f0c-1b2d-4e8f-9a7b-0c1d2e3f4a5b","labels":{"app":"vllm"}},
  "spec":{},"status":{"qosClass":"Guaranteed"}}]}"#;

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Reads a request's head; answers as `answer` says.
async fn serve_one(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &dyn Fn(&str) -> Vec<u8>,
) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let bytes = answer(&String::from_utf8_lossy(&head));
    stream.write_all(&bytes).await.ok();
    stream.shutdown().await.ok();
}

/// A kubelet on a port of loopback.
async fn stand_in(
    tls: Option<TlsAcceptor>,
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_blocking(move || {
        tokio::runtime::Handle::current().block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => serve_one(stream, &answer).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve_one(stream, &answer).await;
                        }
                    }
                }
            }
        });
    });
    port
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate: CertificateDer<'static> =
            params.signed_by(&key, &self.issuer).unwrap().into();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn secure(port: u16, authority: &Path) -> Kubelet {
    let mut kubelet = Kubelet::parse(&format!("https://127.0.0.1:{port}")).unwrap();
    kubelet.ca_file = Some(authority.to_owned());
    kubelet
}

fn clear(port: u16) -> Kubelet {
    Kubelet::parse(&format!("http://127.0.0.1:{port}/pods")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_only_port_says_which_pods_there_are() {
    let port = stand_in(None, |head| {
        assert!(head.starts_with("GET /pods HTTP/1.1\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
        ok(LIST)
    })
    .await;
    let pods = parse(&fetch(&clear(port)).await.unwrap()).unwrap().pods;
    assert_eq!(pods.first().unwrap().to_string(), "serving/vllm-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_token_is_shown_to_whom_the_authority_names_and_to_nobody_else() {
    let authority = Authority::new();
    std::fs::write(authority.file("token"), "one\n").unwrap();
    let shown = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&shown);
    let port = stand_in(Some(authority.acceptor(&["127.0.0.1"])), move |head| {
        count.fetch_add(1, Ordering::SeqCst);
        if head
            .to_lowercase()
            .contains("authorization: bearer two\r\n")
        {
            ok(LIST)
        } else {
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
    })
    .await;
    let mut kubelet = secure(port, &authority.file("ca.pem"));
    kubelet.token_file = Some(authority.file("token"));
    let error = fetch(&kubelet).await.unwrap_err();
    assert!(
        matches!(error, KubeletError::Status { status: 401, .. }),
        "{error}"
    );
    std::fs::write(authority.file("token"), "two\n").unwrap();
    assert_eq!(
        parse(&fetch(&kubelet).await.unwrap()).unwrap().pods.len(),
        1,
        "rotated"
    );

    let before = shown.load(Ordering::SeqCst);
    let other = Authority::new();
    let error = fetch(&Kubelet {
        ca_file: Some(other.file("ca.pem")),
        ..kubelet.clone()
    })
    .await
    .unwrap_err();
    assert!(matches!(error, KubeletError::Tls { .. }), "{error}");
    let error = fetch(&Kubelet {
        server_name: Some("node-2".to_owned()),
        ..kubelet.clone()
    })
    .await
    .unwrap_err();
    assert!(matches!(error, KubeletError::Tls { .. }), "{error}");
    for (name, contents) in [("empty", ""), ("text", "no certificate"), ("absent", "")] {
        if name != "absent" {
            std::fs::write(authority.file(name), contents).unwrap();
        }
        let asked = Kubelet {
            ca_file: Some(authority.file(name)),
            ..kubelet.clone()
        };
        assert!(
            matches!(fetch(&asked).await, Err(KubeletError::File { .. })),
            "{name}"
        );
        let asked = Kubelet {
            token_file: Some(authority.file(if name == "text" { "ca.pem" } else { name })),
            ..kubelet.clone()
        };
        assert!(
            matches!(fetch(&asked).await, Err(KubeletError::File { .. })),
            "{name}"
        );
    }
    assert_eq!(shown.load(Ordering::SeqCst), before, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_in_the_certificate_may_be_the_nodes() {
    let authority = Authority::new();
    let port = stand_in(Some(authority.acceptor(&["node-1"])), |_| ok(LIST)).await;
    let mut kubelet = secure(port, &authority.file("ca.pem"));
    assert!(matches!(
        fetch(&kubelet).await,
        Err(KubeletError::Tls { .. })
    ));
    kubelet.server_name = Some("node-1".to_owned());
    fetch(&kubelet).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_end_is_cut_off_by_size_and_by_time() {
    let endless = stand_in(None, |_| {
        let mut bytes = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        bytes.resize(MOST_BYTES + 4096, b' ');
        bytes
    })
    .await;
    let error = fetch(&clear(endless)).await.unwrap_err();
    assert!(matches!(error, KubeletError::Long), "{error}");
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let began = Instant::now();
    let error = fetch(&clear(silent.local_addr().unwrap().port()))
        .await
        .unwrap_err();
    assert!(matches!(error, KubeletError::Late), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20));
    let cut = stand_in(None, |_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{".to_vec()
    })
    .await;
    assert!(matches!(
        fetch(&clear(cut)).await,
        Err(KubeletError::Http { .. })
    ));
    let nonsense = stand_in(None, |_| b"220 ready\r\n".to_vec()).await;
    assert!(matches!(
        fetch(&clear(nonsense)).await,
        Err(KubeletError::Http { .. })
    ));
    let moved = stand_in(None, |_| {
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/pods\r\nContent-Length: 0\r\n\r\n"
            .to_vec()
    })
    .await;
    let error = fetch(&clear(moved)).await.unwrap_err();
    assert!(
        matches!(error, KubeletError::Status { status: 302, .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_again_and_sooner_when_somebody_unknown_turns_up() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let port = stand_in(None, move |_| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            ok("{}")
        } else {
            ok(LIST)
        }
    })
    .await;
    let mut watch = watch(clear(port), Duration::from_secs(3600));
    assert!(
        watch
            .heard()
            .await
            .unwrap_err()
            .contains("not a list of pods")
    );
    watch.ask_now();
    let began = Instant::now();
    assert_eq!(watch.heard().await.unwrap().pods.len(), 1);
    assert!(began.elapsed() < Duration::from_secs(30));
    drop(watch);
}
