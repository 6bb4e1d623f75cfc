//! What a break-glass token says: which host, why, from when to when, and what
//! for.
//!
//! It judges the payload alone. Whose signature it bears, and whether it was
//! used before, is for others to judge.

use merestone_abi::Glass;
use serde::Deserialize;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest a token may be open.
const LONGEST: Duration = Duration::from_secs(4 * 3600);
/// Characters of a reason.
const LONGEST_REASON: usize = 400;
/// Characters a nonce must have: two tokens of the same words must differ.
const SHORTEST_NONCE: usize = 8;

/// Why a token is not honoured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not the form of a token.
    #[error("the token cannot be read: {detail}")]
    Form {
        /// What is wrong.
        detail: String,
    },
    /// For somebody else.
    #[error("the token is for host {got:?}, this is {expected:?}; have one signed for this host")]
    Host {
        /// The token's.
        got: String,
        /// Ours.
        expected: String,
    },
    /// An action that is none.
    #[error("the token names the action {got:?}; actions are all, {known}")]
    Action {
        /// What it names.
        got: String,
        /// What there is.
        known: String,
    },
    /// Too long.
    #[error("the token is for {got_s} s, at most {} s are honoured", LONGEST.as_secs())]
    Span {
        /// Its span.
        got_s: i64,
    },
    /// Not yet.
    #[error("the token begins at {not_before}; this host's clock says {now}")]
    Early {
        /// When it begins.
        not_before: String,
        /// Now.
        now: String,
    },
    /// No longer.
    #[error("the token ended at {until}; this host's clock says {now}")]
    Late {
        /// When it ended.
        until: String,
        /// Now.
        now: String,
    },
    /// Too short to be told from another, or too long to be shown.
    #[error("the token's {field} has {got} characters; it needs {need}")]
    Length {
        /// Which field.
        field: &'static str,
        /// How many it has.
        got: usize,
        /// How many it may have.
        need: &'static str,
    },
}

/// The payload, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: String,
    reason: String,
    not_before: toml::value::Datetime,
    until: toml::value::Datetime,
    actions: Vec<String>,
    nonce: String,
}

/// A token that holds here and now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// Why, in the operator's words.
    pub reason: String,
    /// Until when, milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// Bits of [`Glass`].
    pub actions: u32,
}

impl Token {
    /// Reads a payload for the host `node`, at `now_ms` of its wall clock.
    pub fn read(payload: &[u8], node: &str, now_ms: u64) -> Result<Self, TokenError> {
        let form = |detail: String| TokenError::Form { detail };
        let text = std::str::from_utf8(payload).map_err(|error| form(error.to_string()))?;
        let Written {
            host,
            reason,
            not_before,
            until,
            actions,
            nonce,
        } = toml::from_str(text).map_err(|error| form(error.message().to_owned()))?;
        if host != node {
            return Err(TokenError::Host {
                got: host,
                expected: node.to_owned(),
            });
        }
        let reason = reason_of(reason)?;
        let got = nonce.chars().count();
        if got < SHORTEST_NONCE {
            return Err(TokenError::Length {
                field: "nonce",
                got,
                need: "8 or more",
            });
        }
        let (from, to) = (moment(&not_before)?, moment(&until)?);
        let span = to - from;
        if span <= time::Duration::ZERO || span > LONGEST {
            return Err(TokenError::Span {
                got_s: span.whole_seconds(),
            });
        }
        let now = at(now_ms)?;
        if now < from {
            return Err(TokenError::Early {
                not_before: not_before.to_string(),
                now: shown(now),
            });
        }
        if now >= to {
            return Err(TokenError::Late {
                until: until.to_string(),
                now: shown(now),
            });
        }
        let until_ms = to.unix_timestamp_nanos() / 1_000_000;
        Ok(Self {
            reason,
            until_ms: u64::try_from(until_ms).map_err(|error| form(error.to_string()))?,
            actions: actions_of(&actions)?,
        })
    }

    /// What root asks for where no signer is named.
    pub fn unsigned(
        reason: String,
        seconds: u64,
        actions: &[String],
        now_ms: u64,
    ) -> Result<Self, TokenError> {
        if seconds == 0 || seconds > LONGEST.as_secs() {
            return Err(TokenError::Span {
                got_s: i64::try_from(seconds).unwrap_or(i64::MAX),
            });
        }
        Ok(Self {
            reason: reason_of(reason)?,
            until_ms: now_ms.saturating_add(seconds.saturating_mul(1000)),
            actions: actions_of(actions)?,
        })
    }
}

fn reason_of(reason: String) -> Result<String, TokenError> {
    let got = reason.chars().count();
    if reason.trim().is_empty() || got > LONGEST_REASON || reason.chars().any(char::is_control) {
        return Err(TokenError::Length {
            field: "reason",
            got,
            need: "1 to 400, none of them a control character",
        });
    }
    Ok(reason)
}

fn actions_of(names: &[String]) -> Result<u32, TokenError> {
    let mut actions = 0;
    for name in names {
        let known = Glass::NAMES.iter().find(|(_, known)| known == name);
        actions |= match known {
            Some((bit, _)) => *bit,
            None if name == "all" => Glass::NAMES.iter().fold(0, |all, (bit, _)| all | bit),
            None => {
                return Err(TokenError::Action {
                    got: name.clone(),
                    known: Glass::NAMES.map(|(_, name)| name).join(", "),
                });
            }
        };
    }
    if actions == 0 {
        return Err(TokenError::Action {
            got: String::new(),
            known: Glass::NAMES.map(|(_, name)| name).join(", "),
        });
    }
    Ok(actions)
}

fn moment(written: &toml::value::Datetime) -> Result<OffsetDateTime, TokenError> {
    OffsetDateTime::parse(&written.to_string(), &Rfc3339).map_err(|_error| TokenError::Form {
        detail: format!("{written} is no moment; write one with a zone, as 2026-03-01T08:00:00Z"),
    })
}

fn at(ms: u64) -> Result<OffsetDateTime, TokenError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).map_err(|error| {
        TokenError::Form {
            detail: format!("this host's clock: {error}"),
        }
    })
}

fn shown(moment: OffsetDateTime) -> String {
    moment.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_767_268_800_000; // 2026-01-01T12:00:00Z

    fn text(host: &str, from: &str, until: &str, rest: &str) -> String {
        format!(
            "host = \"{host}\"\nreason = \"disk is full\"\nnot_before = {from}\nuntil = {until}\n\
             {rest}\n"
        )
    }

    fn sound() -> String {
        text(
            "n1",
            "2026-01-01T11:00:00Z",
            "2026-01-01T13:00:00Z",
            "actions = [\"pins\", \"bpf\"]\nnonce = \"0123456789\"",
        )
    }

    #[test]
    fn a_token_for_this_host_and_hour_is_read() {
        let token = Token::read(sound().as_bytes(), "n1", NOON).unwrap();
        assert_eq!(token.actions, Glass::PINS | Glass::BPF);
        assert_eq!(token.until_ms, NOON + 3_600_000);
        assert_eq!(token.reason, "disk is full");
    }

    #[test]
    fn a_token_of_another_host_hour_or_length_is_refused() {
        let refused = |text: String, now| Token::read(text.as_bytes(), "n1", now).unwrap_err();
        let rest = "actions = [\"all\"]\nnonce = \"0123456789\"";
        let span = |from, until| text("n1", from, until, rest);
        assert!(matches!(
            refused(sound().replace("n1", "n2"), NOON),
            TokenError::Host { .. }
        ));
        assert!(matches!(
            refused(sound(), NOON - 4_000_000),
            TokenError::Early { .. }
        ));
        assert!(matches!(
            refused(sound(), NOON + 3_600_000),
            TokenError::Late { .. }
        ));
        let five_hours = span("2026-01-01T11:00:00Z", "2026-01-01T16:00:00Z");
        assert!(matches!(
            refused(five_hours, NOON),
            TokenError::Span { got_s: 18_000 }
        ));
        let backwards = span("2026-01-01T13:00:00Z", "2026-01-01T11:00:00Z");
        assert!(matches!(refused(backwards, NOON), TokenError::Span { .. }));
        let no_zone = span("2026-01-01T11:00:00", "2026-01-01T13:00:00");
        assert!(matches!(refused(no_zone, NOON), TokenError::Form { .. }));
    }

    #[test]
    fn a_token_of_another_form_is_refused() {
        let refused = |from: &str, to: &str| {
            let text = sound().replace(from, to);
            assert_ne!(text, sound());
            Token::read(text.as_bytes(), "n1", NOON).unwrap_err()
        };
        assert!(matches!(
            refused("\"pins\"", "\"everything\""),
            TokenError::Action { .. }
        ));
        assert!(matches!(
            refused("[\"pins\", \"bpf\"]", "[]"),
            TokenError::Action { .. }
        ));
        assert!(matches!(
            refused("0123456789", "0"),
            TokenError::Length { .. }
        ));
        assert!(matches!(
            refused("disk is full", " "),
            TokenError::Length { .. }
        ));
        assert!(matches!(
            refused("nonce", "nonsense"),
            TokenError::Form { .. }
        ));
        assert!(Token::read(&[0xff], "n1", NOON).is_err());
    }

    #[test]
    fn what_root_asks_for_without_a_signer_is_no_longer_than_a_token() {
        let ask = |seconds| Token::unsigned("why".to_owned(), seconds, &["all".to_owned()], NOON);
        assert_eq!(ask(60).unwrap().until_ms, NOON + 60_000);
        assert!(ask(0).is_err());
        assert!(ask(4 * 3600 + 1).is_err());
    }
}
