//! The geotag of a request: certified by its attestation key, and locked for good.
//!
//! The attestation key is believed only once the challenge is answered; what is checked here is
//! that the contents are in the memory of the TPM that has it. Whether the place is the right one
//! only a person can say who was there.

use crate::EnrolError;
use merestone_evidence::{
    EnrolRequest, Geotag, GeotagOffer, GeotagVouched, NvCertified, decode, geotag_offer,
};
use merestone_verify::tpm::{NvAttest, NvPublic, NvUse, Public, Signature};

/// What a certificate would say of the geotag, and the place in it.
pub fn geotag(request: &EnrolRequest) -> Result<(GeotagVouched, Geotag), EnrolError> {
    let Some(GeotagOffer { held, certified }) = &request.geotag else {
        return Err(EnrolError::NoGeotag);
    };
    let NvCertified { attest, signature } = certified;
    let wrong = |why: String| EnrolError::Geotag { why };
    let ak = Public::parse(&request.ak_public)?;
    Signature::parse(signature)
        .and_then(|signature| signature.check(&ak.key, attest))
        .map_err(|error| wrong(error.to_string()))?;
    let said = NvAttest::parse(attest).map_err(|error| wrong(error.to_string()))?;
    let public = NvPublic::parse(&held.public).map_err(|error| wrong(error.to_string()))?;
    public
        .check(NvUse::Geotag)
        .map_err(|error| wrong(error.to_string()))?;
    let name = Public::name_of(&held.public);
    if said.name != name || held.index != public.index {
        return Err(wrong("the certification is of another index".to_owned()));
    }
    if said.extra != geotag_offer(&request.ak_name).0 {
        return Err(wrong(
            "the certification was made for something else".to_owned(),
        ));
    }
    if said.offset != 0 || said.contents.len() != usize::from(public.size) {
        return Err(wrong(
            "the certification is of a part of the index".to_owned(),
        ));
    }
    let tag: Geotag = decode(&said.contents).map_err(|error| wrong(error.to_string()))?;
    let vouched = GeotagVouched {
        index: held.index,
        name,
        content: said.contents,
    };
    Ok((vouched, tag))
}
