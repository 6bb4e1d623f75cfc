//! What a file says, printed; nothing of it is verified.

use crate::escape::escaped;
use merestone_evidence::{
    Blob, Bundle, Enrolment, Entry, EpochStatement, LocationEvidence, Quote, Receipt,
    SealedSession, SessionStatement, decode, sha256,
};
use merestone_verify::tpm::{Attest, Public};

/// Leaves beyond this many are counted, not printed.
const MOST_LEAVES: usize = 1000;

/// 0 for a file that can be read, 1 for one that cannot.
pub(crate) fn exit(bytes: &[u8]) -> u8 {
    u8::from(decode::<Bundle>(bytes).is_err())
}

pub(crate) fn page(bytes: &[u8]) -> String {
    let mut page = Page(String::new());
    page.line(
        0,
        "NOTHING BELOW IS VERIFIED: it is what the file says of itself".to_owned(),
    );
    match decode::<Bundle>(bytes) {
        Ok(bundle) => page.bundle(&bundle),
        Err(error) => page.line(0, format!("not readable: {error}")),
    }
    page.0
}

struct Page(String);

impl Page {
    fn line(&mut self, depth: usize, text: String) {
        self.0.push_str(&"  ".repeat(depth));
        self.0.push_str(&escaped(&text));
        self.0.push('\n');
    }

    fn place_and_log(&mut self, location: &[Blob], checkpoint: Option<&[u8]>) {
        for bytes in location {
            self.line(0, format!("location evidence {}", sha256(bytes)));
            match decode::<LocationEvidence>(bytes) {
                Ok(evidence) => self.line(1, format!("{evidence:?}")),
                Err(error) => self.line(1, format!("not readable: {error}")),
            }
        }
        if let Some(note) = checkpoint {
            self.line(0, "checkpoint".to_owned());
            for line in String::from_utf8_lossy(note).lines() {
                self.line(1, line.to_owned());
            }
        }
    }

    fn bundle(&mut self, bundle: &Bundle) {
        let Bundle {
            kind: _,
            created_ms,
            from_ms,
            to_ms,
            node,
            ak_public,
            sessions,
            span,
            consistency,
            proofs,
            enrolments,
            location,
            checkpoint,
            receipts,
        } = bundle;
        self.line(
            0,
            format!("node {node:?}, created {created_ms} ms, period {from_ms} to {to_ms} ms"),
        );
        self.line(
            0,
            format!(
                "attestation key name {}",
                hex::encode(Public::name_of(ak_public))
            ),
        );
        self.line(1, format!("{:?}", Public::parse(ak_public)));
        for session in sessions {
            self.session(session);
        }
        if let Some(span) = span {
            let count = span.leaves.len();
            self.line(0, format!("leaves {} and {count} from there", span.start));
            for (index, leaf) in (span.start..).zip(span.leaves.iter().take(MOST_LEAVES)) {
                self.leaf(index, leaf);
            }
            if count > MOST_LEAVES {
                self.line(1, format!("and {} more", count - MOST_LEAVES));
            }
        }
        self.enrolments(enrolments.as_deref().unwrap_or_default());
        self.place_and_log(
            location.as_deref().unwrap_or_default(),
            checkpoint.as_deref(),
        );
        for proof in consistency {
            self.line(
                0,
                format!("consistency {} to {}", proof.from_size, proof.to_size),
            );
        }
        for proof in proofs {
            self.line(0, format!("single leaf in a tree of {}", proof.size));
            self.leaf(proof.index, &proof.leaf);
        }
        let receipts = receipts.as_deref().unwrap_or_default();
        for receipt in receipts.iter().take(MOST_LEAVES) {
            self.receipt(receipt);
        }
        if receipts.len() > MOST_LEAVES {
            self.line(
                1,
                format!("and {} more receipts", receipts.len() - MOST_LEAVES),
            );
        }
    }

    fn session(&mut self, session: &SealedSession) {
        self.line(
            0,
            format!("session statement {}", sha256(&session.statement)),
        );
        match decode::<SessionStatement>(&session.statement) {
            Ok(statement) => self.pretty(&statement),
            Err(error) => self.line(1, format!("not readable: {error}")),
        }
        self.quote(&session.quote);
        let size = |log: &Option<Vec<u8>>| log.as_ref().map_or(0, Vec::len);
        let (boot, ima) = (size(&session.boot_log), size(&session.ima_log));
        self.line(1, format!("boot log {boot} bytes, ima list {ima} bytes"));
        for epoch in &session.epochs {
            self.line(1, format!("epoch statement {}", sha256(&epoch.statement)));
            match decode::<EpochStatement>(&epoch.statement) {
                Ok(statement) => self.line(2, format!("{statement:?}")),
                Err(error) => self.line(2, format!("not readable: {error}")),
            }
            self.quote(&epoch.quote);
        }
    }

    fn receipt(&mut self, message: &[u8]) {
        let claims = merestone_enrol::payload(message)
            .map_err(|error| error.to_string())
            .and_then(|payload| decode::<Receipt>(&payload).map_err(|error| error.to_string()));
        self.line(0, format!("receipt of {} bytes", message.len()));
        match claims {
            Ok(claims) => self.pretty(&claims),
            Err(error) => self.line(1, format!("not readable: {error}")),
        }
    }

    fn enrolments(&mut self, enrolments: &[Blob]) {
        for message in enrolments {
            let claims = merestone_enrol::payload(message)
                .map_err(|error| error.to_string())
                .and_then(|payload| {
                    decode::<Enrolment>(&payload).map_err(|error| error.to_string())
                });
            self.line(
                0,
                format!("enrolment certificate of {} bytes", message.len()),
            );
            match claims {
                Ok(claims) => self.pretty(&claims),
                Err(error) => self.line(1, format!("not readable: {error}")),
            }
        }
    }

    fn pretty(&mut self, statement: &impl core::fmt::Debug) {
        for line in format!("{statement:#?}").lines() {
            self.line(1, line.to_owned());
        }
    }

    fn leaf(&mut self, index: u64, leaf: &[u8]) {
        match decode::<Entry>(leaf) {
            Ok(entry) => {
                self.line(
                    1,
                    format!("{index} at {} ms: {:?}", entry.time_ms, entry.body),
                );
            }
            Err(error) => self.line(1, format!("{index} not readable: {error}")),
        }
    }

    fn quote(&mut self, quote: &Quote) {
        self.line(1, format!("quote {:?}", Attest::parse(&quote.attest)));
        for pcr in &quote.pcrs {
            self.line(2, format!("register {:>2} {}", pcr.index, pcr.value));
        }
    }
}
