//! The host state: what was booted and loaded, as registers of a TPM that were quoted, and as logs that these registers confirm.
//!
//! Nothing in a log of this kind is believed for itself. The values that quotes hold are facts as far as the attestation key is
//! believed; an event log or measurement list is believed as far as it gives these values; what is left, the agent
//! says.
//!
//! Entries come in one after the other; contents of logs, which lie beside the entries, are judged after all of them. What is
//! remembered is bounded; logs are judged one boot after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::attest::event_log::{self, EventLog};
use crate::attest::ima::{self, Replay};
use crate::attest::pcr::{RegisterPolicy, Replayed, START};
use crate::record::{Armed, Blob, Digest, EntryIndex, Measured, MeasuredLog, Pcr, SecureBoot, Text};

use super::finding::Finding;
use super::host::{BOOTS_MAX, BootReport, HostState, LogState, Said};
use super::report::{Findings, Note, Notes};

/// Most quotes with other values than the one before, and parts of logs, that are followed: 64 bytes each.
const ITEMS_MAX: usize = 1 << 20;

/// Most different sets of values besides that of the kernel's list that are followed: 1 KiB each.
const SETS_MAX: usize = 1 << 14;

/// Most bytes of contents that are judged, over all boots: nobody is kept busy with one file that is named again and again.
const CONTENT_BYTES_MAX: u64 = 16 << 30;

/// Most bytes of contents of an evidence bundle that are kept for judging.
const KEPT_BYTES_MAX: usize = 256 << 20;

/// Most different event logs of one boot that are judged: there should be one.
const EVENT_LOGS_MAX: usize = 64;

/// Registers that firmware and loaders extend before the kernel runs, and nobody after: the event log must give them.
const OF_THE_EVENT_LOG: [u32; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14];

/// One quote, or several of the same values with nothing between them.
#[derive(Debug, Clone, Copy)]
struct Quote {
    index: EntryIndex,
    /// Place of the other values in `sets`.
    set: usize,
    /// The register that the kernel extends.
    ima: Option<Digest>,
}

/// A `measured` entry.
#[derive(Debug, Clone, Copy)]
struct Part {
    index: EntryIndex,
    log: MeasuredLog,
    content: Digest,
    size: u64,
    from: u64,
    complete: bool,
}

/// What was seen of one boot.
#[derive(Debug)]
struct Boot {
    /// Its first entry.
    from: EntryIndex,
    id: Vec<u8>,
    said: Option<Said>,
    quotes: Vec<Quote>,
    quotes_total: u64,
    parts: Vec<Part>,
}

impl Boot {
    fn new(from: EntryIndex, id: &[u8]) -> Self {
        Self { from, id: id.to_vec(), said: None, quotes: Vec::new(), quotes_total: 0, parts: Vec::new() }
    }
}

/// Quotes and logs of all entries so far.
#[derive(Debug, Default)]
pub(super) struct Boots {
    boots: Vec<Boot>,
    /// Sets of quoted values, without that of the kernel's list.
    sets: Vec<Vec<(u32, Digest)>>,
    known: HashMap<Vec<(u32, Digest)>, usize>,
    items: usize,
    overflowed: bool,
    /// Whether only a part of the log is seen: what a part of a log does not follow may be withheld.
    is_part: bool,
}

/// Why a log cannot be judged any further.
enum Stopped {
    /// Content is not there, or may be withheld.
    Absent,
    Unusable(String),
    /// It is none; why.
    Malformed(String),
}

impl Boots {
    /// Of a part of a log.
    pub(super) fn of_part() -> Self {
        Self { is_part: true, ..Self::default() }
    }

    /// The log begins on this boot.
    pub(super) fn genesis(&mut self, index: EntryIndex, boot_id: &[u8]) {
        self.boot(index, boot_id);
    }

    /// A run of the agent begins.
    pub(super) fn armed(&mut self, index: EntryIndex, armed: &Armed<'_>) {
        let Armed { boot_id, kernel, lockdown, secure_boot, .. } = armed;
        let said = Said { kernel: kernel.display(), lockdown: lockdown.display(), secure_boot: *secure_boot };
        if let Some(boot) = self.boot(index, boot_id.as_bytes()) {
            boot.said = Some(said);
        }
    }

    fn boot(&mut self, index: EntryIndex, id: &[u8]) -> Option<&mut Boot> {
        if self.boots.last().is_none_or(|boot| boot.id != id) && self.has_room() {
            self.boots.push(Boot::new(index, id));
        }
        self.boots.last_mut().filter(|boot| boot.id == id)
    }

    fn has_room(&mut self) -> bool {
        self.items += 1;
        self.overflowed |= self.items > ITEMS_MAX;
        !self.overflowed
    }

    /// The boot that entries are of now; of a log that does not say, one without a name.
    fn now(&mut self, index: EntryIndex) -> Option<&mut Boot> {
        if self.boots.is_empty() {
            self.boot(index, b"");
        }
        self.boots.last_mut()
    }

    /// A part of a log.
    pub(super) fn measured(&mut self, index: EntryIndex, measured: &Measured) {
        let Measured { log, content, from, complete } = measured;
        let part =
            Part { index, log: *log, content: content.sha256, size: content.size, from: *from, complete: *complete };
        if self.has_room()
            && let Some(boot) = self.now(index)
        {
            boot.parts.push(part);
        }
    }

    /// Registers of a quote that holds.
    pub(super) fn quoted(&mut self, index: EntryIndex, registers: &[Pcr]) {
        let ima = registers.iter().find(|register| register.index == ima::REGISTER).map(|register| register.value);
        let others: Vec<_> = registers
            .iter()
            .filter(|register| register.index != ima::REGISTER)
            .map(|register| (register.index, register.value))
            .collect();
        let set = match self.known.get(&others) {
            Some(set) => *set,
            None if self.sets.len() == SETS_MAX => {
                self.overflowed = true;
                return;
            }
            None => {
                self.sets.push(others.clone());
                self.known.insert(others, self.sets.len() - 1);
                self.sets.len() - 1
            }
        };
        let Some(boot) = self.now(index) else { return };
        boot.quotes_total += 1;
        let last_part = boot.parts.last().map(|part| part.index);
        let repeats = boot
            .quotes
            .last()
            .is_some_and(|last| (last.set, last.ima) == (set, ima) && last_part.is_none_or(|part| part < last.index));
        if !repeats
            && self.has_room()
            && let Some(boot) = self.boots.last_mut()
        {
            boot.quotes.push(Quote { index, set, ima });
        }
    }

    /// The contents that [`Boots::judge`] will ask for, to be kept where they come only once.
    pub(super) fn contents(&self) -> Kept {
        let parts = self.boots.iter().flat_map(|boot| &boot.parts);
        Kept { wanted: parts.map(|part| part.content).collect(), ..Kept::default() }
    }

    /// Judges everything, with the contents that `read` gives: nothing when it is not there. A content that it gives
    /// has the digest and size.
    ///
    /// # Errors
    /// What `read` answers.
    pub(super) fn judge<E>(
        self,
        policy: &[RegisterPolicy],
        mut read: impl FnMut(Blob) -> Result<Option<Vec<u8>>, E>,
        notes: &mut Notes,
        findings: &mut Findings,
    ) -> Result<HostState, E> {
        let Self { boots, sets, overflowed, is_part, .. } = self;
        let mut contents = Contents { read: &mut read, left: CONTENT_BYTES_MAX, exhausted: false };
        let mut state = HostState { overflowed, boots_total: boots.len() as u64, ..HostState::default() };
        for boot in boots {
            let quoted = Quoted { boot: &boot, sets: &sets, is_part };
            state.quotes += boot.quotes_total;
            quoted.compare_policy(policy, &mut state, findings);
            let report = quoted.judge(&mut contents, notes, findings)?;
            let is_replayed = matches!(report.event_log, LogState::Replayed(_));
            state.without_event_log += u64::from(boot.quotes_total > 0 && !is_replayed);
            state.never_quoted += u64::from(boot.quotes_total == 0 && boot.said.is_some());
            state.quoted.extend(report.explained.iter().chain(&report.unexplained));
            state.unexplained.extend(&report.unexplained);
            if state.boots.len() < BOOTS_MAX {
                state.boots.push(report);
            }
        }
        state.overflowed |= contents.exhausted;
        Ok(state)
    }
}

/// Contents that come in another order than they are judged in.
#[derive(Debug, Default)]
pub(super) struct Kept {
    wanted: HashSet<Digest>,
    contents: HashMap<Digest, Vec<u8>>,
    bytes: usize,
    overflowed: bool,
}

impl Kept {
    /// Keeps a content, if it is wanted.
    pub(super) fn take(&mut self, digest: Digest, content: &[u8]) {
        if !self.wanted.contains(&digest) || self.contents.contains_key(&digest) {
            return;
        }
        self.bytes = self.bytes.saturating_add(content.len());
        self.overflowed |= self.bytes > KEPT_BYTES_MAX;
        if !self.overflowed {
            self.contents.insert(digest, content.to_vec());
        }
    }

    /// A content that was kept.
    pub(super) fn get(&self, wanted: &Blob) -> Option<Vec<u8>> {
        let content = self.contents.get(&wanted.sha256)?;
        (content.len() as u64 == wanted.size).then(|| content.clone())
    }

    /// Whether one could not be kept.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }
}

/// The contents of logs, as long as they are not too many.
struct Contents<'r, R> {
    read: &'r mut R,
    left: u64,
    exhausted: bool,
}

impl<R> Contents<'_, R> {
    fn of<E>(&mut self, part: &Part) -> Result<Result<Vec<u8>, Stopped>, E>
    where
        R: FnMut(Blob) -> Result<Option<Vec<u8>>, E>,
    {
        let Some(left) = self.left.checked_sub(part.size) else {
            self.exhausted = true;
            return Ok(Err(Stopped::Absent));
        };
        self.left = left;
        Ok((self.read)(Blob { sha256: part.content, size: part.size })?.ok_or(Stopped::Absent))
    }
}

/// Where the parts of one log stand.
#[derive(Debug, Default)]
struct Follow {
    /// Whether there was a part before.
    begun: bool,
}

impl Follow {
    /// Whether a part begins a log anew, or goes on where so many bytes of it are known.
    fn check(&mut self, part: &Part, known: Option<u64>, is_part: bool) -> Result<(), Stopped> {
        let begun = std::mem::replace(&mut self.begun, true);
        match (part.from, known) {
            (0, _) => Ok(()),
            (from, Some(known)) if from == known => Ok(()),
            // What it follows is not there, was told to be none, or is withheld.
            (_, None) if is_part || begun => Err(Stopped::Absent),
            (from, known) => Err(Stopped::Malformed(format!(
                "it goes on at byte {from}, the parts before it end at byte {}",
                known.unwrap_or(0)
            ))),
        }
    }
}

/// What a whole event log says.
struct Booted {
    registers: Replayed,
    events: u64,
    secure_boot: Option<bool>,
}

/// One boot with what was quoted of it.
struct Quoted<'b> {
    boot: &'b Boot,
    sets: &'b [Vec<(u32, Digest)>],
    is_part: bool,
}

impl Quoted<'_> {
    fn value(&self, quote: &Quote, register: u32) -> Option<Digest> {
        if register == ima::REGISTER {
            return quote.ima;
        }
        let set = self.sets.get(quote.set)?;
        set.iter().find(|(index, _)| *index == register).map(|(_, value)| *value)
    }

    /// Compares what was quoted with what the trust file allows.
    fn compare_policy(&self, policy: &[RegisterPolicy], state: &mut HostState, findings: &mut Findings) {
        for register in policy {
            let mut told = false;
            for quote in &self.boot.quotes {
                match self.value(quote, register.index) {
                    None => {
                        state.not_quoted.get_or_insert((quote.index, register.index));
                    }
                    Some(value) if !register.allows(value) && !told => {
                        findings.push(Finding::PcrPolicyViolated {
                            index: quote.index,
                            register: register.index,
                            value: value.hex(),
                        });
                        told = true;
                    }
                    Some(_) => {}
                }
            }
        }
    }

    fn judge<E>(
        &self,
        contents: &mut Contents<'_, impl FnMut(Blob) -> Result<Option<Vec<u8>>, E>>,
        notes: &mut Notes,
        findings: &mut Findings,
    ) -> Result<BootReport, E> {
        let boot = self.boot;
        let mut report = BootReport {
            id: Text::new(&boot.id).display(),
            from: boot.from,
            quotes: boot.quotes_total,
            event_log: LogState::NotJudged,
            ima: LogState::NotJudged,
            violations: 0,
            ima_ahead: 0,
            explained: Vec::new(),
            unexplained: Vec::new(),
            secure_boot: None,
            said: boot.said.clone(),
        };
        if boot.quotes.is_empty() {
            return Ok(report);
        }
        (report.event_log, report.ima) = (LogState::NotSupplied, LogState::NotSupplied);
        // The first quote of each value of a register.
        let mut values: BTreeMap<(u32, Digest), EntryIndex> = BTreeMap::new();
        for quote in &boot.quotes {
            let others = self.sets.get(quote.set).map(Vec::as_slice).unwrap_or_default();
            for (register, value) in others {
                values.entry((*register, *value)).or_insert(quote.index);
            }
        }
        let replayed = self.event_log(&values, contents, &mut report, findings)?;
        let registers = replayed.clone().unwrap_or_default();
        // Without a log, what nobody extended needs no explanation.
        let differs = |((register, value), _): &(&(u32, Digest), _)| registers.value(*register) != Some(*value);
        let mut unexplained: BTreeSet<u32> =
            values.iter().filter(differs).map(|((register, _), _)| *register).collect();
        let start = registers.value(ima::REGISTER).unwrap_or(START);
        self.ima(start, contents, &mut report, findings)?;
        if report.ima_ahead > 0 {
            unexplained.insert(ima::REGISTER);
        }
        let of_kernel = boot.quotes.iter().any(|quote| quote.ima.is_some()).then_some(ima::REGISTER);
        let quoted: BTreeSet<u32> = values.keys().map(|(register, _)| *register).chain(of_kernel).collect();
        report.explained = quoted.difference(&unexplained).copied().collect();
        report.unexplained = unexplained.into_iter().collect();
        self.contradicted(&report, notes);
        Ok(report)
    }

    /// A note where the agent says another thing of Secure Boot than the firmware measured.
    fn contradicted(&self, report: &BootReport, notes: &mut Notes) {
        let said = report.said.as_ref().map(|said| said.secure_boot);
        let text = match (said, report.secure_boot) {
            (Some(SecureBoot::On), Some(false)) => "on, the firmware measured that it is off",
            (Some(SecureBoot::Off), Some(true)) => "off, the firmware measured that it is on",
            _ => return,
        };
        notes.push(Note {
            name: "secure_boot_contradicted",
            index: Some(self.boot.from),
            text: format!("the agent says that Secure Boot is {text}"),
        });
    }

    /// Judges every whole event log, and gives the registers that the last one says.
    fn event_log<E>(
        &self,
        values: &BTreeMap<(u32, Digest), EntryIndex>,
        contents: &mut Contents<'_, impl FnMut(Blob) -> Result<Option<Vec<u8>>, E>>,
        report: &mut BootReport,
        findings: &mut Findings,
    ) -> Result<Option<Replayed>, E> {
        let mut last: Option<Replayed> = None;
        let mut bytes: Option<Vec<u8>> = None;
        let (mut judged, mut told): (HashSet<Digest>, BTreeSet<u32>) = <_>::default();
        let mut replayed = 0;
        let mut follow = Follow::default();
        let mut wrong = false;
        for part in self.boot.parts.iter().filter(|part| part.log == MeasuredLog::EventLog) {
            let is_whole = part.from == 0 && part.complete;
            if is_whole && !judged.insert(part.content) {
                // Of a boot in which the agent started several times.
                continue;
            }
            let known = bytes.as_ref().map(|bytes| bytes.len() as u64);
            let content = match follow.check(part, known, self.is_part) {
                Ok(()) if replayed == EVENT_LOGS_MAX => Err(Stopped::Unusable("there are too many".to_owned())),
                Ok(()) => contents.of(part)?,
                Err(stopped) => Err(stopped),
            };
            let before = bytes.take().filter(|_| part.from > 0).unwrap_or_default();
            let outcome = content.and_then(|content| {
                let own = bytes.insert(before);
                own.extend_from_slice(&content);
                if own.len() > event_log::LOG_BYTES_MAX {
                    return Err(Stopped::Unusable("it is longer than is read".to_owned()));
                }
                if !part.complete {
                    return Ok(None);
                }
                replayed += 1;
                replay_event_log(own).map(Some)
            });
            match outcome {
                Ok(None) => continue,
                Ok(Some(Booted { registers, events, secure_boot })) => {
                    // The first quote of each register that has another value.
                    let mut differs: BTreeMap<u32, EntryIndex> = BTreeMap::new();
                    for ((register, value), index) in values {
                        if OF_THE_EVENT_LOG.contains(register) && registers.value(*register) != Some(*value) {
                            differs.entry(*register).and_modify(|first| *first = *index.min(first)).or_insert(*index);
                        }
                    }
                    wrong |= !differs.is_empty();
                    for (register, index) in differs {
                        if told.insert(register) {
                            findings.push(Finding::MeasuredMismatch { index, register, log: part.log.as_str() });
                        }
                    }
                    let is_quoted = values.keys().any(|(register, _)| *register == event_log::SECURE_BOOT_REGISTER);
                    report.event_log = LogState::Replayed(events);
                    report.secure_boot = secure_boot.filter(|_| is_quoted);
                    last = Some(registers);
                }
                Err(Stopped::Absent) => bytes = None,
                Err(Stopped::Unusable(why)) => {
                    bytes = None;
                    report.event_log = LogState::Unusable(why);
                }
                Err(Stopped::Malformed(reason)) => {
                    bytes = None;
                    wrong = true;
                    findings.push(Finding::MeasuredMalformed { index: part.index, log: part.log.as_str(), reason });
                }
            }
        }
        if wrong {
            report.event_log = LogState::Wrong;
            report.secure_boot = None;
        }
        Ok(last)
    }

    /// Judges every measurement list.
    fn ima<E>(
        &self,
        start: Digest,
        contents: &mut Contents<'_, impl FnMut(Blob) -> Result<Option<Vec<u8>>, E>>,
        report: &mut BootReport,
        findings: &mut Findings,
    ) -> Result<(), E> {
        // Each value that was quoted, and whether a list has come to it.
        let mut reached: HashMap<Digest, bool> =
            self.boot.quotes.iter().filter_map(|quote| quote.ima).map(|value| (value, value == start)).collect();
        // Quotes before the latest part that was read to the end of the list.
        let mut due = self.boot.quotes.iter().peekable();
        let mut replay: Option<Replay> = None;
        let mut follow = Follow::default();
        let (mut wrong, mut told) = (false, false);
        for part in self.boot.parts.iter().filter(|part| part.log == MeasuredLog::Ima) {
            let content = match follow.check(part, replay.as_ref().map(Replay::len), self.is_part) {
                Ok(()) => contents.of(part)?,
                Err(stopped) => Err(stopped),
            };
            let before = replay.take().filter(|_| part.from > 0);
            let outcome = content.and_then(|content| {
                let own = replay.insert(before.unwrap_or_else(|| Replay::new(start)));
                if own.len().saturating_add(content.len() as u64) > ima::LIST_BYTES_MAX {
                    return Err(Stopped::Unusable("it is longer than is read".to_owned()));
                }
                own.part(&content, |value, _| {
                    if let Some(reached) = reached.get_mut(&value) {
                        *reached = true;
                    }
                })
                .map_err(|error| Stopped::Malformed(error.to_string()))?;
                if part.complete && !own.is_whole() {
                    return Err(Stopped::Malformed("the measurement list ends within an entry".to_owned()));
                }
                report.violations = own.violations();
                report.ima = LogState::Replayed(own.entries());
                Ok(())
            });
            match outcome {
                Ok(()) if part.complete => {
                    // The kernel writes an entry into its list before it extends the register, so a list that was read to
                    // its end after a quote has all that the quote stands for.
                    while let Some(quote) = due.next_if(|quote| quote.index < part.index) {
                        if !told && quote.ima.is_some_and(|value| reached.get(&value) != Some(&true)) {
                            (wrong, told) = (true, true);
                            findings.push(Finding::MeasuredMismatch {
                                index: quote.index,
                                register: ima::REGISTER,
                                log: part.log.as_str(),
                            });
                        }
                    }
                }
                Ok(()) => {}
                Err(Stopped::Absent) => replay = None,
                Err(Stopped::Unusable(why)) => {
                    replay = None;
                    report.ima = LogState::Unusable(why);
                }
                Err(Stopped::Malformed(reason)) => {
                    replay = None;
                    wrong = true;
                    findings.push(Finding::MeasuredMalformed { index: part.index, log: part.log.as_str(), reason });
                }
            }
        }
        if wrong {
            report.ima = LogState::Wrong;
        }
        report.ima_ahead = reached.values().filter(|reached| !**reached).count() as u64;
        Ok(())
    }
}

fn replay_event_log(bytes: &[u8]) -> Result<Booted, Stopped> {
    match EventLog::parse(bytes) {
        Ok(log) => {
            Ok(Booted { registers: log.replay(), events: log.events().len() as u64, secure_boot: log.secure_boot() })
        }
        Err(error) if error.is_unusable() => Err(Stopped::Unusable(error.to_string())),
        Err(error) => Err(Stopped::Malformed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::blob;
    use crate::record::{Cadence, Id128, KeyTier, List};
    use crate::verify::report::Outcome;

    const EVENT_LOG: &[u8] = include_bytes!("../../tests/measured/plain/event_log");
    const IMA: &[u8] = include_bytes!("../../tests/measured/plain/ima");
    const PCRS: &str = include_str!("../../tests/measured/plain/pcrs");
    const PCRS_EARLY: &str = include_str!("../../tests/measured/plain/pcrs_early");
    const OTHER: &[u8] = include_bytes!("../../tests/measured/sha384/event_log");

    fn registers(text: &str) -> Vec<Pcr> {
        let row = |line: &str| {
            let (index, value) = line.split_once(' ').unwrap();
            Pcr { index: index.parse().unwrap(), value: Digest::from_hex(value).unwrap() }
        };
        text.lines().map(row).collect()
    }

    fn value(text: &str, register: u32) -> Digest {
        registers(text).into_iter().find(|row| row.index == register).unwrap().value
    }

    fn armed(boot_id: &str, secure_boot: SecureBoot) -> Armed<'_> {
        Armed {
            run: Id128([1; 16]),
            boot_id: boot_id.into(),
            capture_id: Id128([2; 16]),
            resumed: false,
            agent_version: "0".into(),
            agent_digest: START,
            object_digest: START,
            offsets_digest: START,
            config_digest: START,
            policy_digest: None,
            kernel: "6.12.117".into(),
            kernel_build: None,
            lockdown: "none".into(),
            secure_boot,
            hook_tier: "lsm".into(),
            key_tier: KeyTier::T0,
            cadence: Cadence { commit_ms: 1, seal_ms: 1, heartbeat_ms: 1, anchor_ms: Some(1), counter_ms: None },
            hooks: List::default(),
            not_covered: List::default(),
            scope: "host".into(),
        }
    }

    /// Entries and contents, one after the other.
    #[derive(Default)]
    struct Log {
        boots: Boots,
        next: u64,
        contents: HashMap<Digest, Vec<u8>>,
    }

    impl Log {
        /// A log in which the agent ran on a boot: entry 0.
        fn new() -> Self {
            let mut log = Self::default();
            log.boot("one");
            log
        }

        fn index(&mut self) -> EntryIndex {
            self.next += 1;
            EntryIndex(self.next - 1)
        }

        fn boot(&mut self, id: &str) {
            let index = self.index();
            self.boots.armed(index, &armed(id, SecureBoot::Off));
        }

        fn quote(&mut self, text: &str) {
            let index = self.index();
            self.boots.quoted(index, &registers(text));
        }

        fn part(&mut self, log: MeasuredLog, content: &[u8], from: usize, complete: bool) {
            let index = self.index();
            let part = Measured { log, content: blob::reference(content), from: from as u64, complete };
            self.contents.insert(part.content.sha256, content.to_vec());
            self.boots.measured(index, &part);
        }

        fn event_log(&mut self, content: &[u8]) {
            self.part(MeasuredLog::EventLog, content, 0, true);
        }

        fn ima(&mut self, content: &[u8]) {
            self.part(MeasuredLog::Ima, content, 0, true);
        }

        fn judge(self, policy: &[RegisterPolicy]) -> (HostState, Vec<(&'static str, u64)>) {
            let (mut findings, mut notes) = (Findings::new(), Notes::default());
            let read = |wanted: Blob| Ok::<_, Infallible>(self.contents.get(&wanted.sha256).cloned());
            let Ok(state) = self.boots.judge(policy, read, &mut notes, &mut findings);
            let named = findings.kept().iter().map(|finding| (finding.name(), finding.index().unwrap().0)).collect();
            (state, named)
        }
    }

    fn policy() -> Vec<RegisterPolicy> {
        [4, 7].map(|index| RegisterPolicy::new(index, vec![value(PCRS, index)]).unwrap()).to_vec()
    }

    fn only(state: &HostState) -> &BootReport {
        assert_eq!(state.boots.len(), 1);
        state.boots.first().unwrap()
    }

    #[test]
    fn logs_that_give_what_was_quoted_explain_it() {
        let mut log = Log::new();
        log.quote(PCRS_EARLY);
        log.event_log(EVENT_LOG);
        log.ima(IMA);
        log.quote(PCRS);
        let (state, findings) = log.judge(&policy());
        assert_eq!(findings, []);
        let boot = only(&state);
        assert_eq!((&boot.event_log, &boot.ima), (&LogState::Replayed(24), &LogState::Replayed(12)));
        assert_eq!((boot.explained.clone(), boot.unexplained.clone()), ((0..16).collect(), vec![]));
        assert_eq!((boot.violations, boot.ima_ahead, boot.secure_boot), (1, 0, Some(false)));
        assert!(matches!(state.outcome(&policy(), Some("us")), Outcome::Proved(_)));
        assert!(matches!(state.outcome(&[], Some("us")), Outcome::NotProved(why) if why.contains("no PCR policy")));
        assert!(matches!(state.outcome(&policy(), None), Outcome::NotProved(why) if why.contains("does not name")));
    }

    #[test]
    fn parts_follow_each_other_and_a_log_may_begin_anew() {
        let mut log = Log::new();
        for (at, part) in IMA.chunks(500).enumerate() {
            log.part(MeasuredLog::Ima, part, at * 500, at == 2);
        }
        for (at, part) in EVENT_LOG.chunks(1000).enumerate() {
            log.part(MeasuredLog::EventLog, part, at * 1000, at == 2);
        }
        log.quote(PCRS);
        // The agent starts again.
        log.boot("one");
        log.event_log(EVENT_LOG);
        log.ima(IMA);
        let (state, findings) = log.judge(&policy());
        assert_eq!((findings, only(&state).unexplained.len()), (vec![], 0));
    }

    #[test]
    fn a_log_that_gives_other_registers_is_found_at_the_first_quote_of_each() {
        let mut log = Log::new();
        log.quote(PCRS_EARLY);
        log.quote(PCRS);
        log.event_log(OTHER);
        log.ima(IMA);
        let (state, findings) = log.judge(&[]);
        assert_eq!(findings, [("measured_mismatch", 1)]);
        let boot = only(&state);
        assert_eq!((&boot.event_log, boot.secure_boot), (&LogState::Wrong, None));
        assert_eq!(boot.unexplained, [9]);
        assert_eq!(state.without_event_log, 1);
    }

    #[test]
    fn a_list_that_was_cut_short_is_found_when_it_was_read_after_the_quote() {
        let first = 515;
        let cut = |early: &str, after: bool| {
            let mut log = Log::new();
            log.event_log(EVENT_LOG);
            if after {
                log.quote(early);
                log.ima(&IMA[..first]);
            } else {
                log.ima(&IMA[..first]);
                log.quote(early);
            }
            log.judge(&[])
        };
        // 515 bytes are what the kernel gave at the time of the early values.
        assert_eq!(cut(PCRS_EARLY, true).1, []);
        assert_eq!(cut(PCRS, true).1, [("measured_mismatch", 2)]);
        let (state, findings) = cut(PCRS, false);
        assert_eq!((findings, only(&state).ima_ahead), (vec![], 1));
        assert_eq!(only(&state).unexplained, [10]);
    }

    #[test]
    fn what_cannot_be_read_on_is_malformed_once() {
        let mut log = Log::new();
        log.quote(PCRS);
        log.part(MeasuredLog::Ima, &IMA[..500], 0, false);
        log.part(MeasuredLog::Ima, &IMA[600..], 600, true);
        log.part(MeasuredLog::Ima, &IMA[600..], 1242, true);
        log.part(MeasuredLog::EventLog, &EVENT_LOG[..100], 0, true);
        let (state, findings) = log.judge(&[]);
        assert_eq!(findings, [("measured_malformed", 5), ("measured_malformed", 3)]);
        assert_eq!((&only(&state).event_log, &only(&state).ima), (&LogState::Wrong, &LogState::Wrong));
        let mut log = Log::new();
        log.part(MeasuredLog::Ima, IMA, 7, true);
        log.ima(&IMA[..1241]);
        log.quote(PCRS);
        assert_eq!(log.judge(&[]).1, [("measured_malformed", 1), ("measured_malformed", 2)]);
    }

    #[test]
    fn of_a_part_of_a_log_what_goes_before_may_be_withheld() {
        let mut log = Log { boots: Boots::of_part(), ..Log::default() };
        log.boot("one");
        log.part(MeasuredLog::Ima, IMA, 7, true);
        log.quote(PCRS);
        let (state, findings) = log.judge(&[]);
        assert_eq!((findings, &only(&state).ima), (vec![], &LogState::NotSupplied));
    }

    #[test]
    fn contents_that_are_not_there_prove_nothing() {
        let mut log = Log::new();
        log.event_log(EVENT_LOG);
        log.part(MeasuredLog::Ima, &IMA[..500], 0, false);
        log.part(MeasuredLog::Ima, &IMA[500..], 500, true);
        log.quote(PCRS);
        log.contents.clear();
        let (state, findings) = log.judge(&policy());
        assert_eq!(findings, []);
        assert!(
            matches!(state.outcome(&policy(), Some("us")), Outcome::NotProved(why) if why.contains("no event log"))
        );
        assert_eq!(only(&state).unexplained, [0, 1, 2, 3, 4, 5, 6, 7, 9, 10], "the others were never extended");
    }

    #[test]
    fn policies_are_compared_with_quotes_whatever_the_logs_say() {
        let forbidden = RegisterPolicy::new(7, vec![START]).unwrap();
        let mut log = Log::new();
        log.quote(PCRS_EARLY);
        log.quote(PCRS);
        let (_, findings) = log.judge(std::slice::from_ref(&forbidden));
        assert_eq!(findings, [("pcr_policy_violated", 1)]);
        let mut log = Log::new();
        log.event_log(EVENT_LOG);
        log.quote(PCRS);
        let more = [policy(), vec![RegisterPolicy::new(23, vec![START]).unwrap()]].concat();
        let (state, findings) = log.judge(&more);
        assert_eq!((findings, state.not_quoted), (vec![], Some((EntryIndex(2), 23))));
        assert!(matches!(state.outcome(&more, Some("us")), Outcome::NotProved(why) if why.contains("register 23")));
    }

    #[test]
    fn logs_are_judged_where_something_was_quoted() {
        let mut log = Log::new();
        log.event_log(b"nonsense");
        log.ima(b"and more of it");
        let (state, findings) = log.judge(&policy());
        assert_eq!((findings, &only(&state).event_log), (vec![], &LogState::NotJudged));
        assert!(only(&state).to_string().contains("nothing was quoted"));
    }

    #[test]
    fn every_boot_must_be_quoted() {
        let mut log = Log::new();
        log.event_log(EVENT_LOG);
        log.quote(PCRS);
        log.boot("two");
        let (state, findings) = log.judge(&policy());
        assert_eq!((findings, state.never_quoted, state.boots_total), (vec![], 1, 2));
        assert!(
            matches!(state.outcome(&policy(), Some("us")), Outcome::NotProved(why) if why.contains("nothing was quoted"))
        );
        // A log of the boot before says nothing of this one.
        let mut log = Log::new();
        log.event_log(EVENT_LOG);
        log.boot("two");
        log.quote(PCRS);
        assert_eq!(log.judge(&[]).0.without_event_log, 1);
    }

    #[test]
    fn what_the_agent_says_is_compared_with_what_was_measured() {
        let mut log = Log::new();
        let index = log.index();
        log.boots.armed(index, &armed("one", SecureBoot::On));
        log.event_log(EVENT_LOG);
        log.quote(PCRS);
        let (mut findings, mut notes) = (Findings::new(), Notes::default());
        let read = |wanted: Blob| Ok::<_, Infallible>(log.contents.get(&wanted.sha256).cloned());
        let Ok(state) = log.boots.judge(&[], read, &mut notes, &mut findings);
        let names: Vec<_> = notes.kept().iter().map(|note| note.name).collect();
        assert_eq!(names, ["secure_boot_contradicted"]);
        let text = only(&state).to_string();
        assert!(text.contains("Secure Boot off (measured by the firmware)"), "{text}");
        assert!(text.contains("kernel 6.12.117, lockdown none (reported by the agent)"), "{text}");
    }

    #[test]
    fn many_quotes_of_one_value_are_one() {
        let mut log = Log::new();
        (0..1000).for_each(|_| log.quote(PCRS));
        assert_eq!((log.boots.items, log.boots.boots.last().unwrap().quotes_total), (2, 1000));
        log.event_log(OTHER);
        let (state, findings) = log.judge(&[]);
        assert_eq!((findings, state.quotes), (vec![("measured_mismatch", 1)], 1000));
    }

    #[test]
    fn contents_named_without_end_are_not_read_without_end() {
        let mut log = Log::new();
        log.quote(PCRS);
        for _ in 0..300 {
            let index = log.index();
            let content = Blob { sha256: START, size: blob::BLOB_BYTES_MAX as u64 };
            log.boots.measured(index, &Measured { log: MeasuredLog::Ima, content, from: 0, complete: false });
        }
        let mut asked = 0;
        let (mut findings, mut notes) = (Findings::new(), Notes::default());
        let read = |_| {
            asked += 1;
            Ok::<_, Infallible>(None)
        };
        let Ok(state) = log.boots.judge(&[], read, &mut notes, &mut findings);
        assert!(asked == 256 && state.overflowed);
        assert!(
            matches!(state.outcome(&[], Some("us")), Outcome::NotProved(why) if why.contains("more quotes and logs"))
        );
    }
}
