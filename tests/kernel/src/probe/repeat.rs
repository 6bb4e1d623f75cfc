//! Jobs that do one thing many times: the storm of new processes, a sender
//! that never stops, a flood for the ring buffer, an operator's shell.

use super::{Probe, become_child, enter, say};
use crate::job::Line;
use crate::sys::{self, Fork};
use crate::wire;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a soak takes besides its sending.
const SPARE_SECONDS: u32 = 600;

type Outcomes = BTreeMap<String, u64>;

fn name(outcome: &io::Result<usize>) -> String {
    match outcome {
        Ok(_) => "sent".to_owned(),
        Err(error) => error.raw_os_error().map_or_else(
            || "other".to_owned(),
            |code| {
                if code == libc::EPERM {
                    "eperm".to_owned()
                } else {
                    format!("errno {code}")
                }
            },
        ),
    }
}

fn report(outcomes: Outcomes) {
    say(&Line::Counts {
        outcomes: outcomes.into_iter().collect(),
    });
    say(&Line::Done);
}

/// `count` processes, each of which opens the GPU node and sends in its very
/// next system call (B34).
///
/// Where a cgroup can be guarded each process gets a fresh one, else the
/// first would have guarded it for all the others.
pub fn storm(probe: &Probe) -> io::Result<()> {
    let each = probe.job.count / probe.job.workers.max(1);
    let mut workers = Vec::new();
    for worker in 0..probe.job.workers.max(1) {
        let (reader, writer) = rustix::pipe::pipe()?;
        match sys::fork()? {
            Fork::Child => become_child(|| {
                let outcomes = storm_worker(probe, worker, each)?;
                super::lineage::tell(writer, &serde_json::to_vec(&outcomes)?)
            }),
            Fork::Parent(pid) => workers.push((pid, reader)),
        }
    }
    let mut all = Outcomes::new();
    for (pid, reader) in workers {
        let answer = super::lineage::wait_for(reader)?;
        super::joined(pid)?;
        let outcomes: Outcomes = serde_json::from_slice(&answer)?;
        for (outcome, count) in outcomes {
            *all.entry(outcome).or_default() += count;
        }
    }
    report(all);
    Ok(())
}

fn storm_worker(probe: &Probe, worker: u32, count: u32) -> io::Result<Outcomes> {
    let own = probe.job.cgroup.join(format!("storm-{worker}"));
    let targets = [false, true].map(|v6| wire::sockaddr(probe.job.target(v6)));
    let mut outcomes = Outcomes::new();
    for round in 0..count {
        if !probe.job.tree {
            std::fs::create_dir(&own)?;
        }
        let pid = match sys::fork()? {
            Fork::Child => {
                let cgroup = (!probe.job.tree).then_some(&own);
                let [v4, v6] = &targets;
                let target = if round % 2 == 0 { v4 } else { v6 };
                storm_child(probe, cgroup.map(AsRef::as_ref), target)
            }
            Fork::Parent(pid) => pid,
        };
        let code = sys::wait(pid)?;
        let outcome = match code {
            0 => "sent".to_owned(),
            libc::EPERM => "eperm".to_owned(),
            code => format!("exit {code}"),
        };
        *outcomes.entry(outcome).or_default() += 1;
        if !probe.job.tree {
            std::fs::remove_dir(&own)?;
        }
    }
    Ok(outcomes)
}

/// Everything is made ready first; then two calls, open and sendto.
fn storm_child(probe: &Probe, cgroup: Option<&std::path::Path>, target: &[u8]) -> ! {
    let family = target.first().copied().unwrap_or(0);
    let code = (|| -> io::Result<i32> {
        if let Some(cgroup) = cgroup {
            enter(cgroup)?;
        }
        let socket = sys::socket(i32::from(family), libc::SOCK_DGRAM, 0)?;
        probe.open_now()?;
        Ok(match sys::send(&socket, probe.marker(), 0, target) {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().unwrap_or(250),
        })
    })();
    sys::leave(code.unwrap_or(251))
}

/// Sends on three sockets in turn until its input ends: one connected before
/// the GPU was opened, one unconnected, one IPv6 (B57). The pause between turns
/// is `count` microseconds.
pub fn sender(probe: &Probe) -> io::Result<()> {
    let [v4, v6] = [false, true].map(|v6| wire::sockaddr(probe.job.target(v6)));
    let older = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    sys::connect(&older, &v4)?;
    let plain = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let other = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    probe.open_gpu()?;
    let pause = Duration::from_micros(probe.job.count.into());
    let turns: [(&OwnedFd, &[u8]); 3] = [(&older, &[]), (&plain, &v4), (&other, &v6)];
    let over = AtomicBool::new(false);
    let mut outcomes = Outcomes::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while super::hear() {}
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            for (socket, target) in turns {
                let outcome = sys::send(socket, probe.marker(), 0, target);
                *outcomes.entry(name(&outcome)).or_default() += 1;
            }
            std::thread::sleep(pause);
        }
    });
    report(outcomes);
    Ok(())
}

/// Connects after opening the GPU and writes the marker until its input ends;
/// a full send buffer is waited out, as a server would.
pub fn streamer(probe: &Probe) -> io::Result<()> {
    let socket = super::tcp::stream(false, 0)?;
    probe.open_gpu()?;
    sys::connect(&socket, &wire::sockaddr(probe.job.target(false)))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while super::hear() {}
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            // Whether it arrives is the sniffer's to say.
            drop(sys::send(&socket, probe.marker(), libc::MSG_DONTWAIT, &[]));
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    say(&Line::Done);
    Ok(())
}

/// Sends `count` datagrams, each to another port, as fast as it can (B54).
pub fn flood(probe: &Probe) -> io::Result<()> {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    probe.open_gpu()?;
    let mut outcomes = Outcomes::new();
    for round in 0..probe.job.count {
        let port = (round % 60000) as u16 + 1024;
        let target = std::net::SocketAddr::new(probe.job.denied(false), port);
        let outcome = sys::send(&socket, probe.marker(), 0, &wire::sockaddr(target));
        *outcomes.entry(name(&outcome)).or_default() += 1;
    }
    report(outcomes);
    super::hear();
    Ok(())
}

/// An operator's shell: a child of it opens the GPU, it does not, and it must
/// go on reaching every host, as must its other children.
pub fn shell(probe: &Probe) -> io::Result<()> {
    super::fork(|| {
        probe.open_gpu()?;
        let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
        let target = wire::sockaddr(probe.job.target(false));
        // Held, without the marker: the sniffer counts the shell's alone.
        let outcome = sys::send(&socket, b"from the GPU process", 0, &target);
        report(Outcomes::from([(name(&outcome), 1)]));
        Ok(())
    })?;
    let send = || {
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
        let target = wire::sockaddr(probe.job.target(true));
        sys::send(&socket, probe.marker(), 0, &target)
    };
    probe.attempt("sendto", send);
    super::fork(|| {
        probe.attempt("sendto", send);
        Ok(())
    })?;
    probe.finish()
}

/// Sends as fast as it can until it hears a line: every way that is refused by
/// another hook, and now and then something inside. Says exactly what the
/// kernel answered, by protocol, and lives on until its input ends, so that
/// its group can be looked at.
pub fn soaker(probe: &Probe) -> io::Result<()> {
    // It outlives the other jobs: `count` is for how many seconds.
    sys::alarm(probe.job.count.saturating_add(SPARE_SECONDS));
    let [v4, v6] = [false, true].map(|v6| wire::sockaddr(probe.job.target(v6)));
    let inside = [false, true].map(|v6| {
        let address = crate::lab::soaked(v6);
        wire::sockaddr(std::net::SocketAddr::new(address, crate::job::PORT))
    });
    let older = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    sys::connect(&older, &v4)?;
    let sockets = [
        sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?,
        sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?,
    ];
    probe.open_gpu()?;
    let over = AtomicBool::new(false);
    let mut outcomes = Outcomes::new();
    let mut count = |what: &str, outcome: io::Result<usize>| {
        let said = format!("{what} {}", name(&outcome));
        *outcomes.entry(said).or_default() += 1;
    };
    std::thread::scope(|scope| -> io::Result<()> {
        scope.spawn(|| {
            super::hear();
            over.store(true, Ordering::Relaxed);
        });
        let mut round = 0_u32;
        while !over.load(Ordering::Relaxed) {
            round = round.wrapping_add(1);
            let [plain, other] = &sockets;
            count("udp", sys::send(&older, probe.marker(), 0, &[]));
            count("udp", sys::send(plain, probe.marker(), 0, &v4));
            count("udp", sys::send(other, probe.marker(), 0, &v6));
            if round.is_multiple_of(16) {
                for (socket, target) in sockets.iter().zip(&inside) {
                    count("inside", sys::send(socket, b"inside", 0, target));
                }
            }
            if round.is_multiple_of(8) {
                let stream = super::tcp::stream(round.is_multiple_of(16), 0)?;
                let target = if round.is_multiple_of(16) { &v6 } else { &v4 };
                count("tcp", sys::connect(&stream, target).map(|()| 0));
            }
        }
        Ok(())
    })?;
    report(outcomes);
    while super::hear() {}
    Ok(())
}
