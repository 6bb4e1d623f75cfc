//! The command line as operators type it.

use super::*;

const BOUNDARY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/examples/boundary.toml"
);

fn run(words: &[&str]) -> Exit {
    let words = std::iter::once("merestone").chain(words.iter().copied());
    main(words.map(OsString::from))
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn explain_exits_0_allowed_1_denied_2_usage_3_unanswered() {
    let ask = |rest: &[&str]| {
        let words = [&["policy", "explain", "--boundary", BOUNDARY], rest].concat();
        run(&words)
    };
    assert_eq!(ask(&["--to", "10.1.2.3:443"]), Exit::Yes);
    assert_eq!(ask(&["--to", "203.0.113.7:443"]), Exit::No);
    assert_eq!(
        ask(&["--to", "10.1.2.3", "--protocol", "icmp", "--json"]),
        Exit::Yes
    );
    assert_eq!(ask(&["--to", "example.com:443"]), Exit::No);
    assert_eq!(ask(&["--name", "example.com"]), Exit::No);
    assert_eq!(ask(&["--name", "203.0.113.7"]), Exit::Usage);
    assert_eq!(ask(&["--to", "203.0.113.700:443"]), Exit::Usage);
    assert_eq!(ask(&["--protocol", "udp"]), Exit::Usage);
    assert_eq!(
        ask(&["--to", "10.1.2.3:443", "--pid", "0"]),
        Exit::Unanswered
    );
    assert_eq!(ask(&["--to", "10.1.2.3:443", "--pid", "1"]), Exit::Yes);
    let gone = run(&[
        "policy",
        "explain",
        "--boundary",
        "/nonexistent",
        "--to",
        "10.1.2.3:443",
    ]);
    assert_eq!(gone, Exit::Unanswered);
}

#[test]
fn check_exits_1_on_a_faulty_boundary() {
    assert_eq!(run(&["policy", "check", BOUNDARY]), Exit::Yes);
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(
        run(&["policy", "check", &file.path().to_string_lossy()]),
        Exit::No
    );
}

#[test]
fn help_is_a_success_and_nothing_at_all_is_not() {
    assert_eq!(run(&["--help"]), Exit::Yes);
    assert_eq!(run(&["--version", "--verbose"]), Exit::Yes);
    assert_eq!(run(&[]), Exit::Usage);
    assert_eq!(run(&["--verbose"]), Exit::Usage);
    assert_eq!(run(&["no-such-command"]), Exit::Usage);
}

#[test]
fn global_flags_stand_before_or_after_the_command() {
    for words in [
        ["merestone", "--config", "/x", "status"],
        ["merestone", "status", "--config", "/x"],
    ] {
        let cli = Cli::try_parse_from(words).unwrap();
        assert_eq!(cli.globals.config.as_deref(), Some(Path::new("/x")));
    }
}

#[test]
fn a_report_ends_now_unless_told_otherwise() {
    let words = [
        "merestone",
        "report",
        "--from",
        "2020-01-01T00:00:00Z",
        "--out",
        "f",
    ];
    let Some(Command::Report(args)) = Cli::try_parse_from(words).unwrap().command else {
        panic!("report");
    };
    assert!(args.to.is_none());
    let wrong = ["merestone", "report", "--from", "yesterday", "--out", "f"];
    assert!(Cli::try_parse_from(wrong).is_err());
}

#[test]
fn flags_reach_the_configuration_and_are_checked_like_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let globals = |set: &[&str]| Globals {
        config: Some(file.path().to_owned()),
        set: set.iter().map(|text| setting(text).unwrap()).collect(),
    };
    let config = globals(&["tpm.tcti=swtpm:host=a,port=2321", "gpu.devices=195,234:0"])
        .load()
        .unwrap();
    assert_eq!(config.tpm.tcti, "swtpm:host=a,port=2321");
    assert_eq!(config.gpu.devices.len(), 2);
    let failure = globals(&["tpm.tct=x", "evidence.epoch=1"])
        .load()
        .unwrap_err();
    let lines: Vec<_> = failure
        .lines
        .iter()
        .map(|(line, _)| line.as_str())
        .collect();
    assert_eq!(
        lines,
        [
            "flag --set evidence.epoch: `evidence.epoch` cannot be \"1\"",
            "flag --set tpm.tct: unknown key `tpm.tct`",
        ]
    );
    assert!(setting("no-equals").is_err());
}

#[test]
fn a_cause_is_said_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the log: {source}")]
    struct Outer {
        source: std::io::Error,
    }
    let source = std::io::Error::other("disk full");
    let failure = Failure::of(&Outer { source });
    assert_eq!(failure.lines[0].0, "cannot open the log: disk full");
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        run(&["man", "--dir", &dir.path().to_string_lossy()]),
        Exit::Yes
    );
    for page in [
        "merestone.1",
        "merestone-run.1",
        "merestone-policy-explain.1",
        "merestone-drill.1",
        "merestone-enroll-request.1",
        "merestone-gateway.1",
        "merestone-landmark-serve.1",
        "merestone-receipt.1",
    ] {
        assert!(dir.path().join(page).exists(), "{page}");
    }
    assert_eq!(run(&["man", "--dir", "/nonexistent/dir"]), Exit::No);
    assert_eq!(run(&["completions", "bash"]), Exit::Yes);
}

#[test]
fn every_command_that_asks_or_does_something_has_an_example_that_fits() {
    fn look(command: &clap::Command, path: &str, without: &mut Vec<String>) {
        let subcommands: Vec<_> = command.get_subcommands().collect();
        for one in &subcommands {
            look(one, &format!("{path} {}", one.get_name()), without);
        }
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        for line in help.lines() {
            // Wider lines are broken, and then cannot be copied.
            assert!(line.chars().count() <= 100, "{path}: {line}");
        }
        let needs_none = ["completions", "man", "list", "revoke", "close"];
        if subcommands.is_empty()
            && !needs_none.contains(&command.get_name())
            && !help.contains("Example")
        {
            without.push(path.to_owned());
        }
    }
    let mut without = Vec::new();
    look(&Cli::command(), "merestone", &mut without);
    assert_eq!(without, Vec::<String>::new());
}
