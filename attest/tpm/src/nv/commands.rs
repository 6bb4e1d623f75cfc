//! The NV commands, each as its parameters in and its contents out (TPM 2.0 part 3 §31).

use super::{Certified, NvAuth, NvIndex, NvRole};
use crate::{
    Clock, TpmError,
    wire::{Answer, Command, Wire, sized},
};
use merestone_evidence::{Digest, NvCertified, NvHeld, sha256};

const RH_OWNER: u32 = 0x4000_0001;
const ALG_NULL: u16 = 0x0010;
const ALG_SHA256: u16 = 0x000B;

const NV_UNDEFINE: u32 = 0x122;
const NV_DEFINE: u32 = 0x12A;
const NV_INCREMENT: u32 = 0x134;
const NV_WRITE: u32 = 0x137;
const NV_WRITE_LOCK: u32 = 0x138;
const NV_READ: u32 = 0x14E;
const NV_READ_PUBLIC: u32 = 0x169;
const NV_CERTIFY: u32 = 0x184;

/// `TPM_RC_HANDLE` for the first handle: no such index.
const NO_SUCH: u32 = 0x18B;

pub(super) fn find(wire: &mut Wire, index: u32) -> Result<Option<NvIndex>, TpmError> {
    let doing = "read an NV index's public area";
    let command = Command {
        doing,
        code: NV_READ_PUBLIC,
        handles: &[index],
        passwords: &[],
        parameters: Vec::new(),
    };
    let mut answer = match wire.run(&command) {
        Err(TpmError::Refused { code: NO_SUCH, .. }) => return Ok(None),
        answer => answer?,
    };
    let parsed = answer
        .sized()
        .zip(answer.sized())
        .and_then(|(public, name)| {
            // nvIndex, nameAlg, attributes, authPolicy, dataSize (part 2 §13.5).
            let word =
                |at: usize| Some(u32::from_be_bytes(public.get(at..at + 4)?.try_into().ok()?));
            let half =
                |at: usize| Some(u16::from_be_bytes(public.get(at..at + 2)?.try_into().ok()?));
            let policy = usize::from(half(10)?);
            let is_whole =
                word(0)? == index && half(4)? == ALG_SHA256 && public.len() == 14 + policy;
            (is_whole && policy == 0).then_some(())?;
            let mut expected = ALG_SHA256.to_be_bytes().to_vec();
            expected.extend(sha256(&public).0);
            (name == expected).then_some(())?;
            Some(NvIndex {
                attributes: word(6)?,
                size: half(12 + policy)?,
                held: NvHeld {
                    index,
                    public: public.clone(),
                },
                name,
            })
        });
    parsed.map(Some).ok_or(TpmError::NvTaken {
        index,
        why: "it has a policy, another name algorithm, or a name that does not fit",
        name: "unknown".into(),
    })
}

pub(super) fn found_again(wire: &mut Wire, index: u32) -> Result<NvIndex, TpmError> {
    find(wire, index)?.ok_or(TpmError::NvGone { index })
}

pub(super) fn define(
    wire: &mut Wire,
    role: NvRole,
    size: u16,
    auth: &NvAuth,
) -> Result<(), TpmError> {
    let mut public = role.index().to_be_bytes().to_vec();
    public.extend(ALG_SHA256.to_be_bytes());
    public.extend(role.attributes().to_be_bytes());
    sized(&mut public, &[]);
    public.extend(size.to_be_bytes());
    let mut parameters = Vec::new();
    sized(&mut parameters, &auth.index);
    sized(&mut parameters, &public);
    run(
        wire,
        &Command {
            doing: "define an NV index (owner authorization)",
            code: NV_DEFINE,
            handles: &[RH_OWNER],
            passwords: &[&auth.owner],
            parameters,
        },
    )
}

pub(super) fn undefine(wire: &mut Wire, index: u32, auth: &NvAuth) -> Result<(), TpmError> {
    run(
        wire,
        &Command {
            doing: "undefine an NV index (owner authorization)",
            code: NV_UNDEFINE,
            handles: &[RH_OWNER, index],
            passwords: &[&auth.owner],
            parameters: Vec::new(),
        },
    )
}

pub(super) fn increment(wire: &mut Wire, index: u32, auth: &[u8]) -> Result<(), TpmError> {
    run(
        wire,
        &Command {
            doing: "count",
            code: NV_INCREMENT,
            handles: &[index, index],
            passwords: &[auth],
            parameters: Vec::new(),
        },
    )
}

pub(super) fn write(
    wire: &mut Wire,
    index: u32,
    content: &[u8],
    auth: &[u8],
) -> Result<(), TpmError> {
    let mut parameters = Vec::new();
    sized(&mut parameters, content);
    parameters.extend([0, 0]);
    run(
        wire,
        &Command {
            doing: "write an NV index",
            code: NV_WRITE,
            handles: &[index, index],
            passwords: &[auth],
            parameters,
        },
    )
}

pub(super) fn lock(wire: &mut Wire, index: u32, auth: &[u8]) -> Result<(), TpmError> {
    run(
        wire,
        &Command {
            doing: "lock an NV index",
            code: NV_WRITE_LOCK,
            handles: &[index, index],
            passwords: &[auth],
            parameters: Vec::new(),
        },
    )
}

pub(super) fn read(
    wire: &mut Wire,
    index: u32,
    size: u16,
    auth: &[u8],
) -> Result<Vec<u8>, TpmError> {
    let mut parameters = size.to_be_bytes().to_vec();
    parameters.extend([0, 0]);
    let mut answer = wire.run(&Command {
        doing: "read an NV index",
        code: NV_READ,
        handles: &[index, index],
        passwords: &[auth],
        parameters,
    })?;
    answer.sized().ok_or(TpmError::Answer {
        what: "the contents of an NV index",
        why: "cut off".into(),
    })
}

pub(super) fn certify(
    wire: &mut Wire,
    key: u32,
    found: &NvIndex,
    auth: &[u8],
    qualifying: &Digest,
) -> Result<Certified, TpmError> {
    let index = found.held.index;
    let mut parameters = Vec::new();
    sized(&mut parameters, &qualifying.0);
    parameters.extend(ALG_NULL.to_be_bytes());
    parameters.extend(found.size.to_be_bytes());
    parameters.extend([0, 0]);
    let answer = wire.run(&Command {
        doing: "certify an NV index",
        code: NV_CERTIFY,
        handles: &[key, index, index],
        passwords: &[&[], auth],
        parameters,
    })?;
    certified(answer, found).ok_or(TpmError::Answer {
        what: "a certification of an NV index",
        why: "it is about something else".into(),
    })
}

/// The parts of the answer, if it is about the whole of that index.
fn certified(mut answer: Answer, found: &NvIndex) -> Option<Certified> {
    let attest = answer.sized()?;
    let signature = answer.rest();
    let clock = Clock::of_attest(&attest)?;
    // Magic and type, two sized fields, clock (17), firmware (8): part 2 §10.12.12.
    let info = crate::skip_sized(crate::skip_sized(attest.get(6..)?)?)?.get(25..)?;
    let name = info.get(2..2 + found.name.len())?;
    let after = crate::skip_sized(info)?;
    let contents = after.get(4..)?.to_vec();
    let is_whole = name == found.name
        && after.get(..2)? == [0, 0]
        && usize::from(found.size) == contents.len()
        && after.get(2..4)? == found.size.to_be_bytes();
    is_whole.then_some(Certified {
        contents,
        clock,
        evidence: NvCertified { attest, signature },
    })
}

fn run(wire: &mut Wire, command: &Command<'_>) -> Result<(), TpmError> {
    wire.run(command).map(drop)
}
