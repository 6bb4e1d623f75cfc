//! A request → a challenge, and what the authority keeps until it is answered.

use crate::{Checked, EnrolError, Policy, Random, check_request, credential};
use merestone_evidence::{
    EnrolChallenge, EnrolChallengeKind, EnrolPending, EnrolPendingKind, Serial, encode, sha256,
};
use merestone_verify::tpm::Public;

/// A challenge, ready to be carried to the host.
#[derive(Clone, Debug)]
pub struct Challenged {
    /// The file for the host.
    pub challenge: Vec<u8>,
    /// The file that the authority keeps to itself.
    pub pending: Vec<u8>,
    /// Which enrolment.
    pub serial: Serial,
    /// What was found.
    pub checked: Checked,
}

/// Checks a request and seals a secret for its TPM.
pub fn challenge(
    request: &[u8],
    policy: &Policy,
    now_ms: u64,
    random: Random<'_>,
) -> Result<Challenged, EnrolError> {
    let checked = check_request(request, policy, now_ms)?;
    let (mut serial, mut secret) = ([0; 16], [0; 32]);
    random(&mut serial);
    random(&mut secret);
    let serial = Serial(serial);
    let sealed = credential::make(checked.ek_key(), &checked.request.ak_name, &secret, random)?;
    let challenge = encode(&EnrolChallenge {
        kind: EnrolChallengeKind,
        created_ms: now_ms,
        serial,
        request: checked.digest,
        node: checked.request.node.clone(),
        ak_name: checked.request.ak_name.clone(),
        ek_name: Public::name_of(&checked.request.ek_public),
        id_object: sealed.id_object,
        encrypted_seed: sealed.encrypted_seed,
    });
    let pending = encode(&EnrolPending {
        kind: EnrolPendingKind,
        created_ms: now_ms,
        serial,
        request: checked.digest,
        challenge: sha256(&challenge),
        secret: Some(secret),
    });
    Ok(Challenged {
        challenge,
        pending,
        serial,
        checked,
    })
}
