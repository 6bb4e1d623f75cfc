//! The geometry, against sampling and against places that are known.

use super::area::{Area, Lies};
use super::sphere::{Common, Disc, Point, Unit};

/// A small generator, so that a failure is the same the next time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
    }

    fn within(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.next()
    }
}

fn point(latitude: f64, longitude: f64) -> Point {
    let turned = (longitude + 540.0).rem_euclid(360.0) - 180.0;
    Point::from_degrees(latitude.clamp(-90.0, 90.0), turned).unwrap()
}

/// Exact inverse of what is assumed of the ellipsoid: metres along the sphere of least radius.
fn metres(one: Point, other: Point) -> f64 {
    one.unit().angle(other.unit()) * 6_335_439.0
}

fn lies(area: &Area, discs: &[(Point, u64)]) -> Option<Lies> {
    let discs: Vec<Disc> = discs
        .iter()
        .filter_map(|(at, metres)| Disc::of(*at, *metres))
        .collect();
    let drawn = area.drawn().unwrap();
    Common::of(&discs).map(|common| drawn.lies(&common))
}

/// Even-odd in the plane of longitude and latitude, as RFC 7946 draws borders.
fn flat_holds(ring: &[(f64, f64)], latitude: f64, longitude: f64) -> bool {
    let mut inside = false;
    let sides = ring.iter().zip(ring.iter().cycle().skip(1));
    for (&(from_y, from_x), &(to_y, to_x)) in sides {
        if (from_y > latitude) != (to_y > latitude)
            && longitude < (to_x - from_x) * (latitude - from_y) / (to_y - from_y) + from_x
        {
            inside = !inside;
        }
    }
    inside
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, drawn and judged")]
fn the_verdict_agrees_with_sampling_wherever_on_earth() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut seen = [0; 4];
    for _ in 0..400 {
        // A star around a centre anywhere but at the poles, across the antimeridian too.
        let (north, east) = (random.within(-70.0, 70.0), random.within(-180.0, 180.0));
        let corners = 3 + (random.next() * 9.0) as usize;
        let size = random.within(0.5, 12.0);
        let ring: Vec<(f64, f64)> = (0..corners)
            .map(|corner| {
                let turn = core::f64::consts::TAU * corner as f64 / corners as f64;
                let reach = size * random.within(0.4, 1.0);
                (north + reach * turn.sin(), east + reach * turn.cos() * 1.4)
            })
            .collect();
        let written: Vec<[f64; 2]> = ring
            .iter()
            .map(|(latitude, longitude)| {
                let (latitude, longitude) = point(*latitude, *longitude).degrees();
                [latitude, longitude]
            })
            .collect();
        let area = Area::inline("star".to_owned(), &written).unwrap();
        // A host somewhere near, and landmarks that measured it with some delay.
        let host = point(
            north + random.within(-1.0, 1.0) * size,
            east + random.within(-1.2, 1.2) * size,
        );
        let discs: Vec<(Point, u64)> = (0..=((random.next() * 4.0) as usize))
            .map(|_| {
                let landmark = point(
                    north + random.within(-10.0, 10.0),
                    east + random.within(-15.0, 15.0),
                );
                let delay = random.next().powi(3) * 300_000.0;
                (landmark, (metres(host, landmark) + delay).ceil() as u64)
            })
            .collect();
        let Some(verdict) = lies(&area, &discs) else {
            panic!("the host itself is in all discs: {host:?} {discs:?}");
        };
        seen[match verdict {
            Lies::Contained => 0,
            Lies::Overlaps => 1,
            Lies::Outside => 2,
        }] += 1;
        let (mut inside, mut outside) = (false, false);
        for _ in 0..600 {
            let latitude = (north + random.within(-3.0, 3.0) * size).clamp(-89.9, 89.9);
            let longitude = east + random.within(-4.0, 4.0) * size;
            let sample = point(latitude, longitude);
            let possible = discs
                .iter()
                .all(|(at, reach)| metres(sample, *at) <= *reach as f64);
            if possible {
                seen[3] += 1;
                let holds = flat_holds(&ring, latitude, longitude);
                // Within 20 m of a border either word is right; samples fall there once in 10^5.
                inside |= holds;
                outside |= !holds;
            }
        }
        let told = format!("{verdict:?} {host:?} {ring:?} {discs:?}");
        match verdict {
            Lies::Contained => assert!(!outside, "{told}"),
            Lies::Outside => assert!(!inside, "{told}"),
            Lies::Overlaps => {
                // Some border is possible: walk them all, with room for the steps of the walk.
                let near = ring.iter().zip(ring.iter().cycle().skip(1)).any(|(a, b)| {
                    (0..=400).any(|step| {
                        let part = f64::from(step) / 400.0;
                        let on = point(a.0 + (b.0 - a.0) * part, a.1 + (b.1 - a.1) * part);
                        discs
                            .iter()
                            .all(|(at, reach)| metres(on, *at) <= *reach as f64 + 6_000.0)
                    })
                });
                assert!(near, "no border is near: {told}");
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
}

#[test]
fn an_area_over_the_antimeridian_and_one_split_there_are_one_area() {
    let whole = Area::inline(
        "whole".to_owned(),
        &[
            [-20.0, 175.0],
            [-20.0, -175.0],
            [-10.0, -175.0],
            [-10.0, 175.0],
        ],
    )
    .unwrap();
    let split = Area::geojson(
        "split".to_owned(),
        br#"{"type":"MultiPolygon","coordinates":[
            [[[175,-20],[180,-20],[180,-10],[175,-10],[175,-20]]],
            [[[-180,-20],[-175,-20],[-175,-10],[-180,-10],[-180,-20]]]]}"#,
    )
    .unwrap();
    for area in [&whole, &split] {
        let at = |longitude, km: u64| lies(area, &[(point(-15.0, longitude), km * 1000)]);
        assert_eq!(at(180.0, 100), Some(Lies::Contained), "{}", area.name);
        assert_eq!(at(-179.5, 100), Some(Lies::Contained), "{}", area.name);
        assert_eq!(at(175.5, 100), Some(Lies::Overlaps), "{}", area.name);
        assert_eq!(at(170.0, 100), Some(Lies::Outside), "{}", area.name);
        assert_eq!(at(0.0, 100), Some(Lies::Outside), "{}", area.name);
    }
}

#[test]
fn an_area_around_a_pole_holds_the_pole() {
    let cap: Vec<[f64; 2]> = (0..36)
        .map(|at| [-65.0, f64::from(at * 10 - 180)])
        .collect();
    let cap = Area::inline("cap".to_owned(), &cap).unwrap();
    // As data sets write it: along the antimeridian to the pole and back.
    let slit = Area::geojson(
        "slit".to_owned(),
        br#"{"type":"Feature","properties":{},"geometry":{"type":"Polygon","coordinates":[[
            [-180,-90],[-180,-65],[-90,-65],[0,-65],[90,-65],[180,-65],[180,-90],[-180,-90]]]}}"#,
    )
    .unwrap();
    for area in [&cap, &slit] {
        let at =
            |latitude, longitude, km: u64| lies(area, &[(point(latitude, longitude), km * 1000)]);
        assert_eq!(at(-90.0, 0.0, 500), Some(Lies::Contained), "{}", area.name);
        assert_eq!(
            at(-80.0, 180.0, 500),
            Some(Lies::Contained),
            "{}",
            area.name
        );
        assert_eq!(at(-66.0, 180.0, 500), Some(Lies::Overlaps), "{}", area.name);
        assert_eq!(at(-40.0, 20.0, 500), Some(Lies::Outside), "{}", area.name);
        assert_eq!(at(90.0, 0.0, 500), Some(Lies::Outside), "{}", area.name);
    }
}

#[test]
fn a_hole_is_not_in_the_area_and_a_neighbour_that_fills_it_makes_it_so() {
    let outer = "[[5,45],[15,45],[15,55],[5,55],[5,45]]";
    let hole = "[[9,49],[11,49],[11,51],[9,51],[9,49]]";
    let with = format!(r#"{{"type":"Polygon","coordinates":[{outer},{hole}]}}"#);
    let with = Area::geojson("with".to_owned(), with.as_bytes()).unwrap();
    let filled = format!(
        r#"{{"type":"MultiPolygon","coordinates":[[{outer},{hole}],[{hole}]],"name":"x"}}"#
    );
    let filled = Area::geojson("filled".to_owned(), filled.as_bytes()).unwrap();
    let at = |area, km: u64| lies(area, &[(point(50.0, 10.0), km * 1000)]);
    assert_eq!(at(&with, 20), Some(Lies::Outside));
    assert_eq!(at(&with, 200), Some(Lies::Overlaps));
    assert_eq!(at(&filled, 20), Some(Lies::Contained));
    assert_eq!(at(&filled, 200), Some(Lies::Contained));
    assert_eq!(at(&filled, 600), Some(Lies::Overlaps));
    let far = lies(&with, &[(point(46.0, 6.0), 20_000)]);
    assert_eq!(far, Some(Lies::Contained));
}

#[test]
fn areas_that_say_nothing_clear_are_faults() {
    let refused = |text: &str, why: &str| {
        let error = Area::geojson("x".to_owned(), text.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    };
    refused(r#"{"type":"Point","coordinates":[1,2]}"#, "no area");
    refused(
        r#"{"type":"FeatureCollection","features":[]}"#,
        "needs a polygon",
    );
    refused(
        r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1]]]}"#,
        "ends where it began",
    );
    refused(
        r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,91],[0,0]]]}"#,
        "no longitude",
    );
    refused(
        r#"{"type":"Polygon","coordinates":[[[0,0],[180,0],[1,9],[0,0]]]}"#,
        "half around",
    );
    refused(
        r#"{"type":"Polygon","coordinates":[[[0,0],[120,0],[-120,0],[0,0]]]}"#,
        "80 degrees",
    );
    refused("[", "not GeoJSON");
    assert!(Area::inline("x".to_owned(), &[[0.0, 0.0], [f64::NAN, 1.0], [1.0, 1.0]]).is_err());
}

#[test]
fn discs_never_leave_out_the_place_that_light_came_from() {
    // Vincenty's lengths on WGS 84 between known places, in metres.
    let known = [
        ((50.1109, 8.6821), (52.52, 13.405), 424_100.0),
        ((0.0, 0.0), (1.0, 0.0), 110_574.4),
        ((0.0, 0.0), (0.0, 1.0), 111_319.5),
        ((89.0, 0.0), (90.0, 0.0), 111_693.9),
        (
            (-37.951_033, 144.424_868),
            (-37.652_821, 143.926_496),
            54_972.3,
        ),
    ];
    for ((latitude, longitude), (other, east), length) in known {
        let (one, other) = (point(latitude, longitude), point(other, east));
        // The angle taken for a length is never less than the angle between the places.
        assert!(
            metres(one, other) <= length + 60.0,
            "{one:?} {other:?}: {}",
            metres(one, other)
        );
        assert!(metres(one, other) >= length * 0.98, "{one:?} {other:?}");
        let disc = Disc::of(one, length as u64).unwrap();
        assert!(disc.holds(other.unit()));
    }
    assert!(
        Disc::of(point(0.0, 0.0), 10_000_000).is_none(),
        "too wide to bound anything"
    );
    let apart = [
        Disc::of(point(0.0, 0.0), 50_000).unwrap(),
        Disc::of(point(0.0, 1.0), 50_000).unwrap(),
    ];
    assert!(Common::of(&apart).is_none());
    let Unit(_) = Common::of(&apart[..1]).unwrap().inside;
}
