//! The area that a trust policy names: polygons, and whether what discs have in common lies in it.
//!
//! It does not guess: a ring that is not closed, that runs half around the earth in one step or
//! that does not fit into a hemisphere is a fault of the policy.

use super::sphere::{Common, HALF_TURN_E7, POLE_E7, Point, Unit};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest step along a border, in ten-millionths of a degree. RFC 7946, 3.1.1 draws borders
/// straight in longitude and latitude; a quarter of a degree of a parallel leaves its arc by at
/// most 7.6 m.
const STEP_E7: u32 = 2_500_000;
/// Most steps of all borders.
const MOST_STEPS: usize = 200_000;
/// How far a ring may reach from its middle, as a cosine: 80 degrees.
const REACH: f64 = 0.173;

/// How the place of the host lies to an area.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lies {
    /// Wherever it is, it is in the area.
    Contained,
    /// It may be in the area, and it may be outside.
    Overlaps,
    /// It is not in the area.
    Outside,
}

impl Lies {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Contained => "contained",
            Self::Overlaps => "overlaps",
            Self::Outside => "outside",
        }
    }
}

/// Polygons, each an outer ring and then its holes; the last point of a ring is the first again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Area {
    /// What the policy calls it.
    pub name: String,
    polygons: Vec<Vec<Vec<Point>>>,
}

impl Area {
    /// Reads one ring of latitudes and longitudes; the way back to the first point is added.
    pub fn inline(name: String, ring: &[[f64; 2]]) -> Result<Self, String> {
        let points = ring.iter().map(|[latitude, longitude]| {
            Point::from_degrees(*latitude, *longitude)
                .ok_or_else(|| format!("[{latitude}, {longitude}] is no latitude and longitude"))
        });
        let mut ring = points.collect::<Result<Vec<_>, _>>()?;
        if ring.first() != ring.last() {
            ring.extend(ring.first().copied());
        }
        Self::checked(name, vec![vec![ring]])
    }

    /// Reads `GeoJSON` (RFC 7946): polygons, alone or in collections and features.
    pub fn geojson(name: String, bytes: &[u8]) -> Result<Self, String> {
        let root: Object =
            serde_json::from_slice(bytes).map_err(|error| format!("not GeoJSON: {error}"))?;
        let mut polygons = Vec::new();
        root.polygons(&mut polygons)?;
        Self::checked(name, polygons)
    }

    fn checked(name: String, polygons: Vec<Vec<Vec<Point>>>) -> Result<Self, String> {
        let area = Self { name, polygons };
        area.drawn().map(|_| area)
    }

    /// The area as arcs.
    pub(crate) fn drawn(&self) -> Result<Drawn, String> {
        if self.polygons.is_empty() {
            return Err("an area needs a polygon".to_owned());
        }
        let mut shapes = Vec::new();
        let mut borders = Borders::default();
        for polygon in &self.polygons {
            shapes.push(Shape::of(polygon, &mut borders)?);
        }
        Ok(Drawn {
            shapes,
            borders: borders.outer(),
        })
    }
}

/// An area ready for questions.
#[derive(Debug)]
pub(crate) struct Drawn {
    shapes: Vec<Shape>,
    borders: Vec<(Unit, Unit)>,
}

impl Drawn {
    pub(crate) fn holds(&self, point: Unit) -> bool {
        self.shapes.iter().any(|shape| shape.holds(point))
    }

    /// What discs have in common is in one piece: where no border meets it, one point of it
    /// speaks for all.
    pub(crate) fn lies(&self, common: &Common<'_>) -> Lies {
        let meets = |(from, to): &(Unit, Unit)| common.touches(*from, *to);
        if self.borders.iter().any(meets) {
            Lies::Overlaps
        } else if self.holds(common.inside) {
            Lies::Contained
        } else {
            Lies::Outside
        }
    }
}

/// One polygon, seen from the earth's centre on the plane that touches its middle: there arcs
/// are straight.
#[derive(Debug)]
struct Shape {
    middle: Unit,
    east: Unit,
    north: Unit,
    rings: Vec<Vec<[f64; 2]>>,
}

impl Shape {
    fn of(polygon: &[Vec<Point>], borders: &mut Borders) -> Result<Self, String> {
        let outer = polygon.first().ok_or("a polygon needs a ring")?;
        let mut sum = [0.0; 3];
        for Unit(part) in outer.iter().skip(1).map(|point| point.unit()) {
            sum.iter_mut()
                .zip(part)
                .for_each(|(sum, part)| *sum += part);
        }
        let too_wide = || {
            "a polygon reaches further than 80 degrees from its middle; cut it into several"
                .to_owned()
        };
        let middle = Unit::along(sum).ok_or_else(too_wide)?;
        let pole = if middle.0[2].abs() < 0.9 {
            Unit([0.0, 0.0, 1.0])
        } else {
            Unit([1.0, 0.0, 0.0])
        };
        let east = Unit::along(pole.cross(middle)).ok_or_else(too_wide)?;
        let north = Unit::along(middle.cross(east)).ok_or_else(too_wide)?;
        let mut shape = Self {
            middle,
            east,
            north,
            rings: Vec::new(),
        };
        for (number, ring) in polygon.iter().enumerate() {
            let steps = steps(ring)?;
            let flat = steps.iter().map(|point| shape.flat(*point));
            let flat: Vec<_> = flat.collect::<Option<_>>().ok_or_else(too_wide)?;
            let turns_left = doubled_area(&flat) > 0.0;
            // The area is to the left of every border, whichever way the ring was written.
            borders.ring(&steps, turns_left == (number == 0))?;
            shape.rings.push(flat);
        }
        Ok(shape)
    }

    fn flat(&self, point: Unit) -> Option<[f64; 2]> {
        let depth = self.middle.dot(point);
        let flat = || [self.east.dot(point) / depth, self.north.dot(point) / depth];
        (depth > REACH).then(flat)
    }

    /// How often a line from the point crosses rings: an odd number is inside.
    fn holds(&self, point: Unit) -> bool {
        let Some([x, y]) = self.flat(point) else {
            return false;
        };
        let mut inside = false;
        for ring in &self.rings {
            for ([from_x, from_y], [to_x, to_y]) in ring.iter().zip(ring.iter().skip(1)) {
                if (*from_y > y) != (*to_y > y)
                    && x < (to_x - from_x) * (y - from_y) / (to_y - from_y) + from_x
                {
                    inside = !inside;
                }
            }
        }
        inside
    }
}

fn doubled_area(ring: &[[f64; 2]]) -> f64 {
    let sides = ring.iter().zip(ring.iter().skip(1));
    sides.map(|([a, b], [c, d])| a * d - c * b).sum()
}

/// A ring in steps short enough for arcs.
fn steps(ring: &[Point]) -> Result<Vec<Unit>, String> {
    if ring.len() < 4 || ring.first() != ring.last() {
        return Err("a ring has at least three points and ends where it began".to_owned());
    }
    let mut all = Vec::new();
    all.extend(ring.first().map(|point| point.unit()));
    for (from, to) in ring.iter().zip(ring.iter().skip(1)) {
        // The same border has the same steps from both sides.
        let (low, high) = (from.min(to), from.max(to));
        let mut between = between(*low, *high)?;
        if from == high {
            between.reverse();
        }
        all.extend(between);
        all.push(to.unit());
        if all.len() > MOST_STEPS {
            return Err(format!("more than {MOST_STEPS} steps along borders"));
        }
    }
    Ok(all)
}

/// Points on the straight line in longitude and latitude, the shorter way round.
fn between(from: Point, to: Point) -> Result<Vec<Unit>, String> {
    let north = i64::from(to.latitude_e7) - i64::from(from.latitude_e7);
    let mut east = i64::from(to.longitude_e7) - i64::from(from.longitude_e7);
    let at_pole = |point: Point| point.latitude_e7.abs() == POLE_E7;
    let half = i64::from(HALF_TURN_E7);
    if east.abs() == half && !(at_pole(from) || at_pole(to)) {
        return Err("a border runs half around the earth in one step; add points".to_owned());
    }
    if east > half {
        east -= 2 * half;
    } else if east < -half {
        east += 2 * half;
    }
    let longest = north.unsigned_abs().max(east.unsigned_abs());
    let count = i64::try_from(longest.div_ceil(u64::from(STEP_E7))).unwrap_or(1);
    let points = (1..count).map(|step| {
        let part = |whole: i64| whole * step / count;
        let latitude = i64::from(from.latitude_e7) + part(north);
        let mut longitude = i64::from(from.longitude_e7) + part(east);
        if longitude > half {
            longitude -= 2 * half;
        } else if longitude < -half {
            longitude += 2 * half;
        }
        let point = i32::try_from(latitude)
            .ok()
            .zip(i32::try_from(longitude).ok());
        point
            .and_then(|(latitude, longitude)| Point::from_e7(latitude, longitude))
            .map(Point::unit)
            .ok_or_else(|| "a border leaves the earth".to_owned())
    });
    points.collect()
}

/// Borders of all rings. One that two polygons share, or that a ring runs along and back (as at
/// the antimeridian and the poles), has the area on both sides and is none.
#[derive(Debug, Default)]
struct Borders {
    by_ends: BTreeMap<([u64; 3], [u64; 3]), Border>,
    steps: usize,
}

#[derive(Debug)]
struct Border {
    ends: (Unit, Unit),
    /// The area is on this side, on the other.
    sides: (bool, bool),
}

impl Borders {
    fn ring(&mut self, steps: &[Unit], is_left: bool) -> Result<(), String> {
        self.steps += steps.len();
        if self.steps > MOST_STEPS {
            return Err(format!("more than {MOST_STEPS} steps along borders"));
        }
        // Zero has two signs, and a place one key.
        let key = |unit: Unit| unit.0.map(|part| (part + 0.0).to_bits());
        for (&from, &to) in steps.iter().zip(steps.iter().skip(1)) {
            let (start, end) = (key(from), key(to));
            if start == end {
                continue;
            }
            let forward = start < end;
            let border = self
                .by_ends
                .entry(if forward { (start, end) } else { (end, start) })
                .or_insert(Border {
                    ends: (from, to),
                    sides: (false, false),
                });
            if forward == is_left {
                border.sides.0 = true;
            } else {
                border.sides.1 = true;
            }
        }
        Ok(())
    }

    fn outer(self) -> Vec<(Unit, Unit)> {
        let outer = self.by_ends.into_values();
        let outer = outer.filter(|border| border.sides != (true, true));
        outer.map(|border| border.ends).collect()
    }
}

/// As much of `GeoJSON` as areas need. Foreign members mean nothing, as RFC 7946 wants.
#[derive(Deserialize)]
struct Object {
    r#type: String,
    #[serde(default)]
    coordinates: Option<serde_json::Value>,
    #[serde(default)]
    geometry: Option<Box<Self>>,
    #[serde(default)]
    geometries: Vec<Self>,
    #[serde(default)]
    features: Vec<Self>,
}

type Ring = Vec<Vec<f64>>;

impl Object {
    fn polygons(self, into: &mut Vec<Vec<Vec<Point>>>) -> Result<(), String> {
        let coordinates = self.coordinates.unwrap_or_default();
        let form = |error: serde_json::Error| format!("not GeoJSON: {error}");
        match self.r#type.as_str() {
            "Polygon" => {
                let polygon: Vec<Ring> = serde_json::from_value(coordinates).map_err(form)?;
                into.push(points(&polygon)?);
            }
            "MultiPolygon" => {
                let all: Vec<Vec<Ring>> = serde_json::from_value(coordinates).map_err(form)?;
                for polygon in all {
                    into.push(points(&polygon)?);
                }
            }
            "Feature" => {
                let geometry = self.geometry.ok_or("a feature without a geometry")?;
                geometry.polygons(into)?;
            }
            "FeatureCollection" => {
                for feature in self.features {
                    feature.polygons(into)?;
                }
            }
            "GeometryCollection" => {
                for geometry in self.geometries {
                    geometry.polygons(into)?;
                }
            }
            other => return Err(format!("{other:?} is no area; want polygons")),
        }
        Ok(())
    }
}

fn points(polygon: &[Ring]) -> Result<Vec<Vec<Point>>, String> {
    let point = |position: &Vec<f64>| {
        // Longitude comes first (RFC 7946, 3.1.1); a height after it means nothing here.
        let (longitude, latitude) = position.first().zip(position.get(1))?;
        Point::from_degrees(*latitude, *longitude)
    };
    let ring = |ring: &Ring| ring.iter().map(point).collect::<Option<Vec<_>>>();
    let rings = polygon.iter().map(ring).collect::<Option<Vec<_>>>();
    rings.ok_or_else(|| "a position that is no longitude and latitude".to_owned())
}
