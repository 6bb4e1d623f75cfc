//! `merestone run` with what it learns while it runs: names from a resolver,
//! pods from a kubelet. Real kernel, real cgroups, stand-ins for both.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it needs by panicking"
)]

mod support;

use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use support::{
    Cgroup, Host, Kept, Node, Workload, cgroup_root, eventually, has_swtpm, is_root, swtpm,
    wire::Wire,
};

/// Each agent judges the whole host: one at a time.
static ONE: Mutex<()> = Mutex::new(());

const EPERM: &str = "1";
/// No route, as its network namespace has none.
const LEFT: &str = "101";

const UID_A: &str = "6a3e5f0c-1b2d-4e8f-9a7b-0c1d2e3f4a5b";
const UID_B: &str = "7b4f6a1d-2c3e-4f90-8b6a-1d2e3f4a5b6c";
const HASH: &str = "0123456789abcdef0123456789abcdef";

/// What a kubelet answers, read anew for each question: over TLS where there
/// is a certificate.
const KUBELET: &str = r#"
import http.server, os, ssl, sys
folder, port = sys.argv[1], int(sys.argv[2])
cert = os.path.join(folder, "kubelet.pem")
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        token = open(os.path.join(folder, "token")).read().strip()
        code, body = 200, open(os.path.join(folder, "pods.json"), "rb").read()
        if self.path != "/pods": code = 404
        if os.path.exists(cert) and self.headers.get("Authorization") != "Bearer " + token: code = 401
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
if os.path.exists(cert):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, os.path.join(folder, "kubelet.key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

struct Kubelet {
    folder: PathBuf,
    port: u16,
}

impl Kubelet {
    fn new(folder: &Path, secure: bool) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
        let port = port.local_addr().expect("has one").port();
        fs::write(folder.join("token"), "a token\n").expect("writes");
        if secure {
            certify(folder);
        }
        let folder = folder.to_owned();
        let kubelet = Self { folder, port };
        kubelet.say(&[]);
        kubelet
    }

    fn start(&self) -> Kept {
        let child = Command::new("/usr/bin/python3")
            .args(["-c", KUBELET])
            .arg(&self.folder)
            .arg(self.port.to_string())
            .stderr(Stdio::null())
            .spawn();
        let kept = Kept(child.expect("python3 runs"));
        eventually("the kubelet listens", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        kept
    }

    /// Pods: uid, name, and the value of their label `app`.
    fn say(&self, pods: &[(&str, &str, &str)]) {
        let items: Vec<Value> = pods
            .iter()
            .map(|(uid, name, app)| {
                let annotations = if *uid == HASH {
                    // The mirror of a static pod has a uid of its own.
                    serde_json::json!({"kubernetes.io/config.mirror": HASH, "kubernetes.io/config.hash": HASH})
                } else {
                    Value::Null
                };
                let own = if *uid == HASH { "8c5a7b2e-3d4f-4a01-9c7b-2e3f4a5b6c7d" } else { uid };
                serde_json::json!({
                    "metadata": {"name": name, "namespace": "serving", "uid": own,
                        "labels": {"app": app}, "annotations": annotations},
                    "spec": {"containers": []},
                    "status": {"phase": "Running", "qosClass": "Burstable"},
                })
            })
            .collect();
        let list = serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
        let fresh = self.folder.join("pods.new");
        fs::write(&fresh, list.to_string()).expect("writes");
        fs::rename(fresh, self.folder.join("pods.json")).expect("renames");
    }
}

/// An authority, and a certificate for the node's name, which is no address.
fn certify(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(params, key).expect("signs");
    fs::write(folder.join("ca.pem"), issuer.pem()).expect("writes");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["node-1".to_owned()]).expect("a name");
    let own = params.signed_by(&key, &issuer).expect("signs");
    fs::write(folder.join("kubelet.pem"), own.pem()).expect("writes");
    fs::write(folder.join("kubelet.key"), key.serialize_pem()).expect("writes");
}

/// The pods' root, named for this test, and what lies in it.
struct Pods {
    root: PathBuf,
    made: Vec<PathBuf>,
}

impl Pods {
    fn new(name: &str) -> Self {
        let root = cgroup_root().expect("cgroup v2 is mounted").join(name);
        fs::create_dir_all(&root).expect("makes the root");
        Self {
            made: vec![root.clone()],
            root,
        }
    }

    fn path(&self) -> String {
        format!(
            "/{}",
            self.root.file_name().expect("has one").to_string_lossy()
        )
    }

    /// A container of a burstable pod, as the driver of this root names it.
    fn container(&mut self, uid: &str) -> PathBuf {
        let name = self.path();
        let name = name.trim_start_matches('/');
        let below = match name.strip_suffix(".slice") {
            Some(prefix) => vec![
                format!("{prefix}-burstable.slice"),
                format!("{prefix}-burstable-pod{}.slice", uid.replace('-', "_")),
                "cri-containerd-x.scope".to_owned(),
            ],
            None => vec!["burstable".to_owned(), format!("pod{uid}"), "x".to_owned()],
        };
        let mut at = self.root.clone();
        for part in below {
            at.push(part);
            if !at.exists() {
                fs::create_dir(&at).expect("makes a cgroup");
                self.made.push(at.clone());
            }
        }
        at
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            drop(Cgroup(path.clone()));
        }
    }
}

const INSIDE: (&str, u16) = ("198.51.100.9", 443);
const WIDE: (&str, u16) = ("203.0.113.7", 443);

/// What reaches whom: inside by the default boundary, inside by the other.
#[expect(clippy::panic, reason = "says what the workload said")]
fn reach(workload: &mut Workload) -> (bool, bool) {
    let mut left = |(address, port): (&str, u16)| match workload.send("udp", address, port).as_str()
    {
        EPERM => false,
        LEFT => true,
        other => panic!("{other}"),
    };
    (left(INSIDE), left(WIDE))
}

const DENIED: (bool, bool) = (false, false);
const BY_DEFAULT: (bool, bool) = (true, false);
const BY_LABEL: (bool, bool) = (false, true);

fn with_pods(host: &Host, kubelet: &Kubelet, roots: &str, secure: bool) {
    let folder = kubelet.folder.display();
    let more = if secure {
        format!(
            "kubelet = \"https://127.0.0.1:{}\"\nca_file = \"{folder}/ca.pem\"\n\
             token_file = \"{folder}/token\"\nserver_name = \"node-1\"\n",
            kubelet.port
        )
    } else {
        format!("kubelet = \"http://127.0.0.1:{}/pods\"\n", kubelet.port)
    };
    let mut text = fs::read_to_string(&host.config).expect("reads");
    write!(
        text,
        "[kubernetes]\ninterval = \"1s\"\ncgroups = [{roots}]\n{more}"
    )
    .expect("a string takes it");
    fs::write(&host.config, text).expect("writes");
    let select = "[[select]]\npod = { namespace = \"serving\", labels = { app = \"vllm\" } }\nboundary = \"wide\"\n";
    fs::write(host.boundary(), format!("{}{select}", support::BOUNDARY)).expect("writes");
    let wide = "name = \"wide\"\n[[allow]]\ncidr = [\"203.0.113.0/24\"]\nports = [443]\n";
    fs::write(host.file("wide.toml"), wide).expect("writes");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_pod_is_held_until_the_kubelet_names_it_and_then_judged_by_its_labels() {
    const NAME: &str = "a_pod_is_held_until_the_kubelet_names_it_and_then_judged_by_its_labels";
    skip_unless!(
        is_root() && has_swtpm(),
        format!("{NAME}: needs root and swtpm")
    );
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let files = tempfile::tempdir().expect("a folder");
    let (_tpm, tcti) = swtpm(files.path());
    let kubelet = Kubelet::new(files.path(), true);
    let mut systemd = Pods::new(&format!("merestone-e2e-kube-{}.slice", std::process::id()));
    let mut plain = Pods::new(&format!("merestone-e2e-kube-{}", std::process::id()));
    let node = Node::new("merestone-e2e-pods");
    let host = Host::new("pods", &tcti);
    with_pods(
        &host,
        &kubelet,
        &format!("\"{}\", \"{}\"", systemd.path(), plain.path()),
        true,
    );
    let mut serving = Some(kubelet.start());
    let agent = host.start();

    let mut first = Workload::within(None, &systemd.container(UID_A), Some(&node));
    assert_eq!(reach(&mut first), DENIED, "not known");
    let said = host.merestone(&[
        "policy",
        "explain",
        "--to",
        "203.0.113.7:443",
        "--pid",
        &first.pid().to_string(),
    ]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(text.contains("the pod is not known yet"), "{text}");
    assert_eq!(said.status.code(), Some(1));

    kubelet.say(&[(UID_A, "vllm-0", "vllm"), (HASH, "etcd", "etcd")]);
    eventually("the pod is judged by its label", || {
        reach(&mut first) == BY_LABEL
    });
    let said = host.ask(&[
        "policy",
        "explain",
        "--to",
        "203.0.113.7:443",
        "--pid",
        &first.pid().to_string(),
    ]);
    assert!(
        said.contains("wide") && said.contains("for pod serving/vllm-0"),
        "{said}"
    );
    assert!(said.contains("selected at line"), "{said}");
    let mut fixed = Workload::within(None, &plain.container(HASH), Some(&node));
    assert_eq!(
        reach(&mut fixed),
        BY_DEFAULT,
        "a static pod, known before its cgroup"
    );
    let mut second = Workload::within(None, &plain.container(UID_B), Some(&node));
    assert_eq!(reach(&mut second), DENIED, "another is not known");

    kubelet.say(&[(UID_A, "vllm-0", "batch"), (HASH, "etcd", "etcd")]);
    eventually("another label, another boundary", || {
        reach(&mut first) == BY_DEFAULT
    });
    kubelet.say(&[]);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(
        reach(&mut first),
        BY_DEFAULT,
        "no longer named, and still there"
    );

    kubelet.say(&[(UID_A, "vllm-0", "vllm"), (HASH, "etcd", "etcd")]);
    eventually("the first label again", || reach(&mut first) == BY_LABEL);
    let pods = host.status()["pods"].clone();
    assert_eq!(
        (&pods["known"], &pods["selected"]),
        (&2.into(), &1.into()),
        "{pods}"
    );
    serving.take();
    eventually("the kubelet's absence is said", || {
        host.status()["pods"]["error"].is_string()
    });
    assert!(
        host.log()
            .contains("the kubelet does not say which pods there are")
    );
    assert!(String::from_utf8_lossy(&host.merestone(&["status"]).stdout).contains("KUBELET AWAY"));
    assert_eq!(reach(&mut first), BY_LABEL, "as it was");
    assert_eq!(reach(&mut fixed), BY_DEFAULT);
    assert_eq!(reach(&mut second), DENIED);
    host.ask(&["policy", "reload"]);
    assert_eq!(reach(&mut first), BY_LABEL, "after a reload");

    drop(agent);
    assert_eq!(reach(&mut first), BY_LABEL, "without an agent");
    let _agent = host.start();
    assert_eq!(
        reach(&mut first),
        BY_LABEL,
        "after a restart without a kubelet"
    );
    assert_eq!(reach(&mut second), DENIED);
    kubelet.say(&[(UID_A, "vllm-0", "vllm"), (UID_B, "vllm-1", "vllm")]);
    serving = Some(kubelet.start());
    eventually("the other pod, too", || reach(&mut second) == BY_LABEL);
    assert!(host.status()["pods"]["error"].is_null());
    let tampered = host.status()["tamper"]["attempts"].clone();
    assert_eq!(
        tampered,
        Value::Array(Vec::new()),
        "what the agent does is no tampering"
    );
    drop(serving);
}

#[test]
fn a_boundary_that_selects_pods_needs_a_kubelet_and_one_on_plain_http_will_do() {
    const NAME: &str = "a_boundary_that_selects_pods_needs_a_kubelet_and_one_on_plain_http_will_do";
    skip_unless!(
        is_root() && has_swtpm(),
        format!("{NAME}: needs root and swtpm")
    );
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let files = tempfile::tempdir().expect("a folder");
    let (_tpm, tcti) = swtpm(files.path());
    let kubelet = Kubelet::new(files.path(), false);
    let _serving = kubelet.start();
    let mut pods = Pods::new(&format!("merestone-e2e-http-{}", std::process::id()));
    let host = Host::new("http", &tcti);
    let without = fs::read_to_string(&host.config).expect("reads");
    with_pods(&host, &kubelet, &format!("\"{}\"", pods.path()), false);
    let with = fs::read_to_string(&host.config).expect("reads");
    fs::write(&host.config, without).expect("writes");
    let refused = host.merestone(&["run"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("nobody says which pods there are"), "{said}");
    fs::write(&host.config, with).expect("writes");
    let _agent = host.start();
    let node = Node::new("merestone-e2e-http");
    kubelet.say(&[(UID_A, "vllm-0", "vllm")]);
    let mut first = Workload::within(None, &pods.container(UID_A), Some(&node));
    eventually("the pod is judged by its label", || {
        reach(&mut first) == BY_LABEL
    });
    let (_, output) = host.verify("pods");
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failed = verdict["checks"].as_array().expect("a list").iter();
    let failed: Vec<_> = failed.filter(|check| check["result"] == "fail").collect();
    assert_eq!(output.status.code(), Some(0), "{failed:#?}");
    let told = format!("serving/vllm-0 ({UID_A}) by wide");
    assert!(verdict.to_string().contains(&told), "{verdict:#}");
}

/// Answers every question with 203.0.113.7, says which name it was asked for,
/// and takes connections to 443 and 8443.
const RESOLVER: &str = r#"
import socket, threading
def take(port):
    s = socket.create_server(("203.0.113.7", port))
    kept = []
    while True: kept.append(s.accept())
for port in (443, 8443): threading.Thread(target=take, args=(port,), daemon=True).start()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("198.18.53.9", 53))
print("ready", flush=True)
while True:
    data, who = s.recvfrom(2048)
    labels, at = [], 12
    while data[at]: labels.append(data[at + 1:at + 1 + data[at]].decode()); at += 1 + data[at]
    print(".".join(labels), flush=True)
    head = data[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
    s.sendto(head + data[12:at + 5] + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + bytes([203, 0, 113, 7]), who)
"#;

const NAMES: &str = "name = \"names\"\n[[allow]]\ncidr = [\"198.18.53.9/32\"]\nports = [53]\n\
    [[allow]]\nname = [\"registry.example.eu\"]\nports = [443]\nprotocols = [\"tcp\"]\n\
    [resolvers]\ntrust = [\"198.18.53.9\"]\n";

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn b47_a_name_opens_what_its_rule_says_and_the_running_agent_tells_it_by_name() {
    const NAME: &str = "b47_a_name_opens_what_its_rule_says_and_the_running_agent_tells_it_by_name";
    skip_unless!(
        is_root() && has_swtpm(),
        format!("{NAME}: needs root and swtpm")
    );
    skip_unless!(
        Command::new("ip").arg("-V").output().is_ok(),
        format!("{NAME}: needs ip")
    );
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let files = tempfile::tempdir().expect("a folder");
    let (_tpm, tcti) = swtpm(files.path());
    let host = Host::new("names", &tcti);
    fs::write(host.boundary(), NAMES).expect("writes");
    let _agent = host.start();
    let wire = Wire::new();
    let (heard, _resolver) = resolver(&wire);
    let (cgroup, node) = (
        Cgroup::new("merestone-e2e-names"),
        Node::new("merestone-e2e-names"),
    );
    let mut guarded = Workload::within(Some(&wire.inside), &cgroup.0, Some(&node));

    assert_eq!(
        guarded.send("tcp", "203.0.113.7", 443),
        EPERM,
        "nobody has named it"
    );
    assert_eq!(guarded.say("ask secret.evil.example 198.18.53.9"), EPERM);
    assert_eq!(
        guarded.say("ask registry.example.eu 198.18.53.9"),
        "203.0.113.7"
    );
    assert_eq!(guarded.send("tcp", "203.0.113.7", 443), "sent");
    assert_eq!(
        guarded.send("tcp", "203.0.113.7", 8443),
        EPERM,
        "another port of it"
    );
    let first = heard.recv_timeout(std::time::Duration::from_secs(10));
    assert_eq!(first.as_deref(), Ok("registry.example.eu"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(
        heard.try_iter().count(),
        0,
        "the other question never arrived"
    );

    let named = |events: &[Value], name: &str, port: u16| {
        events.iter().any(|event| {
            event["destination"]["name"] == name && event["destination"]["port"] == port
        })
    };
    eventually("what was refused is told by name", || {
        let denied = host.denied();
        named(&denied, "secret.evil.example", 53) && named(&denied, "registry.example.eu", 8443)
    });
    let said = host.ask(&["policy", "explain", "--name", "registry.example.eu"]);
    assert!(
        said.contains("203.0.113.7") && said.contains("198.18.53.9"),
        "{said}"
    );
    let said = host.ask(&["policy", "explain", "--to", "203.0.113.7:443"]);
    assert!(said.contains("registry.example.eu"), "{said}");
    let other = host.merestone(&["policy", "explain", "--name", "secret.evil.example"]);
    assert_eq!(other.status.code(), Some(1));
    assert_eq!(host.status()["names"]["addresses"], 1);
    host.ask(&["policy", "reload"]);
    assert_eq!(
        guarded.send("tcp", "203.0.113.7", 443),
        "sent",
        "after a reload"
    );

    let (_, output) = host.verify("names");
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{verdict:#}");
    assert!(
        verdict.to_string().contains("secret.evil.example"),
        "the evidence has the name: {verdict:#}"
    );
}

fn resolver(wire: &Wire) -> (std::sync::mpsc::Receiver<String>, Kept) {
    use std::io::{BufRead as _, BufReader};
    let mut child = Command::new("ip")
        .args([
            "netns",
            "exec",
            &wire.outside,
            "/usr/bin/python3",
            "-c",
            RESOLVER,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let output = child.stdout.take().expect("piped");
    let (say, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if say.send(line).is_err() {
                return;
            }
        }
    });
    let kept = Kept(child);
    let first = heard.recv_timeout(std::time::Duration::from_secs(30));
    assert_eq!(first.as_deref(), Ok("ready"));
    (heard, kept)
}
