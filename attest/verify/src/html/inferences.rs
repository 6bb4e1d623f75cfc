//! Single inferences: what the log tells of them, and plainly where it tells nothing.

use super::MOST_ROWS;
use super::tell::{length, moment, more, number, says};
use crate::account::{GpuUseTold, InferenceTold, Inferences};
use crate::receipts::Receipts;
use crate::report::ReceiptEntry;
use maud::{Markup, html};

pub(super) fn section(
    inferences: &Inferences,
    receipts: Option<&Receipts>,
    entries: &[ReceiptEntry],
) -> Markup {
    html! {
        section aria-labelledby="inferences" {
            h2 #inferences { "Inferences" }
            @if inferences.is_empty() {
                p.warn {
                    b { "This file has no record of single inferences. " }
                    "It shows when the host was guarded, what its guarded processes were allowed and refused, and which GPUs were there. "
                    "It does not show that any one inference ran, or which request, answer or model it had."
                }
            } @else { (records(inferences)) }
            @if let Some(receipts) = receipts { (receipted(receipts)) }
            @if !entries.is_empty() { (proven(entries)) }
        }
    }
}

fn records(inferences: &Inferences) -> Markup {
    html! {
        p {
            (number(inferences.observed)) " observed (R1), " (number(inferences.bound)) " bound (R2), "
            (number(inferences.amendments)) " amendments."
            @if inferences.joined > 0 {
                " Of the bound ones " (number(inferences.joined)) " are of exchanges that are among the observed ones, too."
            }
            @if inferences.passed_on > 0 {
                " Of the observed ones " (number(inferences.passed_on)) " are a gateway's own requests to its server, which a bound one holds."
            }
        }
        p.warn {
            "R1: the kernel saw a request and its answer pass on a guarded server's socket; nothing of their content is known, and an exchange "
            "need not be an inference. R2: a process of that group gave digests of request, answer and model besides; that they are true is its word. "
            "No record shows that the model computed what it should."
        }
        @let shown = inferences.told.len().min(MOST_ROWS);
        @let left = (inferences.told.len() - shown) as u64 + inferences.left_out;
        table.stack {
            caption {
                "Exchanges on guarded servers' sockets"
                @if left > 0 { ": the first " (number(shown as u64)) " of " (number(left + shown as u64)) }
            }
            thead { tr { th.w7 scope="col" { "Began" } th.w4 scope="col" { "Grade" } th scope="col" { "What" } th.w8 scope="col" { "Asked by" } th.n.w5 scope="col" { "Refused meanwhile" } th.n.w6 scope="col" { "Took" } } }
            tbody { @for one in inferences.told.iter().take(MOST_ROWS) { (row(one)) } }
        }
        @if left > 0 { p.note { "And " (number(left)) " more, counted above: they are leaves of the file's log." } }
        (says("the kernel, by way of the agent; R2's digests the workload; sealed by the TPM"))
    }
}

fn row(one: &InferenceTold) -> Markup {
    html! {
        tr {
            td data-h="Began" { (moment(&one.started)) }
            td data-h="Grade" { (one.grade) @if one.seen_by == "workload" { ", not seen by the kernel" } }
            td data-h="What" {
                bdi { (one.what) } ", " (number(one.bytes.0)) " bytes in, " (number(one.bytes.1)) " out"
                @if let Some(model) = &one.model { ", model " bdi { (model) } }
                @if let Some(server) = &one.server { ", by " bdi { (server) } }
                @if let Some(onward) = &one.onward {
                    ", passed on to " bdi { (onward.server.as_deref().unwrap_or("a server")) } ": "
                    (number(onward.bytes.0)) " bytes in, " (number(onward.bytes.1)) " out, " (length(onward.took_ms))
                }
                @if let Some(sent) = &one.egress { "; meanwhile its group sent " (number(sent.allowed_bytes)) " bytes" }
                @for gpu in &one.gpus { ", on GPU " code { (gpu) } }
                @for used in &one.gpu_use { (gpu_use(used)) }
            }
            td data-h="Asked by" { (one.peer) (if one.peer_inside { ", inside the boundary" } else { ", outside the boundary" }) }
            td.n data-h="Refused meanwhile" { @match &one.egress { Some(sent) => (number(sent.denied)), None => "not known" } }
            td.n data-h="Took" { (length(one.took_ms)) }
        }
    }
}

/// What is of the whole GPU is said to be.
pub(super) fn gpu_use(used: &GpuUseTold) -> Markup {
    html! {
        "; " code { (used.gpu) } " between readings " (length(used.read_ms)) " apart"
        @if let Some(energy) = used.energy_millijoules { ", all of it " (number(energy / 1000)) " J" }
        @if let Some(busy) = used.busy_percent { ", busy " (busy) " %" }
        @if let Some(share) = used.group_percent { ", the group's processes " (share) " %" }
        @if let Some(memory) = used.group_memory_bytes { ", with " (number(memory >> 20)) " MiB" }
    }
}

/// What clients were handed, as far as it is in the file.
fn receipted(receipts: &Receipts) -> Markup {
    html! {
        @if receipts.checked == 0 {
            p.note { "The file holds no receipt, so none was checked." }
        } @else {
            table.stack {
                caption { "Receipts checked: signed at once by the session's key, and true of their sealed leaves" }
                thead { tr { th.w7 scope="col" { "Issued" } th.w4 scope="col" { "Grade" } th scope="col" { "Id" } th.w5 scope="col" { "Leaf" } th.w8 scope="col" { "Seen by" } } }
                tbody {
                    @for one in receipts.shown.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Issued" { (moment(&one.issued)) }
                            td data-h="Grade" { (one.grade) }
                            td data-h="Id" {
                                code { (one.id) }
                                @if let Some(model) = &one.model { ", model " bdi { (model) } }
                                @if one.nonce.is_some() { ", with the client's nonce" }
                            }
                            td data-h="Leaf" { (one.index) }
                            td data-h="Seen by" { (one.seen_by) }
                        }
                    }
                }
            }
            @let shown = receipts.shown.len().min(MOST_ROWS);
            @let left = (receipts.shown.len() - shown) as u64 + receipts.left_out;
            @if left > 0 { p.note { "And " (number(left)) " more, all checked." } }
            @if receipts.contents { p { b { "Request and answer, as far as they were given, are those that the record binds." } } }
            (says("the agent's session key, which the TPM sealed in the session's statement"))
        }
    }
}

pub(super) fn proven(entries: &[ReceiptEntry]) -> Markup {
    html! {
        table.stack {
            caption { "Single entries proven in this file" }
            thead { tr { th.w4 scope="col" { "Entry" } th.w7 scope="col" { "Time" } th.w5 scope="col" { "Kind" } th scope="col" { "All it says" } } }
            tbody {
                @for entry in entries.iter().take(MOST_ROWS) {
                    tr {
                        td data-h="Entry" { (entry.index) }
                        td data-h="Time" { (moment(&entry.time)) }
                        td data-h="Kind" { (entry.kind) }
                        td data-h="All it says" { bdi { (entry.detail) } }
                    }
                }
            }
        }
        (more(MOST_ROWS, entries.len()))
    }
}
