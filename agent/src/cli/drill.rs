//! `merestone drill`: has the canary try every way out now, and says what each
//! came to.

use super::{Exit, Failure, Globals, ask, output};
use crate::api::{DrillRow, Reply, Request};
use crate::canary::Result as Outcome;
use crate::serve::ClientError;
use serde::Serialize;
use std::fmt::Write as _;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every way out is tried by a guarded process, towards addresses set aside for documentation.
`held` needs both: the call was refused, and the kernel counted the refusal. What is declared
uncovered on this host, or missing, is not applicable and never counts as held. See
docs/canary.md.

Examples:
  merestone drill
  merestone drill --json | jq '.rows[] | select(.result != \"held\")'

Exit status:
  0  something was tried and all of it held    1  something escaped, or proved nothing
  2  usage                                     3  no agent answers, or its canary is off")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'r> {
    /// Whether something was tried and all of it held.
    held: bool,
    rows: &'r [DrillRow],
}

pub(super) fn execute(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let rows = match ask::once(&config, &Request::Drill {}) {
        Ok(Reply::Drill { rows }) => rows,
        Ok(other) => return Err(ask::unexpected(&other).exit(Exit::Unanswered)),
        Err(error @ ClientError::NotRunning { .. }) => {
            return Err(Failure::from(error).exit(Exit::Unanswered));
        }
        Err(error) => return Err(Failure::from(error)),
    };
    let held = is_held(&rows);
    if args.json {
        output::json(&Report { held, rows: &rows })?;
    } else {
        output::say(text(&rows).trim_end())?;
    }
    Ok(if held { Exit::Yes } else { Exit::No })
}

fn count(rows: &[DrillRow], result: Outcome) -> usize {
    rows.iter().filter(|row| row.result == result).count()
}

/// A drill in which nothing could be tried proves nothing.
fn is_held(rows: &[DrillRow]) -> bool {
    let failed = rows.iter().any(|row| row.result.is_failure());
    !failed && count(rows, Outcome::Held) > 0
}

const fn word(result: Outcome) -> &'static str {
    match result {
        Outcome::Held => "held",
        Outcome::Escaped => "ESCAPED",
        Outcome::NotApplicable => "n/a",
        Outcome::Error => "ERROR",
    }
}

fn text(rows: &[DrillRow]) -> String {
    let widest = |of: fn(&DrillRow) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let name = widest(|row| row.vector.chars().count()).max(6);
    let what = widest(|row| row.what.chars().count()).max(5);
    let mut text = format!(
        "{:<name$}  {:<what$}  {:<7}  proof\n",
        "vector", "tried", "result"
    );
    for row in rows {
        let DrillRow {
            vector,
            what: tried,
            result,
            proof,
        } = row;
        let result = word(*result);
        // Writing to a string cannot fail.
        writeln!(
            text,
            "{vector:<name$}  {tried:<what$}  {result:<7}  {proof}"
        )
        .ok();
    }
    let numbers = Outcome::ALL.map(|result| format!("{} {}", count(rows, result), word(result)));
    let verdict = if is_held(rows) {
        "all held"
    } else {
        "NOT HELD"
    };
    writeln!(text, "{verdict}: {}", numbers.join(", ")).ok();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(result: Outcome) -> DrillRow {
        DrillRow {
            vector: "tcp4".to_owned(),
            what: "connect(2)".to_owned(),
            result,
            proof: "connect: EPERM; 1 denied".to_owned(),
        }
    }

    #[test]
    fn a_drill_holds_only_where_something_was_tried_and_nothing_failed() {
        let (held, absent) = (row(Outcome::Held), row(Outcome::NotApplicable));
        assert!(is_held(&[held.clone(), absent.clone()]));
        assert!(!is_held(&[absent]));
        assert!(!is_held(&[]));
        for bad in [Outcome::Escaped, Outcome::Error] {
            assert!(!is_held(&[held.clone(), row(bad)]));
        }
    }

    #[test]
    fn the_table_names_what_escaped_and_ends_with_a_verdict() {
        let text = text(&[row(Outcome::Held), row(Outcome::Escaped)]);
        assert!(text.contains("ESCAPED  connect: EPERM"), "{text}");
        assert!(
            text.trim_end()
                .ends_with("NOT HELD: 1 held, 1 ESCAPED, 0 n/a, 0 ERROR")
        );
    }
}
