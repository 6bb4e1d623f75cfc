//! `[location]`, `[[landmark]]` and `[[cloud]]` of the trust policy: whose word on the place
//! counts, and which place is wanted.

use super::area::Area;
use super::cloud::{self, Cloud};
use super::sphere::Point;
use crate::enrolment::public_key;
use core::ops::Range;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use toml::Spanned;

/// Longest stretch that one measurement may have to speak for.
const DEFAULT_MAX_AGE_S: u64 = 3600;
/// Landmarks that a round needs.
const DEFAULT_MIN_LANDMARKS: u64 = 3;
/// Largest area file.
const MAX_AREA_BYTES: usize = 8 << 20;
/// Most landmarks.
const MOST_LANDMARKS: usize = 64;

/// Whose word on the place counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlaceTrust {
    /// Where the host has to be.
    pub area: Option<Area>,
    /// Landmarks.
    pub landmarks: Vec<Landmark>,
    /// Landmarks, independent of the party that is checked, that a round needs.
    pub min_landmarks: u64,
    /// Longest stretch without a measurement that shows the host in the area.
    pub max_age_s: u64,
    /// Clouds.
    pub clouds: Vec<Cloud>,
}

impl Default for PlaceTrust {
    fn default() -> Self {
        Self {
            area: None,
            landmarks: Vec::new(),
            min_landmarks: DEFAULT_MIN_LANDMARKS,
            max_age_s: DEFAULT_MAX_AGE_S,
            clouds: Vec::new(),
        }
    }
}

/// One landmark, as the policy knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Landmark {
    /// What the policy calls it.
    pub name: String,
    /// Its key.
    pub key: VerifyingKey,
    /// Where it stands.
    pub at: Point,
    /// Who runs it; landmarks of one party count as one.
    pub operator: String,
    /// It is not run by the party that is checked.
    pub independent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LandmarkTable {
    name: Spanned<String>,
    key: Spanned<String>,
    latitude: Spanned<f64>,
    longitude: f64,
    operator: Option<String>,
    #[serde(default = "yes")]
    independent: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    area: Option<Spanned<AreaText>>,
    name: Option<String>,
    min_landmarks: Option<Spanned<u64>>,
    max_age_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AreaText {
    File(String),
    Ring(Vec<[f64; 2]>),
}

type Fault = (Range<usize>, String);
type Files<'f> = &'f dyn Fn(&str) -> Result<Vec<u8>, String>;

pub(crate) fn check(
    table: Option<Table>,
    landmarks: Vec<LandmarkTable>,
    clouds: Vec<cloud::Table>,
    files: Files<'_>,
) -> Result<PlaceTrust, Fault> {
    let mut trust = PlaceTrust::default();
    let table = table.unwrap_or_default();
    if let Some(area) = table.area {
        trust.area = Some(read_area(area, table.name, files)?);
    }
    if let Some(min) = table.min_landmarks {
        trust.min_landmarks = *min.get_ref();
        if trust.min_landmarks == 0 {
            return Err((
                min.span(),
                "a measurement needs a landmark at least".to_owned(),
            ));
        }
    }
    trust.max_age_s = table.max_age_s.unwrap_or(trust.max_age_s);
    for landmark in landmarks {
        let span = landmark.name.span();
        let landmark = read_landmark(landmark, files)?;
        let twice = trust
            .landmarks
            .iter()
            .any(|other| other.name == landmark.name || other.key == landmark.key);
        if twice || trust.landmarks.len() >= MOST_LANDMARKS {
            let detail = format!(
                "landmark {:?}: a second of that name or key, or too many",
                landmark.name
            );
            return Err((span, detail));
        }
        trust.landmarks.push(landmark);
    }
    trust.clouds = cloud::check(clouds, files)?;
    Ok(trust)
}

fn read_area(
    area: Spanned<AreaText>,
    name: Option<String>,
    files: Files<'_>,
) -> Result<Area, Fault> {
    let span = area.span();
    let fail = |detail| (span.clone(), detail);
    match area.into_inner() {
        AreaText::File(file) => {
            let bytes = files(&file).map_err(fail)?;
            if bytes.len() > MAX_AREA_BYTES {
                let detail = format!(
                    "{} bytes where at most {MAX_AREA_BYTES} are allowed",
                    bytes.len()
                );
                return Err(fail(detail));
            }
            Area::geojson(name.unwrap_or(file), &bytes).map_err(fail)
        }
        AreaText::Ring(ring) => {
            let name = name.unwrap_or_else(|| "the area of the policy".to_owned());
            Area::inline(name, &ring).map_err(fail)
        }
    }
}

fn read_landmark(table: LandmarkTable, files: Files<'_>) -> Result<Landmark, Fault> {
    let text = table.key.get_ref().clone();
    let fail = |detail| (table.key.span(), detail);
    let text = if text.starts_with("ed25519:") || text.starts_with("-----BEGIN PUBLIC KEY") {
        text
    } else {
        let bytes = files(&text).map_err(fail)?;
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let key = public_key(&text).map_err(fail)?;
    let latitude = *table.latitude.get_ref();
    let at = Point::from_degrees(latitude, table.longitude).ok_or_else(|| {
        let detail = "want a latitude from -90 to 90 and a longitude from -180 to 180 degrees";
        (table.latitude.span(), detail.to_owned())
    })?;
    let name = table.name.into_inner();
    Ok(Landmark {
        operator: table.operator.unwrap_or_else(|| name.clone()),
        name,
        key,
        at,
        independent: table.independent,
    })
}
