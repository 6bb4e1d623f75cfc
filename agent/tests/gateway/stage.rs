//! The pieces around a gateway: a server whose every byte the test decides, an
//! agent's records socket that checks what it is told, and raw connections.

use serde::Deserialize;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Nothing here takes as long, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A record as the agent takes it: closed, so that a field too many fails.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub id: String,
    pub request: String,
    pub answer: String,
    pub model: Option<String>,
    pub model_files: Option<String>,
    pub method: Option<String>,
    pub path: Option<String>,
    pub status: Option<u16>,
    pub started_ms: u64,
    pub first_ms: Option<u64>,
    pub ended_ms: u64,
    pub request_bytes: u64,
    pub answer_bytes: u64,
    pub connection: Option<Connection>,
    pub upstream: Option<Connection>,
    pub nonce: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connection {
    pub peer: String,
    pub local: String,
}

/// What the stand-in answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mood {
    Takes,
    Says(u16),
}

#[derive(Default)]
struct Told {
    records: Mutex<Vec<Record>>,
    new: Condvar,
}

/// A stand-in for the agent.
pub(crate) struct Agent {
    pub path: PathBuf,
    mood: Arc<Mutex<Mood>>,
    told: Arc<Told>,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Agent {
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let mood = Arc::new(Mutex::new(Mood::Takes));
        let told = Arc::new(Told::default());
        let open = Arc::new(Mutex::new(Vec::new()));
        let this = Self {
            path: path.to_owned(),
            mood: Arc::clone(&mood),
            told: Arc::clone(&told),
            open: Arc::clone(&open),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let (mood, told) = (Arc::clone(&mood), Arc::clone(&told));
                std::thread::spawn(move || take(stream, &mood, &told));
            }
        });
        this
    }

    pub(crate) fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Goes away: no file, no connection.
    pub(crate) fn leave(&self) {
        std::fs::remove_file(&self.path).ok();
        for stream in self.open.lock().unwrap().drain(..) {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }

    /// Waits for the record with an id.
    pub(crate) fn record(&self, id: &str) -> Record {
        self.find(|record| record.id == id)
    }

    pub(crate) fn find(&self, wanted: impl Fn(&Record) -> bool) -> Record {
        let mut records = self.told.records.lock().unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(record) = records.iter().find(|record| wanted(record)) {
                return record.clone();
            }
            assert!(Instant::now() < until, "no such record among {records:#?}");
            records = self
                .told
                .new
                .wait_timeout(records, Duration::from_millis(200))
                .unwrap()
                .0;
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.told.records.lock().unwrap().len()
    }
}

fn take(stream: UnixStream, mood: &Mutex<Mood>, told: &Told) -> Option<()> {
    let mut write = stream.try_clone().ok()?;
    let mut wire = Wire::over(stream);
    loop {
        let head = wire.head()?;
        let body = wire.exact(head.length()?);
        let mood = *mood.lock().unwrap();
        let (status, answer) = match (mood, serde_json::from_slice::<Record>(&body)) {
            (Mood::Says(status), _) => (status, "no".to_owned()),
            (Mood::Takes, Err(error)) => {
                assert_eq!(body, b"{}", "the agent would not understand: {error}");
                (400, error.to_string())
            }
            (Mood::Takes, Ok(record)) => {
                assert_eq!(head.line, "POST /v1/records HTTP/1.1");
                sound(&record);
                let answer = format!(
                    "{{\"id\":\"{}\",\"receipt\":\"AAEC\",\"index\":7}}",
                    record.id
                );
                told.records.lock().unwrap().push(record);
                told.new.notify_all();
                (201, answer)
            }
        };
        let length = answer.len();
        write!(
            write,
            "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{answer}"
        )
        .ok()?;
    }
}

fn sound(record: &Record) {
    for (digits, length) in [
        (&record.id, 32),
        (&record.request, 64),
        (&record.answer, 64),
    ] {
        assert!(digits.len() == length && digits.bytes().all(|b| b"0123456789abcdef".contains(&b)));
    }
    assert!(record.started_ms <= record.ended_ms);
    assert!(
        record
            .first_ms
            .is_none_or(|first| (record.started_ms..=record.ended_ms).contains(&first))
    );
    let connection = record.connection.as_ref().expect("a connection");
    connection.peer.parse::<SocketAddr>().unwrap();
    connection.local.parse::<SocketAddr>().unwrap();
}

/// A message's head.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub line: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self
            .fields
            .iter()
            .filter(|(one, _)| one.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        value
    }

    pub(crate) fn length(&self) -> Option<usize> {
        self.get("content-length")?.parse().ok()
    }

    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// HTTP/1.1 read by hand.
pub(crate) struct Wire<S>(pub BufReader<S>);

impl<S: io::Read> Wire<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).ok()?;
        let line = line.strip_suffix(b"\r\n")?;
        Some(String::from_utf8(line.to_vec()).unwrap())
    }

    /// The next head; none at the connection's end.
    #[expect(
        clippy::unwrap_in_result,
        reason = "a field without a colon fails the test"
    )]
    pub(crate) fn head(&mut self) -> Option<Head> {
        let line = self.line()?;
        let mut fields = Vec::new();
        loop {
            match self.line()? {
                end if end.is_empty() => return Some(Head { line, fields }),
                field => {
                    let (name, value) = field.split_once(':').unwrap();
                    fields.push((name.to_owned(), value.trim().to_owned()));
                }
            }
        }
    }

    pub(crate) fn exact(&mut self, length: usize) -> Vec<u8> {
        let mut body = vec![0; length];
        self.0
            .read_exact(&mut body)
            .expect("a body of the length that its head says");
        body
    }

    /// One chunk; empty at the end, whose trailers are left unread.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line()?, 16).unwrap();
        let chunk = (size > 0).then(|| {
            let chunk = self.exact(size);
            assert_eq!(self.line().unwrap(), "");
            chunk
        });
        Some(chunk.unwrap_or_default())
    }

    /// The fields after the last chunk.
    pub(crate) fn trailers(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.line().filter(|line| !line.is_empty())).collect()
    }

    /// A whole body, however it is framed.
    pub(crate) fn body(&mut self, head: &Head) -> Vec<u8> {
        if let Some(length) = head.length() {
            return self.exact(length);
        }
        if head.get("transfer-encoding").is_none() {
            let mut rest = Vec::new();
            self.0.read_to_end(&mut rest).unwrap();
            return rest;
        }
        let mut body = Vec::new();
        loop {
            match self.chunk().expect("another chunk") {
                end if end.is_empty() => break,
                chunk => body.extend(chunk),
            }
        }
        assert_eq!(self.trailers(), Vec::<String>::new());
        body
    }

    /// Whether the other side is gone, after what it had sent.
    pub(crate) fn is_over(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// A server that gives every connection to the test.
pub(crate) struct Server {
    pub port: u16,
    listener: TcpListener,
}

impl Server {
    pub(crate) fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { port, listener }
    }

    /// The gateway's next connection.
    pub(crate) fn accept(&self) -> Peer {
        let until = Instant::now() + PATIENCE;
        self.listener.set_nonblocking(true).unwrap();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Peer::over(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < until, "the gateway does not connect");
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Whether a connection waits now.
    pub(crate) fn has_connection(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        self.listener.accept().is_ok()
    }

    /// Answers every request the same way from now on.
    pub(crate) fn always(self, answer: &'static str) {
        self.listener.set_nonblocking(false).unwrap();
        std::thread::spawn(move || {
            for stream in self.listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || Peer::over(stream).always(answer));
            }
        });
    }
}

/// Either end of a connection.
pub(crate) struct Peer {
    pub stream: TcpStream,
    pub wire: Wire<TcpStream>,
}

impl Peer {
    /// Answers every request the same way.
    fn always(mut self, answer: &str) {
        while let Some(head) = self.wire.head() {
            if head.get("content-length").is_some() || head.get("transfer-encoding").is_some() {
                self.wire.body(&head);
            }
            self.say(answer);
        }
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let wire = Wire::over(stream.try_clone().unwrap());
        Self { stream, wire }
    }

    pub(crate) fn say(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).unwrap();
    }

    pub(crate) fn chunk(&mut self, chunk: &[u8]) {
        let mut text = format!("{:x}\r\n", chunk.len()).into_bytes();
        text.extend(chunk);
        text.extend(b"\r\n");
        self.say(text);
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    pub port: u16,
    pub child: Child,
    pub metrics: u16,
    _folder: tempfile::TempDir,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Gateway {
    /// Starts one; `agent` is the socket, whether or not anybody listens.
    pub(crate) fn start(to: u16, agent: &Path, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        std::fs::write(&file, "").unwrap();
        let (port, metrics) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_merestone"));
        command
            .args(["gateway", "--config"])
            .arg(&file)
            .arg("--records")
            .arg(agent);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--to", &format!("http://127.0.0.1:{to}")]);
        command
            .args(["--metrics", &format!("127.0.0.1:{metrics}")])
            .args(more);
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let this = Self {
            port,
            child,
            metrics,
            _folder: folder,
        };
        let until = Instant::now() + PATIENCE;
        for port in [metrics, port] {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(Instant::now() < until, "the gateway does not listen");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        this
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::over(TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &str) -> (Head, Vec<u8>) {
        let mut peer = self.connect();
        peer.say(request);
        let head = peer.wire.head().expect("an answer");
        let body = peer.wire.body(&head);
        (head, body)
    }

    pub(crate) fn get(&self, path: &str) -> (Head, Vec<u8>) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
    }

    /// The receipt's JSON, as soon as there is one.
    pub(crate) fn receipt(&self, id: &str) -> serde_json::Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let (head, body) = self.get(&format!("/.well-known/merestone/receipts/{id}"));
            match head.status() {
                200 => return serde_json::from_slice(&body).unwrap(),
                202 => assert!(Instant::now() < until, "no receipt"),
                _ => panic!("{head:?} {}", String::from_utf8_lossy(&body)),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A value of the metrics; 0 for a series that is not there yet.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let mut peer = Peer::over(TcpStream::connect(("127.0.0.1", self.metrics)).unwrap());
        peer.say("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let head = peer.wire.head().unwrap();
        let text = String::from_utf8(peer.wire.body(&head)).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a series has a value.
    pub(crate) fn wait_for(&self, series: &str, wanted: impl Fn(f64) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !wanted(self.metric(series)) {
            assert!(
                Instant::now() < until,
                "{series} is {}",
                self.metric(series)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn terminate(&self) {
        let id = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the gateway does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The most memory it ever had, in bytes (`VmHWM`).
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim()
            .strip_suffix(" kB")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            << 10
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A server, an agent and a gateway between.
pub(crate) struct Stage {
    pub server: Server,
    pub agent: Agent,
    pub gateway: Gateway,
    _folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::bind();
        let agent = Agent::start(&folder.path().join("records.sock"));
        let gateway = Gateway::start(server.port, &agent.path, flags);
        gateway.wait_for("merestone_gateway_agent_ready", |ready| ready == 1.0);
        Self {
            server,
            agent,
            gateway,
            _folder: folder,
        }
    }
}

/// The digest of one side, computed apart from the product.
pub(crate) fn digest(salt: &str, label: &str, body: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let mut bytes = hex::decode(salt).unwrap();
    assert_eq!(bytes.len(), 32);
    bytes.extend(label.as_bytes());
    bytes.extend(body);
    hex::encode(Sha256::digest(bytes))
}
