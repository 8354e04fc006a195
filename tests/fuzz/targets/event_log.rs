//! Event logs of a firmware: whatever is read is replayed, and a log that is cut where an event ends says the same of what it
//! still has.

#![no_main]

use agent_evidence::attest::event_log::EventLog;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(log) = EventLog::parse(bytes) else { return };
    let _state = log.secure_boot();
    let replayed = log.replay();
    let extended: u64 = (0..16).map(|register| replayed.count(register)).sum();
    assert_eq!(extended, log.events().iter().filter(|event| event.register < 16).count() as u64);
    let Some((last, before)) = log.events().split_last() else { return };
    // The last event ends the log unless events that were not measured follow it.
    let tail = 4 + last.data.len();
    let cut = (0..bytes.len().saturating_sub(tail)).rev().find_map(|len| EventLog::parse(bytes.get(..len)?).ok());
    assert!(cut.is_none_or(|cut| log.events().starts_with(cut.events()) && cut.events().len() >= before.len()));
});
