//! What the boundary says about a name, and about an address that a name has.
//!
//! The rules tell whether a name may be asked for and what its addresses may be
//! used for; which addresses it has only the running agent knows. Nothing is
//! looked up here.

use super::explain::{
    BoundaryAnswer, Explanation, ProcessAnswer, RuleAnswer, boundary, rule, select, verdict_word,
};
use super::lookup::judge_set;
use super::names::listed;
use super::network::mapped;
use super::target::{NameTarget, Target, protocol_name};
use super::{Compiled, Network};
use crate::api::LearnedInfo;
use merestone_abi::Verdict;
use serde::Serialize;
use std::fmt;

/// The answer about a name, in the form `--json` prints.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NameExplanation {
    /// `allow`, `deny`, or `audit` where a rule that only reports lets it pass.
    pub verdict: &'static str,
    /// `enforce` or `audit`: whether a denial is held or only reported.
    pub mode: &'static str,
    /// What was asked about.
    pub name: String,
    /// The port; absent where none was named.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: String,
    /// Whether a question for the name may leave at all.
    pub question: bool,
    /// The name or wildcard of the boundary that lists it.
    pub listed_as: Option<String>,
    /// The rule that decided.
    pub rule: Option<RuleAnswer>,
    /// Whose answers count.
    pub resolvers: Vec<String>,
    /// The addresses it has now; absent where no agent answered.
    pub addresses: Option<Vec<LearnedInfo>>,
    /// The boundary.
    pub boundary: BoundaryAnswer,
    /// The process asked about, if one was.
    pub process: Option<ProcessAnswer>,
}

/// A name that an address has now, and what its rules say.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NamedAnswer {
    /// The name.
    pub name: String,
    /// The resolver that said so.
    pub resolver: String,
    /// How long yet nothing forbids to use it anew.
    pub seconds: u64,
    /// As that of the whole.
    pub verdict: &'static str,
    /// The rule by which.
    pub rule: Option<RuleAnswer>,
}

impl NameExplanation {
    /// Asks the boundary that judges a cgroup.
    #[must_use]
    pub fn of_cgroup(
        compiled: &Compiled,
        target: &NameTarget,
        cgroup: Option<&str>,
        learned: Option<&[LearnedInfo]>,
    ) -> Self {
        let (number, select) = select(compiled, cgroup);
        let found = listed(compiled, number, &target.name);
        let question = found.is_some_and(|found| found.denied.is_none());
        let decided = found.and_then(|found| match (found.denied, target.port) {
            (Some(rule), _) => Some((Verdict::DENY, rule)),
            (None, Some(port)) => judge_set(compiled, found.set, target.protocol, port, false),
            (None, None) => first_allow(compiled, found.set),
        });
        let own = |one: &&LearnedInfo| one.boundary == number && one.name == target.name;
        let trusted = compiled.resolvers.iter();
        let trusted = trusted.filter(|one| one.boundary == number && one.trusted);
        Self {
            verdict: verdict_word(decided.map_or(Verdict::DENY, |(verdict, _)| verdict)),
            mode: if compiled.audit { "audit" } else { "enforce" },
            name: target.name.clone(),
            port: target.port,
            protocol: protocol_name(target.protocol),
            question,
            listed_as: found.map(|found| found.pattern.text.clone()),
            rule: decided.and_then(|(_, number)| rule(compiled, number)),
            resolvers: trusted.map(|one| one.network.to_string()).collect(),
            addresses: learned.map(|learned| learned.iter().filter(own).cloned().collect()),
            boundary: boundary(compiled, number, select),
            process: None,
        }
    }

    /// Whether it would get through, once a resolver has named an address.
    #[must_use]
    pub fn allowed(&self) -> bool {
        let guarded = self.process.as_ref().and_then(|process| process.guarded);
        self.verdict != "deny" || guarded == Some(false)
    }
}

/// Without a port: the first rule that lets something pass.
fn first_allow(compiled: &Compiled, set: u32) -> Option<(Verdict, u16)> {
    let set = compiled.sets.get(set as usize)?;
    let mut entries = set.entries.iter().take(set.length as usize);
    let entry = entries.find(|entry| entry.action != Verdict::DENY.0)?;
    Some((Verdict(entry.action), entry.rule))
}

impl Explanation {
    /// Adds the names that the address has now, and lets them decide where no
    /// rule for addresses does, as the kernel lets them: a deny wins.
    #[must_use]
    pub fn with_learned(
        mut self,
        compiled: &Compiled,
        target: Target,
        cgroup: Option<&str>,
        learned: &[LearnedInfo],
    ) -> Self {
        let (number, _) = select(compiled, cgroup);
        let address = Network::of(mapped(target.address), 128);
        let same = |one: &&LearnedInfo| {
            one.boundary == number && Network::of(mapped(one.address), 128) == address
        };
        let mut decided: Option<(Verdict, u16)> = None;
        for one in learned.iter().filter(same) {
            let found = listed(compiled, number, &one.name);
            let own = found
                .filter(|found| found.denied.is_none())
                .and_then(|found| {
                    judge_set(compiled, found.set, target.protocol, target.port, false)
                });
            self.names.push(NamedAnswer {
                name: one.name.clone(),
                resolver: one.resolver.to_string(),
                seconds: one.seconds,
                verdict: verdict_word(own.map_or(Verdict::DENY, |(verdict, _)| verdict)),
                rule: own.and_then(|(_, number)| rule(compiled, number)),
            });
            let is_deny = |decided: Option<(Verdict, u16)>| {
                decided.is_some_and(|(verdict, _)| verdict == Verdict::DENY)
            };
            if own.is_some() && !is_deny(decided) {
                decided = own;
            }
        }
        if let Some((verdict, number)) = decided
            && self.reason == "no_rule"
        {
            self.verdict = verdict_word(verdict);
            self.reason = "rule";
            self.rule = rule(compiled, number);
        }
        self
    }
}

impl fmt::Display for NamedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = match &self.rule {
            Some(rule) => rule.place(),
            None => "no rule".to_owned(),
        };
        write!(
            f,
            "{}, by {}, for {} s yet: {} by {rule}",
            self.name, self.resolver, self.seconds, self.verdict
        )
    }
}

impl fmt::Display for NameExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match self.port {
            Some(port) => format!("{} to {}:{port}", self.protocol, self.name),
            None => self.name.clone(),
        };
        let word = match (self.verdict, self.mode) {
            _ if self.allowed() && self.verdict == "deny" => {
                "allowed (the process is not guarded; the rules below do not apply)"
            }
            ("allow", _) => "allowed at the addresses that a resolver below names",
            ("audit", _) => "allowed (the rule only audits: reported)",
            (_, "audit") => "denied (audit: reported, not held)",
            _ => "denied",
        };
        writeln!(f, "{word}  {to}")?;
        let question = if self.question {
            "may leave"
        } else {
            "is held"
        };
        writeln!(f, "  question  {question}")?;
        writeln!(
            f,
            "  listed    {}",
            self.listed_as.as_deref().unwrap_or("by no rule")
        )?;
        match &self.rule {
            None => writeln!(f, "  rule      none matches: denied by default")?,
            Some(rule) => {
                let comment = rule.comment.as_deref();
                let comment = comment.map_or(String::new(), |text| format!("  # {text}"));
                writeln!(f, "  rule      {}{comment}", rule.place())?;
            }
        }
        for resolver in &self.resolvers {
            writeln!(f, "  resolver  {resolver}")?;
        }
        match &self.addresses {
            None => writeln!(f, "  address   no agent answers which it has")?,
            Some(addresses) if addresses.is_empty() => writeln!(f, "  address   none learned now")?,
            Some(addresses) => {
                for one in addresses {
                    let (address, resolver) = (one.address, one.resolver);
                    writeln!(
                        f,
                        "  address   {address}, by {resolver}, for {} s yet",
                        one.seconds
                    )?;
                }
            }
        }
        if let Some(process) = &self.process {
            writeln!(f, "  process   {process}")?;
        }
        write!(f, "  boundary  {} ({})", self.boundary, self.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{compile, parse};
    use std::path::Path;

    const FILE: &str = "name = \"n\"\n[[allow]]\ncidr = [\"10.0.0.53/32\"]\nports = [53, 853]\n\
                        [[allow]]\nname = [\"*.example.eu\"]\nports = [443]\nprotocols = [\"tcp\"]\n\
                        [[deny]]\nname = [\"bad.example.eu\"]\n";

    fn boundary() -> Compiled {
        compile(&parse(Path::new("b.toml"), FILE.into()).unwrap()).unwrap()
    }

    fn learned(name: &str) -> LearnedInfo {
        LearnedInfo {
            name: name.to_owned(),
            address: "203.0.113.7".parse().unwrap(),
            resolver: "10.0.0.53".parse().unwrap(),
            seconds: 30,
            boundary: 0,
        }
    }

    #[test]
    fn a_name_is_explained_with_its_rule_its_resolver_and_its_addresses() {
        let compiled = boundary();
        let learned = [learned("a.example.eu")];
        let explain = |to: &str| {
            let target = NameTarget::parse(to, "tcp").unwrap();
            NameExplanation::of_cgroup(&compiled, &target, None, Some(&learned))
        };
        let allowed = explain("A.Example.eu:443");
        assert!(allowed.allowed() && allowed.question);
        assert_eq!(allowed.rule.as_ref().unwrap().line, Some(5));
        let said = allowed.to_string();
        for part in [
            "*.example.eu",
            "b.toml:5",
            "10.0.0.53/32",
            "203.0.113.7, by",
            "30 s",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!explain("a.example.eu:80").allowed());
        let denied = explain("bad.example.eu");
        assert!(!denied.allowed() && !denied.question);
        assert_eq!(denied.rule.unwrap().line, Some(9));
        let outside = explain("example.eu");
        assert_eq!((outside.listed_as, outside.question), (None, false));
    }

    #[test]
    fn an_address_is_explained_by_the_name_that_has_it() {
        let compiled = boundary();
        let explain = |to: &str, learned: &[LearnedInfo]| {
            let target = Target::parse(to, "tcp").unwrap();
            let explained = Explanation::of_cgroup(&compiled, target, None);
            explained.with_learned(&compiled, target, None, learned)
        };
        let names = [learned("a.example.eu")];
        let allowed = explain("203.0.113.7:443", &names);
        assert!(allowed.allowed());
        assert_eq!(allowed.rule.as_ref().unwrap().line, Some(5));
        assert!(allowed.to_string().contains("a.example.eu, by 10.0.0.53"));
        assert!(!explain("203.0.113.7:80", &names).allowed());
        assert!(!explain("203.0.113.7:443", &[]).allowed());
        assert!(!explain("203.0.113.7:443", &[learned("gone.test")]).allowed());
    }

    #[test]
    fn dns_that_cannot_be_judged_is_explained_as_the_kernel_judges_it_b45() {
        let compiled = boundary();
        let explain = |to: &str, protocol: &str| {
            Explanation::new(&compiled, Target::parse(to, protocol).unwrap())
        };
        assert!(explain("10.0.0.53:53", "udp").allowed());
        for (to, protocol) in [
            ("10.0.0.53:53", "tcp"),
            ("10.0.0.53:853", "tcp"),
            ("10.0.0.53:853", "udp"),
            ("127.0.0.53:53", "udp"),
        ] {
            let said = explain(to, protocol);
            assert_eq!((said.allowed(), said.reason), (false, "name_form"), "{to}");
        }
    }
}
