//! The firmware's event log: what it measured before the kernel ran, and the registers that this gives.
//!
//! Form: TCG PC Client Platform Firmware Profile 1.06, section 10 ("crypto agile"): one `TCG_PCClientPCREvent` with the
//! identification `Spec ID Event03`, then `TCG_PCR_EVENT2` structures, all little-endian. Logs of SHA-1 only say nothing of the
//! SHA-256 bank and are refused as such.
//!
//! The log is not trusted: whoever has the host can write any. What is believed of it is what the TPM confirms: the digests,
//! in their order per register. The type of an event is no part of its digest and is never believed; it is only looked
//! at where an event says of itself that it was not measured (`EV_NO_ACTION`), and a lie about that gives other registers. The
//! data of an event is believed where its digest is the one that was measured.

use sha2::{Digest as _, Sha256};

use crate::record::Digest;

use super::little::Little;
use super::pcr::{REGISTERS, Replayed};

/// Longest log that is read, in bytes. Usual ones have less than 0.2 MiB.
pub const LOG_BYTES_MAX: usize = 64 << 20;

/// Most events of a log. Usual ones have some hundred.
pub const EVENTS_MAX: usize = 1 << 16;

/// Most banks that a log may have digests for.
const BANKS_MAX: u32 = 16;

/// Longest digest of a bank, in bytes.
const DIGEST_BYTES_MAX: u16 = 64;

/// The type of events that are not measured.
const EV_NO_ACTION: u32 = 3;

/// `TPM_ALG_SHA256`.
const SHA256: u16 = 0x000b;

const SPEC_ID: &[u8; 16] = b"Spec ID Event03\0";
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";

/// The register of the Secure Boot state.
pub const SECURE_BOOT_REGISTER: u32 = 7;

/// `EFI_GLOBAL_VARIABLE`, 8be4df61-93ca-11d2-aa0d-00e098032b8c, as it lies in memory.
const GLOBAL_VARIABLE: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

/// Why bytes are not an event log that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogError {
    /// Longer than is read.
    #[error("the event log has {len} bytes, at most {LOG_BYTES_MAX} are read")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// A log of SHA-1 digests, or none.
    #[error(
        "the event log does not begin with a `Spec ID Event03`: a log of SHA-1 only, not usable for the SHA-256 bank"
    )]
    NotCryptoAgile,
    /// A log without digests of the bank.
    #[error("the event log has no SHA-256 digests: the firmware did not use that bank")]
    NoSha256,
    /// It ends within an event.
    #[error("the event log ends within the event that begins at byte {at}")]
    Cut {
        /// Where the event begins.
        at: usize,
    },
    /// The identification is not of its form.
    #[error("the event log is wrong in its identification: {what}")]
    Header {
        /// What is wrong.
        what: &'static str,
    },
    /// An event without the digests that the identification announces.
    #[error("the event at byte {at} of the event log has {seen} digests, the log announces {expected}")]
    DigestCount {
        /// Where the event begins.
        at: usize,
        /// How many.
        seen: u32,
        /// How many the log announces.
        expected: u32,
    },
    /// A digest of an algorithm that the identification does not announce, or twice.
    #[error(
        "the event at byte {at} of the event log has a digest of algorithm {seen:#06x}, which was not announced or is there twice"
    )]
    Algorithm {
        /// Where the event begins.
        at: usize,
        /// The algorithm.
        seen: u16,
    },
    /// A register that no TPM has.
    #[error("the event at byte {at} of the event log is of register {seen}, expected 0 to {}", REGISTERS - 1)]
    Register {
        /// Where the event begins.
        at: usize,
        /// The register.
        seen: u32,
    },
    /// A startup locality that there is not, a second one, or one after register 0 was extended.
    #[error("the event at byte {at} of the event log states a startup locality that is none, or not before all others")]
    Locality {
        /// Where the event begins.
        at: usize,
    },
    /// More events than are read.
    #[error("the event log has more than {EVENTS_MAX} events")]
    TooManyEvents,
}

impl EventLogError {
    /// Whether a firmware that does nothing wrong may leave such a log: it is of no use, and no sign of a forgery.
    #[must_use]
    pub fn is_unusable(self) -> bool {
        matches!(self, Self::NotCryptoAgile | Self::NoSha256)
    }
}

/// One measured event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The register that was extended.
    pub register: u32,
    /// With what.
    pub digest: Digest,
    /// What the log says of it.
    pub data: &'a [u8],
}

impl<'a> Event<'a> {
    /// The data, where it is what was measured.
    #[must_use]
    pub fn measured_data(&self) -> Option<&'a [u8]> {
        let digest: [u8; 32] = Sha256::digest(self.data).into();
        (digest == self.digest.0).then_some(self.data)
    }
}

/// A whole event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog<'a> {
    locality: u8,
    events: Vec<Event<'a>>,
}

/// The banks that a log has digests for: algorithm and length.
struct Banks(Vec<(u16, u16)>);

impl<'a> EventLog<'a> {
    /// Reads a log.
    ///
    /// # Errors
    /// [`EventLogError`] says what is wrong with it, and where.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EventLogError> {
        if bytes.len() > LOG_BYTES_MAX {
            return Err(EventLogError::TooLong { len: bytes.len() });
        }
        let mut log = Little::new(bytes);
        let banks = identification(&mut log)?;
        if !banks.0.iter().any(|(algorithm, _)| *algorithm == SHA256) {
            return Err(EventLogError::NoSha256);
        }
        let mut own = Self { locality: 0, events: Vec::new() };
        let mut located = false;
        while !log.is_empty() {
            let at = log.at();
            let (register, kind, digest, data) = event(&mut log, &banks, at)?;
            if kind == EV_NO_ACTION {
                if let Some(locality) = data.strip_prefix(STARTUP_LOCALITY) {
                    let early = !own.events.iter().any(|event| event.register == 0);
                    match locality {
                        [locality @ (0 | 3 | 4)] if early && !located && register == 0 => own.locality = *locality,
                        _ => return Err(EventLogError::Locality { at }),
                    }
                    located = true;
                }
                continue;
            }
            if register >= REGISTERS {
                return Err(EventLogError::Register { at, seen: register });
            }
            if own.events.len() == EVENTS_MAX {
                return Err(EventLogError::TooManyEvents);
            }
            own.events.push(Event { register, digest, data });
        }
        Ok(own)
    }

    /// What was measured, in order.
    #[must_use]
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// The registers that the events give.
    #[must_use]
    pub fn replay(&self) -> Replayed {
        let mut registers = Replayed::from_locality(self.locality);
        for event in &self.events {
            registers.extend(event.register, event.digest);
        }
        registers
    }

    /// Whether the firmware verified what it booted, as it measured before it left that register to others: the variable
    /// `SecureBoot`. Nothing where it did not measure exactly one, or the data is not what was measured.
    ///
    /// As good as register 7 of the log is: compare it with a quoted value before believing this.
    #[must_use]
    pub fn secure_boot(&self) -> Option<bool> {
        let separator: [u8; 32] = Sha256::digest([0; 4]).into();
        let measured = self.events.iter().filter(|event| event.register == SECURE_BOOT_REGISTER);
        let mut states = measured
            .take_while(|event| event.digest.0 != separator)
            .filter_map(Event::measured_data)
            .filter_map(secure_boot_variable);
        match (states.next(), states.next()) {
            (Some(state), None) => Some(state),
            _ => None,
        }
    }
}

/// The first event: an event of the old form that announces the banks.
fn identification(log: &mut Little<'_>) -> Result<Banks, EventLogError> {
    let not_agile = EventLogError::NotCryptoAgile;
    let register = log.u32().ok_or(not_agile)?;
    let kind = log.u32().ok_or(not_agile)?;
    log.bytes(20).ok_or(not_agile)?;
    let data = log.sized().ok_or(not_agile)?;
    if register != 0 || kind != EV_NO_ACTION || !data.starts_with(SPEC_ID) {
        return Err(not_agile);
    }
    let header = |what| EventLogError::Header { what };
    let mut data = Little::new(data);
    // Signature, platform class, versions, errata and the size of native integers: nothing follows from them.
    data.bytes(16 + 4 + 1 + 1 + 1 + 1).ok_or(header("it is cut off"))?;
    let count = data.u32().ok_or(header("it is cut off"))?;
    if !(1..=BANKS_MAX).contains(&count) {
        return Err(header("it announces no bank, or more than 16"));
    }
    let mut banks: Vec<(u16, u16)> = Vec::new();
    for _ in 0..count {
        let (algorithm, size) = data.u16().zip(data.u16()).ok_or(header("it is cut off"))?;
        let fits = if algorithm == SHA256 { size == 32 } else { (1..=DIGEST_BYTES_MAX).contains(&size) };
        if !fits {
            return Err(header("a bank has digests of an impossible length"));
        }
        if banks.iter().any(|(known, _)| *known == algorithm) {
            return Err(header("it announces a bank twice"));
        }
        banks.push((algorithm, size));
    }
    let vendor = data.u8().ok_or(header("it is cut off"))?;
    data.bytes(usize::from(vendor)).ok_or(header("it is cut off"))?;
    if !data.is_empty() {
        return Err(header("bytes follow its vendor's information"));
    }
    Ok(Banks(banks))
}

/// One event: register, type, SHA-256 digest, data.
fn event<'a>(log: &mut Little<'a>, banks: &Banks, at: usize) -> Result<(u32, u32, Digest, &'a [u8]), EventLogError> {
    let cut = EventLogError::Cut { at };
    let register = log.u32().ok_or(cut)?;
    let kind = log.u32().ok_or(cut)?;
    let count = log.u32().ok_or(cut)?;
    let expected = u32::try_from(banks.0.len()).unwrap_or(u32::MAX);
    if count != expected {
        return Err(EventLogError::DigestCount { at, seen: count, expected });
    }
    let mut seen: Vec<u16> = Vec::new();
    let mut sha256 = None;
    for _ in 0..count {
        let algorithm = log.u16().ok_or(cut)?;
        let bank = banks.0.iter().find(|(known, _)| *known == algorithm && !seen.contains(known));
        let Some((_, size)) = bank else {
            return Err(EventLogError::Algorithm { at, seen: algorithm });
        };
        seen.push(algorithm);
        let digest = log.bytes(usize::from(*size)).ok_or(cut)?;
        if algorithm == SHA256 {
            sha256 = digest.try_into().ok();
        }
    }
    // As many different ones as were announced are all of them.
    let sha256 = sha256.ok_or(EventLogError::Algorithm { at, seen: SHA256 })?;
    let data = log.sized().ok_or(cut)?;
    Ok((register, kind, Digest(sha256), data))
}

/// The value in an `UEFI_VARIABLE_DATA` of the variable `SecureBoot`.
fn secure_boot_variable(data: &[u8]) -> Option<bool> {
    const NAME: &str = "SecureBoot";
    let mut data = Little::new(data);
    if data.array::<16>()? != GLOBAL_VARIABLE {
        return None;
    }
    let (name_chars, value_len) = (data.u64()?, data.u64()?);
    if name_chars != NAME.len() as u64 || value_len != 1 {
        return None;
    }
    let name = data.bytes(2 * NAME.len())?;
    if !name.chunks(2).eq(NAME.bytes().map(|byte| [byte, 0])) {
        return None;
    }
    let value = data.u8()?;
    match (value, data.is_empty()) {
        (0, true) => Some(false),
        (1, true) => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::pcr::START;
    use super::super::pcr::tests::registers;
    use super::*;

    const PLAIN: &[u8] = include_bytes!("../../tests/measured/plain/event_log");
    const SECURE: &[u8] = include_bytes!("../../tests/measured/secure/event_log");
    const SHA384: &[u8] = include_bytes!("../../tests/measured/sha384/event_log");
    const SHA1: &[u8] = include_bytes!("../../tests/measured/sha1/event_log");

    /// Where the events of `PLAIN` begin: after an identification of 32 + 37 bytes.
    const FIRST_EVENT: usize = 69;

    fn compare(log: &[u8], pcrs: &str) -> Vec<u32> {
        let replayed = EventLog::parse(log).unwrap().replay();
        let differs = |(index, value): &(u32, Digest)| replayed.value(*index) != Some(*value);
        registers(pcrs).iter().filter(|register| differs(register)).map(|(index, _)| *index).collect()
    }

    #[test]
    fn real_logs_give_the_registers_of_the_tpm() {
        // Register 10 is the kernel's, which does not write here.
        assert_eq!(compare(PLAIN, include_str!("../../tests/measured/plain/pcrs")), [10]);
        assert_eq!(compare(SECURE, include_str!("../../tests/measured/secure/pcrs")), [10]);
        assert_eq!(compare(SHA384, include_str!("../../tests/measured/sha384/pcrs")), [10]);
    }

    #[test]
    fn the_log_of_another_boot_gives_other_registers() {
        let differs = compare(SHA384, include_str!("../../tests/measured/plain/pcrs"));
        assert_eq!(differs, [9, 10], "the command line is in register 9");
        assert_eq!(compare(SECURE, include_str!("../../tests/measured/plain/pcrs")), [0, 4, 7, 9, 10]);
    }

    #[test]
    fn a_log_without_the_bank_is_unusable_and_not_a_forgery() {
        assert_eq!(EventLog::parse(SHA1), Err(EventLogError::NoSha256));
        // An event of the old form, as firmware for TPM 1.2 writes it.
        let mut legacy = [0u8; 36].to_vec();
        legacy[4] = 8;
        assert_eq!(EventLog::parse(&legacy), Err(EventLogError::NotCryptoAgile));
        assert_eq!(EventLog::parse(&[]), Err(EventLogError::NotCryptoAgile));
        assert!(EventLogError::NotCryptoAgile.is_unusable() && EventLogError::NoSha256.is_unusable());
        assert!(!EventLogError::TooManyEvents.is_unusable());
    }

    #[test]
    fn secure_boot_is_known_where_it_was_measured() {
        assert_eq!(EventLog::parse(PLAIN).unwrap().secure_boot(), Some(false));
        assert_eq!(EventLog::parse(SECURE).unwrap().secure_boot(), Some(true));
        let mut log = EventLog::parse(SECURE).unwrap();
        let at = log.events.iter().position(|event| secure_boot_variable(event.data).is_some()).unwrap();
        let variable = log.events[at];
        // Somebody who extends the register later, with the same variable, does not make the state another one.
        log.events.push(variable);
        assert_eq!(log.secure_boot(), Some(true));
        // Twice before the separator says nothing.
        log.events.insert(at, variable);
        assert_eq!(log.secure_boot(), None);
        // Nor does a variable whose data is not what was measured.
        log.events.remove(at);
        log.events[at].digest.0[0] ^= 1;
        assert_eq!(log.secure_boot(), None);
    }

    #[test]
    fn the_type_of_an_event_changes_nothing_but_whether_it_was_measured() {
        let honest = EventLog::parse(PLAIN).unwrap();
        let mut swapped = PLAIN.to_vec();
        assert_eq!(swapped[FIRST_EVENT + 4], 8, "EV_S_CRTM_VERSION");
        swapped[FIRST_EVENT + 4] = 4;
        assert_eq!(EventLog::parse(&swapped).unwrap(), honest);
        swapped[FIRST_EVENT + 4] = 3;
        assert_ne!(EventLog::parse(&swapped).unwrap().replay().value(0), honest.replay().value(0));
    }

    #[test]
    fn a_startup_locality_is_where_register_0_starts() {
        let located = |event_data: &[u8], at: usize| {
            let mut event = [0, 3, 2].iter().flat_map(|number: &u32| number.to_le_bytes()).collect::<Vec<u8>>();
            event.extend([4, 0]);
            event.extend([0; 20]);
            event.extend([0x0b, 0]);
            event.extend([0; 32]);
            event.extend(u32::try_from(event_data.len()).unwrap().to_le_bytes());
            event.extend(event_data);
            let mut log = PLAIN.to_vec();
            log.splice(at..at, event);
            log
        };
        let log = located(b"StartupLocality\0\x03", FIRST_EVENT);
        let replayed = EventLog::parse(&log).unwrap().replay();
        let mut expected = START;
        expected.0[31] = 3;
        for event in EventLog::parse(PLAIN).unwrap().events().iter().filter(|event| event.register == 0) {
            expected = super::super::pcr::extend(expected, event.digest);
        }
        assert_eq!(replayed.value(0), Some(expected));
        let refused = Err(EventLogError::Locality { at: FIRST_EVENT });
        assert_eq!(EventLog::parse(&located(b"StartupLocality\0\x05", FIRST_EVENT)), refused);
        assert_eq!(EventLog::parse(&located(b"StartupLocality\0", FIRST_EVENT)), refused);
        let late = located(b"StartupLocality\0\x03", PLAIN.len());
        assert_eq!(EventLog::parse(&late), Err(EventLogError::Locality { at: PLAIN.len() }));
    }

    #[test]
    fn every_cut_is_seen() {
        let ends: Vec<usize> =
            (FIRST_EVENT..PLAIN.len()).filter(|len| EventLog::parse(&PLAIN[..*len]).is_ok()).collect();
        // Only where an event ends can a log end.
        assert_eq!(ends.len(), EventLog::parse(PLAIN).unwrap().events().len());
        for len in 0..FIRST_EVENT {
            assert_eq!(EventLog::parse(&PLAIN[..len]), Err(EventLogError::NotCryptoAgile), "{len}");
        }
    }

    #[test]
    fn hostile_logs_are_refused() {
        let altered = |at: usize, bytes: &[u8]| {
            let mut log = PLAIN.to_vec();
            log[at..at + bytes.len()].copy_from_slice(bytes);
            EventLog::parse(&log).map(|log| log.events.len())
        };
        let at = FIRST_EVENT;
        assert_eq!(altered(at, &[24]), Err(EventLogError::Register { at, seen: 24 }));
        assert_eq!(altered(at + 8, &[3]), Err(EventLogError::DigestCount { at, seen: 3, expected: 2 }));
        assert_eq!(altered(at + 8, &[1]), Err(EventLogError::DigestCount { at, seen: 1, expected: 2 }));
        assert_eq!(altered(at + 12, &[0x0c]), Err(EventLogError::Algorithm { at, seen: 0x0c }));
        assert_eq!(altered(at + 34, &[4]), Err(EventLogError::Algorithm { at, seen: 4 }), "SHA-1 twice");
        assert_eq!(altered(at + 68, &[0xff; 4]), Err(EventLogError::Cut { at }), "4 GiB of data");
        let header = |what| Err(EventLogError::Header { what });
        assert_eq!(altered(32 + 24, &[0; 4]), header("it announces no bank, or more than 16"));
        assert_eq!(altered(32 + 24, &[0xff; 4]), header("it announces no bank, or more than 16"));
        assert_eq!(altered(32 + 24, &[3]), header("it is cut off"));
        assert_eq!(altered(32 + 24, &[1]), header("it is cut off"), "vendor's information of 11 bytes");
        assert_eq!(altered(32 + 32, &[4]), header("it announces a bank twice"));
        assert_eq!(altered(32 + 34, &[31]), header("a bank has digests of an impossible length"));
        let long = vec![0; LOG_BYTES_MAX + 1];
        assert_eq!(EventLog::parse(&long), Err(EventLogError::TooLong { len: LOG_BYTES_MAX + 1 }));
        let one = &PLAIN[at..at + 72 + usize::from(PLAIN[at + 68])];
        let mut many = PLAIN.to_vec();
        many.extend(std::iter::repeat_n(one, EVENTS_MAX).flatten());
        assert_eq!(EventLog::parse(&many), Err(EventLogError::TooManyEvents));
    }
}
