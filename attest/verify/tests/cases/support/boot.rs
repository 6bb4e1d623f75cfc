//! Boot event logs and IMA lists, laid out by hand.

use merestone_evidence::{Digest, sha256};

/// A crypto-agile log.
#[derive(Clone, Debug)]
pub(crate) struct EventLogMaker {
    pub(crate) algorithms: Vec<(u16, u16)>,
    pub(crate) events: Vec<u8>,
    pub(crate) extends: Vec<(u8, Digest)>,
}

impl EventLogMaker {
    pub(crate) fn new() -> Self {
        Self {
            algorithms: vec![(0x0004, 20), (0x000b, 32)],
            events: Vec::new(),
            extends: Vec::new(),
        }
    }

    /// A log that extends registers 0 to 7 once.
    pub(crate) fn good() -> Self {
        let mut log = Self::new();
        for register in 0..8 {
            log.event(register, 0x8000_0008, &[register; 40]);
        }
        log
    }

    pub(crate) fn event(&mut self, register: u8, kind: u32, data: &[u8]) {
        let digest = sha256(data);
        self.raw(u32::from(register), kind, digest, data);
        if kind != 3 {
            self.extends.push((register, digest));
        }
    }

    pub(crate) fn raw(&mut self, register: u32, kind: u32, digest: Digest, data: &[u8]) {
        self.events.extend(register.to_le_bytes());
        self.events.extend(kind.to_le_bytes());
        self.events
            .extend(u32::try_from(self.algorithms.len()).unwrap().to_le_bytes());
        for (id, size) in &self.algorithms {
            self.events.extend(id.to_le_bytes());
            if *id == 0x000b {
                self.events.extend(digest.0);
            } else {
                self.events.extend(vec![0xaa; usize::from(*size)]);
            }
        }
        self.events
            .extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        self.events.extend(data);
    }

    pub(crate) fn locality(&mut self, locality: u8) {
        self.raw(
            0,
            3,
            Digest::ZERO,
            &[b"StartupLocality\0".as_slice(), &[locality]].concat(),
        );
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut header = b"Spec ID Event03\0".to_vec();
        header.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        header.extend(u32::try_from(self.algorithms.len()).unwrap().to_le_bytes());
        for (id, size) in &self.algorithms {
            header.extend(id.to_le_bytes());
            header.extend(size.to_le_bytes());
        }
        header.push(0);
        let mut out = Vec::new();
        out.extend(0_u32.to_le_bytes());
        out.extend(3_u32.to_le_bytes());
        out.extend([0; 20]);
        out.extend(u32::try_from(header.len()).unwrap().to_le_bytes());
        out.extend(header);
        out.extend(&self.events);
        out
    }

    /// What a register holds after the events, from `initial`.
    pub(crate) fn value(&self, register: u8, initial: Digest) -> Digest {
        let own = self.extends.iter().filter(|(at, _)| *at == register);
        own.fold(initial, |value, (_, digest)| value.extended(digest))
    }
}

/// An IMA list in template `ima-ng`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImaMaker {
    pub(crate) bytes: Vec<u8>,
    pub(crate) value: Digest,
}

impl ImaMaker {
    pub(crate) fn entry(&mut self, path: &str) {
        self.raw(10, [1; 20], path);
    }

    pub(crate) fn violation(&mut self, path: &str) {
        self.raw(10, [0; 20], path);
    }

    pub(crate) fn raw(&mut self, register: u32, sha1: [u8; 20], path: &str) {
        let mut data = Vec::new();
        let digest = [b"sha256:\0".as_slice(), &sha256(path.as_bytes()).0].concat();
        for field in [digest, [path.as_bytes(), &[0]].concat()] {
            data.extend(u32::try_from(field.len()).unwrap().to_le_bytes());
            data.extend(field);
        }
        self.bytes.extend(register.to_le_bytes());
        self.bytes.extend(sha1);
        self.bytes.extend(6_u32.to_le_bytes());
        self.bytes.extend(b"ima-ng");
        self.bytes
            .extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        self.bytes.extend(&data);
        let extend = if sha1 == [0; 20] {
            Digest([0xff; 32])
        } else {
            sha256(&data)
        };
        self.value = self.value.extended(&extend);
    }
}
