use super::{asked, detail, process, telling, verdict_of};
use merestone_evidence::Body;
use merestone_verify::CheckResult;

pub(super) fn reached(deputy: &str, refused: bool) -> Body {
    Body::Deputy {
        refused,
        hook: "unix_stream_connect".into(),
        group: 42,
        process: Some(process()),
        deputy: deputy.into(),
        count: 2,
    }
}

const PROXY: &str = "127.0.0.1:8080 of pid 7, cgroup 9";
const DOCKER: &str = "unix socket of pid 8, cgroup 9";

#[test]
fn deputies_that_were_reached_are_told_and_not_called_checked() {
    let maker = telling(vec![
        (1_000, reached(PROXY, false)),
        (2_000, reached(DOCKER, true)),
    ]);
    for require in ["", "deputies = \"any\""] {
        let verdict = verdict_of(&maker, require, 0, "deputies");
        detail(&verdict, "deputies", CheckResult::NotChecked);
        let deputies = verdict.deputies.unwrap();
        assert_eq!((deputies.let_through, deputies.refused), (2, 2));
        assert_eq!(deputies.asked.len(), 2);
    }
}

#[test]
fn a_policy_that_accepts_no_deputy_fails_where_one_was_reached_and_not_where_all_were_refused() {
    let none = "deputies = \"none\"";
    asked(
        &telling(vec![(1_000, reached(PROXY, false))]),
        none,
        2,
        "deputies",
    );
    let verdict = verdict_of(
        &telling(vec![(1_000, reached(PROXY, true))]),
        none,
        0,
        "deputies",
    );
    detail(&verdict, "deputies", CheckResult::Pass);
}

#[test]
fn a_policy_that_names_deputies_fails_where_another_was_reached() {
    let maker = telling(vec![
        (1_000, reached(PROXY, false)),
        (2_000, reached(DOCKER, false)),
    ]);
    let listed = |names: &str| format!("deputies = \"listed\"\ndeputy = {names}");
    asked(
        &maker,
        &listed("[\"127.0.0.1:8080\", \"unix socket\"]"),
        0,
        "deputies",
    );
    asked(&maker, &listed("\"127.0.0.1:8080\""), 2, "deputies");
    // Compared whole.
    asked(
        &maker,
        &listed("[\"127.0.0.1:80\", \"unix socket\"]"),
        2,
        "deputies",
    );
    asked(&maker, &listed("[]"), 2, "deputies");
}
