//! The log's short names in words, for people who have never seen a hook.
//!
//! It explains and never decides: the name itself stands beside the words, and one that this
//! verifier does not know stands alone.

use maud::{Markup, html};

/// Where a decision was made.
pub(super) fn hook(name: &str) -> &'static str {
    match name {
        "device" => "a device was opened",
        "connect4" | "connect6" | "lsm_connect" => "a connection was begun",
        "sendmsg4" | "sendmsg6" | "lsm_sendmsg" => "a message was to be sent",
        "egress" => "a packet was to leave a process",
        "ingress" => "a packet came to a process",
        "tcx" => "a packet was to leave the host by a network link",
        "sock_create" | "lsm_create" | "sys_enter" => "a socket was to be made",
        "setsockopt" => "a socket was to be set otherwise",
        "sysctl" => "a setting of the kernel was to be changed",
        "fork" | "exec" | "exit" | "attach" => "a process was followed",
        "scan" => "a process was found that had a GPU before the agent came",
        "lsm_open" => "a file was opened",
        "lsm_receive" => "something was handed to a process",
        "lsm_unix_connect" | "lsm_unix_send" => "another process of the host was asked",
        "lsm_bpf" | "lsm_kill" | "lsm_ptrace" | "lsm_inode" | "lsm_mount" => {
            "enforcement was to be touched"
        }
        "lsm_kernel" => "the kernel was asked to do something itself",
        "watch" => "the agent looked after its own enforcement",
        _ => "",
    }
}

/// Why it was made so.
pub(super) fn reason(name: &str) -> &'static str {
    match name {
        "rule" => "a rule of the boundary matches",
        "no_rule" => "no rule of the boundary allows it",
        "unparsable" => "it cannot be read as far as a decision needs",
        "routing_header" | "source_route" => "the packet names its own way",
        "unknown_header" | "not_ip" => "a form that is not judged",
        "family" => "a kind of socket that is not allowed",
        "embedded" => "an address within the address lies outside",
        "no_room" => "it could not have been recorded",
        "socket_option" => "a setting that a guarded process may not make",
        "deputy" => "somebody outside the group would be asked",
        "rdma" => "a device whose traffic nothing sees",
        "tunnel" => "a tunnel carries another's packets",
        "name" => "no rule lists the name that was asked for",
        "name_form" => "a question for a name in a form that cannot be judged",
        "grant" => "a signed grant lets it through",
        "grant_spent" => "the grant for it is used up",
        "tamper" => "an attempt on enforcement",
        "passed" => "a socket or GPU that was handed over",
        "filesystem" => "the kernel would send for it over the network",
        "agent_lost" => "the agent is gone, and the boundary then refuses everything",
        "privilege" => "a power over the network or the kernel",
        "kernel" => "the kernel would act outside the group",
        "intrusion" => "it reaches into a process outside the group",
        _ => "",
    }
}

/// What was decided.
pub(super) fn decision(name: &str) -> &str {
    match name {
        "allow" => "allowed",
        "deny" => "refused",
        "audit" => "let out, only watched",
        other => other,
    }
}

/// A short name with its words, or alone.
pub(super) fn explained(name: &str, words: &str) -> Markup {
    html! {
        @if words.is_empty() { bdi { (name) } } @else { (words) " " span.id { bdi { (name) } } }
    }
}
