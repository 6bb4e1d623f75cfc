//! The work of a round, and what it came to for each arm.

#![expect(clippy::cast_precision_loss, reason = "times and counts, for people")]

use crate::server::{SMALL, now_ns};
use crate::stage::{Arm, Stage};
use crate::{Amount, say};
use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

/// Clients at once, of answers of tokens and of the flood.
pub(crate) const CLIENTS: usize = 16;
pub(crate) const FLOODERS: usize = 4;
/// Answers of tokens for each client in a round.
pub(crate) const ANSWERS: usize = 2;

/// One value a round, for one arm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// Microseconds of a small request.
    pub(crate) p50_us: Vec<f64>,
    pub(crate) p99_us: Vec<f64>,
    /// Microseconds from a token's writing to its reading.
    pub(crate) token_us: Vec<f64>,
    /// Tokens a second.
    pub(crate) tokens: Vec<f64>,
    /// Small requests a second.
    pub(crate) flood: Vec<f64>,
    /// Megabytes a second.
    pub(crate) large: Vec<f64>,
}

/// Arms of a pair: one unguarded, one guarded.
const PAIR: usize = 2;

/// All rounds; one [`Taken`] an arm. Every other round the guarded arms come
/// first, so that the agent starts every other round.
pub(crate) fn measure(stage: &mut Stage, amount: Amount) -> Result<Vec<Taken>> {
    let arms = stage.arms.clone();
    let mut taken = vec![Taken::default(); arms.len()];
    for round in 0..amount.rounds {
        if round % 5 == 0 {
            say(&format!("round {round} of {}", amount.rounds));
        }
        let mut pairs: Vec<usize> = (0..arms.len() / PAIR).collect();
        if round % 2 == 1 {
            pairs.reverse();
        }
        for pair in pairs {
            stage.guard(pair > 0)?;
            for turn in 0..PAIR {
                // Another arm of the pair begins each second round.
                let index = pair * PAIR + (turn + round / 2) % PAIR;
                work(arms[index], &mut taken[index], amount)
                    .with_context(|| format!("with {}", arms[index].name))?;
            }
        }
    }
    stage.guard(false)?;
    Ok(taken)
}

fn work(arm: Arm, taken: &mut Taken, amount: Amount) -> Result<()> {
    let (p50, p99) = asks(arm, amount.asks)?;
    taken.p50_us.push(p50);
    taken.p99_us.push(p99);
    let (rate, delay) = tokens(arm)?;
    taken.tokens.push(rate);
    taken.token_us.push(delay);
    taken.flood.push(flood(arm, amount.floods)?);
    taken.large.push(large(arm, amount.large_bytes)?);
    Ok(())
}

struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn new(arm: Arm) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", arm.port))?;
        stream.set_nodelay(true)?;
        let reader = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        Ok(Self { stream, reader })
    }

    /// Sends a request and reads the head of its answer: the length, if it
    /// has one.
    fn ask(&mut self, target: &str, more: &str) -> Result<Option<usize>> {
        let body = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "x".repeat(SMALL - 22));
        let length = body.len();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{more}Content-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes())?;
        let mut length = None;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200"), "answered {line:?}");
        loop {
            line.clear();
            ensure!(self.reader.read_line(&mut line)? > 0, "no head");
            match line.trim().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = Some(value.parse()?);
                }
                Some(_) => {}
                None => return Ok(length),
            }
        }
    }

    fn swallow(&mut self, length: usize) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let count = self.reader.fill_buf()?.len().min(left);
            ensure!(count > 0, "cut short");
            self.reader.consume(count);
            left -= count;
        }
        Ok(())
    }

    fn small(&mut self) -> Result<()> {
        let length = self.ask("/small", "")?.context("no length")?;
        self.swallow(length)
    }

    /// Tokens of one answer: how long each was on its way.
    fn tokens(&mut self, delays: &mut Vec<u64>) -> Result<()> {
        self.ask("/tokens", "")?;
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16)?;
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(());
            }
            let now = now_ns();
            for at in String::from_utf8_lossy(&chunk).split("\"at\":").skip(1) {
                delays.push(now.saturating_sub(at.get(..20).context("no time")?.parse()?));
            }
        }
    }
}

fn quantile(sorted: &[u64], of_thousand: usize) -> f64 {
    let at = (sorted.len().saturating_sub(1)) * of_thousand / 1000;
    sorted.get(at).copied().unwrap_or_default() as f64 / 1000.0
}

fn asks(arm: Arm, count: usize) -> Result<(f64, f64)> {
    let mut client = Client::new(arm)?;
    for _ in 0..10 {
        client.small()?;
    }
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let since = now_ns();
        client.small()?;
        times.push(now_ns() - since);
    }
    times.sort_unstable();
    Ok((quantile(&times, 500), quantile(&times, 990)))
}

fn tokens(arm: Arm) -> Result<(f64, f64)> {
    let since = Instant::now();
    let delays: Vec<Vec<u64>> = together(CLIENTS, || {
        let mut client = Client::new(arm)?;
        let mut delays = Vec::new();
        for _ in 0..ANSWERS {
            client.tokens(&mut delays)?;
        }
        Ok(delays)
    })?;
    let took = since.elapsed().as_secs_f64();
    let mut delays = delays.concat();
    delays.sort_unstable();
    Ok((delays.len() as f64 / took, quantile(&delays, 500)))
}

fn flood(arm: Arm, count: usize) -> Result<f64> {
    let since = Instant::now();
    together(FLOODERS, || {
        let mut client = Client::new(arm)?;
        (0..count / FLOODERS).try_for_each(|_| client.small())
    })?;
    Ok(count as f64 / since.elapsed().as_secs_f64())
}

fn large(arm: Arm, bytes: u64) -> Result<f64> {
    let mut client = Client::new(arm)?;
    let since = Instant::now();
    let length = client.ask("/large", &format!("X-Bytes: {bytes}\r\n"))?;
    client.swallow(length.context("no length")?)?;
    Ok(bytes as f64 / 1e6 / since.elapsed().as_secs_f64())
}

fn together<T: Send>(count: usize, work: impl Fn() -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => anyhow::bail!("a client failed"),
        });
        joined.collect()
    })
}
