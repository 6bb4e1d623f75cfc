//! The oracle: a packet socket beyond the boundary that sees every frame.
//!
//! It knows nothing of hooks and rules. It counts markers and packets to the
//! addresses it was told to watch, and it says when it may have missed one.

use crate::lab::Network;
use crate::sys;
use crate::wire::{self, Weight};
use anyhow::{Context as _, Result, bail};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What every marker begins with.
const PREFIX: &[u8] = b"mrst";
/// How long a marker is.
const MARKER_LENGTH: usize = 28;
/// `ETH_P_ALL`, `include/uapi/linux/if_ether.h`.
const EVERYTHING: u16 = 3;
/// `PACKET_IGNORE_OUTGOING`, `include/uapi/linux/if_packet.h`.
const IGNORE_OUTGOING: i32 = 23;
/// A frame of its own that was not seen for so long is sent again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Room for frames the sniffer has not read yet.
const ROOM_BYTES: i32 = 64 << 20;

/// What was seen of one case.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Frames with the marker in them.
    pub markers: u64,
    /// TCP SYNs to the address.
    pub syns: u64,
    /// Packets with data, or not TCP, to the address.
    pub data: u64,
    /// TCP segments without data to the address.
    pub bare: u64,
}

impl Tally {
    /// What came since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            markers: self.markers - earlier.markers,
            syns: self.syns - earlier.syns,
            data: self.data - earlier.data,
            bare: self.bare - earlier.bare,
        }
    }

    /// Packets to the address, whatever they are.
    pub fn packets(self) -> u64 {
        self.syns + self.data + self.bare
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            markers,
            syns,
            data,
            bare,
        } = self;
        write!(
            f,
            "{markers} markers, {syns} SYNs, {data} data, {bare} bare"
        )
    }
}

#[derive(Debug, Default)]
struct Sight {
    markers: HashMap<Vec<u8>, u64>,
    addresses: HashMap<IpAddr, Tally>,
    frames: u64,
}

/// The packet socket and its thread.
#[derive(Debug)]
pub struct Sniffer {
    socket: Arc<OwnedFd>,
    sight: Arc<Mutex<Sight>>,
    asked: AtomicU64,
}

/// A new marker no other case has.
pub fn marker() -> Result<String> {
    let mut random = [0; 12];
    let mut source = std::fs::File::open("/dev/urandom")?;
    std::io::Read::read_exact(&mut source, &mut random)?;
    Ok(format!(
        "mrst{}",
        random.map(|byte| format!("{byte:02x}")).concat()
    ))
}

impl Sniffer {
    /// Starts to look at every interface of `network`.
    pub fn new(network: &Network) -> Result<Self> {
        let socket = network.within(|| {
            let protocol = i32::from(EVERYTHING.to_be());
            let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol)
                .context("cannot open the sniffer's packet socket")?;
            sys::set_number(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM_BYTES)?;
            // What the outside host itself sends (echoes of a marker) is no leak.
            sys::set_number(&socket, libc::SOL_PACKET, IGNORE_OUTGOING, 1)?;
            Ok(socket)
        })?;
        let socket = Arc::new(socket);
        let sight = Arc::new(Mutex::new(Sight::default()));
        let (reader, seen) = (Arc::clone(&socket), Arc::clone(&sight));
        std::thread::spawn(move || {
            let mut frame = vec![0; 1 << 16];
            while let Ok(size) = rustix::io::read(&*reader, &mut frame) {
                look(&mut lock(&seen), frame.get(..size).unwrap_or_default());
            }
        });
        Ok(Self {
            socket,
            sight,
            asked: AtomicU64::new(0),
        })
    }

    /// What was seen so far of a marker and the addresses that go with it.
    pub fn tally(&self, marker: &str, addresses: &[IpAddr]) -> Tally {
        let sight = lock(&self.sight);
        let mut sum = Tally {
            markers: sight.markers.get(marker.as_bytes()).copied().unwrap_or(0),
            ..Tally::default()
        };
        for address in addresses {
            let one = sight.addresses.get(address).copied().unwrap_or_default();
            sum.syns += one.syns;
            sum.data += one.data;
            sum.bare += one.bare;
        }
        sum
    }

    /// Sends a frame of its own through the same wire and waits for it: all
    /// that was sent before has then been looked at. The wire may drop one.
    pub fn catch_up(&self, inside: &Network) -> Result<()> {
        let word = marker()?;
        let ask = || {
            self.asked.fetch_add(1, Ordering::Relaxed);
            inside.within(|| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                let target = SocketAddr::new(crate::job::ALLOWED4.into(), 9);
                Ok(socket.send_to(word.as_bytes(), target)?)
            })
        };
        ask()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut again = Instant::now() + PATIENCE;
        while self.tally(&word, &[]).markers == 0 {
            let now = Instant::now();
            if now > deadline {
                bail!("the sniffer does not see the suite's own packet");
            }
            if now > again {
                ask()?;
                again = now + PATIENCE;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let dropped = self.dropped()?;
        if dropped > 0 {
            bail!("the sniffer dropped {dropped} frames; nothing it did not see counts");
        }
        // Packets of another processor's queue may still be on their way.
        std::thread::sleep(Duration::from_millis(3));
        Ok(())
    }

    /// How many frames of its own it sent, whether they arrived or not.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// `PACKET_STATISTICS`: frames the kernel had no room for.
    fn dropped(&self) -> Result<u32> {
        // struct tpacket_stats, include/uapi/linux/if_packet.h; name 6.
        let mut statistics = [0; 8];
        sys::get_option(self.socket.as_fd(), libc::SOL_PACKET, 6, &mut statistics)?;
        let [.., a, b, c, d] = statistics;
        Ok(u32::from_ne_bytes([a, b, c, d]))
    }
}

fn lock(sight: &Mutex<Sight>) -> MutexGuard<'_, Sight> {
    sight.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(sight: &mut Sight, frame: &[u8]) {
    sight.frames += 1;
    if let Some(packet) = wire::parse(frame) {
        let tally = sight.addresses.entry(packet.target).or_default();
        match packet.weight {
            Weight::Syn => tally.syns += 1,
            Weight::Data => tally.data += 1,
            Weight::Bare => tally.bare += 1,
        }
    }
    if let Some(group) = wire::reported_group(frame) {
        sight.addresses.entry(group).or_default().data += 1;
    }
    let mut rest = frame;
    while let Some(at) = rest.windows(PREFIX.len()).position(|part| part == PREFIX) {
        let Some(marker) = rest.get(at..at + MARKER_LENGTH) else {
            return;
        };
        *sight.markers.entry(marker.to_vec()).or_default() += 1;
        rest = rest.get(at + MARKER_LENGTH..).unwrap_or_default();
    }
}
