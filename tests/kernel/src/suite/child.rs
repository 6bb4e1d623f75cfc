//! A probe as the suite sees it: a process inside, orders in, lines out.

use super::Suite;
use crate::job::{Job, Line};
use crate::lab::Phase;
use crate::sniffer;
use anyhow::{Context as _, Result, anyhow, bail};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

/// How long a probe may be silent: a storm says nothing until it is over, and on
/// an emulated processor that others want too it takes more than a minute.
const SILENCE: Duration = Duration::from_mins(5);

/// A running probe; killed when dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    lines: Receiver<Line>,
    /// Its orders.
    pub(super) job: Job,
}

impl Suite {
    /// Orders for a probe of that name.
    pub(super) fn job(&self, vector: &str, phase: Phase, number: u8) -> Result<Job> {
        let (denied4, denied6) = crate::lab::denied(phase, number);
        let round = self.round;
        let name = format!("{vector}-{phase:?}-{number}-{round}").to_lowercase();
        let tree = phase == Phase::Tree;
        let own = self.corner.make(&format!("{name}-own"))?;
        Ok(Job {
            vector: vector.to_owned(),
            gpu: (phase != Phase::Control).then(|| self.node.clone()),
            cgroup: if tree { self.corner.root.clone() } else { own },
            elsewhere: self.corner.make(&format!("{name}-elsewhere"))?,
            alternate: self.lab.alternate.path(),
            beyond: self.lab.outside.path(),
            denied4,
            denied6,
            marker: sniffer::marker()?,
            count: 1,
            workers: 0,
            tree,
        })
    }

    /// Starts a probe inside.
    pub(super) fn start(&self, job: Job) -> Result<Running> {
        let orders = serde_json::to_string(&job)?;
        let mut child = self.lab.inside.within(|| {
            Command::new(&self.probe)
                .arg(&orders)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start {}", self.probe.display()))
        })?;
        let output = child.stdout.take().context("the probe has no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(output).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&text).unwrap_or_else(|_error| Line::Broken {
                    why: format!("said {text:?}"),
                });
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Running { child, lines, job })
    }
}

impl Running {
    /// Its next line; an error if it broke down or fell silent.
    pub(super) fn line(&self) -> Result<Line> {
        match self.lines.recv_timeout(SILENCE) {
            Ok(Line::Broken { why }) => bail!("the probe broke down: {why}"),
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("the probe is silent"),
            Err(RecvTimeoutError::Disconnected) => bail!("the probe ended without a word"),
        }
    }

    /// Waits for the line before the GPU is opened.
    pub(super) fn ready(&self) -> Result<()> {
        match self.line()? {
            Line::Ready => Ok(()),
            line => Err(anyhow!("the probe is not ready, it says {line:?}")),
        }
    }

    /// Has it go on.
    pub(super) fn go(&mut self) -> Result<()> {
        let input = self
            .child
            .stdin
            .as_mut()
            .context("the probe has no input")?;
        Ok(input.write_all(b"go\n")?)
    }

    /// Ends its input; what it counted.
    pub(super) fn counts(&mut self) -> Result<Vec<(String, u64)>> {
        drop(self.child.stdin.take());
        self.counted()
    }

    /// An error if it has ended, with its last words.
    pub(super) fn still_there(&self) -> Result<()> {
        match self.lines.try_recv() {
            Ok(Line::Broken { why }) => bail!("the probe broke down: {why}"),
            Ok(line) => bail!("the probe says {line:?} too early"),
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => bail!("the probe ended without a word"),
        }
    }

    /// Has it stop, and live on; what it counted.
    pub(super) fn stop(&mut self) -> Result<Vec<(String, u64)>> {
        self.go()?;
        self.counted()
    }

    fn counted(&self) -> Result<Vec<(String, u64)>> {
        let mut counted = Vec::new();
        loop {
            match self.line()? {
                Line::Counts { outcomes } => counted = outcomes,
                Line::Done => return Ok(counted),
                _ => {}
            }
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends its input and waits for its end.
    pub(super) fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }

    /// Both its denied addresses, and the groups that stand for them.
    pub(super) fn addresses(&self) -> [IpAddr; 4] {
        let (v4, v6) = (self.job.denied4.into(), self.job.denied6.into());
        [v4, v6, crate::lab::group(v4), crate::lab::group(v6)]
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, or must now.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
