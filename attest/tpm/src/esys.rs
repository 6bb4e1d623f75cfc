//! [`Tpm`] over libtss2's ESYS, through `tss-esapi`.

use crate::connect::connect;
use crate::{
    Address, AkKind, Certified, Clock, NvAuth, NvIndex, NvRole, Properties, Quoted,
    RESETTABLE_PCRS, Tpm, TpmError,
    ak::{self, Ak, hex},
    error::one_line,
    link::Link,
    properties,
};
use merestone_evidence::{Digest, PcrValue, Quote, sha256};
use tss_esapi::{
    handles::PcrHandle,
    interface_types::{algorithm::HashingAlgorithm, session_handles::AuthSession},
    structures::{
        Attest, AttestInfo, Data, DigestValues, PcrSelectSize, PcrSelectionList, PcrSlot,
        SignatureScheme,
    },
    traits::Marshall as _,
};

/// PCR 10 moves whenever IMA measures a file, so the values are read again
/// when they do not fit the signed digest. A storm of measurements lasts
/// moments; this many in a row mean that something is wrong.
const QUOTE_TRIES: u32 = 16;

/// PCRs of the PC Client profile: three octets of selection.
const PCR_COUNT: u8 = 24;

/// How to open the TPM.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it is.
    pub address: Address,
    /// The persistent handle of the attestation key.
    pub ak_handle: u32,
    /// Insist on a kind of key; `None` takes P-256 where the TPM has it.
    pub ak_kind: Option<AkKind>,
}

impl Options {
    /// The defaults for a TPM at `address`.
    #[must_use]
    pub const fn at(address: Address) -> Self {
        Self {
            address,
            ak_handle: ak::DEFAULT_AK_HANDLE,
            ak_kind: None,
        }
    }
}

/// A real (or real enough) TPM with its attestation key loaded.
#[derive(Debug)]
pub struct EsysTpm {
    pub(crate) link: Link,
    public: Vec<u8>,
    name: Vec<u8>,
    properties: Properties,
}

impl EsysTpm {
    /// Open the TPM and provide the attestation key. Blocks; see
    /// [`crate::Deadline::spawn`].
    pub fn open(options: &Options) -> Result<Self, TpmError> {
        let address = &options.address;
        address.try_reach()?;
        let not_a_tpm = |source| TpmError::NotATpm {
            address: address.clone(),
            cause: one_line(source),
        };
        let mut context = connect(address.tcti()?).map_err(not_a_tpm)?;
        let software = matches!(address, Address::Swtpm { .. });
        let properties = properties::read(&mut context, software).map_err(not_a_tpm)?;
        let Ak {
            handle,
            public,
            name,
        } = ak::provision(&mut context, options.ak_handle, options.ak_kind)?;
        let link = Link::new(
            address.clone(),
            options.ak_handle,
            name.clone(),
            (context, handle),
        );
        Ok(Self {
            link,
            public,
            name,
            properties,
        })
    }

    /// The AK's Name in hex, as `trust.toml` wants it.
    #[must_use]
    pub fn ak_name_hex(&self) -> String {
        hex(&self.name)
    }

    fn quote_once(&mut self, pcrs: &[u8], qualifying: &Digest) -> Result<Signed, TpmError> {
        let quoting = TpmError::command("quote");
        let selection = selection(pcrs)?;
        let data = Data::try_from(qualifying.0.to_vec()).map_err(&quoting)?;
        let (context, key) = self.link.esys()?;
        let key = *key;
        let (attest, signature) = context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.quote(key, data, SignatureScheme::Null, selection)
            })
            .map_err(&quoting)?;
        if attest.extra_data().value() != qualifying.0 {
            return Err(TpmError::Answer {
                what: "a quote",
                why: "it is for another challenge".into(),
            });
        }
        let (pcr_digest, clock) = contents(&attest)?;
        Ok(Signed {
            attest: attest.marshall().map_err(&quoting)?,
            signature: signature.marshall().map_err(&quoting)?,
            pcr_digest,
            clock,
        })
    }
}

struct Signed {
    attest: Vec<u8>,
    signature: Vec<u8>,
    pcr_digest: Vec<u8>,
    clock: Clock,
}

impl Tpm for EsysTpm {
    fn ak_public(&self) -> &[u8] {
        &self.public
    }

    fn ak_name(&self) -> &[u8] {
        &self.name
    }

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn extend(&mut self, pcr: u8, digest: &Digest) -> Result<(), TpmError> {
        check_chain_pcr(pcr)?;
        let extending = TpmError::command("extend a PCR");
        let mut values = DigestValues::new();
        values.set(
            HashingAlgorithm::Sha256,
            tss_esapi::structures::Digest::try_from(digest.0.to_vec()).map_err(&extending)?,
        );
        let handle = pcr_handle(pcr)?;
        let (context, _key) = self.link.esys()?;
        context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.pcr_extend(handle, values)
            })
            .map_err(extending)
    }

    fn read_pcrs(&mut self, pcrs: &[u8]) -> Result<Vec<PcrValue>, TpmError> {
        let reading = TpmError::command("read PCRs");
        let mut wanted: Vec<u8> = pcrs.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut values = Vec::with_capacity(wanted.len());
        // One command returns at most eight values (TPML_DIGEST), and says
        // which; it leaves out PCRs that the bank does not have.
        while let Some(first) = wanted.first().copied() {
            let chunk: Vec<u8> = wanted.iter().copied().take(8).collect();
            let (context, _key) = self.link.esys()?;
            let (_updates, selected, digests) =
                context.pcr_read(selection(&chunk)?).map_err(&reading)?;
            let mut got: Vec<u8> = selected
                .get_selections()
                .iter()
                .filter(|bank| bank.hashing_algorithm() == HashingAlgorithm::Sha256)
                .flat_map(|bank| {
                    chunk
                        .iter()
                        .copied()
                        .filter(|pcr| slot(*pcr).is_ok_and(|slot| bank.is_selected(slot)))
                })
                .collect();
            got.sort_unstable();
            if got.first() != Some(&first) || got.len() != digests.len() {
                return Err(TpmError::NoBank { pcr: first });
            }
            for (pcr, digest) in got.iter().zip(digests.value()) {
                let value = digest
                    .value()
                    .try_into()
                    .map_err(|_length| TpmError::Answer {
                        what: "a PCR value",
                        why: "not of 32 bytes".into(),
                    })?;
                values.push(PcrValue {
                    index: *pcr,
                    value: Digest(value),
                });
            }
            wanted.retain(|pcr| !got.contains(pcr));
        }
        values.sort_unstable_by_key(|pcr| pcr.index);
        Ok(values)
    }

    fn quote(&mut self, pcrs: &[u8], qualifying: &Digest) -> Result<Quoted, TpmError> {
        for _try in 0..QUOTE_TRIES {
            let Signed {
                attest,
                signature,
                pcr_digest,
                clock,
            } = self.quote_once(pcrs, qualifying)?;
            let values = self.read_pcrs(pcrs)?;
            let concatenated: Vec<u8> = values.iter().flat_map(|pcr| pcr.value.0).collect();
            if sha256(&concatenated).0.as_slice() == pcr_digest {
                return Ok(Quoted {
                    quote: Quote {
                        attest,
                        signature,
                        pcrs: values,
                    },
                    clock,
                });
            }
        }
        Err(TpmError::PcrsKeepChanging { tries: QUOTE_TRIES })
    }

    fn clock(&mut self) -> Result<Clock, TpmError> {
        let nothing = sha256(b"merestone/clock/v1");
        Ok(self.quote_once(&[], &nothing)?.clock)
    }

    fn nv_find(&mut self, role: NvRole) -> Result<Option<NvIndex>, TpmError> {
        Self::nv_find(self, role)
    }

    fn nv_counter(&mut self, role: NvRole, auth: &NvAuth) -> Result<NvIndex, TpmError> {
        Self::nv_counter(self, role, auth)
    }

    fn nv_increment(&mut self, index: u32, auth: &NvAuth) -> Result<(), TpmError> {
        self.increment_index(index, &auth.index)
    }

    fn nv_read(&mut self, index: u32, auth: &NvAuth) -> Result<Vec<u8>, TpmError> {
        self.read_index(index, &auth.index)
    }

    fn nv_certify(
        &mut self,
        index: u32,
        auth: &NvAuth,
        qualifying: &Digest,
    ) -> Result<Certified, TpmError> {
        self.certify_index(index, &auth.index, qualifying)
    }
}

/// Refuse a PCR that cannot carry a chain.
pub fn check_chain_pcr(pcr: u8) -> Result<(), TpmError> {
    if RESETTABLE_PCRS.contains(&pcr) {
        return Err(TpmError::ChainPcr {
            pcr,
            why: "any process may reset it",
        });
    }
    if (17..=22).contains(&pcr) {
        return Err(TpmError::ChainPcr {
            pcr,
            why: "it belongs to the dynamic root of trust",
        });
    }
    if pcr >= PCR_COUNT {
        return Err(TpmError::ChainPcr {
            pcr,
            why: "there is no such PCR",
        });
    }
    Ok(())
}

fn contents(attest: &Attest) -> Result<(Vec<u8>, Clock), TpmError> {
    let AttestInfo::Quote { info } = attest.attested() else {
        return Err(TpmError::Answer {
            what: "a quote",
            why: "it attests something else".into(),
        });
    };
    let clock = attest.clock_info();
    Ok((
        info.pcr_digest().value().to_vec(),
        Clock {
            powered_ms: clock.clock(),
            reset_count: clock.reset_count(),
            restart_count: clock.restart_count(),
            safe: clock.safe(),
        },
    ))
}

fn slot(pcr: u8) -> Result<PcrSlot, TpmError> {
    1_u32
        .checked_shl(u32::from(pcr))
        .filter(|_bit| pcr < PCR_COUNT)
        .and_then(|bit| PcrSlot::try_from(bit).ok())
        .ok_or(TpmError::ChainPcr {
            pcr,
            why: "there is no such PCR",
        })
}

fn pcr_handle(pcr: u8) -> Result<PcrHandle, TpmError> {
    use PcrHandle as Pcr;
    [
        Pcr::Pcr0,
        Pcr::Pcr1,
        Pcr::Pcr2,
        Pcr::Pcr3,
        Pcr::Pcr4,
        Pcr::Pcr5,
        Pcr::Pcr6,
        Pcr::Pcr7,
        Pcr::Pcr8,
        Pcr::Pcr9,
        Pcr::Pcr10,
        Pcr::Pcr11,
        Pcr::Pcr12,
        Pcr::Pcr13,
        Pcr::Pcr14,
        Pcr::Pcr15,
    ]
    .get(usize::from(pcr))
    .copied()
    .ok_or(TpmError::ChainPcr {
        pcr,
        why: "there is no such PCR",
    })
}

fn selection(pcrs: &[u8]) -> Result<PcrSelectionList, TpmError> {
    if pcrs.is_empty() {
        return Ok(PcrSelectionList::default());
    }
    let slots = pcrs
        .iter()
        .map(|pcr| slot(*pcr))
        .collect::<Result<Vec<_>, _>>()?;
    PcrSelectionList::builder()
        .with_size_of_select(PcrSelectSize::ThreeOctets)
        .with_selection(HashingAlgorithm::Sha256, &slots)
        .build()
        .map_err(TpmError::command("select PCRs"))
}
