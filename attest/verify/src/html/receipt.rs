//! One receipt: what it says, field by field, for whoever was handed it.
//!
//! Nothing of the rest of the period is told: a receipt's file shows single leaves, and what it
//! has besides is of the whole session.

use super::MOST_ROWS;
use super::inferences::{gpu_use, proven};
use super::tell::{fact, length, moment, more, number, says};
use crate::account::InferenceTold;
use crate::receipts::{ReceiptShown, Receipts};
use crate::report::ReceiptEntry;
use crate::verdict::Verdict;
use maud::{Markup, html};

pub(super) fn section(verdict: &Verdict) -> Markup {
    let receipts = verdict.receipts.as_ref();
    let shown = receipts.map_or(&[][..], |receipts| receipts.shown.as_slice());
    let told = verdict.account.as_ref();
    let told = told.map_or(&[][..], |account| account.inferences.told.as_slice());
    // A record with its receipt is told above, field by field.
    let covered = |index: u64| {
        let mut receipts = shown.iter();
        receipts.any(|one| one.index == index && told.iter().any(|told| told.id == one.id))
    };
    let rest = verdict.entries.iter().filter(|entry| !covered(entry.index));
    let rest: Vec<ReceiptEntry> = rest.cloned().collect();
    html! {
        section aria-labelledby="receipt" {
            h2 #receipt { "What the receipt says" }
            @if shown.is_empty() {
                p.warn {
                    b { "This file has no receipt that was checked. " }
                    "It shows single entries of a log, listed below."
                }
            } @else {
                p.warn {
                    "R1: the kernel saw a request and its answer pass on a guarded server's socket; nothing of their content is known. "
                    "R2: a process of that group gave digests of request, answer and model besides; that they are true is its word. "
                    "No receipt shows that the model computed what it should, or how many others there are."
                }
            }
            @for one in shown.iter().take(MOST_ROWS) {
                (facts(one, told.iter().find(|told| told.id == one.id), receipts))
            }
            (more(MOST_ROWS, shown.len()))
            @if !shown.is_empty() {
                (says("the agent's session key, which the TPM sealed; the leaf, which it sealed too; R2's digests the workload"))
            }
            @if !rest.is_empty() { (proven(&rest)) }
        }
    }
}

fn facts(
    one: &ReceiptShown,
    record: Option<&InferenceTold>,
    receipts: Option<&Receipts>,
) -> Markup {
    // Destructured whole: what a receipt gains is shown here, or left out on purpose.
    let ReceiptShown {
        id,
        grade,
        issued,
        index,
        session,
        nonce,
        request,
        answer,
        model,
        seen_by,
    } = one;
    let code = |text: &str| html! { code { (text) } };
    let compared = receipts.is_some_and(|receipts| receipts.contents);
    html! {
        table.facts {
            caption { "Receipt " code { (id) } }
            tbody {
                (fact("Issued", &moment(issued)))
                (fact("Grade", &html! { (grade) ", seen by the " (seen_by) }))
                @if let Some(record) = record { (exchange(record)) }
                @if let Some(model) = model { (fact("Model, as named", &html! { bdi { (model) } })) }
                @if let Some(nonce) = nonce { (fact("Client's nonce", &code(nonce))) }
                @if let Some(request) = request { (fact("Request's digest", &code(request))) }
                @if let Some(answer) = answer { (fact("Answer's digest", &code(answer))) }
                @if request.is_some() || answer.is_some() {
                    (fact("Request and answer", &html! {
                        @if compared {
                            b { "Compared: what was given is what the record binds." }
                        } @else {
                            "Not compared: none was given. With them and the salt, "
                            code { "--request FILE --answer FILE --salt HEX" } " does."
                        }
                    }))
                }
                (fact("Leaf of the log", &html! { (number(*index)) }))
                (fact("Session of its key", &code(session)))
            }
        }
    }
}

/// What the sealed record tells of the exchange.
fn exchange(record: &InferenceTold) -> Markup {
    let InferenceTold {
        id: _,
        grade: _,
        started,
        took_ms,
        what,
        bytes,
        peer,
        peer_inside,
        server,
        onward,
        gpus,
        gpu_use: used,
        egress,
        model: _,
        seen_by: _,
    } = record;
    html! {
        (fact("Began, took", &html! { (moment(started)) ", " (length(*took_ms)) }))
        (fact("Exchange", &html! { bdi { (what) } ", " (number(bytes.0)) " bytes in, " (number(bytes.1)) " out" }))
        (fact("Asked by", &html! { bdi { (peer) } (if *peer_inside { ", inside the boundary" } else { ", outside the boundary" }) }))
        @if let Some(server) = server { (fact("Server", &html! { bdi { (server) } })) }
        @if let Some(onward) = onward {
            (fact("Passed on to", &html! {
                bdi { (onward.server.as_deref().unwrap_or("a server")) } ", " (number(onward.bytes.0)) " bytes in, "
                (number(onward.bytes.1)) " out, " (length(onward.took_ms))
            }))
        }
        @if !gpus.is_empty() {
            (fact("GPUs", &html! {
                @for (at, gpu) in gpus.iter().enumerate() { @if at > 0 { ", " } code { (gpu) } }
                @for used in used { (gpu_use(used)) }
            }))
        }
        (fact("Its group meanwhile", &html! {
            @match egress {
                Some(sent) => { "sent " (number(sent.allowed_bytes)) " bytes, refused " (number(sent.denied)) " times" }
                None => "not known",
            }
        }))
    }
}
