//! Where it ran, how well that is known, and what that knowledge rests on.

use super::tell::{fact, number, says};
use crate::report::Location;
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
            (says(&format!("the {source}")))
            p.note {
                "Levels: L0 the operator states it; L1 an auditor wrote it into the TPM; L2 neighbours or a cloud's signature confirm it; "
                "L3 round trips to landmarks bound it. Each is a statement about the host, not about where data went."
            }
        }
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
