//! The OCSF file sink: sealed entries mapped to OCSF and appended to a file, one event per line.
//!
//! Owns one cursor, one output file and one thread. Order of each turn: map, append, make the
//! file durable, then move the cursor. So a crash repeats events and never skips one. A line that
//! a crash tore is cut off before the next is appended. The file is opened anew each turn, so a
//! rotation by rename needs no signal.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agent_evidence::record;
use sha2::{Digest as _, Sha256};

use crate::export::cursor::{Cursor, CursorError, Position};
use crate::export::join::JoinTable;
use crate::export::ocsf::{self, Coordinates};
use crate::export::sealed::{Head, SealedError, SealedLog};
use crate::session::protocol::SinkStatus;

/// Name of the sink: of its cursor, and in `status`.
pub const NAME: &str = "ocsf_file";

/// Most entries in one turn. Their events, about 2 KiB each, are held in memory at once.
const TURN_ENTRIES_MAX: u64 = 2048;

/// Most entries read again at the start to rebuild the join table. What lies before is joined by
/// index (workloads, sessions) or said to be unknown (processes).
const REBUILD_ENTRIES_MAX: u64 = 1_000_000;

/// How often the checkpoint is looked at. A quarter of the seal interval: it adds little to the
/// delay of an event and costs one small read.
const POLL: Duration = Duration::from_millis(250);

/// First and longest pause after a failure; it doubles in between.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Most turns made after the stop was asked for: 32,768 entries, a second or two of work.
const STOP_TURNS_MAX: usize = 16;

/// Longest line torn by a crash that is looked for, in bytes. An event is at most a few times its
/// entry, which has at most 64 KiB.
const TORN_LINE_MAX: u64 = 1024 * 1024;

/// Why a turn failed. Each is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] SealedError),
    /// The cursor cannot be kept.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The file cannot be written.
    #[error("cannot {step} {path}: {source}")]
    File {
        /// The step.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log is shorter than the cursor: another log, or one that was cut.
    #[error("the cursor stands at entry {next} and the log of {origin} has {size}; was the log replaced?")]
    Ahead {
        /// Origin of the log.
        origin: String,
        /// The cursor.
        next: u64,
        /// Size of the log.
        size: u64,
    },
}

/// What a turn found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Everything sealed is sent.
    Idle,
    /// There is more.
    More,
}

/// The events of a run of entries.
#[derive(Debug)]
struct Batch {
    origin: String,
    first: u64,
    next: u64,
    lines: Vec<u8>,
    /// How many events `lines` holds.
    sent: u64,
    /// How many of the entries were pruned.
    pruned: u64,
    /// Whether they are in the file, durably; only the cursor is missing then.
    written: bool,
}

/// The sink's work, one turn at a time.
#[derive(Debug)]
pub struct OcsfFileSink {
    log: SealedLog,
    path: PathBuf,
    cursor: Cursor,
    joins: JoinTable,
    /// The next entry that the join table has not learned from; none: not rebuilt yet.
    learned: Option<Position>,
    /// What was rendered and is not sent: kept over failures, so that a sink that stays dead costs
    /// an attempt and no second reading.
    pending: Option<Batch>,
    status: Arc<Mutex<SinkStatus>>,
}

impl OcsfFileSink {
    /// A sink that reads `log` and appends to `path`, with its cursor below `cursors`.
    ///
    /// # Errors
    /// The cursor cannot be read.
    pub fn open(log: PathBuf, cursors: &Path, path: PathBuf) -> Result<Self, SinkError> {
        Ok(Self {
            log: SealedLog::new(log),
            path,
            cursor: Cursor::open(cursors, NAME)?,
            joins: JoinTable::default(),
            learned: None,
            pending: None,
            status: Arc::new(Mutex::new(SinkStatus {
                name: NAME.to_owned(),
                next_entry: 0,
                lag_entries: 0,
                sent: 0,
                filtered: 0,
                pruned: 0,
                failures: 0,
                fault: None,
            })),
        })
    }

    /// How the sink stands.
    #[must_use]
    pub fn status(&self) -> SinkStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends what is sealed, at most `TURN_ENTRIES_MAX` entries of it.
    ///
    /// # Errors
    /// Nothing was skipped: the next turn begins where the cursor stands.
    pub fn turn(&mut self) -> Result<Turn, SinkError> {
        let result = self.try_turn();
        if let Err(error) = &result {
            self.note(|status| {
                status.failures += 1;
                status.fault = Some(error.to_string());
            });
        }
        result
    }

    fn try_turn(&mut self) -> Result<Turn, SinkError> {
        let head = match self.log.head() {
            Ok(head) => head,
            // A log that has no checkpoint yet has nothing to send.
            Err(error) if error.is_missing() => return Ok(Turn::Idle),
            Err(error) => return Err(error.into()),
        };
        let first = self.cursor.next(&head.origin);
        if first > head.size {
            return Err(SinkError::Ahead { origin: head.origin, next: first, size: head.size });
        }
        self.note(|status| {
            status.next_entry = first;
            status.lag_entries = head.size - first;
        });
        if first == head.size {
            self.note(|status| status.fault = None);
            return Ok(Turn::Idle);
        }
        let mut batch = match self.pending.take() {
            Some(batch) if batch.origin == head.origin && batch.first == first => batch,
            _ => self.render(&head, first)?,
        };
        let outcome = self.send(&mut batch);
        let Batch { next, sent, pruned, .. } = batch;
        if let Err(error) = outcome {
            self.pending = Some(batch);
            return Err(error);
        }
        self.note(|status| {
            status.next_entry = next;
            status.lag_entries = head.size.saturating_sub(next);
            status.sent += sent;
            status.filtered += (next - first) - sent - pruned;
            status.pruned += pruned;
            status.fault = None;
        });
        Ok(if next >= head.size { Turn::Idle } else { Turn::More })
    }

    /// Fills the join table with what the entries before `first` say.
    fn rebuild(&mut self, head: &Head, first: u64) -> Result<(), SinkError> {
        let wanted = Position { origin: head.origin.clone(), next: first };
        if self.learned.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let mut joins = JoinTable::default();
        let from = first.saturating_sub(REBUILD_ENTRIES_MAX);
        // `genesis` describes the host, wherever the rest begins.
        for range in [0..from.min(1), from..first] {
            // What was pruned of them is unknown; what names workloads and processes stays.
            let _pruned = self.log.each(range, head.size, |_, entry| {
                learn(&mut joins, entry);
                Ok::<(), SinkError>(())
            })?;
        }
        self.joins = joins;
        Ok(())
    }

    /// Appends the batch, then moves the cursor.
    fn send(&mut self, batch: &mut Batch) -> Result<(), SinkError> {
        if !batch.written && batch.sent > 0 {
            append(&self.path, &batch.lines)?;
        }
        batch.written = true;
        self.cursor.advance(Position { origin: batch.origin.clone(), next: batch.next })?;
        Ok(())
    }

    fn render(&mut self, head: &Head, first: u64) -> Result<Batch, SinkError> {
        self.rebuild(head, first)?;
        // Unless all goes well, the table has learned from some of the entries only.
        self.learned = None;
        let next = head.size.min(first.saturating_add(TURN_ENTRIES_MAX));
        let mut batch =
            Batch { origin: head.origin.clone(), first, next, lines: Vec::new(), sent: 0, pruned: 0, written: false };
        let mut scratch = Vec::new();
        let Self { log, joins, .. } = self;
        let absent = log.each(first..next, head.size, |index, entry| {
            let record = match record::decode_with(entry, &mut scratch) {
                Ok(record) => record,
                Err(error) => {
                    // The verifier reports it as a finding; here it has no event.
                    tracing::warn!(index, %error, "an entry cannot be decoded and is not exported");
                    return Ok::<(), SinkError>(());
                }
            };
            fetch_described(log, joins, &record, head.size)?;
            let at = Coordinates { origin: &head.origin, leaf_hash: leaf_hash(entry) };
            if let Some(event) = ocsf::map(&record, at, joins) {
                // A value made here always serializes: its keys are strings.
                batch.lines.extend_from_slice(event.to_string().as_bytes());
                batch.lines.push(b'\n');
                batch.sent += 1;
            }
            joins.learn(&record);
            Ok(())
        })?;
        if let Some(note) = absent.note(&self.log, head.size) {
            tracing::error!(note, "the OCSF file sink comes too late");
        }
        batch.pruned = absent.count;
        self.learned = Some(Position { origin: head.origin.clone(), next });
        Ok(batch)
    }

    fn note(&self, change: impl FnOnce(&mut SinkStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn learn(joins: &mut JoinTable, entry: &[u8]) {
    if let Ok(record) = record::decode(entry) {
        joins.learn(&record);
    }
}

/// Workloads and sessions are referred to by index, so one that the table lacks can be read again.
fn fetch_described(
    log: &SealedLog,
    joins: &mut JoinTable,
    record: &record::Record<'_>,
    size: u64,
) -> Result<(), SinkError> {
    let workload = record.draft.workload.filter(|index| joins.workload(*index).is_none());
    let session = record.draft.session.filter(|index| joins.session(*index).is_none());
    for index in workload.into_iter().chain(session) {
        // A reference to an entry that is not sealed yet, or to another kind, stays unknown.
        if index < record.index()
            && let Some(entry) = log.entry(index.0, size)?
            && let Ok(described) = record::decode(&entry)
            && matches!(described.body(), record::Body::Workload(_) | record::Body::Issued(_))
        {
            joins.learn(&described);
        }
    }
    Ok(())
}

fn leaf_hash(entry: &[u8]) -> [u8; 32] {
    // RFC 6962, section 2.1.
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// Appends whole lines and makes them durable. A failed write is taken back, so that the file
/// never holds half a line.
fn append(path: &Path, lines: &[u8]) -> Result<(), SinkError> {
    let fail = |step| move |source| SinkError::File { step, path: path.to_owned(), source };
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path).map_err(fail("open"))?;
    let end = cut_torn_line(&mut file).map_err(fail("repair the last line of"))?;
    if let Err(source) = file.write_all(lines) {
        // Best effort: what stays is cut off by the next turn.
        let _retried = file.set_len(end);
        return Err(fail("append to")(source));
    }
    file.sync_data().map_err(fail("make durable"))
}

/// Cuts off what follows the last newline and returns the file's size.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    let window = size.min(TORN_LINE_MAX);
    file.seek(SeekFrom::Start(size - window))?;
    let mut tail = Vec::new();
    Read::by_ref(file).take(window).read_to_end(&mut tail)?;
    let kept = match tail.iter().rposition(|&byte| byte == b'\n') {
        Some(at) => size - window + at as u64 + 1,
        None if window == size => 0,
        None => return Err(io::Error::other("no line ends in its last MiB: it is not a file of events")),
    };
    if kept < size {
        file.set_len(kept)?;
    }
    Ok(kept)
}

/// A sink that runs on its own thread.
#[derive(Debug)]
pub struct Running {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
    status: Arc<Mutex<SinkStatus>>,
}

impl Running {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(mut sink: OcsfFileSink) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let status = Arc::clone(&sink.status);
        let thread = std::thread::Builder::new().name("export-ocsf".to_owned()).spawn(move || {
            let mut pause = PAUSE_FIRST;
            loop {
                let wait = match sink.turn() {
                    Ok(turn) => {
                        pause = PAUSE_FIRST;
                        if turn == Turn::More { Duration::ZERO } else { POLL }
                    }
                    Err(error) => {
                        tracing::warn!(%error, pause_s = pause.as_secs(), "the OCSF file sink failed and will retry");
                        let wait = pause;
                        pause = PAUSE_MAX.min(pause * 2);
                        wait
                    }
                };
                match stopped.recv_timeout(wait) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            // What was sealed while stopping; a failure or a long backlog is left for the next start.
            for _ in 0..STOP_TURNS_MAX {
                if !matches!(sink.turn(), Ok(Turn::More)) {
                    break;
                }
            }
        })?;
        Ok(Self { stop, thread, status })
    }

    /// How the sink stands.
    #[must_use]
    pub fn status(&self) -> SinkStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends what is sealed and ends the thread. Call it after the last checkpoint.
    pub fn stop(self) {
        let Self { stop, thread, .. } = self;
        drop(stop);
        if thread.join().is_err() {
            tracing::error!("the OCSF file sink ended abnormally");
        }
    }
}

#[cfg(test)]
mod tests;
