//! When entries of long ago go: by which rule, up to where, and who asked.
//!
//! Owns the decision; how pruning is done safely is `log/prune.rs`'s. A rule of the configuration never goes beyond the
//! newest entries that always stay, nor, unless it is told to, beyond what a sink has not sent. What an operator asks
//! for goes as far as the log allows, and is recorded under their name.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use agent_evidence::packed::SEGMENT_BUNDLES;
use agent_evidence::record::{Body, BootTime, Condition, EntryIndex, Nanoseconds, Requester, Subject, Text};
use agent_evidence::tree::TILE_WIDTH;

use super::error::PipelineError;
use super::handle::{AskSinks, Reply};
use super::recorder::Recorder;
use super::requests::send;
use crate::log::prune::{Planned, PruningState};
use crate::log::{LogError, Now};
use crate::session::protocol::{Peer, PruneReport, RetentionStatus, SessionError, SinkStatus};

/// How often the rules are looked at, in nanoseconds.
const TICK_NS: u64 = 60_000_000_000;
/// Entries of one segment.
const SEGMENT_ENTRIES: u64 = (SEGMENT_BUNDLES * TILE_WIDTH) as u64;
/// Deepest directory of the log that is measured: `tile/entries/x001/x234`.
const DEPTH_MAX: usize = 8;

/// What configuration says of retention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Entries older than this go; none: age prunes nothing.
    pub max_age: Option<Nanoseconds>,
    /// Bytes that the log's directory may take on the disk; none: size prunes nothing.
    pub max_bytes: Option<u64>,
    /// How many of the newest entries no rule prunes.
    pub min_entries: u64,
    /// Whether rules leave alone what a sink has not sent.
    pub wait_for_sinks: bool,
    /// The log's directory.
    pub directory: PathBuf,
}

impl RetentionSettings {
    /// The rules in force, in words; nothing when there is none.
    fn rules(&self) -> Vec<String> {
        let age = self.max_age.map(|age| format!("log.retention.max_age_days = {}", age.0 / DAY_NS));
        let size = self.max_bytes.map(|bytes| format!("log.retention.max_mib = {}", bytes >> 20));
        age.into_iter().chain(size).collect()
    }

    /// Up to where the rules may go now.
    fn bound(&self, sealed: u64, sinks: &[SinkStatus]) -> u64 {
        let unsent = sinks.iter().map(|sink| sink.next_entry).min().filter(|_| self.wait_for_sinks);
        sealed.saturating_sub(self.min_entries).min(unsent.unwrap_or(u64::MAX))
    }
}

/// Nanoseconds of a day.
pub const DAY_NS: u64 = 86_400_000_000_000;

/// Who waits for a plan.
enum Asked {
    Rule(String),
    Operator { reason: String, by: Requester, dry_run: bool, reply: Reply<Result<PruneReport, SessionError>> },
}

/// What retention is doing.
pub(super) struct Keeper {
    settings: RetentionSettings,
    sinks: AskSinks,
    asked: Option<Asked>,
    next: BootTime,
    measuring: Option<Receiver<io::Result<Measured>>>,
    measured: Option<Measured>,
}

impl Keeper {
    pub(super) fn new(settings: RetentionSettings, sinks: AskSinks) -> Self {
        Self { settings, sinks, asked: None, next: BootTime(0), measuring: None, measured: None }
    }

    /// The rules are looked at as soon as can be: room is short.
    pub(super) fn hurry(&mut self) {
        self.next = BootTime(0);
    }

    /// Bytes of the log's directory, when it was measured.
    pub(super) fn log_bytes(&self) -> Option<u64> {
        self.measured.as_ref().map(|measured| measured.total)
    }

    /// Begins to measure the directory, on a thread of its own.
    fn measure(&mut self) {
        if self.measuring.is_some() {
            return;
        }
        let (result, answer) = sync_channel(1);
        let directory = self.settings.directory.clone();
        let thread = std::thread::Builder::new().name("affiant-measure".to_owned()).spawn(move || {
            // Nobody waits any more when the daemon is stopping.
            drop(result.send(Measured::of(&directory)));
        });
        self.measuring = thread.ok().map(|_detached| answer);
    }

    /// Takes what was measured. `true`: there is something new.
    fn take_measured(&mut self) -> bool {
        match self.measuring.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => false,
            Some(answer) => {
                self.measuring = None;
                match answer {
                    Ok(Ok(measured)) => {
                        self.measured = Some(measured);
                        true
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "the log's directory cannot be measured; size prunes nothing");
                        false
                    }
                    Err(_) => false,
                }
            }
        }
    }
}

/// What the log's directory takes on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Measured {
    total: u64,
    /// What could go of each segment of 65,536 entries.
    segments: BTreeMap<u64, u64>,
}

impl Measured {
    fn of(directory: &Path) -> io::Result<Self> {
        let mut measured = Self::default();
        let mut open = vec![(directory.to_owned(), 0)];
        while let Some((path, depth)) = open.pop() {
            let names = match std::fs::read_dir(&path) {
                // The writer removes directories too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                names => names?,
            };
            for name in names {
                let name = name?;
                let meta = match name.metadata() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    meta => meta?,
                };
                let bytes = meta.blocks().saturating_mul(512);
                measured.total += bytes;
                if meta.is_dir() {
                    if depth < DEPTH_MAX {
                        open.push((name.path(), depth + 1));
                    }
                } else if let Some(segment) = name.path().strip_prefix(directory).ok().and_then(segment_of) {
                    *measured.segments.entry(segment).or_default() += bytes;
                }
            }
        }
        Ok(measured)
    }

    /// Before which entry everything has to go for the rest to take no more than this.
    fn must_go(&self, bytes_max: u64) -> u64 {
        let mut left = self.total;
        let mut before = 0;
        for (segment, bytes) in &self.segments {
            if left <= bytes_max {
                break;
            }
            left = left.saturating_sub(*bytes);
            before = segment.saturating_add(1).saturating_mul(SEGMENT_ENTRIES);
        }
        before
    }
}

/// The segment of whose entries a file of the log's directory is, if it goes with them.
fn segment_of(path: &Path) -> Option<u64> {
    let path = path.to_str()?;
    let (digits, bundles) = ["tile/entries/", "tile/0/", "sidecar/"]
        .iter()
        .find_map(|prefix| Some((path.strip_prefix(prefix)?, SEGMENT_BUNDLES as u64)))
        .or_else(|| Some((path.strip_prefix("packed/")?, 1)))?;
    let mut number = 0_u64;
    for part in digits.split('/') {
        // A partial file ends in its width; it goes with the full one.
        let (part, last) = part.strip_suffix(".p").map_or((part, false), |part| (part, true));
        let part = part.strip_prefix('x').unwrap_or(part);
        number = number.checked_mul(1_000)?.checked_add(part.parse().ok()?)?;
        if last {
            break;
        }
    }
    Some(number / bundles)
}

impl Recorder {
    /// Begins what an operator asked for; the answer is given when there is a plan, or when what it does is sealed.
    pub(super) fn ask_to_prune(
        &mut self,
        before: EntryIndex,
        reason: String,
        dry_run: bool,
        peer: &Peer,
        reply: Reply<Result<PruneReport, SessionError>>,
    ) {
        if matches!(self.keeper.asked, Some(Asked::Rule(_))) {
            // Whoever asks by name goes before a rule, which will look again.
            self.log.forget_pruning();
            self.keeper.asked = None;
        }
        if let Err(why) = self.log.plan_pruning(before, true) {
            return send(reply, Err(SessionError::BadRequest { why: why.to_string() }));
        }
        let by = Requester { process: self.process(peer.pid), tgid: peer.pid, uid: peer.uid, gid: peer.gid };
        self.keeper.asked = Some(Asked::Operator { reason, by, dry_run, reply });
    }

    /// Goes on with pruning, and looks at the rules when it is time to.
    pub(super) fn tend_retention(&mut self, now: Now) -> Result<(), PipelineError> {
        match self.log.pruning() {
            PruningState::Looking | PruningState::Removing => self.log.work()?,
            PruningState::Ready(planned) => self.decide(planned, now)?,
            PruningState::Idle => {
                if let Some(asked) = self.keeper.asked.take() {
                    self.say_refused(asked);
                }
                self.look_at_rules(now);
            }
        }
        Ok(())
    }

    pub(super) fn is_pruning(&self) -> bool {
        self.log.pruning() != PruningState::Idle
    }

    fn say_refused(&mut self, asked: Asked) {
        let why = self.log.refused().map_or_else(|| "it was put off; ask again".to_owned(), |why| why.to_string());
        match asked {
            Asked::Operator { reply, .. } => send(reply, Err(SessionError::BadRequest { why })),
            Asked::Rule(rule) => tracing::debug!(rule, why, "a rule prunes nothing now"),
        }
    }

    /// There is a plan: carries it out, or only says what it is.
    fn decide(&mut self, planned: Planned, now: Now) -> Result<(), PipelineError> {
        let unsent: Vec<SinkStatus> =
            (self.keeper.sinks)().into_iter().filter(|sink| sink.next_entry < planned.first.0).collect();
        let report = |record: Option<u64>| PruneReport {
            first: planned.first.0,
            from: planned.from.0,
            gone: planned.counts.gone,
            kept_by_kind: planned.counts.by_kind,
            kept_by_session: planned.counts.by_session,
            kept_by_place: planned.counts.by_place,
            unsent: unsent.iter().map(|sink| sink.name.clone()).collect(),
            record,
        };
        let (rule, by, waiting) = match self.keeper.asked.take() {
            None => {
                self.log.forget_pruning();
                return Ok(());
            }
            Some(Asked::Operator { dry_run: true, reply, .. }) => {
                self.log.forget_pruning();
                send(reply, Ok(report(None)));
                return Ok(());
            }
            Some(Asked::Operator { reason, by, reply, .. }) => {
                let rule = if reason.is_empty() {
                    "affiant log prune".to_owned()
                } else {
                    format!("affiant log prune: {reason}")
                };
                (rule, Some(by), Some(reply))
            }
            Some(Asked::Rule(rule)) => (rule, None, None),
        };
        for sink in &unsent {
            let detail = format!(
                "{}: entries {} to {} were not sent before they were pruned",
                sink.name,
                sink.next_entry,
                planned.first.0 - 1
            );
            let condition = Condition {
                subject: Subject::Sink,
                ok: false,
                state: Text::from("pruned_unsent"),
                detail: Some(Text::new(detail.as_bytes())),
            };
            self.append_now(None, None, Body::Condition(condition))?;
        }
        let outcome = match self.log.prune(now, &rule, by) {
            Ok(Some(planned)) => {
                let record = self.log.pruned_by().map(|(record, _)| record.0);
                tracing::warn!(first = planned.first.0, gone = planned.counts.gone, rule, "entries are pruned");
                Ok(report(record))
            }
            Ok(None) => Err(SessionError::Unavailable {
                why: "a session was held while it was looked at; ask again".to_owned(),
            }),
            Err(LogError::Full(_)) => {
                self.log.forget_pruning();
                Err(SessionError::Unavailable { why: "the disk has no room even to say what is pruned".to_owned() })
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(reply) = waiting {
            // What it says is sealed.
            send(reply, outcome);
        }
        Ok(())
    }

    fn look_at_rules(&mut self, now: Now) {
        let new = self.keeper.take_measured();
        if !new && now.boot < self.keeper.next {
            return;
        }
        let Keeper { settings, measured, sinks, .. } = &self.keeper;
        let rules = settings.rules();
        if rules.is_empty() {
            self.keeper.next = BootTime(u64::MAX);
            return;
        }
        let by_age = settings.max_age.map(|age| self.log.older_than(age, now.wall).0);
        let by_size = settings.max_bytes.and_then(|max| Some(measured.as_ref()?.must_go(max)));
        let bound = settings.bound(self.log.sealed_size().0, &sinks());
        let wanted = by_age.max(by_size).unwrap_or(0).min(bound);
        let rule = match (by_age >= by_size, settings.max_age, rules.as_slice()) {
            (false, Some(_), [_, size]) => size.clone(),
            (_, _, [first, ..]) => first.clone(),
            _ => return,
        };
        if self.keeper.settings.max_bytes.is_some() && !new {
            self.keeper.measure();
        }
        self.keeper.next = BootTime(now.boot.0.saturating_add(TICK_NS));
        if wanted < self.log.pruned_before().0.saturating_add(TILE_WIDTH as u64) {
            return;
        }
        match self.log.plan_pruning(EntryIndex(wanted), false) {
            Ok(()) => self.keeper.asked = Some(Asked::Rule(rule)),
            Err(why) => tracing::debug!(rule, %why, "a rule prunes nothing now"),
        }
    }

    pub(super) fn retention_status(&self) -> RetentionStatus {
        let state = match self.log.pruning() {
            PruningState::Idle => "idle",
            PruningState::Looking | PruningState::Ready(_) => "looking",
            PruningState::Removing => "removing",
        };
        RetentionStatus {
            rules: self.keeper.settings.rules(),
            first_entry: self.log.pruned_before().0,
            kept: self.log.pruned_by().map_or(0, |(_, kept)| kept),
            record: self.log.pruned_by().map(|(record, _)| record.0),
            held: self.log.held() as u64,
            state: state.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> RetentionSettings {
        RetentionSettings {
            max_age: Some(Nanoseconds(30 * DAY_NS)),
            max_bytes: Some(64 << 20),
            min_entries: 4_096,
            wait_for_sinks: true,
            directory: PathBuf::new(),
        }
    }

    fn sink(next_entry: u64) -> SinkStatus {
        SinkStatus {
            name: "a".to_owned(),
            next_entry,
            lag_entries: 0,
            sent: 0,
            filtered: 0,
            pruned: 0,
            failures: 0,
            fault: None,
        }
    }

    #[test]
    fn rules_stop_before_the_newest_entries_and_before_what_a_sink_has_not_sent() {
        let settings = settings();
        assert_eq!(settings.bound(10_000, &[]), 5_904);
        assert_eq!(settings.bound(1_000, &[]), 0);
        assert_eq!(settings.bound(10_000, &[sink(700), sink(300)]), 300);
        let careless = RetentionSettings { wait_for_sinks: false, ..settings };
        assert_eq!(careless.bound(10_000, &[sink(300)]), 5_904);
    }

    #[test]
    fn each_file_that_goes_is_counted_with_its_segment() {
        for (path, segment) in [
            ("tile/entries/000", Some(0)),
            ("tile/entries/255", Some(0)),
            ("tile/entries/256", Some(1)),
            ("tile/0/x001/024", Some(4)),
            ("tile/0/x001/024.p/7", Some(4)),
            ("sidecar/x012/345", Some(48)),
            ("packed/x001/002", Some(1_002)),
            ("tile/1/000", None),
            ("kept/000", None),
            ("checkpoint", None),
            ("tile/entries/oops", None),
        ] {
            assert_eq!(segment_of(Path::new(path)), segment, "{path}");
        }
    }

    #[test]
    fn as_many_of_the_oldest_segments_go_as_it_takes() {
        let directory = tempfile::tempdir().unwrap();
        for (path, bytes) in
            [("packed/000", 3 << 20), ("packed/001", 2 << 20), ("tile/entries/512", 1 << 20), ("kept/x", 1 << 20)]
        {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![7_u8; bytes]).unwrap();
        }
        let measured = Measured::of(directory.path()).unwrap();
        assert!((7 << 20..(7 << 20) + (1 << 18)).contains(&measured.total), "{}", measured.total);
        assert_eq!(measured.segments.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(measured.must_go(8 << 20), 0);
        assert_eq!(measured.must_go(5 << 20), 65_536);
        assert_eq!(measured.must_go(4 << 20), 2 * 65_536);
        assert_eq!(measured.must_go(0), 3 * 65_536);
    }
}
