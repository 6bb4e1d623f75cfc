//! What each cloud's document says, once its signature holds.

use super::super::Round;
use super::cms::{Signed, unarmoured};
use super::table::{Cloud, Provider};
use super::{Said, jwt};
use merestone_evidence::{CloudDocument, cloud_audience, cloud_nonce};
use serde::Deserialize;

/// Who issues Google's tokens.
const GOOGLE: &str = "https://accounts.google.com";
/// The name that Azure's signers have, or end with after a dot.
const AZURE: &str = "metadata.azure.com";

pub(super) fn read(
    round: &Round<'_>,
    document: &CloudDocument,
    cloud: &Cloud,
) -> Result<Said, String> {
    match cloud.provider {
        Provider::Aws => aws(document, cloud),
        Provider::Azure => azure(round, document, cloud),
        Provider::Gcp => gcp(round, document, cloud),
    }
}

#[derive(Deserialize)]
struct AwsDocument {
    #[serde(rename = "instanceId")]
    instance: String,
    region: String,
}

fn aws(document: &CloudDocument, cloud: &Cloud) -> Result<Said, String> {
    let signature = document.signature.as_deref().ok_or("it has no signature")?;
    let signed = unarmoured(signature)
        .and_then(|bytes| Signed::read(&bytes))
        .ok_or("its signature is no signed data of rsa and sha-256")?;
    if signed
        .content
        .as_ref()
        .is_some_and(|content| *content != document.document)
    {
        return Err("the signed data carries another document".to_owned());
    }
    let signers = cloud.anchors.roots.iter();
    let mut signers = signers.filter(|signer| signed.is_over(&document.document, signer));
    if signers.next().is_none() {
        return Err("no pinned certificate's key signed it".to_owned());
    }
    let said: AwsDocument = serde_json::from_slice(&document.document)
        .map_err(|error| format!("not an identity document: {error}"))?;
    Ok(Said {
        instance: said.instance,
        region: Some(said.region),
        bound_by: None,
        made_ms: None,
    })
}

#[derive(Deserialize)]
struct AzureAnswer {
    encoding: String,
    signature: String,
}

#[derive(Deserialize)]
struct AzureDocument {
    nonce: String,
    #[serde(rename = "vmId")]
    instance: String,
    #[serde(rename = "timeStamp")]
    times: AzureTimes,
}

#[derive(Deserialize)]
struct AzureTimes {
    #[serde(rename = "createdOn")]
    created: String,
    #[serde(rename = "expiresOn")]
    expires: String,
}

fn azure(round: &Round<'_>, document: &CloudDocument, cloud: &Cloud) -> Result<Said, String> {
    let answer: AzureAnswer = serde_json::from_slice(&document.document)
        .map_err(|error| format!("not attested data: {error}"))?;
    let signed = unarmoured(answer.signature.as_bytes())
        .filter(|_| answer.encoding == "pkcs7")
        .and_then(|bytes| Signed::read(&bytes))
        .ok_or("its signature is no signed data of rsa and sha-256")?;
    let content = signed.content.as_ref().ok_or("it carries no content")?;
    let signer = signed
        .certificates
        .iter()
        .find(|signer| signed.is_over(content, signer))
        .ok_or("none of its certificates' keys signed it")?;
    let offered: Vec<_> = signed.certificates.iter().collect();
    cloud
        .anchors
        .trace_signer(signer, &offered, round.closed_ms / 1000)
        .map_err(|error| error.to_string())?;
    let names = signer.dns_names();
    let is_azure = |name: &String| {
        name == AZURE
            || name
                .strip_suffix(AZURE)
                .is_some_and(|head| head.ends_with('.'))
    };
    if !names.iter().any(is_azure) {
        return Err(format!("its signer is {names:?}, not {AZURE:?}"));
    }
    let said: AzureDocument =
        serde_json::from_slice(content).map_err(|error| format!("not attested data: {error}"))?;
    let want = cloud_nonce(&round.session_digest);
    if said.nonce != want {
        return Err(format!(
            "its nonce is {:?}, of this session {want:?}",
            said.nonce
        ));
    }
    let (created, expires) = (azure_ms(&said.times.created), azure_ms(&said.times.expires));
    let made = created.zip(expires).ok_or("its times are not times")?;
    Ok(Said {
        instance: said.instance,
        region: None,
        bound_by: Some("ten digits of its statement's digest"),
        made_ms: Some(made),
    })
}

/// `MM/DD/YY HH:MM:SS -0000`, in milliseconds since the Unix epoch.
fn azure_ms(text: &str) -> Option<u64> {
    let text = text.strip_suffix(" -0000")?;
    let (date, clock) = text.split_once(' ')?;
    let three = |text: &str, mark: char| {
        let parts: Vec<u16> = text
            .split(mark)
            .map(|part| part.parse().ok().filter(|_| part.len() == 2))
            .collect::<Option<_>>()?;
        <[u16; 3]>::try_from(parts).ok()
    };
    let [month, day, year] = three(date, '/')?;
    let [hour, minute, second] = three(clock, ':')?;
    let small = |part: u16| u8::try_from(part).ok();
    let month = time::Month::try_from(small(month)?).ok()?;
    let date = time::Date::from_calendar_date(2000 + i32::from(year), month, small(day)?).ok()?;
    let at = date
        .with_hms(small(hour)?, small(minute)?, small(second)?)
        .ok()?;
    u64::try_from(at.assume_utc().unix_timestamp())
        .ok()?
        .checked_mul(1000)
}

fn gcp(round: &Round<'_>, document: &CloudDocument, cloud: &Cloud) -> Result<Said, String> {
    let claims = jwt::open(&document.document, &cloud.keys)?;
    if claims.iss != GOOGLE {
        return Err(format!("its issuer is {:?}, want {GOOGLE:?}", claims.iss));
    }
    let want = cloud_audience(&round.session_digest);
    if claims.aud != want {
        return Err(format!(
            "its audience is {:?}, of this session {want:?}",
            claims.aud
        ));
    }
    let engine = claims.google.compute_engine;
    // A zone is a region, a dash and a letter.
    let region = engine
        .zone
        .rsplit_once('-')
        .map(|(region, _)| region.to_owned());
    Ok(Said {
        instance: engine.instance_id,
        region: Some(region.ok_or("its zone is none")?),
        bound_by: Some("its statement's digest"),
        made_ms: Some((
            claims.iat.saturating_mul(1000),
            claims.exp.saturating_mul(1000),
        )),
    })
}
