//! What programs built with their feature `trace` say of themselves, passed on as traces. For debugging only: the
//! notes share one small ring that any workload can fill, and nothing in the evidence depends on them.
#![forbid(unsafe_code)]

use aya_log::EbpfLogger;

/// Turns aya's log records into traces.
#[derive(Debug)]
pub(super) struct ToTraces;

impl log::Log for ToTraces {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let said = record.args();
        match record.level() {
            log::Level::Error | log::Level::Warn => tracing::warn!(target: "affiant::ebpf", "{said}"),
            log::Level::Info => tracing::info!(target: "affiant::ebpf", "{said}"),
            log::Level::Debug | log::Level::Trace => tracing::debug!(target: "affiant::ebpf", "{said}"),
        }
    }

    fn flush(&self) {}
}

/// The notes of a loaded program, if it was built to make any.
pub(super) fn of_program(program_id: u32) -> Option<EbpfLogger<ToTraces>> {
    match EbpfLogger::init_from_id_with_logger(program_id, ToTraces) {
        Ok(notes) => Some(notes),
        Err(aya_log::Error::MapNotFound) => None,
        Err(error) => {
            tracing::debug!(%error, "the programs' notes cannot be read");
            None
        }
    }
}
