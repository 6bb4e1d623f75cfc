//! The host: its GPUs, sessions, inferences, and what happened to it.

use super::MOST_ROWS;
use super::tell::{fact, instant, judged, more, number, says};
use crate::account::{Account, Happening, SessionAccount};
use crate::gpu::GpuAttested;
use crate::verdict::{CheckId, Verdict};
use maud::{Markup, html};

/// What GPUs sign themselves, and what they do not.
const SIGNED: [CheckId; 4] = [
    CheckId::GpuAttestation,
    CheckId::GpuMeasurements,
    CheckId::GpuBinding,
    CheckId::PolicyGpu,
];

pub(super) fn gpus(account: &Account, attested: &[GpuAttested], verdict: &Verdict) -> Markup {
    let devices = account
        .sessions
        .iter()
        .enumerate()
        .flat_map(|(at, session)| {
            let devices = session.gpu.devices.iter();
            devices.map(move |device| (at, session, device))
        });
    let devices: Vec<_> = devices.collect();
    let double = account
        .sessions
        .iter()
        .any(|session| session.gpu.test_library);
    html! {
        section aria-labelledby="gpus" {
            h2 #gpus { "GPUs" }
            p.warn { "An inventory as the driver's library told it. No GPU has signed this list: it is not proof of which hardware computed." }
            @if double { p.warn { b { "The library was a test double: its readings mean nothing." } } }
            @if devices.is_empty() { p { "No GPU is listed." } } @else {
                table.stack {
                    caption { "GPUs by session" }
                    thead { tr { th.w4 scope="col" { "Session" } th scope="col" { "GPU" } th.w8 scope="col" { "Confidential computing" } th.n.w6 scope="col" { "Energy" } } }
                    tbody {
                        @for (at, session, device) in devices.iter().take(MOST_ROWS) {
                            tr {
                                td data-h="Session" { (at) }
                                td data-h="GPU" {
                                    bdi { (device.name) } " " code { (device.uuid) }
                                    @if let Some(bytes) = device.memory_bytes { ", " (bytes >> 20) " MiB" }
                                    @if let Some(pci) = &device.pci { ", " bdi { (pci) } }
                                }
                                td data-h="Confidential computing" { bdi { (device.confidential.as_deref().unwrap_or("not told")) } }
                                td.n data-h="Energy" { (energy(session, &device.uuid)) }
                            }
                        }
                    }
                }
                (more(MOST_ROWS, devices.len()))
                p.note { "Energy is what the GPU's counter rose by between a session's first and last epoch; not told is not zero." }
            }
            (says("the agent, from NVML; sealed by the TPM"))
            @if !attested.is_empty() { (reports(attested)) }
            (judged(verdict, &SIGNED))
        }
    }
}

/// What GPUs signed themselves.
fn reports(attested: &[GpuAttested]) -> Markup {
    html! {
        h3 { "Reports that GPUs signed" }
        p.warn { "A signature says which GPU answered, not that it is in this host." }
        table.stack {
            caption { "Reports over the digest of a session" }
            thead { tr { th scope="col" { "GPU" } th scope="col" { "Certificate" } th scope="col" { "Driver, VBIOS" } th scope="col" { "Measurements" } } }
            tbody {
                @for one in attested.iter().take(MOST_ROWS) {
                    tr {
                        td data-h="GPU" { code { (one.uuid) } }
                        td data-h="Certificate" { bdi { (one.subject) } ", to " bdi { (one.anchor) } }
                        td data-h="Driver, VBIOS" { bdi { (one.driver.as_deref().unwrap_or("not told")) } ", " bdi { (one.vbios.as_deref().unwrap_or("not told")) } }
                        td data-h="Measurements" {
                            (one.measurements) ", " code { (one.measurements_sha256) }
                            @if let Some(compared) = &one.reference {
                                "; " (compared.equal) " are what the maker signed for these versions, for " (compared.without_value) " it gives no value"
                            }
                        }
                    }
                }
            }
        }
        (more(MOST_ROWS, attested.len()))
        (says("the GPU, by its own key"))
    }
}

fn energy(session: &SessionAccount, uuid: &str) -> String {
    let used = session.gpu.energy.iter().find(|used| used.uuid == uuid);
    used.and_then(|used| used.millijoules).map_or_else(
        || "not told".to_owned(),
        |mj| format!("{} J", number(mj / 1000)),
    )
}

pub(super) fn sessions(account: &Account) -> Markup {
    html! {
        section aria-labelledby="sessions" {
            h2 #sessions { "Sessions and epochs" }
            p { "A session lasts from a start of the agent to its end. Its log is sealed in epochs, each by one TPM quote. Both are counted from 0, here and in every check." }
            @for (at, session) in account.sessions.iter().enumerate().take(MOST_ROWS) { (one(at, session)) }
            (more(MOST_ROWS, account.sessions.len()))
            (says("the agent, sealed by the TPM"))
        }
    }
}

fn one(at: usize, session: &SessionAccount) -> Markup {
    html! {
        article.session {
            h3 { "Session " (at) }
            table.facts {
                tbody {
                    (fact("Began", &instant(session.started_ms)))
                    (fact("Last seal", &html! { @if let Some(ms) = session.last_ms { (instant(ms)) "; " } (session.end) }))
                    (fact("Epochs, entries", &html! { (number(session.epochs)) " epochs, " (number(session.entries)) " entries" }))
                    (fact("Boot", &html! { "TPM reset count " (session.boot) ", kernel " bdi { (session.kernel) } }))
                    (fact("TPM", &html! { bdi { (session.tpm) } @if session.tpm_software { b { " · a program, not a chip" } } }))
                    @for (name, digest, mode) in session.boundaries.iter().take(MOST_ROWS) {
                        (fact("Boundary", &html! { bdi { (name) } ", " (if *mode == "audit" { "audit: watched, not held" } else { "enforced" }) br; code { (digest) } }))
                    }
                    (fact("Agent", &html! { bdi { (session.agent) } br; code { (session.agent_sha256) } }))
                    (fact("Kernel programs", &html! { (session.programs) " of object" br; code { (session.object_sha256) } }))
                    (fact("Guarded groups", &html! { "at most " (number(session.groups)) " at the end of an epoch" }))
                    @if session.unsynchronised_epochs > 0 {
                        (fact("Host clock", &html! { "not synchronised in " (number(session.unsynchronised_epochs)) " epochs" }))
                    }
                    (fact("GPU monitor", &html! { @for (at, state) in session.gpu.states.iter().enumerate() { @if at > 0 { ", " } bdi { (state) } } }))
                    (fact("Statement", &html! { code { (session.statement_sha256) } }))
                }
            }
            table.stack {
                caption { "Tiers of enforcement" }
                thead { tr { th.w5 scope="col" { "Tier" } th.w5 scope="col" { "At the start" } th scope="col" { "In words" } } }
                tbody {
                    @for tier in session.tiers.iter().take(MOST_ROWS) {
                        tr {
                            th scope="row" { bdi { (tier.name) } }
                            td data-h="At the start" { (if tier.active { "in force" } else { "not there" }) }
                            td data-h="In words" {
                                bdi { (tier.detail) }
                                @if tier.active && tier.epochs_without > 0 { b { " · missing in " (number(tier.epochs_without)) " epochs" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Kinds whose absence is worth a word too.
const WATCHED: [(&str, &str); 8] = [
    ("tamper", "Attempts on the enforcement itself"),
    (
        "break_glass",
        "Break-glass: enforcement lifted by a signed token",
    ),
    ("grant", "Grants: signed, limited leave to go outside"),
    (
        "deputy",
        "Deputies: services that could carry data out for a guarded process",
    ),
    ("left", "Processes that left a guarded group"),
    ("lost", "Losses of events or entries"),
    ("canary", "Attempts to escape by the agent's own canary"),
    ("boundary", "Boundaries put in force or refused"),
];

pub(super) fn happenings(account: &Account) -> Markup {
    let shown = account.happenings.len().min(MOST_ROWS);
    html! {
        section aria-labelledby="events" {
            h2 #events { "What happened" }
            table {
                caption { "Entries of the log in this file, by kind" }
                thead { tr { th scope="col" { "Kind" } th.n.w6 scope="col" { "Entries" } } }
                tbody {
                    @for (kind, text) in WATCHED {
                        tr { td { (text) } td.n { (number(account.entries.get(kind).copied().unwrap_or(0))) } }
                    }
                }
            }
            @if shown > 0 {
                table.stack {
                    caption { "One by one, without guards, flows and GPU samples" }
                    thead { tr { th.w12 scope="col" { "Time" } th.w6 scope="col" { "Kind" } th scope="col" { "What" } th.n.w4 scope="col" { "Times" } } }
                    tbody { @for happening in account.happenings.iter().take(shown) { (row(happening)) } }
                }
                @let left = (account.happenings.len() - shown) as u64 + account.happenings_left_out;
                @if left > 0 { p.note { "And " (number(left)) " more: they are leaves of the file's log." } }
            }
            (says("the agent, sealed by the TPM"))
        }
    }
}

fn row(happening: &Happening) -> Markup {
    html! {
        tr {
            td data-h="Time" { (instant(happening.time_ms)) }
            td data-h="Kind" { (happening.kind.replace('_', " ")) }
            td data-h="What" {
                @if !happening.outcome.is_empty() { b { bdi { (happening.outcome) } } ": " }
                bdi { (happening.detail) }
            }
            td.n data-h="Times" { (number(happening.count)) }
        }
    }
}
