//! Counters and a geotag of a TPM that only exists here.

use super::key::Key;
use super::{MAGIC, Maker, Tpm, sized};
use merestone_evidence::{
    Digest, NvCertified, NvCounter, NvCounters, NvHeld, SealedSession, SessionStatement,
    session_end, sha256,
};

pub(crate) const EPOCHS: u32 = 0x0180_4D45;
pub(crate) const SESSIONS: u32 = 0x0180_4D53;
pub(crate) const CERTIFY: u16 = 0x8014;
/// authwrite, counter, ownerread, authread, `no_da`, written.
pub(crate) const PLAIN: u32 = 1 << 2 | 1 << 4 | 1 << 17 | 1 << 18 | 1 << 25 | 1 << 29;
pub(crate) const ORDERLY: u32 = 1 << 26;

pub(crate) fn public(index: u32, attributes: u32, size: u16) -> Vec<u8> {
    let mut out = index.to_be_bytes().to_vec();
    out.extend([0x00, 0x0b]);
    out.extend(attributes.to_be_bytes());
    out.extend([0, 0]);
    out.extend(size.to_be_bytes());
    out
}

pub(crate) fn name(public: &[u8]) -> Vec<u8> {
    [[0, 0x0b].as_slice(), &sha256(public).0].concat()
}

/// Everything that goes into a certification, so that a test can change one thing.
#[derive(Clone, Debug)]
pub(crate) struct NvAttest {
    pub(crate) magic: u32,
    pub(crate) kind: u16,
    pub(crate) signer: Vec<u8>,
    pub(crate) extra: Vec<u8>,
    pub(crate) clock: u64,
    pub(crate) resets: u32,
    pub(crate) name: Vec<u8>,
    pub(crate) offset: u16,
    pub(crate) contents: Vec<u8>,
    pub(crate) after: Vec<u8>,
}

impl NvAttest {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_be_bytes().to_vec();
        out.extend(self.kind.to_be_bytes());
        sized(&mut out, &self.signer);
        sized(&mut out, &self.extra);
        out.extend(self.clock.to_be_bytes());
        out.extend(self.resets.to_be_bytes());
        out.extend([0, 0, 0, 0, 1]);
        out.extend(7_u64.to_be_bytes());
        sized(&mut out, &self.name);
        out.extend(self.offset.to_be_bytes());
        sized(&mut out, &self.contents);
        out.extend(&self.after);
        out
    }

    pub(crate) fn signed(&self, key: &Key) -> NvCertified {
        let attest = self.bytes();
        let signature = key.sign(&attest);
        NvCertified { attest, signature }
    }
}

/// Where the counters stand.
#[derive(Clone, Debug)]
pub(crate) struct Nv {
    pub(crate) epochs: u64,
    pub(crate) sessions: u64,
    pub(crate) attributes: [u32; 2],
}

impl Nv {
    pub(crate) const fn new() -> Self {
        Self {
            epochs: 40,
            sessions: 7,
            attributes: [PLAIN | ORDERLY, PLAIN],
        }
    }

    pub(crate) fn publics(&self) -> [Vec<u8>; 2] {
        let [epochs, sessions] = self.attributes;
        [public(EPOCHS, epochs, 8), public(SESSIONS, sessions, 8)]
    }

    pub(crate) fn declared(&self) -> NvCounters {
        let [epochs, sessions] = self.publics();
        let counter = |index, public, value| NvCounter {
            held: NvHeld { index, public },
            value,
        };
        NvCounters {
            epochs: Some(counter(EPOCHS, epochs, self.epochs)),
            sessions: Some(counter(SESSIONS, sessions, self.sessions)),
            absent: None,
        }
    }

    /// Makes every session and epoch of `maker` say that it counts from here.
    pub(crate) fn declare(&self, maker: &mut Maker) {
        let (declared, first) = (self.declared(), self.epochs);
        maker.session = Box::new(move |statement: &mut SessionStatement| {
            statement.counters = Some(declared.clone());
        });
        maker.epoch = Box::new(move |sequence, epoch| {
            epoch.counter = Some(first + sequence + 1);
        });
    }

    /// Counts and certifies as an honest agent does; `is_ended` the end too.
    pub(crate) fn certify(
        &mut self,
        key: &Key,
        tpm: &Tpm,
        session: &mut SealedSession,
        is_ended: bool,
    ) {
        let [epochs, sessions] = self.publics();
        self.sessions += 1;
        let start = sha256(&session.statement);
        session.nv_start = Some(vec![
            attest(key, tpm, &sessions, start, self.sessions).signed(key),
            attest(key, tpm, &epochs, start, self.epochs).signed(key),
        ]);
        for epoch in &mut session.epochs {
            self.epochs += 1;
            let digest = sha256(&epoch.statement);
            epoch.nv = Some(vec![
                attest(key, tpm, &epochs, digest, self.epochs).signed(key),
            ]);
        }
        if is_ended {
            self.sessions += 1;
            session.nv_end = Some(vec![self.end(key, tpm, session)]);
        }
    }

    /// The end of a session, at the value that the counter has.
    pub(crate) fn end(&self, key: &Key, tpm: &Tpm, session: &SealedSession) -> NvCertified {
        let [_, sessions] = self.publics();
        let last = session.epochs.last();
        let last = last.map_or(&session.statement, |epoch| &epoch.statement);
        let end = session_end(&sha256(last));
        attest(key, tpm, &sessions, end, self.sessions).signed(key)
    }
}

pub(crate) fn attest(key: &Key, tpm: &Tpm, public: &[u8], extra: Digest, value: u64) -> NvAttest {
    NvAttest {
        magic: MAGIC,
        kind: CERTIFY,
        signer: key.qualified_name(0x4000_000b),
        extra: extra.0.to_vec(),
        clock: tpm.clock,
        resets: tpm.resets,
        name: name(public),
        offset: 0,
        contents: value.to_be_bytes().to_vec(),
        after: Vec::new(),
    }
}
