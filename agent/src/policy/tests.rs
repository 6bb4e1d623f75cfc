//! What a boundary may say, what it is refused for, and what is said about a
//! destination.

use super::*;
use merestone_abi::{RULE_ENTRIES, RuleSet, Verdict, protocol};
use std::fmt::Write as _;

fn boundary(text: &str) -> Result<Boundary, Faults> {
    parse(Path::new("b.toml"), text.into())
}

fn refused(text: &str) -> String {
    boundary(text).expect_err("must be refused").to_string()
}

fn compiled(text: &str) -> Compiled {
    compile(&boundary(text).unwrap()).unwrap()
}

fn explain(compiled: &Compiled, to: &str, protocol: &str) -> Explanation {
    Explanation::new(compiled, Target::parse(to, protocol).unwrap())
}

fn prefix<'c>(compiled: &'c Compiled, network: &str) -> Option<&'c RuleSet> {
    let Network { address, bits } = Network::parse(network).unwrap();
    let found = compiled
        .prefixes
        .iter()
        .find(|prefix| (prefix.address, prefix.bits) == (address, bits))?;
    compiled.sets.get(found.set as usize)
}

const EXAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/examples/boundary.toml"
);

#[test]
fn the_shipped_example_parses_and_compiles() {
    let boundary = Boundary::load(Path::new(EXAMPLE)).unwrap();
    assert_eq!(boundary.name, "eu");
    assert_eq!(boundary.mode, Mode::Enforce);
    assert_eq!(boundary.rules.len(), 4);
    let first = &boundary.rules[0];
    assert_eq!(first.number, 1);
    assert_eq!(first.comment.as_deref(), Some("in-region services"));
    let range = PortRange {
        low: 8000,
        high: 8100,
    };
    assert_eq!(first.ports.as_ref().unwrap()[1], range);
    compile(&boundary).unwrap();
}

#[test]
fn rules_are_numbered_in_file_order_across_allow_and_deny() {
    let text = "name = \"n\"\n[[deny]]\ncidr = [\"10.1.0.0/16\"]\n[[allow]]\ncidr = [\"10.0.0.0/8\"]\n\
                [[deny]]\ncidr = [\"10.2.0.0/16\"]\n";
    let rules = boundary(text).unwrap().rules;
    let seen: Vec<_> = rules.iter().map(|r| (r.number, r.action, r.line)).collect();
    assert_eq!(
        seen,
        [
            (1, Action::Deny, 2),
            (2, Action::Allow, 4),
            (3, Action::Deny, 6)
        ]
    );
}

#[test]
fn every_fault_of_a_file_is_reported_at_once_with_its_place() {
    let text = "\
nam = \"x\"
[[allow]]
cidr = [\"10.1.2.3/8\", \"::ffff:10.0.0.0/104\", 7]
ports = [0, \"90-80\", \"443\", 70000]
protocols = [\"tpc\", \"tcp\", \"tcp\"]
coment = \"x\"
[[allow]]
[[deny]]
cidr = []
ports = []
[[allow]]
cidr = [\"10.0.0.0/8\"]
protocols = [\"tcp\", \"icmp\"]
ports = [443]
[mode]
default = \"enforced\"
defualt = \"audit\"
";
    let faults = refused(text);
    for expected in [
        "b.toml:1:1: unknown key `nam`\n  hint: did you mean `name`?",
        "b.toml:1:1: the boundary has no `name`",
        "b.toml:3:9: \"10.1.2.3/8\" has bits set past its prefix length\n  hint: write \"10.0.0.0/8\"",
        "b.toml:3:23: \"::ffff:10.0.0.0/104\" is IPv4 in IPv6 form",
        "b.toml:3:46: a network must be a string, found an integer",
        "b.toml:4:10: not a port or a range of ports: a port is 1 to 65535",
        "b.toml:4:13: not a port or a range of ports: 90 is above 80",
        "b.toml:4:22: not a port or a range of ports: write 443 without quotes",
        "b.toml:4:29: not a port or a range of ports: a port is 1 to 65535",
        "b.toml:5:14: unknown protocol \"tpc\"",
        "b.toml:5:28: \"tcp\" is named twice",
        "b.toml:6:1: unknown key `coment` in [[allow]]\n  hint: did you mean `comment`?",
        "b.toml:7:1: this [[allow]] names no destination",
        "b.toml:9:8: `cidr` is empty",
        "b.toml:10:9: `ports` is empty",
        "b.toml:14:9: icmp has no ports: they would never match",
        "b.toml:16:11: `default` cannot be \"enforced\"\n  hint: write \"enforce\" or \"audit\"",
        "b.toml:17:1: unknown key `defualt` in [mode]",
    ] {
        assert!(faults.contains(expected), "{expected}\nnot in\n{faults}");
    }
    assert_eq!(faults.matches("b.toml:").count(), 18, "{faults}");
}

#[test]
fn words_of_a_later_version_are_refused_and_never_ignored() {
    let faults = refused("name = \"n\"\n[[grant]]\nx = 1\n");
    let expected = "b.toml:2:3: `grant` is not supported by this version: the boundary is refused rather than half applied";
    assert!(faults.contains(expected), "{expected}\nnot in\n{faults}");
}

#[test]
fn a_select_of_pods_says_which_in_the_words_of_kubernetes() {
    let select = |pod: &str| format!("name = \"n\"\n[[select]]\npod = {pod}\nboundary = \"s\"\n");
    for right in [
        "{ namespace = \"serving\" }",
        "{ labels = { app = \"vllm\" } }",
        "{ namespace = \"a-1\", labels = { \"app.kubernetes.io/name\" = \"x_1.2\", empty = \"\" } }",
    ] {
        let parsed = parse(Path::new("b.toml"), select(right).into());
        assert!(parsed.is_ok(), "{right}: {}", parsed.unwrap_err());
    }
    for (wrong, word) in [
        ("{}", "names neither a namespace nor a label"),
        ("{ labels = {} }", "names neither a namespace nor a label"),
        ("\"vllm\"", "`pod` must be a table"),
        ("{ app = \"x\" }", "unknown key `app` in `pod`"),
        ("{ namespace = \"A\" }", "`namespace` cannot be \"A\""),
        ("{ namespace = \"\" }", "`namespace` cannot be \"\""),
        ("{ labels = { app = 1 } }", "`label` must be a string"),
        (
            "{ labels = { \"a/b/c\" = \"x\" } }",
            "is not the key of a label",
        ),
        (
            "{ labels = { \"/c\" = \"x\" } }",
            "is not the key of a label",
        ),
        (
            "{ labels = { app = \"a b\" } }",
            "`label` cannot be \"a b\"",
        ),
        ("{ labels = [\"app=x\"] }", "`labels` must be a table"),
    ] {
        let faults = refused(&select(wrong));
        assert!(faults.contains(word), "{word}\nnot in\n{faults}");
    }
    let both = "name = \"n\"\n[[select]]\ncgroup = \"/a\"\npod = { namespace = \"x\" }\nboundary = \"s\"\n";
    assert!(refused(both).contains("names one of `cgroup`, `unit` and `pod`"));
    let twice = select("{ namespace = \"x\" }")
        + "[[select]]\npod = { namespace = \"x\" }\nboundary = \"t\"\n";
    assert!(refused(&twice).contains("pods of x is selected twice"));
}

#[test]
fn duplicate_tables_and_wrong_brackets_are_refused() {
    let faults =
        refused("name = \"n\"\n[mode]\ndefault = \"audit\"\n[mode]\ndefault = \"enforce\"\n");
    assert!(faults.contains("b.toml:4:2: duplicate key"), "{faults}");
    let faults = refused("name = \"n\"\n[allow]\ncidr = [\"10.0.0.0/8\"]\n");
    assert!(
        faults.contains(
            "b.toml:2:1: `allow` must be a list of tables, found a table\n  hint: write [[allow]]"
        ),
        "{faults}"
    );
}

#[test]
fn an_empty_file_is_no_boundary() {
    assert!(refused("").contains("b.toml:1:1: the boundary has no `name`"));
}

#[test]
fn a_boundary_without_rules_reaches_loopback_and_nothing_else() {
    let compiled = compiled("name = \"sealed\"\n");
    for (to, allowed) in [
        ("127.0.0.1:80", true),
        ("127.255.0.9:80", true),
        ("[::1]:80", true),
        ("128.0.0.1:80", false),
        ("[::2]:80", false),
        ("[2001:db8::1]:80", false),
    ] {
        assert_eq!(explain(&compiled, to, "udp").allowed(), allowed, "{to}");
    }
    let loopback = explain(&compiled, "127.0.0.1:80", "tcp");
    assert_eq!(loopback.rule.unwrap().number, LOOPBACK_RULE);
}

#[test]
fn a_deny_wins_over_loopback_too() {
    let compiled = compiled(
        "name = \"n\"\n[[deny]]\ncidr = [\"127.0.0.1/32\"]\nports = [2375]\nprotocols = [\"tcp\"]\n",
    );
    assert!(!explain(&compiled, "127.0.0.1:2375", "tcp").allowed());
    assert!(explain(&compiled, "127.0.0.1:2376", "tcp").allowed());
    assert!(explain(&compiled, "127.0.0.2:2375", "tcp").allowed());
}

#[test]
fn a_prefix_carries_the_rules_around_it_denies_first() {
    let compiled = compiled(
        "name = \"n\"\n[[allow]]\ncidr = [\"10.0.0.0/8\"]\nports = [443]\nprotocols = [\"tcp\"]\n\
         [[allow]]\ncidr = [\"10.1.0.0/16\"]\nports = [80]\nprotocols = [\"tcp\"]\n\
         [[deny]]\ncidr = [\"10.1.2.0/24\"]\nports = [443]\n",
    );
    let set = prefix(&compiled, "10.1.2.0/24").unwrap();
    let order: Vec<_> = set.entries[..set.length as usize]
        .iter()
        .map(|e| (e.rule, e.action, e.port_low))
        .collect();
    let (deny, allow) = (Verdict::DENY.0, Verdict::ALLOW.0);
    // Rule 1's entry for 443/tcp is covered by the deny and left out.
    assert_eq!(order, [(3, deny, 443), (2, allow, 80)]);
    let set = prefix(&compiled, "10.1.0.0/16").unwrap();
    let order: Vec<_> = set.entries[..set.length as usize]
        .iter()
        .map(|e| e.rule)
        .collect();
    assert_eq!(order, [2, 1]);
}

#[test]
fn a_network_inside_another_of_its_own_rule_costs_no_prefix() {
    let compiled = compiled(
        "name = \"n\"\n[[allow]]\ncidr = [\"10.0.0.0/8\", \"10.1.0.0/16\", \"10.0.0.0/8\"]\n",
    );
    assert!(prefix(&compiled, "10.1.0.0/16").is_none());
    assert_eq!(compiled.prefixes.len(), 3, "10/8 and the two of loopback");
}

#[test]
fn an_ipv6_network_says_nothing_about_ipv4_b20() {
    let text = "name = \"n\"\n[[allow]]\ncidr = [\"::/0\"]\n";
    let six = compiled(text);
    assert!(explain(&six, "[2001:db8::1]:1", "tcp").allowed());
    assert!(!explain(&six, "203.0.113.7:1", "tcp").allowed());
    assert!(!explain(&six, "[::ffff:203.0.113.7]:1", "tcp").allowed());
    let text = "name = \"n\"\n[[allow]]\ncidr = [\"0.0.0.0/0\"]\n[[deny]]\ncidr = [\"::/0\"]\n";
    let four = compiled(text);
    assert!(explain(&four, "[::ffff:203.0.113.7]:1", "tcp").allowed());
    assert!(!explain(&four, "[2001:db8::1]:1", "tcp").allowed());
}

#[test]
fn an_embedded_ipv4_address_is_judged_as_well_b21() {
    let compiled = compiled(
        "name = \"n\"\n[[allow]]\ncidr = [\"64:ff9b::/96\", \"2002::/16\", \"10.0.0.0/8\"]\n",
    );
    assert!(explain(&compiled, "[64:ff9b::10.1.2.3]:1", "tcp").allowed());
    assert!(explain(&compiled, "[2002:a01:203::1]:1", "tcp").allowed());
    for to in ["[64:ff9b::203.0.113.7]:1", "[2002:cb00:7107::1]:1"] {
        let denied = explain(&compiled, to, "tcp");
        assert!(!denied.allowed());
        assert_eq!(denied.reason, "embedded");
        assert_eq!(denied.embedded.unwrap().address, "203.0.113.7");
    }
}

#[test]
fn ports_never_match_a_protocol_without_ports_b25() {
    let compiled =
        compiled("name = \"n\"\n[[allow]]\ncidr = [\"10.0.0.0/8\"]\nports = [\"1-65535\"]\n");
    let to = mapped("10.0.0.1".parse().unwrap());
    let verdict = |number, port, fragment| lookup(&compiled, to, number, port, fragment).verdict;
    assert_eq!(verdict(protocol::TCP, 1, false), Verdict::ALLOW);
    assert_eq!(verdict(protocol::SCTP, 65535, false), Verdict::ALLOW);
    assert_eq!(verdict(protocol::TCP, 0, false), Verdict::DENY);
    assert_eq!(verdict(protocol::ICMP, 0, false), Verdict::DENY);
    assert_eq!(verdict(47, 0, false), Verdict::DENY);
    assert_eq!(verdict(protocol::UDP, 0, true), Verdict::ALLOW);
    assert_eq!(verdict(protocol::ICMP, 0, true), Verdict::DENY);
}

#[test]
fn more_entries_than_a_set_holds_is_an_error_naming_the_lines() {
    let mut text = "name = \"n\"\n".to_owned();
    for rule in 0..=RULE_ENTRIES {
        let port = 100 + 2 * rule;
        write!(
            text,
            "[[allow]]\ncidr = [\"10.0.0.0/8\"]\nports = [{port}]\n"
        )
        .unwrap();
    }
    let faults = compile(&boundary(&text).unwrap()).unwrap_err().to_string();
    assert!(faults.contains("b.toml:98:1: 10.0.0.0/8 needs 33 kernel entries and there is room for 32: rule 1 (line 2), rule 2 (line 5)"), "{faults}");
    assert_eq!(faults.lines().count(), 2, "{faults}");
}

#[test]
fn more_overlaps_than_the_kernel_holds_sets_for_is_an_error() {
    let mut text = "name = \"n\"\n".to_owned();
    for rule in 0..=2048 {
        let (high, low) = (rule / 256, rule % 256);
        write!(
            text,
            "[[allow]]\ncidr = [\"10.{high}.{low}.0/24\"]\nports = [{}]\n",
            rule + 1
        )
        .unwrap();
    }
    let faults = compile(&boundary(&text).unwrap()).unwrap_err().to_string();
    assert!(
        faults.contains("and the kernel holds 2048; among those past it: rule "),
        "{faults}"
    );
    assert!(faults.contains("(line "), "{faults}");
}

#[test]
fn a_hundred_thousand_networks_share_one_set() {
    let mut text = "name = \"n\"\n[[allow]]\nports = [443]\ncidr = [\n".to_owned();
    for index in 0..100_000_u32 {
        let [_, a, b, c] = index.to_be_bytes();
        writeln!(text, "\"{}.{b}.{c}.128/25\",", 20 + a).unwrap();
    }
    text.push_str("]\n");
    let start = std::time::Instant::now();
    let compiled = compiled(&text);
    println!(
        "100,000 networks parsed and compiled in {:?}",
        start.elapsed()
    );
    assert_eq!(compiled.prefixes.len(), 100_002);
    assert_eq!(compiled.sets.len(), 2);
    assert!(explain(&compiled, "20.0.5.200:443", "tcp").allowed());
    assert!(!explain(&compiled, "20.0.5.1:443", "tcp").allowed());
}

#[test]
fn an_explanation_names_the_rule_and_where_it_stands() {
    let compiled = load(Path::new(EXAMPLE)).unwrap();
    let allowed = explain(&compiled, "10.1.2.3:443", "tcp");
    let rule = allowed.rule.as_ref().unwrap();
    assert_eq!((rule.number, rule.line), (1, Some(10)));
    assert_eq!(rule.comment.as_deref(), Some("in-region services"));
    assert_eq!(allowed.prefix.as_deref(), Some("10.0.0.0/8"));
    let denied = explain(&compiled, "10.99.0.1:443", "tcp");
    assert_eq!(denied.rule.as_ref().unwrap().number, 4);
    let nothing = explain(&compiled, "203.0.113.7:443", "tcp");
    assert_eq!(
        (nothing.reason, nothing.rule, nothing.prefix),
        ("no_rule", None, None)
    );
    let json = serde_json::to_value(&denied).unwrap();
    assert_eq!(json["verdict"], "deny");
    assert_eq!(json["rule"]["number"], 4);
    assert_eq!(json["destination"]["port"], 443);
}

#[test]
fn a_boundary_says_itself_whether_it_only_audits() {
    assert!(!load(Path::new(EXAMPLE)).unwrap().audit);
    let audits = compiled("name = \"n\"\n[mode]\ndefault = \"audit\"\n");
    let denied = explain(&audits, "203.0.113.7:443", "tcp");
    assert_eq!((denied.verdict, denied.mode), ("deny", "audit"));
}

#[test]
fn a_destination_is_an_address_with_a_port_where_the_protocol_has_one() {
    assert_eq!(Target::parse("[::1]:53", "udp").unwrap().port, 53);
    assert_eq!(
        Target::parse("::1", "icmp").unwrap().protocol,
        protocol::ICMPV6
    );
    assert_eq!(Target::parse("10.0.0.1", "47").unwrap().protocol, 47);
    assert_eq!(
        Target::parse("::ffff:10.0.0.1", "icmp").unwrap().protocol,
        protocol::ICMP
    );
    // Connecting to no address is connecting to this host.
    let here = Target::parse("0.0.0.0:80", "tcp").unwrap().address;
    assert!(here.is_loopback());
    for (to, word) in [
        ("example.com:443", "tcp"),
        ("10.0.0.1", "tcp"),
        ("10.0.0.1:1", "icmp"),
        ("10.0.0.1:1", "quic"),
        ("10.0.0.1", "0"),
        ("[10.0.0.1", "icmp"),
    ] {
        let error = Target::parse(to, word).unwrap_err();
        assert!(!error.hint().is_empty(), "{to} {word}");
    }
}
