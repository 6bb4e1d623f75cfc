//! Where it ran, how well that is known, and what that knowledge rests on.

use super::MOST_ROWS;
use super::tell::{fact, moment, more, number, says};
use crate::location::{CloudTold, LevelTold, Location, RoundTold};
use maud::{Markup, html};
use std::collections::BTreeSet;

pub(super) fn section(location: &Location) -> Markup {
    let Location {
        level,
        assumption,
        source,
        countries,
        regions,
        facilities,
        unstated_sessions,
        levels,
        area,
        rounds,
        rounds_left_out,
        clouds,
        evidence_not_shown,
    } = location;
    html! {
        section aria-labelledby="place" {
            h2 #place { "Place" }
            p.warn {
                b { "Level " (level) "." } " This holds only if: " (assumption) "."
            }
            table.facts {
                caption { "The place as stated" }
                tbody {
                    (fact("Country", &all(countries)))
                    (fact("Region", &all(regions)))
                    (fact("Facility", &all(facilities)))
                    @if *unstated_sessions > 0 {
                        (fact("Sessions that state none", &html! { (number(*unstated_sessions)) }))
                    }
                }
            }
            (ladder(levels, *evidence_not_shown))
            @if !rounds.is_empty() { (measured(rounds, *rounds_left_out, area.as_deref())) }
            @if !clouds.is_empty() { (signed(clouds)) }
            (says(&format!("the {source}")))
            p.note {
                "Levels: L0 the operator states it; L1 an auditor wrote it into the TPM; L2 neighbours or a cloud's signature confirm it; "
                "L3 round trips to landmarks bound it. Each is a statement about the host, not about where data went."
            }
        }
    }
}

fn ladder(levels: &[LevelTold], evidence_not_shown: u64) -> Markup {
    html! {
        table.stack {
            caption { "What there is of each level" }
            thead { tr { th.w4 scope="col" { "Level" } th.w6 scope="col" { "State" } th scope="col" { "Why" } th scope="col" { "Holds only if" } } }
            tbody {
                @for level in levels {
                    tr {
                        td data-h="Level" { (level.level) }
                        td data-h="State" { (level.state) }
                        td data-h="Why" { bdi { (level.detail) } }
                        td data-h="Holds only if" { (level.assumption) }
                    }
                }
            }
        }
        @if evidence_not_shown > 0 {
            p.warn { (number(evidence_not_shown)) " pieces of location evidence were sealed and are not in this file." }
        }
    }
}

fn signed(clouds: &[CloudTold]) -> Markup {
    html! {
        table.stack {
            caption { "What clouds signed of the instance" }
            thead { tr { th.w7 scope="col" { "Sealed" } th.w6 scope="col" { "Cloud" } th scope="col" { "Region" } th scope="col" { "Instance" } th scope="col" { "Tied to the session by" } } }
            tbody {
                @for one in clouds.iter().take(MOST_ROWS) {
                    tr {
                        td data-h="Sealed" { (moment(&one.sealed)) }
                        td data-h="Cloud" { (one.provider) }
                        td data-h="Region" { bdi { (one.region.as_deref().unwrap_or("not stated")) } }
                        td data-h="Instance" { bdi { (one.instance) } }
                        td data-h="Tied to the session by" { (one.bound_by.unwrap_or("nothing: it may be of any time")) }
                    }
                }
            }
        }
        (more(MOST_ROWS, clouds.len()))
    }
}

fn measured(rounds: &[RoundTold], left_out: u64, area: Option<&str>) -> Markup {
    let shown = rounds.len().min(MOST_ROWS);
    html! {
        table.stack {
            caption {
                "Measurements: light cannot have come from farther away. Together they are contained in"
                @if let Some(area) = area { " " bdi { (area) } } @else { " an area" }
                ", overlap it, or lie outside; only contained is a pass"
            }
            thead { tr { th.w7 scope="col" { "Sealed" } th.w6 scope="col" { "Together" } th scope="col" { "Landmark, its operator: shortest round trip, at most so far away" } } }
            tbody {
                @for round in rounds.iter().take(MOST_ROWS) {
                    tr {
                        td data-h="Sealed" { (moment(&round.sealed)) }
                        td data-h="Together" { (round.place.unwrap_or("nothing to be said")) }
                        td data-h="Measured" {
                            @for one in &round.measured {
                                div {
                                    bdi { (one.landmark) } ", " bdi { (one.operator) } ": " (number(one.rtt_us)) " µs, " (number(one.within_km)) " km"
                                    @if !one.independent { " (not independent: does not count)" }
                                }
                            }
                            @if round.unpinned > 0 { div { (number(round.unpinned)) " by landmarks that the policy does not pin" } }
                        }
                    }
                }
            }
        }
        (more(shown, rounds.len() + usize::try_from(left_out).unwrap_or(usize::MAX - rounds.len())))
    }
}

fn all(places: &BTreeSet<String>) -> Markup {
    html! {
        @if places.is_empty() { "not stated" }
        @for (at, place) in places.iter().enumerate() {
            @if at > 0 { ", " }
            bdi { (place) }
        }
    }
}
