//! A place on the command line, as it goes into the TPM.

use merestone_evidence::{Geotag, GeotagKind, Record as _, Site, encode};

/// A place that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    site: Site,
    position: Option<(i32, i32)>,
    by: Option<String>,
}

impl Place {
    /// As it is written, with the time.
    pub(super) fn tag(&self, written_ms: u64) -> Geotag {
        Geotag {
            kind: GeotagKind,
            site: self.site.clone(),
            position: self.position,
            written_ms,
            by: self.by.clone(),
        }
    }
}

const WANT: &str =
    "want country=…, region=…, facility=…, at=LATITUDE:LONGITUDE and by=…, or some of them";

pub(super) fn parse(text: &str) -> Result<Place, String> {
    let (mut country, mut region, mut facility) = (None, None, None);
    let (mut at, mut by) = (None, None);
    for part in text.split(',') {
        let (what, value) = part.split_once('=').ok_or(WANT)?;
        let slot = match what.trim() {
            "country" => &mut country,
            "region" => &mut region,
            "facility" => &mut facility,
            "at" => &mut at,
            "by" => &mut by,
            _ => return Err(WANT.to_owned()),
        };
        let value = value.trim();
        if value.is_empty() || slot.replace(value.to_owned()).is_some() {
            return Err(format!("{} is empty or there twice", what.trim()));
        }
    }
    let is_country = |country: &String| {
        country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase())
    };
    if country.as_ref().is_some_and(|country| !is_country(country)) {
        return Err("a country is two capital letters (ISO 3166-1 alpha-2)".to_owned());
    }
    let place = Place {
        site: Site {
            region,
            country,
            facility,
        },
        position: at.as_deref().map(position).transpose()?,
        by,
    };
    if encode(&place.tag(0)).len() + 9 > Geotag::LIMITS.bytes {
        return Err("it is too long for the TPM's memory".to_owned());
    }
    Ok(place)
}

fn position(text: &str) -> Result<(i32, i32), String> {
    let wrong =
        || format!("{text:?} is not LATITUDE:LONGITUDE in degrees, like 50.110900:8.682100");
    let (latitude, longitude) = text.split_once(':').ok_or_else(wrong)?;
    let latitude = millionths(latitude, 90).ok_or_else(wrong)?;
    let longitude = millionths(longitude, 180).ok_or_else(wrong)?;
    Ok((latitude, longitude))
}

/// Degrees with at most six places, exactly.
fn millionths(text: &str, most: i32) -> Option<i32> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) || part.len() > 6 {
        return None;
    }
    let whole: i32 = whole.parse().ok().filter(|degrees| *degrees <= most)?;
    let part: i32 = format!("{part:0<6}").parse().ok()?;
    let value = whole.checked_mul(1_000_000)?.checked_add(part)?;
    let value = if negative {
        value.checked_neg()?
    } else {
        value
    };
    (value.abs() <= most * 1_000_000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_place_is_read_exactly() {
        let place = parse("country=DE,facility=fra 1,at=-50.1:8.682100,by=TÜV").unwrap();
        let tag = place.tag(7);
        assert_eq!(tag.position, Some((-50_100_000, 8_682_100)));
        assert_eq!(tag.site.country.as_deref(), Some("DE"));
        assert_eq!(tag.by.as_deref(), Some("TÜV"));
        assert_eq!(
            parse("at=90:-180").unwrap().tag(0).position,
            Some((90_000_000, -180_000_000))
        );
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "DE",
            "country=de",
            "country=",
            "country=DE,country=DE",
            "at=91:0",
            "at=0:181",
            "at=1",
            "at=1.0000001:0",
            "at=+1:0",
            "at=90.000001:0",
            "planet=earth",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse(&format!("facility={}", "x".repeat(600))).is_err());
    }
}
