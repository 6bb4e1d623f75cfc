//! The host's side of enrolment: what it asks an authority for, how it answers, and the
//! certificates that it keeps and puts into every bundle.
//!
//! Files are carried by hand; nothing here speaks to a network. The secret of a challenge goes
//! from the TPM into one HMAC and nowhere else. A certificate is believed by verifiers, not by
//! the host: what is kept here is only looked at as far as needed to put it beside the right key.

mod error;
mod store;

pub use error::EnrolmentError;
pub use store::{Installed, held, install};

use crate::clock;
use crate::config::Config;
use hmac::{Hmac, KeyInit as _, Mac as _};
use merestone_evidence::{
    Blob, Digest, EnrolAnswer, EnrolAnswerKind, EnrolChallenge, EnrolRequest, EnrolRequestKind,
    Geotag, GeotagOffer, NvIndex, Site, TpmInfo, decode, encode, geotag_offer, sha256,
};
use merestone_tpm::{Address, EkKind, EsysTpm, NvAuth, NvRole, Options, Tpm as _};
use sha2::Sha256;
use std::str::FromStr as _;

/// Opens the TPM of the configuration; makes the attestation key where there is none yet.
pub fn open_tpm(config: &Config) -> Result<EsysTpm, EnrolmentError> {
    let mut options = Options::at(Address::from_str(&config.tpm.tcti)?);
    if let Some(handle) = config.tpm.ak_handle {
        options.ak_handle = handle;
    }
    Ok(EsysTpm::open(&options)?)
}

/// What this host says of itself to an authority.
pub fn request(
    config: &Config,
    tpm: &mut EsysTpm,
    kind: Option<EkKind>,
    nv: &[u32],
    memory: Memory,
) -> Result<EnrolRequest, EnrolmentError> {
    let endorsement = tpm.endorsement(kind)?;
    let mut indices = Vec::new();
    for &index in nv {
        let name = tpm.nv_name(index)?;
        indices.push(NvIndex { index, name });
    }
    let Memory { counters, geotag } = memory;
    for made in counters.into_iter().flatten() {
        if !nv.contains(&made.held.index) {
            let (index, name) = (made.held.index, made.name);
            indices.push(NvIndex { index, name });
        }
    }
    let properties = tpm.properties();
    let site = &config.site;
    Ok(EnrolRequest {
        kind: EnrolRequestKind,
        created_ms: clock::now_ms(),
        node: config.node.clone(),
        ek_certificates: endorsement
            .certificates
            .into_iter()
            .map(Blob::from)
            .collect(),
        ek_public: endorsement.public,
        ak_public: tpm.ak_public().to_vec(),
        ak_name: tpm.ak_name().to_vec(),
        nv: indices,
        site: (*site != crate::config::Site::default()).then(|| Site {
            region: site.region.clone(),
            country: site.country.clone(),
            facility: site.facility.clone(),
        }),
        tpm: TpmInfo {
            manufacturer: properties.manufacturer.clone(),
            firmware: properties.firmware.clone(),
            software: properties.software,
        },
        geotag,
    })
}

/// What a request says of the TPM's memory.
#[derive(Debug, Default)]
pub struct Memory {
    /// The counters, where the TPM has them.
    pub counters: Option<[merestone_tpm::NvIndex; 2]>,
    /// The geotag, where one is offered.
    pub geotag: Option<GeotagOffer>,
}

/// The counters of this host, defined where they are not there yet.
pub fn counters(
    tpm: &mut EsysTpm,
    auth: &NvAuth,
) -> Result<[merestone_tpm::NvIndex; 2], EnrolmentError> {
    Ok([
        tpm.nv_counter(NvRole::Epochs, auth)?,
        tpm.nv_counter(NvRole::Sessions, auth)?,
    ])
}

/// Write a geotag, lock it for good, and certify it.
pub fn write_geotag(
    tpm: &mut EsysTpm,
    tag: &Geotag,
    replace: bool,
    auth: &NvAuth,
) -> Result<GeotagOffer, EnrolmentError> {
    let made = tpm.nv_geotag(&encode(tag), replace, auth)?;
    offer(tpm, made, auth)
}

/// The geotag that is in the TPM, certified.
pub fn kept_geotag(
    tpm: &mut EsysTpm,
    auth: &NvAuth,
) -> Result<Option<GeotagOffer>, EnrolmentError> {
    let found = tpm.nv_find(NvRole::Geotag)?;
    found.map(|made| offer(tpm, made, auth)).transpose()
}

fn offer(
    tpm: &mut EsysTpm,
    made: merestone_tpm::NvIndex,
    auth: &NvAuth,
) -> Result<GeotagOffer, EnrolmentError> {
    let challenge = geotag_offer(tpm.ak_name());
    let certified = tpm.nv_certify(made.held.index, auth, &challenge)?;
    Ok(GeotagOffer {
        held: made.held,
        certified: certified.evidence,
    })
}

/// Opens a challenge with the TPM and shows that it was opened. Gives the bytes of the answer.
pub fn answer(
    config: &Config,
    tpm: &mut EsysTpm,
    challenge: &[u8],
) -> Result<Vec<u8>, EnrolmentError> {
    let digest = sha256(challenge);
    let challenge: EnrolChallenge = decode(challenge)?;
    if challenge.node != config.node {
        return Err(EnrolmentError::Node {
            got: challenge.node,
            want: config.node.clone(),
        });
    }
    if challenge.ak_name != tpm.ak_name() {
        return Err(EnrolmentError::Key {
            what: "challenge",
            got: hex::encode(&challenge.ak_name),
            want: hex::encode(tpm.ak_name()),
        });
    }
    let secret = tpm.activate(
        &challenge.ek_name,
        &challenge.id_object,
        &challenge.encrypted_seed,
    )?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&secret).map_err(|_any_length| EnrolmentError::Secret)?;
    mac.update(&EnrolAnswer::proven(&digest));
    Ok(encode(&EnrolAnswer {
        kind: EnrolAnswerKind,
        created_ms: clock::now_ms(),
        serial: challenge.serial,
        challenge: digest,
        proof: Digest(mac.finalize().into_bytes().into()),
    }))
}
