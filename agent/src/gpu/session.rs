//! One opening of NVML: from the library's load to its shutdown, on the reading thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::attest::{Attested, Question};
use super::events::Watcher;
use super::history::History;
use super::library::{self, LibraryIdentity};
use super::monitor::{Config, now_ms};
use super::progress::Progress;
use super::raw;
use super::reader::Reader;
use super::snapshot::{DeviceState, GpuReading};
use super::state::GpuState;
use super::trouble::{Meaning, Trouble, at_opening, meaning, words};

/// How long the library's own file may take to read: it is a file system that answers, not the driver.
const FILE_LIMIT: Duration = Duration::from_secs(30);

/// How long a GPU may take to sign: its processor measures and signs within seconds.
const ATTEST_LIMIT: Duration = Duration::from_secs(30);

/// How far back process samples are asked for at first.
const FIRST_SAMPLES_US: u64 = 10_000_000;

/// What one round of reading gave.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) driver_version: Option<String>,
    pub(super) nvml_version: Option<String>,
    pub(super) library: Option<LibraryIdentity>,
    pub(super) test_library: bool,
    pub(super) devices: Vec<GpuReading>,
}

/// NVML, open.
pub(super) struct Session {
    nvml: Arc<Nvml>,
    config: Arc<Config>,
    progress: Progress,
    history: History,
    question: Question,
    watcher: Watcher,
    driver_version: Option<String>,
    nvml_version: Option<String>,
    library: Option<LibraryIdentity>,
    test_library: bool,
    /// The GPUs as last identified, by index: a lost one can no longer say who it is.
    known: BTreeMap<u32, GpuReading>,
    samples_after: BTreeMap<u32, u64>,
}

impl Session {
    /// Loads the library, judges it and initialises NVML.
    pub(super) fn open(
        config: Arc<Config>,
        progress: Progress,
        event_progress: Progress,
        (history, question): (History, Question),
    ) -> Result<Self, Trouble> {
        let nvml = progress
            .call("nvmlInit_v2", config.init_deadline, || {
                let mut builder = Nvml::builder();
                if let Some(path) = &config.library {
                    builder.lib_path(path.as_os_str());
                }
                builder.init()
            })
            .map_err(|error| at_opening("nvmlInit_v2", &error))?;
        let test = config.library.is_some() || raw::is_marked_as_test(&nvml);
        let library = progress.call("reading the library's file", FILE_LIMIT, || {
            library::identify(raw::code_address(&nvml)?, test)
        });
        if !library::permitted(
            test,
            super::monitor::RELEASE_BUILD,
            config.allow_test_library,
        ) {
            return Err(Trouble {
                library,
                ..Trouble::new(GpuState::Refused, "it exports merestone_fake_nvml".into())
            });
        }
        let mut asked = Reader::new(&progress, config.deadline);
        let driver_version =
            asked.version("nvmlSystemGetDriverVersion", || nvml.sys_driver_version());
        let nvml_version = asked.version("nvmlSystemGetNVMLVersion", || nvml.sys_nvml_version());
        let nvml = Arc::new(nvml);
        let watcher = Watcher::start(
            Arc::clone(&nvml),
            history.clone(),
            event_progress,
            config.deadline,
        );
        Ok(Self {
            nvml,
            config,
            progress,
            history,
            question,
            watcher,
            driver_version,
            nvml_version,
            library,
            test_library: test,
            known: BTreeMap::new(),
            samples_after: BTreeMap::new(),
        })
    }

    /// Reads every GPU once.
    pub(super) fn sample(&mut self) -> Result<Sample, Trouble> {
        let limit = self.config.deadline;
        let count = self
            .progress
            .call("nvmlDeviceGetCount_v2", limit, || self.nvml.device_count())
            .map_err(|error| at_opening("nvmlDeviceGetCount_v2", &error))?;
        let mut devices = Vec::new();
        for index in 0..count {
            devices.push(self.device(index)?);
        }
        if let Some(nonce) = self.question.open() {
            let answer = self.attest(&devices, nonce);
            self.question.answer(nonce, answer);
        }
        Ok(Sample {
            driver_version: self.driver_version.clone(),
            nvml_version: self.nvml_version.clone(),
            library: self.library.clone(),
            test_library: self.test_library,
            devices,
        })
    }

    /// What each GPU in confidential computing says of itself over `nonce`.
    fn attest(&self, devices: &[GpuReading], nonce: [u8; 32]) -> Vec<Attested> {
        let is_on = |reading: &&GpuReading| {
            reading
                .confidential
                .as_ref()
                .is_some_and(|state| state.enabled)
        };
        let ask = |reading: &GpuReading| -> Result<Attested, NvmlError> {
            let device = self.nvml.device_by_index(reading.index)?;
            let report = self.progress.call(
                "nvmlDeviceGetConfComputeGpuAttestationReport",
                ATTEST_LIMIT,
                || device.confidential_compute_gpu_attestation_report(nonce),
            )?;
            let certificates = self.progress.call(
                "nvmlDeviceGetConfComputeGpuCertificate",
                ATTEST_LIMIT,
                || device.confidential_compute_gpu_certificate(),
            )?;
            Ok(Attested {
                uuid: reading.uuid.clone().unwrap_or_default(),
                report: report.attestation_report,
                certificates: certificates.attestation_cert_chain,
            })
        };
        let answers = devices.iter().filter(is_on).filter_map(|reading| {
            ask(reading)
                .inspect_err(|error| {
                    tracing::warn!(gpu = reading.index, %error, "the GPU does not attest itself");
                })
                .ok()
        });
        answers.collect()
    }

    fn device(&mut self, index: u32) -> Result<GpuReading, Trouble> {
        const CALL: &str = "nvmlDeviceGetHandleByIndex_v2";
        let limit = self.config.deadline;
        let device = self
            .progress
            .call(CALL, limit, || self.nvml.device_by_index(index));
        let mut reading = match device {
            Ok(device) => {
                let mut reader = Reader::new(&self.progress, limit);
                let after = self
                    .samples_after
                    .entry(index)
                    .or_insert_with(|| (now_ms() * 1000).saturating_sub(FIRST_SAMPLES_US));
                let reading = reader.read(index, &device, &self.config.proc, after);
                if let Some(trouble) = reader.closed {
                    return Err(trouble);
                }
                reading
            }
            Err(error) => self.unopened(index, &error)?,
        };
        if reading.state == DeviceState::Lost {
            // It may have answered some of the questions of identity, or none.
            if let Some(known) = self.known.get(&index) {
                reading = known.unread(DeviceState::Lost);
            }
        }
        if let Some(uuid) = reading.uuid.clone() {
            reading.energy_resets = self.history.energy(&uuid, reading.energy_millijoules);
            reading.xids = self.history.xids(&uuid);
            if reading.state == DeviceState::Ok {
                self.known
                    .insert(index, reading.unread(DeviceState::Unread));
            }
        }
        Ok(reading)
    }

    /// A GPU whose handle was not given.
    fn unopened(&self, index: u32, error: &NvmlError) -> Result<GpuReading, Trouble> {
        const CALL: &str = "nvmlDeviceGetHandleByIndex_v2";
        let state = match (meaning(error), error) {
            (Meaning::Closed(state), _) => return Err(Trouble::new(state, words(CALL, error))),
            (Meaning::Lost, _) => DeviceState::Lost,
            (Meaning::Denied, _) | (_, NvmlError::Unknown) => DeviceState::Denied,
            (Meaning::Absent | Meaning::Fault, _) => DeviceState::Unread,
        };
        let known = self.known.get(&index).map(|known| known.unread(state));
        let mut reading = known.unwrap_or_else(|| GpuReading {
            index,
            state,
            ..GpuReading::default()
        });
        reading.faults.push(words(CALL, error));
        Ok(reading)
    }

    /// Ends the event thread, which holds NVML too. In a wedged driver this hangs, as a watched call.
    pub(super) fn stop_events(&mut self) {
        let limit = self.config.deadline + Duration::from_secs(2);
        let watcher = &mut self.watcher;
        self.progress
            .call("nvmlEventSetFree", limit, || watcher.stop());
    }
}
