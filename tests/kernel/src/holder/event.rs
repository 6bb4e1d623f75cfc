//! What the agent reported, in whichever of its two forms, and who waits for it.

use serde_json::Value;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One report, as far as the suite looks at it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SeenEvent {
    /// `flow`, `guard`, `left`, …
    pub kind: String,
    /// `deny`, `audit`, …
    pub verdict: String,
    /// As `abi` names it, in lower case.
    pub hook: String,
    /// As `abi` names it, in lower case.
    pub reason: String,
    /// The process; 0 where the hook has none.
    pub pid: u32,
    /// The other process of the event.
    pub other: u32,
    /// Destination.
    pub address: Option<IpAddr>,
}

impl SeenEvent {
    /// From `{"event": {…}}` of the example or a line of the agent's log.
    pub fn from_json(value: &Value) -> Option<Self> {
        let event = value.get("event").unwrap_or(value);
        let text = |name: &str| {
            let text = event.get(name).and_then(Value::as_str).unwrap_or_default();
            text.to_lowercase().replace(['-', '/', ' '], "_")
        };
        let kind = text("kind");
        if kind.is_empty() {
            return None;
        }
        let process = event.get("process").unwrap_or(event);
        let number = |value: &Value, name: &str| {
            let number = value.get(name).and_then(Value::as_u64);
            number.and_then(|number| u32::try_from(number).ok())
        };
        let pid = number(process, "tgid").or_else(|| number(process, "pid"));
        let destination = event.get("destination").unwrap_or(event);
        let address = destination.get("address").and_then(Value::as_str);
        Some(Self {
            kind,
            verdict: text("verdict"),
            hook: text("hook"),
            reason: text("reason"),
            pid: pid.unwrap_or(0),
            other: number(event, "other").unwrap_or(0),
            address: address.and_then(|address| address.parse().ok()).map(plain),
        })
    }
}

/// An IPv4-mapped address as IPv4.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => embedded(v6).unwrap_or(address),
        IpAddr::V4(_) => address,
    }
}

fn embedded(address: Ipv6Addr) -> Option<IpAddr> {
    address.to_ipv4_mapped().map(IpAddr::V4)
}

#[derive(Debug, Default)]
struct Lines {
    events: Vec<SeenEvent>,
    answers: Vec<Value>,
    complaints: Vec<String>,
}

/// Everything one agent said.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<Lines>,
    news: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line of JSON in.
    pub(super) fn take(&self, line: &str) {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            self.complain(line);
            return;
        };
        let mut lines = self.lock();
        match SeenEvent::from_json(&value) {
            Some(event) => lines.events.push(event),
            None => lines.answers.push(value),
        }
        drop(lines);
        self.news.notify_all();
    }

    /// Takes a line in that is not JSON.
    pub(super) fn complain(&self, line: &str) {
        let mut lines = self.lock();
        lines.complaints.push(line.to_owned());
        let many = lines.complaints.len().saturating_sub(40);
        lines.complaints.drain(..many);
    }

    /// The last lines that were not JSON.
    pub(super) fn complaint(&self) -> String {
        self.lock().complaints.join("\n")
    }

    /// The last answer with `key` in it.
    pub(super) fn answer(&self, key: &str) -> Option<Value> {
        let lines = self.lock();
        lines
            .answers
            .iter()
            .rev()
            .find(|answer| answer.get(key).is_some())
            .cloned()
    }

    pub(super) fn forget_answers(&self) {
        self.lock().answers.clear();
    }

    /// How many events there are; what came later is after that.
    pub fn position(&self) -> usize {
        self.lock().events.len()
    }

    /// Waits for an event after `position` that `wanted` agrees to.
    pub fn wait(
        &self,
        position: usize,
        patience: Duration,
        wanted: impl Fn(&SeenEvent) -> bool,
    ) -> Option<SeenEvent> {
        let deadline = Instant::now() + patience;
        let mut lines = self.lock();
        loop {
            let mut later = lines.events.iter().skip(position);
            if let Some(event) = later.find(|event| wanted(event)) {
                return Some(event.clone());
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.news.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until nothing comes any more, for as long as `patience`: a reader
    /// that was stopped has a full ring to go through.
    pub fn settle(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut known = self.position();
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.position();
            if now == known {
                return;
            }
            known = now;
        }
    }

    /// What came after `position`, in words, for a failure's report.
    pub fn after(&self, position: usize) -> Vec<SeenEvent> {
        self.lock().events.iter().skip(position).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_event_read_the_same() {
        let example = serde_json::json!({"event": {"kind": "FLOW", "verdict": "DENY",
            "hook": "CONNECT4", "reason": "NO_RULE", "tgid": 7, "pid": 8,
            "address": "::ffff:203.0.113.7", "port": 7777}});
        let agent = serde_json::json!({"kind": "flow", "verdict": "deny", "hook": "connect4",
            "reason": "no_rule", "process": {"pid": 7},
            "destination": {"address": "203.0.113.7", "port": 7777}});
        let (example, agent) = (SeenEvent::from_json(&example), SeenEvent::from_json(&agent));
        assert!(example.is_some());
        assert_eq!(example, agent);
    }
}
