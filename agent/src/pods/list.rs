//! A `v1.PodList`, of which only what names and places a pod is read.
//!
//! A pod whose uid has not the form of one is left out, and so are all that
//! claim the same uid: what is left out is not known, and so denied. A static
//! pod's cgroup bears the hash of its file. Where only its mirror is listed,
//! the mirror's annotations say the hash; but anybody who may make a pod may
//! write annotations, so a claim counts only for a uid that is such a hash and
//! that no listed pod has itself.

use super::{Pod, Qos};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What the kubelet said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answer {
    /// The pods, by uid.
    pub pods: Vec<Pod>,
    /// Uids that more than one pod claims.
    pub contested: BTreeSet<String>,
    /// How many entries were left out because their uid is none.
    pub left_out: usize,
}

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Not JSON, or not of that form.
    #[error("the kubelet's answer is not a list of pods: {source}")]
    Form {
        /// What is wrong.
        #[from]
        source: serde_json::Error,
    },
    /// Something else was answered.
    #[error("the kubelet's answer is a {got:?}, not a \"PodList\" of \"v1\"")]
    Kind {
        /// What was.
        got: String,
    },
    /// No node has so many.
    #[error("the kubelet lists {got} pods; at most {MOST_PODS} are read")]
    Many {
        /// How many.
        got: usize,
    },
}

/// More than any node runs.
const MOST_PODS: usize = 4096;
const MOST_NAME: usize = 253;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    kind: String,
    api_version: String,
    // Null where there is none, as Go writes an empty list.
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
    #[serde(rename = "kubernetes.io/config.hash")]
    hash: Option<String>,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(rename = "qosClass")]
    qos: Option<String>,
}

/// Reads what `GET /pods` answers.
pub fn parse(bytes: &[u8]) -> Result<Answer, ListError> {
    let list: List = serde_json::from_slice(bytes)?;
    if list.kind != "PodList" || list.api_version != "v1" {
        return Err(ListError::Kind {
            got: list.kind.chars().take(64).collect(),
        });
    }
    let items = list.items.unwrap_or_default();
    if items.len() > MOST_PODS {
        return Err(ListError::Many { got: items.len() });
    }
    let (mut own, mut mirrors) = (Claims::default(), Claims::default());
    let mut left_out = 0;
    for item in items {
        match static_uid(item.metadata.annotations.as_ref()) {
            Some(hash) => mirrors.add(pod(item, hash)),
            None if is_uid(&item.metadata.uid) => {
                let uid = item.metadata.uid.clone();
                own.add(pod(item, uid));
            }
            None => left_out += 1,
        }
    }
    let mut pods = own.pods;
    for (uid, mirror) in mirrors.pods {
        if !own.contested.contains(&uid) {
            pods.entry(uid).or_insert(mirror);
        }
    }
    let mut contested = own.contested;
    contested.extend(
        mirrors
            .contested
            .into_iter()
            .filter(|uid| !pods.contains_key(uid)),
    );
    Ok(Answer {
        pods: pods.into_values().collect(),
        contested,
        left_out,
    })
}

#[derive(Default)]
struct Claims {
    pods: BTreeMap<String, Pod>,
    contested: BTreeSet<String>,
}

impl Claims {
    fn add(&mut self, pod: Pod) {
        let uid = pod.uid.clone();
        if self.contested.contains(&uid) {
            return;
        }
        if self.pods.insert(uid.clone(), pod).is_some() {
            self.pods.remove(&uid);
            self.contested.insert(uid);
        }
    }
}

fn pod(item: Item, uid: String) -> Pod {
    let Metadata {
        name,
        namespace,
        uid: _,
        labels,
        annotations: _,
    } = item.metadata;
    Pod {
        uid,
        // As long as Kubernetes lets them be; a longer one selects nothing.
        namespace: namespace.chars().take(MOST_NAME).collect(),
        name: name.chars().take(MOST_NAME).collect(),
        qos: match item.status.qos.as_deref() {
            Some("Guaranteed") => Some(Qos::Guaranteed),
            Some("Burstable") => Some(Qos::Burstable),
            Some("BestEffort") => Some(Qos::BestEffort),
            _ => None,
        },
        labels: labels.unwrap_or_default(),
    }
}

/// The uid of the static pod that this one mirrors.
fn static_uid(annotations: Option<&Annotations>) -> Option<String> {
    let Annotations { mirror, hash } = annotations?;
    let hash = hash.as_ref().filter(|hash| mirror.as_ref() == Some(hash))?;
    is_hash(hash).then(|| hash.clone())
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A static pod's, kubernetes pkg/kubelet/config/common.go `applyDefaults`.
fn is_hash(uid: &str) -> bool {
    uid.len() == 32 && is_hex(uid)
}

/// With the form that a cgroup's name is read by; see [`crate::workload`].
fn is_uid(uid: &str) -> bool {
    let parts: Vec<&str> = uid.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_uuid = lengths == [8, 4, 4, 4, 12] && parts.iter().all(|part| is_hex(part));
    is_uuid || is_hash(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "6a3e5f0c-1b2d-4e8f-9a7b-0c1d2e3f4a5b";
    const HASH: &str = "0123456789abcdef0123456789abcdef";

    fn list(items: &str) -> Result<Answer, ListError> {
        let text = format!(
            "{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{{}},\"items\":{items}}}"
        );
        parse(text.as_bytes())
    }

    fn item(name: &str, uid: &str, more: &str) -> String {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"ns","uid":"{uid}"{more}}},
                "spec":{{"containers":[{{"name":"c"}}]}},"status":{{"phase":"Running","qosClass":"Burstable"}}}}"#
        )
    }

    fn mirror(name: &str, uid: &str, hash: &str) -> String {
        let more = format!(
            ",\"annotations\":{{\"kubernetes.io/config.mirror\":\"{hash}\",\
             \"kubernetes.io/config.hash\":\"{hash}\",\"other\":\"x\"}}"
        );
        item(name, uid, &more)
    }

    #[test]
    fn a_pod_is_read_with_what_places_and_labels_it() {
        let found = list(&format!(
            "[{}]",
            item("a", A, ",\"labels\":{\"app\":\"vllm\"}")
        ))
        .unwrap();
        let pod = found.pods.first().unwrap();
        assert_eq!((pod.uid.as_str(), pod.to_string().as_str()), (A, "ns/a"));
        assert_eq!(pod.qos, Some(Qos::Burstable));
        assert_eq!(pod.labels["app"], "vllm");
        assert_eq!(list("null").unwrap(), Answer::default());
        assert_eq!(list("[]").unwrap(), Answer::default());
    }

    #[test]
    fn a_static_pod_is_known_by_the_hash_that_its_cgroup_bears() {
        let own = list(&format!("[{}]", item("own", HASH, ""))).unwrap();
        assert_eq!(own.pods.first().unwrap().uid, HASH);
        let mirrored = list(&format!("[{}]", mirror("mirror", A, HASH))).unwrap();
        assert_eq!(mirrored.pods.first().unwrap().uid, HASH);
    }

    #[test]
    fn nobody_takes_another_pods_place_by_an_annotation() {
        let both = format!("[{},{}]", item("own", HASH, ""), mirror("claims", A, HASH));
        let found = list(&both).unwrap();
        assert_eq!(found.pods.len(), 1);
        assert_eq!(found.pods.first().unwrap().name, "own");
        let other = "7a3e5f0c-1b2d-4e8f-9a7b-0c1d2e3f4a5b";
        let both = format!("[{},{}]", item("own", A, ""), mirror("claims", other, A));
        let names: Vec<_> = list(&both)
            .unwrap()
            .pods
            .into_iter()
            .map(|pod| pod.name)
            .collect();
        assert_eq!(names, ["own", "claims"], "a uid is no hash of a file");
        let lone =
            ",\"annotations\":{\"kubernetes.io/config.hash\":\"0123456789abcdef0123456789abcdef\"}";
        let found = list(&format!("[{}]", item("own", A, lone))).unwrap();
        assert_eq!(found.pods.first().unwrap().uid, A, "no mirror");
    }

    #[test]
    fn a_uid_that_two_claim_is_nobodys() {
        let twice = format!(
            "[{},{},{}]",
            item("a", A, ""),
            item("b", A, ""),
            item("c", A, "")
        );
        let found = list(&twice).unwrap();
        assert!(found.pods.is_empty());
        assert!(found.contested.contains(A));
        let twice = format!("[{},{}]", mirror("a", A, HASH), mirror("b", A, HASH));
        let found = list(&twice).unwrap();
        assert!(found.pods.is_empty() && found.contested.contains(HASH));
    }

    #[test]
    fn what_is_no_uid_is_left_out_and_the_others_are_read() {
        for wrong in [
            "",
            "..",
            "../../system.slice",
            "6A3E5F0C-1B2D-4E8F-9A7B-0C1D2E3F4A5B",
            "6a3e5f0c1b2d-4e8f-9a7b-0c1d2e3f4a5b-",
            "0123456789abcdef0123456789abcde",
            "6a3e5f0c_1b2d_4e8f_9a7b_0c1d2e3f4a5b",
        ] {
            let found = list(&format!("[{},{}]", item("x", wrong, ""), item("a", A, ""))).unwrap();
            assert_eq!((found.pods.len(), found.left_out), (1, 1), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_pods_is_refused_whole() {
        for wrong in [
            "",
            "null",
            "[]",
            "{}",
            "Unauthorized",
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"items\":[]}",
            "{\"kind\":\"PodList\",\"apiVersion\":\"v2\",\"items\":[]}",
            "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":{}}",
            "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[{}]}",
            "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[]} trailing",
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let numbers = item("a", A, ",\"labels\":{\"app\":1}");
        assert!(list(&format!("[{numbers}]")).is_err());
        assert!(parse(&vec![b'['; 100_000]).is_err(), "deep");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let inside = item("a", A, &format!(",\"x\":{deep}"));
        let pods = list(&format!("[{inside}]")).unwrap().pods;
        assert_eq!(pods.len(), 1, "what is not read is not followed down");
        let many = vec![item("a", A, ""); MOST_PODS + 1].join(",");
        assert!(matches!(
            list(&format!("[{many}]")),
            Err(ListError::Many { .. })
        ));
    }

    #[test]
    fn whatever_the_bytes_no_uid_but_a_uid_is_known_and_none_twice() {
        let whole = format!(
            "{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[{},{},{}]}}",
            item("own", HASH, ",\"labels\":{\"app\":\"vllm\"}"),
            mirror("mirror", A, HASH),
            item("a", A, "")
        );
        // xorshift64: the same bytes in every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % (below as u64)).unwrap()
        };
        let mut read = 0;
        for _ in 0..20_000 {
            let mut bytes = whole.clone().into_bytes();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes.truncate(at.max(1)),
                    1 => {
                        bytes.remove(at);
                    }
                    2 => bytes.insert(at, u8::try_from(random(256)).unwrap()),
                    _ => bytes[at] = b"\"{}[],:0a_-."[random(12)],
                }
                if bytes.len() < 2 {
                    break;
                }
            }
            let Ok(answer) = parse(&bytes) else {
                continue;
            };
            read += 1;
            let uids: BTreeSet<_> = answer.pods.iter().map(|pod| pod.uid.clone()).collect();
            assert_eq!(uids.len(), answer.pods.len());
            assert!(uids.iter().all(|uid| is_uid(uid)), "{uids:?}");
            assert!(uids.is_disjoint(&answer.contested));
        }
        assert!(read > 1000, "{read} were read");
    }
}
