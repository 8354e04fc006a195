//! The logs of what was measured, as entries: the firmware's event log once in a run, the kernel's measurement list (IMA) from
//! its beginning and then what is new of it.
//!
//! Owns when they are read and that a part becomes a blob before the entry that names it. A list that is read to its end after
//! a quote explains that quote, so the last reading is after the last anchor of the run. Nothing is read where there is no TPM:
//! nothing would be quoted that these logs could be compared with.

use agent_evidence::record::{Body, BootTime, Measured as MeasuredPart};

use super::attest::text_of;
use super::error::PipelineError;
use super::recorder::Recorder;
use crate::log::LogError;
use crate::tpm::measured::{MeasuredError, Part, Reader};

/// What a `condition` entry of subject `tpm` says of a log that is not kept, or not kept any more.
const UNREAD: &str = "measured_unread";

/// See the module.
pub(super) struct Measured {
    /// What is still read; a log that cannot be read on is dropped.
    readers: Vec<Reader>,
    /// Why the others are not, until the log of evidence says so.
    faults: Vec<MeasuredError>,
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
        Some(Self::of([Reader::event_log(), Reader::ima()], every_ns, now))
    }

    fn of<const N: usize>(opened: [Result<Reader, MeasuredError>; N], every_ns: u64, now: BootTime) -> Self {
        let (mut readers, mut faults) = (Vec::new(), Vec::new());
        for opened in opened {
            match opened {
                Ok(reader) if reader.is_there() => readers.push(reader),
                Ok(_) => {}
                Err(error) => faults.push(error),
            }
        }
        Self { readers, faults, pending: None, every_ns, next: now }
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
                    self.faults.push(error);
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

    /// Records one part; `false` when there is none, or no room for it. A log that cannot be read is told of once, since what
    /// was booted cannot be judged from what is missing.
    fn record_measured(&mut self) -> Result<bool, PipelineError> {
        let Some(measured) = self.measured.as_mut() else { return Ok(false) };
        let part = measured.take();
        for error in std::mem::take(&mut measured.faults) {
            let detail = text_of(&error);
            tracing::error!(detail, "a log of what was measured is not kept any more");
            self.tpm_condition(false, UNREAD, Some(&detail))?;
        }
        let Some(part) = part else { return Ok(false) };
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use agent_evidence::record::MeasuredLog;

    use super::*;

    #[test]
    fn a_log_that_cannot_be_read_is_told_of_once_and_the_other_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("list");
        std::fs::write(&list, "one").unwrap();
        let open = |log, path: &Path| Reader::open(log, path, 100);
        let unopened = open(MeasuredLog::EventLog, &list.join("below a file"));
        // A directory opens, and cannot be read.
        let unread = open(MeasuredLog::EventLog, directory.path());
        let opened =
            [unopened, unread, open(MeasuredLog::Ima, &list), open(MeasuredLog::Ima, Path::new("/nonexistent"))];
        let mut measured = Measured::of(opened, 1, BootTime(0));
        assert_eq!(measured.faults.len(), 1, "what is not there is no fault");
        assert_eq!(measured.take().map(|part| part.bytes), Some(b"one".to_vec()));
        let faults: Vec<String> = measured.faults.drain(..).map(|error| text_of(&error)).collect();
        assert!(faults.iter().all(|fault| fault.starts_with("cannot read ")) && faults.len() == 2, "{faults:?}");
        assert!(measured.take().is_none() && measured.faults.is_empty());
    }
}
