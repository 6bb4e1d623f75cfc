//! From an endorsement key's certificate to a pinned root.

use super::certificate::Certificate;
use super::der::{SEQUENCE, elements, only};
use super::{EkError, EkKey, Identity, signature};
use merestone_evidence::Digest;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier as Oid;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages};

const SUBJECT_DIRECTORY_ATTRIBUTES: Oid = Oid::new_unwrap("2.5.29.9");
const KEY_USAGE: Oid = Oid::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: Oid = Oid::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: Oid = Oid::new_unwrap("2.5.29.19");
const NAME_CONSTRAINTS: Oid = Oid::new_unwrap("2.5.29.30");
const CRL_DISTRIBUTION: Oid = Oid::new_unwrap("2.5.29.31");
const CERTIFICATE_POLICIES: Oid = Oid::new_unwrap("2.5.29.32");
const POLICY_CONSTRAINTS: Oid = Oid::new_unwrap("2.5.29.36");
const EXTENDED_KEY_USAGE: Oid = Oid::new_unwrap("2.5.29.37");
const INHIBIT_ANY_POLICY: Oid = Oid::new_unwrap("2.5.29.54");
/// `tcg-kp-EKCertificate`.
const EK_CERTIFICATE: Oid = Oid::new_unwrap("2.23.133.8.1");

/// Extensions that may be critical. Policies restrict nothing, because none is asked for;
/// directory attributes describe the TPM; distribution points say where more can be had. Key
/// identifiers and access to the authority may not (RFC 5280, 4.2.1.1, 4.2.1.2, 4.2.2.1).
const KNOWN: [Oid; 7] = [
    SUBJECT_DIRECTORY_ATTRIBUTES,
    KEY_USAGE,
    SUBJECT_ALT_NAME,
    BASIC_CONSTRAINTS,
    CRL_DISTRIBUTION,
    CERTIFICATE_POLICIES,
    EXTENDED_KEY_USAGE,
];
/// Restrictions that are not enforced here, and so must not be passed over, critical or not.
const RESTRICTIONS: [Oid; 3] = [NAME_CONSTRAINTS, POLICY_CONSTRAINTS, INHIBIT_ANY_POLICY];

/// Most certificates between an endorsement key and its root, both included.
const MAX_PATH: usize = 6;
/// Most certificates that a path is looked for among.
const MAX_OFFERED: usize = 512;
/// Most signatures that are checked before a path is given up.
const MAX_TRIES: usize = 64;

/// Certificates that are believed for being pinned, and those that may lie between.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Anchors {
    /// Pinned, each for what it is: a root, or an intermediate that is trusted by itself.
    pub roots: Vec<Certificate>,
    /// Believed only through a root.
    pub intermediates: Vec<Certificate>,
}

/// What may be asked of an endorsement key's certificate beyond what always is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// It has to name its TPM. Some clouds' virtual TPMs do not.
    pub must_name_tpm: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            must_name_tpm: true,
        }
    }
}

/// A certificate that leads to a pinned root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EkTrusted {
    /// Digest of the certificate.
    pub certificate: Digest,
    /// Digest of the pinned certificate at the end.
    pub anchor: Digest,
    /// The name of the pinned certificate, for people.
    pub anchor_name: String,
    /// The key.
    pub key: EkKey,
    /// The TPM, where it is named.
    pub identity: Option<Identity>,
    /// The certificate and its issuers, the pinned one left out.
    pub chain: Vec<Vec<u8>>,
}

impl Anchors {
    /// Traces the first of `offered` to a root. `at_s` is the time of the question.
    ///
    /// Whoever offers certificates is not believed: those after the first are only candidates.
    pub fn trace(&self, offered: &[&[u8]], rules: Rules, at_s: u64) -> Result<EkTrusted, EkError> {
        let total = offered.len() + self.intermediates.len();
        if total > MAX_OFFERED {
            return Err(EkError::TooMany {
                what: "certificates",
                got: total,
                limit: MAX_OFFERED,
            });
        }
        let mut offered = offered.iter().map(|der| Certificate::read(der));
        let leaf = offered.next().unwrap_or_else(|| {
            Err(EkError::Form {
                what: "the endorsement certificate".to_owned(),
                detail: "there is none".to_owned(),
            })
        })?;
        // What else the TPM holds may be anything; only what is needed has to be readable.
        let between: Vec<Certificate> = offered.filter_map(Result::ok).collect();
        let identity = leaf_profile(&leaf, rules)?;
        let key = leaf.key()?;
        let (path, anchor) = self.path(&leaf, &between, at_s)?;
        Ok(EkTrusted {
            certificate: leaf.sha256(),
            anchor: anchor.sha256(),
            anchor_name: anchor.subject(),
            key,
            identity,
            chain: path.iter().map(|one| one.der().to_vec()).collect(),
        })
    }

    /// The way from `leaf`, whose own profile is the caller's to judge, over any of `between` to
    /// a pinned certificate, and that one.
    pub(crate) fn path<'c>(
        &'c self,
        leaf: &'c Certificate,
        between: &'c [Certificate],
        at_s: u64,
    ) -> Result<(Vec<&'c Certificate>, &'c Certificate), EkError> {
        ends_a_path(leaf)?;
        valid(leaf, at_s)?;
        let mut search = Search {
            anchors: self,
            between,
            at_s,
            tries: 0,
            worst: None,
        };
        let mut path = vec![leaf];
        let Some(anchor) = search.climb(&mut path) else {
            let last = path.last().copied().unwrap_or(leaf);
            let nobody = EkError::NoIssuer {
                subject: last.subject(),
                issuer: last.issuer(),
            };
            return Err(search.worst.unwrap_or(nobody));
        };
        Ok((path, anchor))
    }
}

/// A key that may sign certificates is an authority's, and says so (RFC 5280, 4.2.1.9).
fn ends_a_path(leaf: &Certificate) -> Result<(), EkError> {
    let extensions = Extensions::read(leaf)?;
    let signs = |usage: KeyUsage| usage.0.contains(KeyUsages::KeyCertSign);
    let is_authority = extensions.constraints.is_some_and(|one| one.ca);
    if extensions.usage.is_some_and(signs) && !is_authority {
        return Err(EkError::Profile {
            subject: leaf.subject(),
            why: "its key may sign certificates, and it is no authority".to_owned(),
        });
    }
    Ok(())
}

/// The end of a path whose key signs statements: no authority, and for signatures.
pub(crate) fn signs_statements(leaf: &Certificate) -> Result<(), EkError> {
    let refused = |why: &str| EkError::Profile {
        subject: leaf.subject(),
        why: why.to_owned(),
    };
    let extensions = Extensions::read(leaf)?;
    if extensions
        .constraints
        .is_some_and(|constraints| constraints.ca)
    {
        return Err(refused("it is a certificate authority"));
    }
    let signs = |usage: KeyUsage| usage.0.contains(KeyUsages::DigitalSignature);
    if !extensions.usage.is_some_and(signs) {
        return Err(refused("its key usage does not allow signatures"));
    }
    Ok(())
}

impl Anchors {
    /// Traces a certificate of another kind, one that signs, to a pinned certificate. It may leave
    /// its key's usage open, and is no authority.
    pub(crate) fn trace_signer(
        &self,
        leaf: &Certificate,
        offered: &[&Certificate],
        at_s: u64,
    ) -> Result<(), EkError> {
        let refused = |why: &str| EkError::Profile {
            subject: leaf.subject(),
            why: why.to_owned(),
        };
        let extensions = Extensions::read(leaf)?;
        let is_authority = extensions.constraints.is_some_and(|one| one.ca);
        if is_authority || !leaf.is_v3() {
            return Err(refused(
                "it is an authority, or does not say that it is none",
            ));
        }
        let signs = |usage: KeyUsage| usage.0.contains(KeyUsages::DigitalSignature);
        if !extensions.usage.is_none_or(signs) {
            return Err(refused("its key usage does not allow signing"));
        }
        let between: Vec<Certificate> = offered.iter().map(|one| (*one).clone()).collect();
        self.path(leaf, &between, at_s).map(|_| ())
    }
}

struct Search<'c> {
    anchors: &'c Anchors,
    between: &'c [Certificate],
    at_s: u64,
    tries: usize,
    /// Why the issuer that came closest was refused.
    worst: Option<EkError>,
}

impl<'c> Search<'c> {
    /// Extends `path` until a pinned certificate issued its last one.
    fn climb(&mut self, path: &mut Vec<&'c Certificate>) -> Option<&'c Certificate> {
        let last = *path.last()?;
        let anchors = self.anchors;
        // A pinned certificate may itself be the one that was offered as an issuer.
        if path.len() > 1 && anchors.roots.contains(last) {
            path.pop();
            return Some(last);
        }
        for root in anchors.roots.iter().filter(|one| last.names_as_issuer(one)) {
            if self.issued(root, path, true) {
                return Some(root);
            }
        }
        if path.len() >= MAX_PATH {
            return None;
        }
        let between = anchors.intermediates.iter().chain(self.between);
        for issuer in between.filter(|one| last.names_as_issuer(one)) {
            if path.contains(&issuer) || !self.issued(issuer, path, false) {
                continue;
            }
            path.push(issuer);
            if let Some(anchor) = self.climb(path) {
                return Some(anchor);
            }
            let dead_end = path.pop()?;
            self.worst.get_or_insert_with(|| EkError::NoIssuer {
                subject: dead_end.subject(),
                issuer: dead_end.issuer(),
            });
        }
        None
    }

    /// Whether `issuer` may have issued the last of `path`, and did.
    fn issued(&mut self, issuer: &Certificate, path: &[&Certificate], is_pinned: bool) -> bool {
        let Some(last) = path.last() else {
            return false;
        };
        if self.tries >= MAX_TRIES {
            return false;
        }
        self.tries += 1;
        // A certificate that an authority issued to itself, as for a new key, does not count
        // (RFC 5280, 6.1.4 (l)). The end of the path never does.
        let between = path.iter().skip(1);
        let below = between.filter(|one| !one.names_as_issuer(one)).count();
        let outcome = may_issue(issuer, last, below)
            // A pin needs no validity of its own: whoever pinned it can take it away.
            .and_then(|()| if is_pinned { Ok(()) } else { valid(issuer, self.at_s) })
            .and_then(|()| signature::check(last, issuer));
        match outcome {
            Ok(()) => true,
            Err(error) => {
                self.worst.get_or_insert(error);
                false
            }
        }
    }
}

/// Whether `issuer` may issue `subject` with `below` issuers between it and the end (N27b).
fn may_issue(issuer: &Certificate, subject: &Certificate, below: usize) -> Result<(), EkError> {
    let refused = |why| EkError::Issuer {
        subject: subject.subject(),
        issuer: issuer.subject(),
        why,
    };
    let extensions = Extensions::read(issuer)?;
    let Some(constraints) = extensions.constraints.filter(|constraints| constraints.ca) else {
        return Err(refused("it is no certificate authority"));
    };
    if issuer.is_nameless() {
        return Err(refused("it has no name"));
    }
    let limit = constraints.path_len_constraint.map(usize::from);
    if limit.is_some_and(|limit| below > limit) {
        return Err(refused("its path length does not allow it"));
    }
    let signs = |usage: KeyUsage| usage.0.contains(KeyUsages::KeyCertSign);
    if !extensions.usage.is_none_or(signs) {
        return Err(refused("its key is not for signing certificates"));
    }
    Ok(())
}

fn valid(certificate: &Certificate, at: u64) -> Result<(), EkError> {
    let (from, until) = certificate.validity();
    if (from..=until).contains(&at) {
        Ok(())
    } else {
        let subject = certificate.subject();
        Err(EkError::Validity {
            subject,
            from,
            until,
            at,
        })
    }
}

/// The TCG EK Credential Profile, for the certificate itself.
fn leaf_profile(leaf: &Certificate, rules: Rules) -> Result<Option<Identity>, EkError> {
    let refused = |why: &str| EkError::Profile {
        subject: leaf.subject(),
        why: why.to_owned(),
    };
    let extensions = Extensions::read(leaf)?;
    if extensions
        .constraints
        .is_some_and(|constraints| constraints.ca)
    {
        return Err(refused("it is a certificate authority"));
    }
    let is_ek = |usage: &ExtendedKeyUsage| usage.0.contains(&EK_CERTIFICATE);
    if !extensions.extended.as_ref().is_some_and(is_ek) {
        return Err(refused("its extended key usage lacks 2.23.133.8.1"));
    }
    // What only encrypts can be bound to a TPM by credential activation; a key that signs
    // could be anybody's.
    let encrypts = KeyUsages::KeyEncipherment | KeyUsages::KeyAgreement;
    let signs = KeyUsages::DigitalSignature
        | KeyUsages::NonRepudiation
        | KeyUsages::KeyCertSign
        | KeyUsages::CRLSign;
    match extensions.usage {
        Some(usage) if !usage.0.is_disjoint(signs) => {
            return Err(refused("its key usage allows signing"));
        }
        Some(usage) if usage.0.is_disjoint(encrypts) => {
            return Err(refused("its key usage does not allow encryption"));
        }
        Some(_) => {}
        None => return Err(refused("it has no key usage")),
    }
    match extensions.alternative {
        Some(name) => Identity::read(name).map(Some).map_err(refused),
        None if rules.must_name_tpm => Err(refused("it does not name its TPM")),
        None => Ok(None),
    }
}

/// The extensions that decide something.
#[derive(Default)]
struct Extensions<'c> {
    constraints: Option<BasicConstraints>,
    usage: Option<KeyUsage>,
    extended: Option<ExtendedKeyUsage>,
    alternative: Option<&'c [u8]>,
}

impl<'c> Extensions<'c> {
    fn read(certificate: &'c Certificate) -> Result<Self, EkError> {
        let form = |detail: String| EkError::Form {
            what: certificate.subject(),
            detail,
        };
        let mut read = Self::default();
        let mut seen = Vec::new();
        for extension in certificate.extensions() {
            let oid = extension.extn_id;
            if seen.contains(&oid) {
                return Err(form(format!("extension {oid} is there twice")));
            }
            seen.push(oid);
            if RESTRICTIONS.contains(&oid) || extension.critical && !KNOWN.contains(&oid) {
                return Err(EkError::Critical {
                    subject: certificate.subject(),
                    oid: oid.to_string(),
                });
            }
            let value = extension.extn_value.as_bytes();
            let bad = |error: x509_cert::der::Error| form(format!("extension {oid}: {error}"));
            match oid {
                BASIC_CONSTRAINTS => {
                    read.constraints = Some(BasicConstraints::from_der(value).map_err(bad)?);
                }
                KEY_USAGE => read.usage = Some(KeyUsage::from_der(value).map_err(bad)?),
                EXTENDED_KEY_USAGE => {
                    let extended = ExtendedKeyUsage::from_der(value).map_err(bad)?;
                    if extended.0.is_empty() {
                        return Err(form("its extended key usage names none".to_owned()));
                    }
                    read.extended = Some(extended);
                }
                SUBJECT_ALT_NAME => {
                    if only(value, SEQUENCE).and_then(elements).is_none() {
                        return Err(form("its alternative name is malformed".to_owned()));
                    }
                    read.alternative = Some(value);
                }
                _ => {}
            }
        }
        if !seen.is_empty() && !certificate.is_v3() {
            return Err(form(
                "extensions in a certificate before version 3".to_owned(),
            ));
        }
        Ok(read)
    }
}
