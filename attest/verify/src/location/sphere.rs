//! Points, arcs and discs on the sphere of geodetic latitude and longitude.
//!
//! The earth is an ellipsoid. Its metric is `M² dφ² + N² cos²φ dλ²`, with the radii of curvature
//! of WGS 84 at least [`LEAST_RADIUS_M`] everywhere (`M` at the equator, `a (1 - e²)`), so a way
//! along the surface of length `s` spans an angle of at most `s / LEAST_RADIUS_M` between
//! geodetic coordinates taken as those of a sphere. Discs widened by that never leave out a place
//! that the signal could have come from; no other allowance for the ellipsoid is needed.

/// Ten-millionths of a degree, north and east: 1.1 cm.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Point {
    /// Latitude.
    pub latitude_e7: i32,
    /// Longitude.
    pub longitude_e7: i32,
}

/// Steps in a degree.
const DEGREE: f64 = 1e7;
/// Half a turn in these steps.
pub(crate) const HALF_TURN_E7: i32 = 1_800_000_000;
/// The north pole in these steps.
pub(crate) const POLE_E7: i32 = 900_000_000;
/// Least radius of curvature of WGS 84, in metres, rounded down: `a (1 - e²)`.
const LEAST_RADIUS_M: f64 = 6_335_439.0;
/// What a border between two points of an area may differ by from the arc that stands for it,
/// with all rounding: 7.6 m for the steps of [`super::area`].
const ALLOWANCE_M: f64 = 20.0;
/// Discs this wide bound nothing that is worth it, and their intersections need not be convex.
const WIDEST: f64 = core::f64::consts::FRAC_PI_2 - 1e-3;
/// An angle that is nothing.
const NOTHING: f64 = 1e-9;

/// A unit vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit(pub(crate) [f64; 3]);

impl Unit {
    pub(crate) fn dot(self, other: Self) -> f64 {
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        a * x + b * y + c * z
    }

    pub(crate) fn cross(self, other: Self) -> [f64; 3] {
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        [b * z - c * y, c * x - a * z, a * y - b * x]
    }

    /// The unit vector along `vector`; none where it has no direction.
    pub(crate) fn along(vector: [f64; 3]) -> Option<Self> {
        let [x, y, z] = vector;
        let length = length(vector);
        (length > 1e-15).then(|| Self([x / length, y / length, z / length]))
    }

    /// The angle between two, exact also where it is small.
    pub(crate) fn angle(self, other: Self) -> f64 {
        length(self.cross(other)).atan2(self.dot(other))
    }
}

fn length([x, y, z]: [f64; 3]) -> f64 {
    (x * x + y * y + z * z).sqrt()
}

impl Point {
    /// From degrees; `None` outside the earth.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to lie within 1.8e9 before"
    )]
    pub fn from_degrees(latitude: f64, longitude: f64) -> Option<Self> {
        let is_on_earth =
            (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        is_on_earth.then(|| Self {
            latitude_e7: (latitude * DEGREE).round() as i32,
            longitude_e7: (longitude * DEGREE).round() as i32,
        })
    }

    /// From the steps of a statement; `None` outside the earth.
    #[must_use]
    pub fn from_e7(latitude_e7: i32, longitude_e7: i32) -> Option<Self> {
        let is_on_earth = (-POLE_E7..=POLE_E7).contains(&latitude_e7)
            && (-HALF_TURN_E7..=HALF_TURN_E7).contains(&longitude_e7);
        is_on_earth.then_some(Self {
            latitude_e7,
            longitude_e7,
        })
    }

    /// Latitude and longitude in degrees.
    #[must_use]
    pub fn degrees(self) -> (f64, f64) {
        (
            f64::from(self.latitude_e7) / DEGREE,
            f64::from(self.longitude_e7) / DEGREE,
        )
    }

    /// A place has one vector: the antimeridian from both sides, a pole from every longitude.
    pub(crate) fn unit(self) -> Unit {
        let longitude_e7 = match self.longitude_e7 {
            _ if self.latitude_e7.abs() == POLE_E7 => 0,
            longitude if longitude == -HALF_TURN_E7 => HALF_TURN_E7,
            longitude => longitude,
        };
        let latitude = (f64::from(self.latitude_e7) / DEGREE).to_radians();
        let longitude = (f64::from(longitude_e7) / DEGREE).to_radians();
        let (z, around) = latitude.sin_cos();
        let (y, x) = longitude.sin_cos();
        Unit([around * x, around * y, z])
    }
}

/// Where a signal can have come from: everything within an angle of a point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disc {
    centre: Unit,
    angle: f64,
    cosine: f64,
}

impl Disc {
    /// The disc of a length along the surface; `None` where it is so wide that it bounds nothing
    /// here. Leaving one out only makes what is left wider.
    pub(crate) fn of(centre: Point, metres: u64) -> Option<Self> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^53 m is beyond every disc that is kept"
        )]
        let angle = (metres as f64 + ALLOWANCE_M) / LEAST_RADIUS_M;
        (angle < WIDEST).then(|| Self {
            centre: centre.unit(),
            angle,
            cosine: angle.cos(),
        })
    }

    pub(crate) fn holds(&self, point: Unit) -> bool {
        self.centre.angle(point) <= self.angle + NOTHING
    }
}

/// What all of some discs, each less than half the earth, have in common: it is convex, and so
/// in one piece.
#[derive(Debug)]
pub(crate) struct Common<'d> {
    discs: &'d [Disc],
    /// A point of it.
    pub(crate) inside: Unit,
}

impl<'d> Common<'d> {
    /// `None` where the discs have nothing in common, or there is none.
    ///
    /// What they have in common is one whole disc, and then its centre is in all; or two of
    /// their edges cross at a corner of it.
    pub(crate) fn of(discs: &'d [Disc]) -> Option<Self> {
        let in_all = |point: &Unit| discs.iter().all(|disc| disc.holds(*point));
        let centres = discs.iter().map(|disc| disc.centre);
        let corners = discs.iter().enumerate().flat_map(|(at, one)| {
            let others = discs.get(at + 1..).unwrap_or_default();
            others.iter().flat_map(move |other| crossings(one, other))
        });
        let inside = centres.chain(corners).find(in_all)?;
        Some(Self { discs, inside })
    }

    /// Whether the arc from `from` to `to`, shorter than half a turn, has a point of it.
    ///
    /// On the arc, the cosine of the distance to a centre is `ρ cos(t - φ)`, so each disc leaves
    /// one stretch of it.
    pub(crate) fn touches(&self, from: Unit, to: Unit) -> bool {
        let whole = from.angle(to);
        // Most borders are far away: one product says so.
        if let Some(disc) = self.discs.first()
            && disc.centre.dot(from)
                < (disc.angle + whole + NOTHING)
                    .min(core::f64::consts::PI)
                    .cos()
        {
            return false;
        }
        let sideways =
            Unit::along(from.cross(to)).and_then(|normal| Unit::along(normal.cross(from)));
        let Some(sideways) = sideways else {
            return self.discs.iter().all(|disc| disc.holds(from));
        };
        let mut left = (0.0, whole);
        for disc in self.discs {
            let (along, aside) = (disc.centre.dot(from), disc.centre.dot(sideways));
            let reach = along.hypot(aside);
            if reach < disc.cosine {
                return false;
            }
            let middle = aside.atan2(along);
            let half = (disc.cosine / reach).clamp(-1.0, 1.0).acos() + NOTHING;
            // The middle is known up to a whole turn; the arc is less than half of one.
            let turn = core::f64::consts::TAU;
            let stretch = [middle - turn, middle, middle + turn]
                .map(|middle| (middle - half, middle + half))
                .into_iter()
                .find(|(start, end)| *end >= left.0 && *start <= left.1);
            let Some((start, end)) = stretch else {
                return false;
            };
            left = (start.max(left.0), end.min(left.1));
        }
        left.0 <= left.1
    }
}

/// Where the edges of two discs cross.
fn crossings(one: &Disc, other: &Disc) -> impl Iterator<Item = Unit> + use<> {
    let both = one.centre.dot(other.centre);
    let rest = 1.0 - both * both;
    let Unit([a, b, c]) = one.centre;
    let Unit([x, y, z]) = other.centre;
    let (near, far) = (
        (one.cosine - other.cosine * both) / rest,
        (other.cosine - one.cosine * both) / rest,
    );
    let foot = [near * a + far * x, near * b + far * y, near * c + far * z];
    let height = (1.0 - foot.iter().map(|part| part * part).sum::<f64>()) / rest;
    // Edges that only just touch do so within rounding.
    let height = if (-1e-12..0.0).contains(&height) {
        0.0
    } else {
        height
    };
    let up = one.centre.cross(other.centre);
    let crosses = rest > 1e-24 && height >= 0.0;
    [height.abs().sqrt(), -height.abs().sqrt()]
        .into_iter()
        .filter(move |_| crosses)
        .filter_map(move |height| {
            let ([a, b, c], [x, y, z]) = (foot, up);
            Unit::along([a + height * x, b + height * y, c + height * z])
        })
}
