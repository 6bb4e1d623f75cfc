//! A good bundle, made without a TPM: a software key signs structures laid out by hand.
//!
//! It shares no code with the verifier's parsers, so a mistake has to be made twice to pass.

mod boot;
mod keep;
pub(crate) mod key;
pub(crate) mod nv;

pub(crate) use boot::{EventLogMaker, ImaMaker};
pub(crate) use key::{ATTRIBUTES, Key};

use merestone_evidence::{
    Agent, Blob, Body, Boundary, Bundle, BundleKind, Cause, ClockQuality, ConsistencyProof,
    Counter, Digest, Entry, EntryKind, EpochKind, EpochStatement, FlowVerdict, Frontier, GpuEnergy,
    GpuInventory, InclusionProof, Kernel, Loss, Mode, PcrValue, Program, Quote, SealedEpoch,
    SealedSession, SessionId, SessionKind, SessionStatement, Site, Span, Tier, TpmInfo,
    consistency_path, encode, inclusion_path, leaf_hash, sha256,
};
use merestone_verify::{Purpose, Trust, Verdict, verify};
use std::collections::BTreeMap;

pub(crate) const NODE: &str = "gpu-01";
pub(crate) const START: u64 = 1_760_000_000_000;
pub(crate) const NOW: u64 = START + 600_000;
pub(crate) const MAGIC: u32 = 0xff54_4347;
pub(crate) const QUOTE: u16 = 0x8018;

/// Everything that goes into a quote, so that a test can change one thing before it is signed.
#[derive(Clone, Debug)]
pub(crate) struct Attest {
    pub(crate) magic: u32,
    pub(crate) kind: u16,
    pub(crate) signer: Vec<u8>,
    pub(crate) extra: Vec<u8>,
    pub(crate) clock: u64,
    pub(crate) resets: u32,
    pub(crate) restarts: u32,
    pub(crate) safe: u8,
    pub(crate) bank: u16,
    pub(crate) selected: Vec<u8>,
    pub(crate) digest: Vec<u8>,
    pub(crate) after: Vec<u8>,
}

impl Attest {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.magic.to_be_bytes());
        out.extend(self.kind.to_be_bytes());
        sized(&mut out, &self.signer);
        sized(&mut out, &self.extra);
        out.extend(self.clock.to_be_bytes());
        out.extend(self.resets.to_be_bytes());
        out.extend(self.restarts.to_be_bytes());
        out.push(self.safe);
        out.extend(0x2024_0001_0002_0003_u64.to_be_bytes());
        out.extend(1_u32.to_be_bytes());
        out.extend(self.bank.to_be_bytes());
        out.push(3);
        let mut bits = [0_u8; 3];
        for register in &self.selected {
            bits[usize::from(register / 8)] |= 1 << (register % 8);
        }
        out.extend(bits);
        sized(&mut out, &self.digest);
        out.extend(&self.after);
        out
    }
}

pub(crate) fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

/// The registers and clock of a TPM that only exists here.
#[derive(Clone, Debug)]
pub(crate) struct Tpm {
    pub(crate) pcrs: BTreeMap<u8, Digest>,
    pub(crate) clock: u64,
    pub(crate) resets: u32,
    pub(crate) restarts: u32,
}

impl Tpm {
    pub(crate) fn extend(&mut self, register: u8, digest: Digest) {
        let value = self.pcrs.entry(register).or_default();
        *value = value.extended(&digest);
    }
}

type TpmHook = Box<dyn Fn(u64, &mut Tpm)>;
pub(crate) type EpochHook = Box<dyn Fn(u64, &mut EpochStatement)>;
type SessionHook = Box<dyn Fn(&mut SessionStatement)>;
pub(crate) type SpellHook = Box<dyn Fn(Vec<u8>) -> Vec<u8>>;
pub(crate) type LeafHook = Box<dyn Fn(u64, u64) -> Vec<u8>>;
type AttestHook = Box<dyn Fn(usize, &mut Attest)>;

/// Makes a good bundle; each field is a way to make a bad one.
pub(crate) struct Maker {
    pub(crate) key: Key,
    pub(crate) tpm: Tpm,
    pub(crate) epochs: u64,
    pub(crate) leaves_each: u64,
    /// Called with an epoch's start and the number of the leaf in it.
    pub(crate) leaf: LeafHook,
    /// One more leaf in the first epoch.
    pub(crate) extra_leaf: Option<Vec<u8>>,
    /// More entries, each in the epoch of its number, before the flows.
    pub(crate) told: Vec<(u64, Entry)>,
    pub(crate) span_from: u64,
    pub(crate) boot_log: Option<Vec<u8>>,
    pub(crate) ima_log: Option<Vec<u8>>,
    pub(crate) session: SessionHook,
    pub(crate) epoch: EpochHook,
    /// Called with the bytes of each statement, which are then sealed as it gives them back.
    pub(crate) spell: SpellHook,
    /// Called with the number of the quote in its session: 0 is the session's own.
    pub(crate) attest: AttestHook,
    /// Called with the TPM before each epoch is extended.
    pub(crate) between: TpmHook,
}

impl Maker {
    pub(crate) fn new() -> Self {
        Self::with(Key::p256())
    }

    pub(crate) fn with(key: Key) -> Self {
        let pcrs = (0..16)
            .map(|register| (register, sha256(&[register])))
            .collect();
        let tpm = Tpm {
            pcrs,
            clock: 5_000,
            resets: 7,
            restarts: 0,
        };
        Self {
            key,
            tpm,
            epochs: 4,
            leaves_each: 3,
            leaf: Box::new(|opened, number| encode(&flow(opened + number, number))),
            extra_leaf: None,
            told: Vec::new(),
            span_from: 0,
            boot_log: None,
            ima_log: None,
            session: Box::new(|_| {}),
            epoch: Box::new(|_, _| {}),
            spell: Box::new(|bytes| bytes),
            attest: Box::new(|_, _| {}),
            between: Box::new(|_, _| {}),
        }
    }

    pub(crate) fn trust(&self) -> String {
        trust_for(&self.key)
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let mut log = Log::default();
        let mut tpm = self.tpm.clone();
        let session = self.seal_session(&mut tpm, &mut log, None, START, 1);
        self.pack(vec![session], &log, START, START + 10_000 * self.epochs)
    }

    /// One session, sealed; the TPM and the log go on from where they are.
    pub(crate) fn seal_session(
        &self,
        tpm: &mut Tpm,
        log: &mut Log,
        previous: Option<Digest>,
        start: u64,
        id: u8,
    ) -> SealedSession {
        let mut statement = session_statement(start, id, previous, log);
        (self.session)(&mut statement);
        let chain = statement.chain_pcr;
        let selected = statement.pcrs.clone();
        let bytes = (self.spell)(encode(&statement));
        let mut before = sha256(&bytes);
        let quote = self.quote(tpm, &selected, before, 0);
        let mut epochs = Vec::new();
        for sequence in 0..self.epochs {
            let opened = start + 10_000 * sequence;
            let size_before = log.size();
            if let Some(leaf) = self.extra_leaf.clone().filter(|_| sequence == 0) {
                log.append(leaf);
            }
            let told = self.told.iter().filter(|(epoch, _)| *epoch == sequence);
            for (_, entry) in told {
                log.append(encode(entry));
            }
            for leaf in 0..self.leaves_each {
                log.append((self.leaf)(opened, leaf));
            }
            let mut epoch = epoch_statement(&statement, sequence, before, opened);
            epoch.size_before = size_before;
            epoch.size_after = log.size();
            epoch.root = log.frontier.root();
            (self.epoch)(sequence, &mut epoch);
            let bytes = (self.spell)(encode(&epoch));
            before = sha256(&bytes);
            (self.between)(sequence, tpm);
            tpm.clock += 10_000;
            tpm.extend(chain, before);
            let number = usize::try_from(sequence).unwrap() + 1;
            let quote = self.quote(tpm, &selected, before, number);
            log.sealed.push((size_before, log.size()));
            epochs.push(SealedEpoch {
                statement: bytes,
                quote,
                nv: None,
            });
        }
        let (boot_log, ima_log) = (self.boot_log.clone(), self.ima_log.clone());
        SealedSession {
            statement: bytes,
            quote,
            boot_log,
            ima_log,
            epochs,
            gpu_reports: None,
            nv_start: None,
            nv_end: None,
        }
    }

    fn quote(&self, tpm: &Tpm, selected: &[u8], extra: Digest, number: usize) -> Quote {
        let pcrs: Vec<PcrValue> = selected
            .iter()
            .map(|index| PcrValue {
                index: *index,
                value: tpm.pcrs.get(index).copied().unwrap_or_default(),
            })
            .collect();
        let values: Vec<u8> = pcrs.iter().flat_map(|pcr| pcr.value.0).collect();
        let mut attest = Attest {
            magic: MAGIC,
            kind: QUOTE,
            signer: self.key.qualified_name(0x4000_000b),
            extra: extra.0.to_vec(),
            clock: tpm.clock,
            resets: tpm.resets,
            restarts: tpm.restarts,
            safe: 1,
            bank: 0x000b,
            selected: selected.to_vec(),
            digest: sha256(&values).0.to_vec(),
            after: Vec::new(),
        };
        (self.attest)(number, &mut attest);
        let attest = attest.bytes();
        let signature = self.key.sign(&attest);
        Quote {
            attest,
            signature,
            pcrs,
        }
    }

    pub(crate) fn pack(
        &self,
        sessions: Vec<SealedSession>,
        log: &Log,
        from: u64,
        to: u64,
    ) -> Bundle {
        let start = usize::try_from(self.span_from).unwrap();
        let mut frontier = Frontier::new();
        log.hashes[..start]
            .iter()
            .for_each(|hash| frontier.append(*hash));
        let consistency = log
            .sealed
            .iter()
            .filter(|(from, to)| *from > 0 && to > from && *from < self.span_from)
            .map(|&(from_size, to_size)| ConsistencyProof {
                from_size,
                to_size,
                path: consistency_path(&log.hashes, from_size, to_size).unwrap(),
            })
            .collect();
        Bundle {
            kind: BundleKind,
            created_ms: to,
            from_ms: from,
            to_ms: to,
            node: NODE.into(),
            ak_public: self.key.public(),
            sessions,
            span: Some(Span {
                start: self.span_from,
                frontier: frontier.peaks().to_vec(),
                leaves: log.leaves[start..]
                    .iter()
                    .cloned()
                    .map(Blob::from)
                    .collect(),
            }),
            consistency,
            proofs: Vec::new(),
            enrolments: None,
            location: None,
            checkpoint: None,
            receipts: None,
        }
    }

    /// A receipt for one leaf of the good bundle, proven in the tree of the last epoch.
    pub(crate) fn receipt(&self, index: u64) -> Bundle {
        let mut log = Log::default();
        let mut tpm = self.tpm.clone();
        let session = self.seal_session(&mut tpm, &mut log, None, START, 1);
        let mut bundle = self.pack(vec![session], &log, START, START + 10_000 * self.epochs);
        bundle.span = None;
        bundle.consistency = Vec::new();
        bundle.proofs = vec![InclusionProof {
            index,
            size: log.size(),
            leaf: log.leaves[usize::try_from(index).unwrap()].clone(),
            path: inclusion_path(&log.hashes, index, log.size()).unwrap(),
        }];
        bundle
    }
}

/// The growing log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) leaves: Vec<Vec<u8>>,
    pub(crate) hashes: Vec<Digest>,
    pub(crate) frontier: Frontier,
    pub(crate) sealed: Vec<(u64, u64)>,
}

impl Log {
    pub(crate) fn append(&mut self, leaf: Vec<u8>) {
        self.frontier.append(leaf_hash(&leaf));
        self.hashes.push(leaf_hash(&leaf));
        self.leaves.push(leaf);
    }

    pub(crate) fn size(&self) -> u64 {
        self.frontier.size()
    }
}

pub(crate) fn trust_for(key: &Key) -> String {
    let name = hex::encode(key.name());
    format!("version = 1\n\n[[node]]\nid = \"{NODE}\"\nak_name = \"{name}\"\n")
}

pub(crate) fn flow(time_ms: u64, number: u64) -> Entry {
    Entry {
        kind: EntryKind,
        time_ms,
        boot_ns: time_ms * 1_000_000,
        body: Body::Flow {
            verdict: FlowVerdict::Deny,
            hook: "connect4".into(),
            reason: "no_rule".into(),
            group: 42,
            process: None,
            address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 7],
            port: 443,
            protocol: 6,
            rule: 0,
            count: number + 1,
            family: None,
            name: None,
        },
    }
}

pub(crate) fn boundary() -> Boundary {
    Boundary {
        name: "eu".into(),
        sha256: sha256(b"boundary"),
        mode: Mode::Enforce,
    }
}

fn session_statement(start: u64, id: u8, previous: Option<Digest>, log: &Log) -> SessionStatement {
    SessionStatement {
        kind: SessionKind,
        node: NODE.into(),
        session: SessionId([id; 16]),
        previous,
        started_ms: start,
        session_key: [9; 32],
        agent: Agent {
            version: "0.1.0".into(),
            sha256: sha256(b"agent"),
        },
        boundary: boundary(),
        object_sha256: sha256(b"object"),
        programs: vec![Program {
            name: "egress".into(),
            tag: [3; 8],
            sha256: None,
        }],
        tiers: vec![
            Tier {
                name: "cgroup".into(),
                active: true,
                detail: "attached".into(),
            },
            Tier {
                name: "lsm".into(),
                active: false,
                detail: "not permitted".into(),
            },
        ],
        uncovered: vec!["vsock".into()],
        gpu: GpuInventory {
            state: "ok".into(),
            driver: Some("590.48.01".into()),
            library: None,
            library_sha256: None,
            test_library: false,
            devices: Vec::new(),
        },
        tpm: TpmInfo {
            manufacturer: "IBM".into(),
            firmware: "1.2".into(),
            software: false,
        },
        pcrs: (0..16).collect(),
        chain_pcr: 15,
        kernel: Kernel {
            release: "6.12.0".into(),
            boot_id: "b".into(),
        },
        tree_size: log.size(),
        tree_root: log.frontier.root(),
        site: Some(Site {
            region: Some("eu-central".into()),
            country: Some("DE".into()),
            facility: None,
        }),
        require: Vec::new(),
        counters: None,
        geotag: None,
    }
}

fn epoch_statement(
    session: &SessionStatement,
    sequence: u64,
    previous: Digest,
    opened_ms: u64,
) -> EpochStatement {
    EpochStatement {
        kind: EpochKind,
        node: session.node.clone(),
        session: session.session,
        sequence,
        previous,
        opened_ms,
        closed_ms: opened_ms + 10_000,
        size_before: 0,
        size_after: 0,
        root: Digest::ZERO,
        boundary: session.boundary.clone(),
        object_sha256: session.object_sha256,
        counters: vec![Counter {
            hook: "connect4".into(),
            verdict: FlowVerdict::Deny,
            protocol: "tcp".into(),
            count: (sequence + 1) * 6,
        }],
        lost: vec![Loss {
            reason: "ring_full".into(),
            count: 0,
        }],
        tiers: vec!["cgroup".into()],
        uncovered: vec!["vsock".into()],
        gpu_state: "ok".into(),
        gpu_energy: vec![GpuEnergy {
            uuid: "GPU-0".into(),
            millijoules: None,
        }],
        groups: 1,
        cause: Cause::Work,
        clock: ClockQuality {
            synchronised: true,
            error_us: Some(10),
        },
        canary: None,
        location: None,
        counter: None,
        records: None,
    }
}

pub(crate) fn judge(bundle: &Bundle, trust: &str) -> Verdict {
    judge_bytes(&encode(bundle), trust, Purpose::Period)
}

pub(crate) fn judge_bytes(bytes: &[u8], trust: &str, purpose: Purpose) -> Verdict {
    let policy = Trust::parse(trust, "trust.toml").unwrap();
    let verdict = verify(bytes, &policy, purpose, NOW);
    keep::vector(bytes, trust, purpose, verdict.exit);
    verdict
}

/// Demands an exit code and that the named check is the one that did not pass.
#[track_caller]
pub(crate) fn demand(verdict: &Verdict, exit: u8, id: &str) {
    let check = verdict.checks.iter().find(|check| check.id == id);
    let check = check.unwrap_or_else(|| panic!("no check {id}"));
    assert_eq!(verdict.exit, exit, "{id}: {check:?}\n{:#?}", verdict.checks);
    if exit != 0 {
        assert_ne!(
            check.result,
            merestone_verify::CheckResult::Pass,
            "{id} passed: {:#?}",
            verdict.checks
        );
        assert!(
            !check.detail.starts_with("not reached"),
            "{:#?}",
            verdict.checks
        );
    }
}
