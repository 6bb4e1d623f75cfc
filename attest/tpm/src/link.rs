//! The way to the TPM: the TPM stack's context, and commands of our own beside it.
//!
//! The kernel's resource manager (`/dev/tpmrm0`) takes any number of openers, so there both stay
//! open. A TPM that speaks to one program alone (swtpm on a port, `/dev/tpm0`) is spoken to in
//! turns: one is closed before the other is opened.

use crate::connect::connect;
use crate::{Address, TpmError, ak::hex, error::one_line, wire::Wire};
use tss_esapi::{
    Context,
    handles::{KeyHandle, PersistentTpmHandle, TpmHandle},
};

#[derive(Debug)]
pub(crate) struct Link {
    address: Address,
    ak_handle: u32,
    ak_name: Vec<u8>,
    esys: Option<(Context, KeyHandle)>,
    wire: Option<Wire>,
}

impl Link {
    pub(crate) const fn new(
        address: Address,
        ak_handle: u32,
        ak_name: Vec<u8>,
        esys: (Context, KeyHandle),
    ) -> Self {
        Self {
            address,
            ak_handle,
            ak_name,
            esys: Some(esys),
            wire: None,
        }
    }

    fn is_shared(&self) -> bool {
        match &self.address {
            Address::Device(path) => path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("tpmrm")),
            Address::Swtpm { .. } => false,
        }
    }

    /// The handle that the attestation key is kept under.
    pub(crate) const fn ak_handle(&self) -> u32 {
        self.ak_handle
    }

    /// The TPM stack's context and the attestation key in it.
    pub(crate) fn esys(&mut self) -> Result<&mut (Context, KeyHandle), TpmError> {
        if self.esys.is_none() {
            if !self.is_shared() {
                self.wire = None;
            }
            let opened = self.open()?;
            self.esys = Some(opened);
        }
        self.esys.as_mut().ok_or(TpmError::Gone)
    }

    /// The way for commands of our own. One that failed is not used again.
    pub(crate) fn wire(&mut self) -> Result<Wire, TpmError> {
        if let Some(wire) = self.wire.take() {
            return Ok(wire);
        }
        if !self.is_shared() {
            self.esys = None;
        }
        Wire::open(&self.address)
    }

    /// Keep a way that worked for the next command.
    pub(crate) fn keep(&mut self, wire: Wire) {
        self.wire = Some(wire);
    }

    fn open(&self) -> Result<(Context, KeyHandle), TpmError> {
        let reading = TpmError::command("find the attestation key again");
        let mut context = connect(self.address.tcti()?).map_err(|source| TpmError::NotATpm {
            address: self.address.clone(),
            cause: one_line(source),
        })?;
        let persistent = PersistentTpmHandle::new(self.ak_handle).map_err(&reading)?;
        let object = context
            .tr_from_tpm_public(TpmHandle::Persistent(persistent))
            .map_err(&reading)?;
        let name = context.tr_get_name(object).map_err(&reading)?;
        if name.value() != self.ak_name {
            return Err(TpmError::HandleTaken {
                handle: self.ak_handle,
                why: "another key since the TPM was opened",
                name: hex(name.value()),
            });
        }
        Ok((context, KeyHandle::from(object)))
    }
}
