//! A server with the shape of inference: so many slots, tokens at their time.

use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Answers computed at once.
pub(crate) const SLOTS: usize = 8;
/// Tokens of an answer, and the time of each.
pub(crate) const TOKENS: u32 = 40;
pub(crate) const TOKEN: Duration = Duration::from_micros(2500);
/// Bytes of a small question and of its answer.
pub(crate) const SMALL: usize = 1024;

/// Nanoseconds of a clock that all processes share.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

#[derive(Default)]
struct Slots {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// Says its port on stdout and serves until stdin ends.
pub(crate) fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    let slots = Arc::new(Slots::default());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let slots = Arc::clone(&slots);
            std::thread::spawn(move || answer(&stream, &slots).ok());
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn answer(mut stream: &TcpStream, slots: &Slots) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut small = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {SMALL}\r\n\r\n"
    );
    small.push_str(&"x".repeat(SMALL));
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let field = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let mut values = lines.filter(|(one, _)| one.eq_ignore_ascii_case(name));
            values.next().map_or("0", |(_, value)| value).to_owned()
        };
        let mut body = vec![0; field("content-length").parse()?];
        reader.read_exact(&mut body)?;
        match head.split(' ').nth(1).context("no target")? {
            "/tokens" => tokens(stream, slots)?,
            "/large" => large(stream, field("x-bytes").parse()?)?,
            _ => stream.write_all(small.as_bytes())?,
        }
    }
}

/// Each token is due at its time, as on a device that computes meanwhile.
fn tokens(mut stream: &TcpStream, slots: &Slots) -> Result<()> {
    let free = |taken: &mut usize| *taken >= SLOTS;
    let taken = slots.taken.lock().ok().context("poisoned")?;
    let mut taken = slots
        .freed
        .wait_while(taken, free)
        .ok()
        .context("poisoned")?;
    *taken += 1;
    drop(taken);
    let start = Instant::now();
    let mut outcome = stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for token in 1..=TOKENS {
        std::thread::sleep((start + TOKEN * token).saturating_duration_since(Instant::now()));
        let event = format!("data: {{\"model\":\"m\",\"at\":{:020}}}\n\n", now_ns());
        outcome = outcome.and_then(|()| write!(stream, "{:x}\r\n{event}\r\n", event.len()));
    }
    outcome = outcome.and_then(|()| stream.write_all(b"0\r\n\r\n"));
    if let Ok(mut taken) = slots.taken.lock() {
        *taken -= 1;
    }
    slots.freed.notify_one();
    Ok(outcome?)
}

fn large(mut stream: &TcpStream, bytes: u64) -> Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left)?.min(zeros.len());
        stream.write_all(&zeros[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}
