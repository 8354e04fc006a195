//! `affiant tail`: sealed entries as they come, readable or as stored.
#![forbid(unsafe_code)]

use std::time::Duration;

use agent_evidence::record::{self, Body, Record};

use crate::cli::args::{Since, TailArguments, TailOutput};
use crate::cli::clock;
use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, complain};
use crate::cli::view;
use crate::export::sealed::{SealedError, SealedLog};

/// How often a followed log is looked at: checkpoints come once a second by default.
const POLL: Duration = Duration::from_millis(200);

/// How many entries are printed before following, when no start is given.
const FOLLOW_FROM: u64 = 10;

/// Prints entries; with `follow`, until standard output is gone or a signal ends it.
///
/// # Errors
/// There is no readable log, or standard output is gone.
pub fn tail(log: &SealedLog, wish: &TailArguments, out: &mut Output) -> Result<u8, Exit> {
    let mut filter = Filter::new(wish, clock::now_ns());
    let mut next = None;
    let mut origin = None;
    loop {
        let head = match log.head() {
            Ok(head) => head,
            Err(error) if error.is_missing() && wish.follow => {
                std::thread::sleep(POLL);
                continue;
            }
            Err(error) => return Err(unreadable(error)),
        };
        if *origin.get_or_insert_with(|| head.origin.clone()) != head.origin {
            return Err(Exit::new(exit::DATA, format!("the log was replaced: it is {} now", head.origin)));
        }
        let from = *next.get_or_insert(match wish.since {
            // A session is named by its `issued` entry, which may lie before the start.
            _ if wish.session.is_some() => 0,
            Some(Since::Index(index)) => index,
            Some(_) => 0,
            None if wish.follow => head.size.saturating_sub(FOLLOW_FROM),
            None => 0,
        });
        let absent = log.each(from..head.size, head.size, |index, bytes| filter.print(index, bytes, out))?;
        if let Some(note) = absent.note(log, head.size) {
            complain(&note);
        }
        next = Some(from.max(head.size));
        out.flush()?;
        if !wish.follow {
            return Ok(0);
        }
        std::thread::sleep(POLL);
    }
}

/// Why the log cannot be read, with what would help.
#[must_use]
pub fn unreadable(error: SealedError) -> Exit {
    if let SealedError::Read { source, path } = &error {
        match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                return Exit::new(
                    exit::REFUSED,
                    format!("{error}; entries hold arguments and paths: be root or in access.reader_group"),
                );
            }
            std::io::ErrorKind::NotFound => {
                return Exit::new(
                    exit::UNAVAILABLE,
                    format!("there is no log at {}; start `affiant daemon`, or name --state", path.display()),
                );
            }
            _ => {}
        }
    }
    Exit::new(exit::DATA, error)
}

impl From<SealedError> for Exit {
    fn from(error: SealedError) -> Self {
        unreadable(error)
    }
}

struct Filter<'a> {
    wish: &'a TailArguments,
    since_wall_ns: u64,
    since_index: u64,
    /// Index of the `issued` entry of the session wanted, once it was seen.
    session: Option<u64>,
    scratch: Vec<u8>,
}

impl<'a> Filter<'a> {
    fn new(wish: &'a TailArguments, now_ns: u64) -> Self {
        let (since_wall_ns, since_index) = match wish.since {
            None => (0, 0),
            Some(Since::AgoNs(ago_ns)) => (now_ns.saturating_sub(ago_ns), 0),
            Some(Since::WallNs(wall_ns)) => (wall_ns, 0),
            Some(Since::Index(index)) => (0, index),
        };
        Self { wish, since_wall_ns, since_index, session: None, scratch: Vec::new() }
    }

    fn print(&mut self, index: u64, bytes: &[u8], out: &mut Output) -> Result<(), Exit> {
        if self.wish.output == TailOutput::Json && self.takes_all() {
            out.bytes(bytes)?;
            return out.bytes(b"\n");
        }
        let record = match record::decode_with(bytes, &mut self.scratch) {
            Ok(record) => record,
            Err(error) => {
                complain(&format!("entry {index} cannot be decoded: {error}; run `affiant verify`"));
                return Ok(());
            }
        };
        if !self.wants(&record) {
            return Ok(());
        }
        match self.wish.output {
            TailOutput::Json => {
                out.bytes(bytes)?;
                out.bytes(b"\n")
            }
            TailOutput::Compact => out.line(&compact(&record)),
        }
    }

    /// Whether no entry can be left out, so that none needs to be decoded.
    fn takes_all(&self) -> bool {
        self.wish.session.is_none() && self.wish.kinds.is_empty() && self.wish.since.is_none()
    }

    fn wants(&mut self, record: &Record<'_>) -> bool {
        if let (Some(wanted), Body::Issued(issued)) = (&self.wish.session, record.body())
            && issued.id.as_bytes() == wanted.as_bytes()
        {
            self.session = Some(record.index().0);
        }
        if self.wish.session.is_some() {
            let own = record.draft.session.map_or(record.index().0, |issued| issued.0);
            if self.session != Some(own) {
                return false;
            }
        }
        record.index().0 >= self.since_index
            && record.draft.wall.0 >= self.since_wall_ns
            && (self.wish.kinds.is_empty() || self.wish.kinds.contains(&record.body().kind()))
    }
}

fn compact(record: &Record<'_>) -> String {
    let session = record.draft.session.map(|issued| format!(" s{}", issued.0)).unwrap_or_default();
    format!(
        "{} {:>7} {:<12}{session} {}",
        clock::show_time(record.draft.wall.0),
        format!("#{}", record.index().0),
        record.body().kind().as_str(),
        view::describe(record)
    )
}
