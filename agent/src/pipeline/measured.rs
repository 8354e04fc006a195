//! The logs of what was measured, as entries: the firmware's event log once in a run, the kernel's measurement list (IMA) from
//! its beginning and then what is new of it.
//!
//! Owns when they are read and that a part becomes a blob before the entry that names it. A list that is read to its end after
//! a quote explains that quote, so the last reading is after the last anchor of the run. Nothing is read where there is no TPM:
//! nothing would be quoted that these logs could be compared with.

use agent_evidence::record::{Body, BootTime, Measured as MeasuredPart};

use super::error::PipelineError;
use super::recorder::Recorder;
use crate::log::LogError;
use crate::tpm::measured::{Part, Reader};

/// See the module.
pub(super) struct Measured {
    /// What is still read; a log that cannot be read on is dropped.
    readers: Vec<Reader>,
    /// A part that found no room on the disk.
    pending: Option<Part>,
    /// Time between two readings, in nanoseconds.
    every_ns: u64,
    next: BootTime,
}

impl Measured {
    /// Reads at once, and then so often; never if that is 0.
    pub(super) fn new(every_ns: u64, now: BootTime) -> Option<Self> {
        if every_ns == 0 {
            return None;
        }
        let mut readers = Vec::new();
        for opened in [Reader::event_log(), Reader::ima()] {
            match opened {
                Ok(reader) if reader.is_there() => readers.push(reader),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a log of what was measured is not kept"),
            }
        }
        Some(Self { readers, pending: None, every_ns, next: now })
    }

    /// The next part, if there is a new one.
    fn take(&mut self) -> Option<Part> {
        if let Some(part) = self.pending.take() {
            return Some(part);
        }
        let mut found = None;
        self.readers.retain_mut(|reader| {
            if found.is_some() {
                return true;
            }
            match reader.read_on() {
                Ok(part) => {
                    found = part;
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, "a log of what was measured is not kept any more");
                    false
                }
            }
        });
        found
    }
}

impl Recorder {
    /// Records the next part of what was measured, when its time has come.
    pub(super) fn attend_measured(&mut self, now: BootTime) -> Result<(), PipelineError> {
        if self.measured.as_ref().is_some_and(|measured| measured.next <= now) && !self.record_measured()? {
            self.measure_later(now);
        }
        Ok(())
    }

    /// Records everything that was measured and is not recorded yet.
    pub(super) fn record_all_measured(&mut self) -> Result<(), PipelineError> {
        while self.record_measured()? {}
        Ok(())
    }

    fn measure_later(&mut self, now: BootTime) {
        if let Some(measured) = &mut self.measured {
            measured.next = BootTime(now.0.saturating_add(measured.every_ns));
        }
    }

    /// Records one part; `false` when there is none, or no room for it.
    fn record_measured(&mut self) -> Result<bool, PipelineError> {
        let Some(part) = self.measured.as_mut().and_then(Measured::take) else { return Ok(false) };
        match self.log.store_blob(&part.bytes) {
            Ok(content) => {
                let Part { log, from, complete, .. } = part;
                self.append_now(None, None, Body::Measured(MeasuredPart { log, content, from, complete }))?;
                Ok(true)
            }
            Err(LogError::Full(_)) => {
                if let Some(measured) = &mut self.measured {
                    measured.pending = Some(part);
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
