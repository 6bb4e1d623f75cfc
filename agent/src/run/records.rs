//! Records of inferences, their receipts, and who may give digests.
//!
//! Each record gets a receipt at once, signed by the session's key; where no session is open
//! the record is written without one, and counted. A process gives digests of what it was asked
//! and answered; whose group it is in is the kernel's answer, and where the kernel saw no turn
//! on the connection it names, the entry says that the rest is the workload's word.

use super::agent::Agent;
use super::report;
use super::turns::Sought;
use crate::api::RecordsInfo;
use crate::bpf::Kernel;
use crate::canary::Canary;
use crate::clock;
use crate::flow::ProcessInfo;
use crate::serve::{Issued, Peer, Post, RecordRefused};
use crate::workload;
use base64ct::{Base64, Encoding as _};
use merestone_abi::{GroupId, Verdict};
use merestone_evidence::{
    Binding, Body, Digest, End, Grade, Inference, NONCE_BYTES, Onward, Process, Receipt, receipt_id,
};
use rustix::rand::{GetRandomFlags, getrandom};

/// How far the end of an answer may lie after now, for clocks read one after the other.
const AHEAD_MS: u64 = 2000;
/// How long ago an answer may have ended.
const LATE_MS: u64 = 10 * 60 * 1000;
/// Longest name of a model, in bytes.
const MOST_MODEL: usize = 128;
/// Longest method and path.
const MOST_METHOD: usize = 16;
const MOST_PATH: usize = 128;

/// What became of records, as far as the kernel's turns do not count it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Issuing {
    bound: u64,
    receipts: u64,
    unreceipted: u64,
}

impl Issuing {
    pub(super) const fn add_to(self, info: RecordsInfo) -> RecordsInfo {
        RecordsInfo {
            bound: self.bound,
            receipts: self.receipts,
            unreceipted: self.unreceipted,
            ..info
        }
    }
}

/// A post whose every word has a form that may stand in the log.
pub(super) struct Told {
    pub(super) id: Option<[u8; 16]>,
    pub(super) binding: Binding,
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    pub(super) nonce: Option<Vec<u8>>,
    post: Post,
}

fn bad(why: impl Into<String>) -> RecordRefused {
    RecordRefused::Bad { why: why.into() }
}

fn fixed<const N: usize>(text: &str, what: &str) -> Result<[u8; N], RecordRefused> {
    let mut bytes = [0; N];
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) if is_lower => Ok(bytes),
        _ => Err(bad(format!(
            "{what} is {} lower-case hexadecimal digits",
            2 * N
        ))),
    }
}

fn word(text: Option<&str>, what: &str, most: usize) -> Result<Option<String>, RecordRefused> {
    let is_plain =
        |text: &str| !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
    match text {
        Some(text) if !is_plain(text) => Err(bad(format!(
            "{what} is 1 to {most} bytes without control characters"
        ))),
        other => Ok(other.map(str::to_owned)),
    }
}

impl Told {
    pub(super) fn parse(post: Post, now_ms: u64) -> Result<Self, RecordRefused> {
        let digest = |text: &str, what: &str| fixed(text, what).map(Digest);
        let files = post.model_files.as_deref();
        let binding = Binding {
            request: digest(&post.request, "request")?,
            response: digest(&post.answer, "answer")?,
            model: word(post.model.as_deref(), "model", MOST_MODEL)?,
            model_sha256: files.map(|text| digest(text, "model_files")).transpose()?,
            process: None,
            status: post.status,
        };
        if post
            .status
            .is_some_and(|status| !(100..=599).contains(&status))
        {
            return Err(bad("status is 100 to 599"));
        }
        let first_ms = post.first_ms.unwrap_or(post.started_ms);
        if post.started_ms > first_ms || first_ms > post.ended_ms {
            return Err(bad("started_ms, first_ms and ended_ms are in this order"));
        }
        if post.ended_ms > now_ms.saturating_add(AHEAD_MS)
            || post.ended_ms < now_ms.saturating_sub(LATE_MS)
        {
            return Err(bad(format!(
                "ended_ms is in the last ten minutes; now is {now_ms}"
            )));
        }
        let nonce = post.nonce.as_deref().map(|text| {
            let nonce = Base64::decode_vec(text).ok();
            let nonce = nonce.filter(|nonce| NONCE_BYTES.contains(&nonce.len()));
            nonce.ok_or_else(|| bad("nonce is the base64 of 8 to 64 bytes"))
        });
        let method = word(post.method.as_deref(), "method", MOST_METHOD)?;
        // The query can hold what was asked.
        let path = word(post.path.as_deref(), "path", MOST_BYTES_OF_TARGET)?;
        let path = path.map(|path| path.split('?').next().unwrap_or_default().to_owned());
        if path.as_ref().is_some_and(|path| path.len() > MOST_PATH) {
            return Err(bad(format!(
                "path is at most {MOST_PATH} bytes without its query"
            )));
        }
        Ok(Self {
            id: post.id.as_deref().map(|id| fixed(id, "id")).transpose()?,
            binding,
            method,
            path,
            nonce: nonce.transpose()?,
            post,
        })
    }
}

/// A path with its query.
const MOST_BYTES_OF_TARGET: usize = 8 << 10;

/// The group of a process that is still the one that connected.
fn group(kernel: &Kernel, canary: Option<&Canary>, peer: &Peer) -> Option<GroupId> {
    let group = kernel.group_of(peer.pid())?;
    let is_workload = canary.and_then(Canary::group) != Some(group);
    (is_workload && peer.is_alive()).then_some(group)
}

impl Agent {
    pub(super) fn is_guarded(&self, peer: &Peer) -> bool {
        group(&self.parts.kernel, self.canary.as_ref(), peer).is_some()
    }

    /// Appends a record and issues its receipt; none where no session is open, or where the disk
    /// refuses.
    pub(super) fn record(&mut self, record: Inference, nonce: Option<Vec<u8>>) -> Option<Issued> {
        let bound = record.binding.clone();
        let written = self.append(Body::Inference(Box::new(record.clone())));
        let (time_ms, index, leaf) = written?;
        if record.grade == Grade::Bound {
            self.issuing.bound += 1;
        }
        let issued = self.parts.sealer.key().and_then(|key| {
            let receipt = Receipt {
                issued_s: time_ms / 1000,
                id: receipt_id(&record, &leaf),
                nonce,
                ueid: key.ueid(),
                session: key.session(),
                index,
                leaf,
                grade: record.grade,
                request: bound.as_ref().map(|bound| bound.request),
                response: bound.as_ref().map(|bound| bound.response),
                model: bound.as_ref().and_then(|bound| bound.model.clone()),
                model_sha256: bound.as_ref().and_then(|bound| bound.model_sha256),
            };
            let kept = key.sign(&receipt).map_err(anyhow::Error::from);
            let kept = kept.and_then(|message| {
                let ledger = &self.parts.ledger;
                ledger.keep_receipt(receipt.id, (index, leaf), &message)?;
                Ok(message)
            });
            match kept {
                Ok(message) => Some(Issued {
                    id: receipt.id,
                    index,
                    message,
                }),
                Err(error) => {
                    tracing::error!(%error, "a record has no receipt");
                    None
                }
            }
        });
        if issued.is_some() {
            self.issuing.receipts += 1;
        } else {
            self.issuing.unreceipted += 1;
        }
        issued
    }

    /// A record that a process gives of its own answer.
    pub(super) fn bind(
        &mut self,
        peer: &Peer,
        post: Result<Post, String>,
    ) -> Result<Issued, RecordRefused> {
        let group = group(&self.parts.kernel, self.canary.as_ref(), peer);
        let group = group.ok_or(RecordRefused::NotGuarded)?;
        let told = Told::parse(post.map_err(bad)?, clock::now_ms())?;
        let unavailable = |why: &str| RecordRefused::Unavailable {
            why: why.to_owned(),
        };
        if self.parts.sealer.key().is_none() {
            return Err(unavailable(
                "no session is open: the TPM has not sealed one yet",
            ));
        }
        let id = self.fresh_id(told.id)?;
        let process = tokio::task::block_in_place(|| caller(peer));
        let nonce = told.nonce.clone();
        let record = self.bound_record(id, group, process, told);
        self.record(record, nonce)
            .ok_or_else(|| unavailable("the disk takes no record, or no receipt"))
    }

    fn fresh_id(&self, given: Option<[u8; 16]>) -> Result<[u8; 16], RecordRefused> {
        let unavailable = |why: String| RecordRefused::Unavailable { why };
        let Some(id) = given else {
            let mut id = [0; 16];
            return getrandom(&mut id, GetRandomFlags::empty())
                .map(|_bytes| id)
                .map_err(|error| unavailable(error.to_string()));
        };
        match self.parts.ledger.has_receipt(&id) {
            Ok(false) => Ok(id),
            Ok(true) => Err(RecordRefused::Used {
                id: hex::encode(id),
            }),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    /// The kernel's facts with the process's digests; without a turn of the kernel's, what the
    /// process says, and that it alone says so.
    fn bound_record(
        &mut self,
        id: [u8; 16],
        group: GroupId,
        process: Option<Process>,
        told: Told,
    ) -> Inference {
        let Told {
            id: _,
            binding,
            method,
            path,
            nonce: _,
            post,
        } = told;
        let binding = Some(Binding { process, ..binding });
        self.read_groups(false);
        if let Some((seen, onward)) = self.joined(group, &post) {
            return Inference {
                id,
                grade: Grade::Bound,
                turn: Some(seen.id),
                onward,
                method: seen.method.clone().or(method),
                path: seen.path.clone().or(path),
                binding,
                ..seen
            };
        }
        let peer = post.connection.map(|connection| connection.peer);
        let peer_ip = peer.map_or([0; 16], |peer| mapped(peer.ip()));
        let peer_port = peer.map_or(0, |peer| peer.port());
        let ago_ms = clock::now_ms().saturating_sub(post.started_ms);
        let started_ns = clock::boot_ns().saturating_sub(ago_ms.saturating_mul(1_000_000));
        Inference {
            id,
            grade: Grade::Bound,
            started_ms: post.started_ms,
            answered_ms: post.first_ms,
            ended_ms: post.ended_ms,
            request_bytes: post.request_bytes,
            response_bytes: post.answer_bytes,
            group,
            process: None,
            peer: peer_ip,
            peer_port,
            port: post
                .connection
                .map_or(0, |connection| connection.local.port()),
            peer_inside: peer.is_some() && self.is_inside(group, peer_ip, peer_port),
            form: "told".to_owned(),
            method,
            path,
            end: End::Server,
            gpus: report::gpus_of_group(self, group),
            egress: self.turns.egress(group, started_ns),
            amends: false,
            binding,
            turn: None,
            onward: None,
        }
    }

    /// What the kernel saw of the connection that a process tells of, and of the one on which it
    /// says that it passed the request on.
    fn joined(&mut self, group: GroupId, post: &Post) -> Option<(Inference, Option<Onward>)> {
        let connection = post.connection?;
        let (open, ended) = (
            self.parts.kernel.open_turns(),
            self.parts.kernel.ended_turns(),
        );
        match ended {
            Ok(ended) => self.turns.take(ended),
            Err(error) => tracing::error!(%error, "cannot read the ended turns"),
        }
        let open = open.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the open turns");
            Vec::new()
        });
        let sought = Sought {
            group,
            peer: mapped(connection.peer.ip()),
            peer_port: connection.peer.port(),
            port: connection.local.port(),
            started_ms: post.started_ms,
            ended_ms: post.ended_ms,
            boot_ms: report::boot_to_ms(0),
            is_onward: false,
        };
        let due = self.turns.join(&open, &sought)?;
        let facts = report::turn_facts(self, &due.turn);
        let seen = self.turns.facts(&due, facts);
        let onward = post.upstream.and_then(|upstream| {
            let sought = Sought {
                peer: mapped(upstream.local.ip()),
                peer_port: upstream.local.port(),
                port: upstream.peer.port(),
                is_onward: true,
                ..sought
            };
            let due = self.turns.join(&open, &sought)?;
            let facts = report::turn_facts(self, &due.turn);
            Some(onward(self.turns.facts(&due, facts)))
        });
        Some((seen, onward))
    }

    /// Whether the boundary lets a group send there.
    pub(super) fn is_inside(&mut self, group: GroupId, address: [u8; 16], port: u16) -> bool {
        let cgroup = self.attributor.cgroup(group);
        let boundary = &self.parts.boundary;
        let select = cgroup.and_then(|cgroup| boundary.select(&cgroup));
        let decision = crate::policy::lookup_in(
            boundary,
            select.map_or(0, |select| select.boundary),
            address,
            merestone_abi::protocol::TCP,
            port,
            false,
        );
        decision.verdict == Verdict::ALLOW
    }
}

/// A turn as part of the record that a gateway gave of it.
fn onward(seen: Inference) -> Onward {
    Onward {
        turn: seen.id,
        started_ms: seen.started_ms,
        ended_ms: seen.ended_ms,
        request_bytes: seen.request_bytes,
        response_bytes: seen.response_bytes,
        process: seen.process,
        peer: seen.peer,
        peer_port: seen.peer_port,
        port: seen.port,
        amends: seen.amends,
    }
}

/// The process that tells, as long as it is there.
fn caller(peer: &Peer) -> Option<Process> {
    let found = workload::inspect(peer.pid())?;
    let info = ProcessInfo {
        pid: peer.pid(),
        start_time: Some(found.start_time_ticks),
        comm: found.comm,
        exe: found.exe,
        exe_sha256: found.exe_sha256,
        cgroup: Some(found.cgroup),
        container_id: found.container_id,
        pod_uid: found.pod_uid,
    };
    // Alive after it was looked at: what was seen is its own.
    peer.is_alive()
        .then(|| super::entries::process(&info))
        .flatten()
}

fn mapped(address: std::net::IpAddr) -> [u8; 16] {
    match address {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_760_000_000_000;

    fn post() -> Post {
        let text = format!(
            r#"{{"request":"{0}","answer":"{0}","started_ms":{1},"ended_ms":{1},"request_bytes":1,"answer_bytes":2}}"#,
            "ab".repeat(32),
            NOW - 5
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_post_is_closed_and_every_word_of_it_has_its_form() {
        type Change = fn(&mut Post);
        assert!(Told::parse(post(), NOW).is_ok());
        let unknown = r#"{"request":"","answer":"","started_ms":1,"ended_ms":1,"request_bytes":1,"answer_bytes":2,"group":7}"#;
        assert!(serde_json::from_str::<Post>(unknown).is_err());
        let wrong: &[(&str, Change)] = &[
            ("id", |post| post.id = Some("AB".repeat(16))),
            ("id", |post| post.id = Some("ab".repeat(15))),
            ("request", |post| post.request.pop().map_or((), drop)),
            ("answer", |post| post.answer = "zz".repeat(32)),
            ("model", |post| post.model = Some("a\x1b[2J".to_owned())),
            ("model", |post| post.model = Some("a".repeat(129))),
            ("model_files", |post| post.model_files = Some(String::new())),
            ("status", |post| post.status = Some(99)),
            ("order", |post| post.first_ms = Some(NOW - 6)),
            ("ended_ms", |post| post.ended_ms = NOW + 60_000),
            ("ended_ms", |post| {
                (post.started_ms, post.ended_ms) = (1, 1);
            }),
            ("nonce", |post| post.nonce = Some("AAAA".to_owned())),
            ("path", |post| post.path = Some("/".repeat(129))),
        ];
        for (what, change) in wrong {
            let mut post = post();
            change(&mut post);
            let refused = Told::parse(post, NOW).err().unwrap().to_string();
            assert!(refused.contains(what), "{what}: {refused}");
        }
    }

    #[test]
    fn a_path_loses_its_query() {
        let mut post = post();
        post.path = Some("/v1/x?user=jane".to_owned());
        let told = Told::parse(post, NOW).ok().unwrap();
        assert_eq!(told.path.as_deref(), Some("/v1/x"));
    }
}
