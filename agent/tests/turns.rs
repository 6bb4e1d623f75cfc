//! Turns on a guarded server's sockets, by real connections against the running
//! kernel: how many, whose, how many bytes. Needs root, cgroup v2, bpffs and an
//! agent built with the object; each test says so and passes where they are not
//! there.
//!
//! The server is this executable again, in a cgroup of its own that it makes a
//! guarded group by opening a device node.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failing helper is a failing test; a skipped one says so"
)]

#[path = "turns/streams.rs"]
mod streams;
mod support;

use merestone_abi::{Form, Turn, TurnState};
use merestone_agent::bpf::{DeviceRule, Kernel, KernelError, Options, unload};
use merestone_agent::policy::{self, Sources};
use merestone_agent::run;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SERVE: &str = "MERESTONE_TURNS_SERVE";
/// A number that stands for no driver: the hook decides before open(2) fails.
const NODE: (u32, u32) = (60, 209);

struct Stage {
    cgroup: PathBuf,
    pins: PathBuf,
    node: PathBuf,
    _files: tempfile::TempDir,
}

impl Stage {
    fn set(name: &str) -> Option<(Self, Kernel)> {
        let hierarchy = support::place(name)?;
        let files = tempfile::tempdir().unwrap();
        let stage = Self {
            cgroup: hierarchy.join(format!("merestone-turns-{name}")),
            pins: PathBuf::from(format!("/sys/fs/bpf/merestone-turns-{name}")),
            node: files.path().join("gpu"),
            _files: files,
        };
        stage.clear();
        fs::create_dir(&stage.cgroup).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &stage.node,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
            rustix::fs::makedev(NODE.0, NODE.1),
        )
        .unwrap();
        let mut options = Options::new(stage.pins.clone());
        options.cgroup_root.clone_from(&stage.cgroup);
        options.records = true;
        options.require = vec!["records".to_owned()];
        options.devices = vec![DeviceRule {
            major: NODE.0,
            minor: Some(NODE.1),
            class: merestone_abi::DeviceClass::CONFIGURED,
        }];
        // Only the built-in rule for loopback.
        let boundary = stage.node.with_file_name("boundary.toml");
        fs::write(&boundary, "name = \"loopback\"\n").unwrap();
        let tables = run::tables(&policy::load_with(&boundary, &Sources::default()).unwrap());
        match Kernel::start(&options, &tables) {
            Ok((kernel, _events)) => Some((stage, kernel)),
            Err(KernelError::NotBpffs { path }) => {
                println!("SKIPPED: {name}: {} is not on bpffs", path.display());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A server at `listen`, guarded where `guarded`.
    fn serve(&self, listen: &str, guarded: bool) -> Server {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "server", "--nocapture", "--test-threads=1"])
            .env(SERVE, listen)
            .env("MERESTONE_TEST_CGROUP", &self.cgroup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if guarded {
            command.env("MERESTONE_TEST_NODE", &self.node);
        }
        let mut server = Server {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child: command.spawn().unwrap(),
        };
        let lines = BufReader::new(server.child.stdout.take().unwrap()).lines();
        for line in lines {
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("serves: ") {
                server.address = address.parse().unwrap();
                return server;
            }
        }
        panic!("the server said no address");
    }

    fn clear(&self) {
        if self.pins.exists() {
            unload(&self.pins).ok();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.cgroup.exists() && Instant::now() < deadline {
            fs::remove_dir(&self.cgroup).ok();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

struct Server {
    address: SocketAddr,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Not a test: what the server does. It answers each line of a request with as
/// many bytes as the request asks for in `X-Answer`.
#[test]
fn server() {
    let Ok(listen) = std::env::var(SERVE) else {
        return;
    };
    let cgroup = PathBuf::from(std::env::var_os("MERESTONE_TEST_CGROUP").unwrap());
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    if let Some(node) = std::env::var_os("MERESTONE_TEST_NODE") {
        assert!(fs::File::open(node).is_err(), "no driver has this number");
    }
    if let Some(to) = listen.strip_prefix("connect ") {
        // A client that is spoken to first.
        println!("serves: 127.0.0.1:1");
        let mut stream = TcpStream::connect(to).unwrap();
        let mut hello = [0; 6];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"POST it back").unwrap();
        stream.read_exact(&mut hello).unwrap();
        return;
    }
    let (answer, listen): (fn(_) -> _, _) = match listen.split_once(' ') {
        Some(("http/2", listen)) => (streams::answer, listen),
        Some((_library, listen)) => (streams::answer_by_library, listen),
        None => (answer, &*listen),
    };
    let listener = TcpListener::bind(listen).unwrap();
    println!("serves: {}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().unwrap();
        std::thread::spawn(move || answer(stream).ok());
    }
}

/// Until the client goes away.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let number = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0, |value| value.trim().parse::<usize>().unwrap())
        };
        if head.contains("Expect: 100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = vec![0; number("Content-Length:")];
        reader.read_exact(&mut body)?;
        let parts = number("X-Parts:").max(1);
        let total = number("X-Answer:");
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + total / parts, b'a');
        stream.write_all(&answer)?;
        for _ in 1..parts {
            std::thread::sleep(Duration::from_millis(50));
            stream.write_all(&vec![b'a'; total / parts])?;
        }
        if head.contains("Connection: close") {
            return Ok(());
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let patience = Duration::from_secs(5);
    let stream = TcpStream::connect_timeout(&address, patience).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream
}

/// Sends a request and reads the answer; the bytes each way.
fn ask(stream: &mut TcpStream, head: &str, body: usize, answer: usize) -> (u64, u64) {
    let expects = head.contains("Expect:");
    let head = format!("{head}Content-Length: {body}\r\nX-Answer: {answer}\r\n\r\n");
    let mut sent = head.len();
    stream.write_all(head.as_bytes()).unwrap();
    if expects {
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).unwrap();
    }
    // Uppercase, to look like a request line as far as it can.
    stream.write_all(&vec![b'B'; body]).unwrap();
    sent += body;
    let wanted = format!("HTTP/1.1 200 OK\r\nContent-Length: {answer}\r\n\r\n").len() + answer;
    let mut got = vec![0; wanted];
    stream.read_exact(&mut got).unwrap();
    (sent as u64, wanted as u64)
}

/// As the agent looks: for what is open first, which finds streams that were cut off.
fn ended_now(kernel: &mut Watch) -> Vec<Turn> {
    kernel.open_turns().unwrap();
    kernel.ended_turns().unwrap()
}

/// Turns until there are `wanted`, or a while has passed.
fn ended(kernel: &mut Watch, wanted: usize) -> Vec<Turn> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut turns = Vec::new();
    while turns.len() < wanted && Instant::now() < deadline {
        turns.extend(ended_now(kernel));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nothing more may come.
    std::thread::sleep(Duration::from_millis(100));
    turns.extend(ended_now(kernel));
    turns
}

/// Segments that TCP sent a second time, in this network namespace (`RetransSegs`, RFC 4022).
fn sent_again() -> u64 {
    let text = fs::read_to_string("/proc/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs.find(|(name, _)| *name == "RetransSegs").unwrap();
    value.parse().unwrap()
}

fn head(turn: &Turn) -> &str {
    std::str::from_utf8(turn.head.get(..usize::from(turn.head_bytes)).unwrap()).unwrap()
}

/// The turns of what is tried now, and not of what was tried before on the same stage.
struct Watch {
    kernel: Kernel,
    earlier: Vec<u64>,
}

impl Watch {
    const fn new(kernel: Kernel) -> Self {
        let earlier = Vec::new();
        Self { kernel, earlier }
    }

    /// What TCP sent again behind the end of a connection is a turn that stays open (docs/records.md).
    fn begin(&mut self) {
        let open = self.kernel.open_turns().unwrap();
        self.earlier.extend(open.iter().map(|turn| turn.cookie));
    }

    fn of_now(&self, mut turns: Vec<Turn>) -> Vec<Turn> {
        turns.retain(|turn| !self.earlier.contains(&turn.cookie));
        turns
    }

    fn open_turns(&mut self) -> Result<Vec<Turn>, KernelError> {
        let open = self.kernel.open_turns()?;
        Ok(self.of_now(open))
    }

    fn ended_turns(&mut self) -> Result<Vec<Turn>, KernelError> {
        let ended = self.kernel.ended_turns()?;
        Ok(self.of_now(ended))
    }

    /// Events of any kind that did not reach the agent.
    fn lost(&self) -> u64 {
        let lost = self.kernel.lost().unwrap();
        lost.iter().map(|(_, count)| count).sum()
    }
}

type Body = fn(&Stage, &mut Watch);

/// What is tried, each on a stage of its own or all on one.
const BODIES: [(&str, Body); 5] = [
    ("kept", on_kept),
    ("opaque", on_opaque),
    ("client", on_client),
    ("reset", on_reset),
    ("streams", streams::on_streams),
];

fn alone(name: &str, body: Body) {
    if !support::is_done_by("all_of_it_on_one_stage", name)
        && let Some((stage, kernel)) = Stage::set(name)
    {
        body(&stage, &mut Watch::new(kernel));
    }
}

#[test]
fn all_of_it_on_one_stage() {
    if !support::is_quick() {
        println!("SKIPPED: one stage: each test has its own, without MERESTONE_QUICK");
    } else if let Some((stage, kernel)) = Stage::set("one") {
        let mut kernel = Watch::new(kernel);
        for (name, body) in BODIES {
            println!("turns: {name}");
            kernel.begin();
            body(&stage, &mut kernel);
        }
    }
}

#[test]
fn each_request_on_a_kept_connection_is_a_turn_with_its_very_bytes() {
    alone("kept", on_kept);
}

fn on_kept(stage: &Stage, kernel: &mut Watch) {
    for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let server = stage.serve(listen, true);
        let mut address = server.address;
        if listen == "[::]:0" {
            // A listener for both families, asked over IPv4.
            address.set_ip([127, 0, 0, 1].into());
        }
        let before = sent_again();
        let mut stream = connect(address);
        let first = ask(
            &mut stream,
            "POST /v1/chat/completions HTTP/1.1\r\nX-Parts: 4\r\n",
            1000,
            8000,
        );
        let second = ask(&mut stream, "GET /health HTTP/1.1\r\n", 0, 10);
        let large = ask(
            &mut stream,
            "POST /v1/embeddings HTTP/1.1\r\nExpect: 100-continue\r\n",
            300_000,
            70_000,
        );
        drop(stream);
        let turns = ended(kernel, 3);
        assert_eq!(turns.len(), 3, "{listen}: {turns:?}");
        let bytes: Vec<_> = turns
            .iter()
            .map(|turn| (turn.request_bytes, turn.response_bytes))
            .collect();
        let again = sent_again() > before;
        for (got, want) in bytes.iter().zip([first, second, large]) {
            // What was sent twice counts twice (docs/records.md); the interim answer is none.
            let is_more = got.0 >= want.0 && got.1 >= want.1;
            assert!(
                *got == want || again && is_more,
                "{listen}: {got:?} {want:?}"
            );
        }
        assert!(head(&turns[0]).starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
        assert!(head(&turns[1]).starts_with("GET /health HTTP/1.1\r\n"));
        assert_eq!(turns[0].state, TurnState::NEXT);
        assert_eq!(turns[2].state, TurnState::CLIENT_CLOSED);
        for (number, turn) in (0..).zip(&turns) {
            assert_eq!(turn.form, Form::HTTP1);
            assert_eq!(turn.number, number);
            assert_eq!(turn.cookie, turns[0].cookie);
            assert_eq!(turn.local_port, address.port());
            assert_eq!(turn.owner, server.child.id());
            assert!(turn.started_ns <= turn.request_ns && turn.request_ns <= turn.answered_ns);
            assert!(turn.answered_ns <= turn.last_ns);
        }
        let streamed = turns[0].last_ns - turns[0].answered_ns;
        assert!(streamed >= 140_000_000, "three pauses of 50 ms: {streamed}");
        assert_eq!(kernel.lost(), 0);
    }
}

#[test]
fn a_stream_that_cannot_be_read_is_one_turn_for_the_connection() {
    alone("opaque", on_opaque);
}

fn on_opaque(stage: &Stage, kernel: &mut Watch) {
    let server = stage.serve("127.0.0.1:0", true);
    for (first, form) in [
        (&b"\x16\x03\x01\x02\x00\x01GET /hidden"[..], Form::TLS),
        (b"PRI * HTTP/2.0\r\n\r\nSM", Form::HTTP2),
        (b"\x00\x01binary", Form::OTHER),
    ] {
        let mut stream = connect(server.address);
        stream.write_all(first).unwrap();
        // The server waits for the end of a head: two more, to be answered.
        let more = b"\r\nX-Answer: 100\r\n\r\nPOST / HTTP/1.1\r\nX-Answer: 50\r\n\r\n";
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(more).unwrap();
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).ok();
        let turns = ended(kernel, 1);
        assert_eq!(turns.len(), 1, "{turns:?}");
        assert_eq!(turns[0].form, form);
        assert_eq!(turns[0].request_bytes, (first.len() + more.len()) as u64);
        assert_eq!(turns[0].response_bytes, 1 + rest.len() as u64);
    }
}

fn nothing_is_open(kernel: &mut Watch, before: u64) {
    let open = kernel.open_turns().unwrap();
    assert!(open.is_empty() || sent_again() > before, "{open:?}");
}

#[test]
fn who_opened_the_connection_and_who_is_not_guarded_has_no_turns() {
    alone("client", on_client);
}

fn on_client(stage: &Stage, kernel: &mut Watch) {
    // Control: the same talk with a guarded server is a turn.
    let before = sent_again();
    let guarded = stage.serve("127.0.0.1:0", true);
    let mut stream = connect(guarded.address);
    ask(
        &mut stream,
        "POST /v1/completions HTTP/1.1\r\nConnection: close\r\n",
        5,
        5,
    );
    assert_eq!(ended(kernel, 1).len(), 1);
    // What TCP sends again behind the end begins one that nobody answers (docs/records.md).
    nothing_is_open(kernel, before);

    // A guarded client that is spoken to first.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = stage.serve(&format!("connect {}", listener.local_addr().unwrap()), true);
    let (mut asked, _) = listener.accept().unwrap();
    asked.write_all(b"hello\n").unwrap();
    let mut heard = [0; 12];
    asked.read_exact(&mut heard).unwrap();
    asked.write_all(b"again\n").unwrap();
    nothing_is_open(kernel, before);
    drop((asked, client));
    assert_eq!(ended(kernel, 1), []);
}

#[test]
fn a_turn_under_way_is_seen_and_a_reset_ends_it() {
    alone("reset", on_reset);
}

fn on_reset(stage: &Stage, kernel: &mut Watch) {
    let server = stage.serve("127.0.0.1:0", true);
    let mut stream = connect(server.address);
    stream
        .write_all(b"POST /v1/completions HTTP/1.1\r\nX-Answer: 400000\r\nX-Parts: 100\r\n\r\n")
        .unwrap();
    let mut some = [0; 100];
    stream.read_exact(&mut some).unwrap();
    let open = kernel.open_turns().unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(open[0].response_bytes > 0 && open[0].state == TurnState::OPEN);
    // Closed with data unread: the kernel resets (RFC 2525 §2.17).
    std::thread::sleep(Duration::from_millis(120));
    drop(stream);
    let turns = ended(kernel, 1);
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!(turns[0].state, TurnState::RESET);
    assert_eq!(kernel.open_turns().unwrap(), []);
}
