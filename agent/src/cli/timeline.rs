//! `affiant timeline`: what one session did, as a process tree with its acts in order.
//!
//! Owns the selection of entries and their shape as a tree; `timeline/render.rs` owns the page.
//! Folding happens in the view only: the entries are all in the log, and `--all` shows each.
#![forbid(unsafe_code)]

mod fold;
mod render;

use std::collections::HashMap;
use std::net::SocketAddr;

use agent_evidence::record::{self, Body, Record};

use crate::cli::args::{TimelineArguments, TimelineOutput};
use crate::cli::exit::Exit;
use crate::cli::output::{Output, complain};
use crate::cli::view;
use crate::export::sealed::{SealedError, SealedLog};

/// Most acts held in memory; a session with more is shown up to here, and says so. Each costs a
/// few hundred bytes.
const ACTS_MAX: usize = 2_000_000;

/// Prints a session's timeline.
///
/// # Errors
/// No readable log, no such session (code 1), or standard output is gone.
pub fn timeline(log: &SealedLog, wish: &TimelineArguments, out: &mut Output) -> Result<u8, Exit> {
    let head = log.head().map_err(crate::cli::tail::unreadable)?;
    let bounds = find(log, head.size, &wish.session)?;
    let Some(bounds) = bounds else {
        return Err(Exit::new(1, format!("no session {} is in the sealed log", wish.session)));
    };
    let end = bounds.last.map_or(head.size, |last| last + 1);
    if wish.output == TimelineOutput::Json {
        let absent = log.each(bounds.issued..end, head.size, |_, bytes| {
            let mine = record::decode(bytes).is_ok_and(|record| belongs(&record, bounds.issued) || is_loss(&record));
            if mine {
                out.bytes(bytes)?;
                out.bytes(b"\n")?;
            }
            Ok::<(), Exit>(())
        })?;
        if let Some(note) = absent.note(log, head.size) {
            complain(&format!("{note}; acts of this session may be among them"));
        }
        return Ok(0);
    }
    let mut tree = Tree::default();
    let absent = log.each(bounds.issued..end, head.size, |_, bytes| {
        if let Ok(record) = record::decode(bytes) {
            tree.take(&record, bounds.issued);
        }
        Ok::<(), Exit>(())
    })?;
    if let Some(note) = absent.note(log, head.size) {
        tree.head.push(("PRUNED", format!("{note}; acts of this session may be among them")));
    }
    // A loss is recorded when the counters are read, which can be after the session's end.
    let _gaps_stay = log.each(end..head.size, head.size, |_, bytes| {
        if has_kind(bytes, b"gap")
            && let Ok(record) = record::decode(bytes)
        {
            tree.take(&record, bounds.issued);
        }
        Ok::<(), Exit>(())
    })?;
    tree.grow();
    render::page(&tree, wish.all, out)?;
    Ok(0)
}

/// Where a session stands in the log.
struct Bounds {
    /// Index of its `issued` entry.
    issued: u64,
    /// Index of its `revoked` entry, when it has ended.
    last: Option<u64>,
}

fn find(log: &SealedLog, size: u64, id: &str) -> Result<Option<Bounds>, SealedError> {
    let mut scratch = Vec::new();
    let mut bounds: Option<Bounds> = None;
    // Beginnings and ends of sessions stay when others are pruned.
    let _others = log.each(0..size, size, |index, bytes| {
        // Decoding every entry of a long log costs; the kind stands in the first bytes.
        if !has_kind(bytes, b"issued") && !has_kind(bytes, b"revoked") {
            return Ok::<(), SealedError>(());
        }
        if let Ok(record) = record::decode_with(bytes, &mut scratch) {
            match record.body() {
                Body::Issued(issued) if issued.id.as_bytes() == id.as_bytes() => {
                    bounds = Some(Bounds { issued: index, last: None });
                }
                Body::Revoked(_) => {
                    if let (Some(bounds), Some(issued)) = (&mut bounds, record.draft.session)
                        && bounds.issued == issued.0
                    {
                        bounds.last = Some(index);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok(bounds)
}

/// Whether an entry's `kind` member has this word. Only a hint: the record is decoded afterwards.
fn has_kind(bytes: &[u8], kind: &[u8]) -> bool {
    const BEFORE: &[u8] = b"\"kind\":\"";
    let window = bytes.get(..64).unwrap_or(bytes);
    window
        .windows(BEFORE.len())
        .position(|at| at == BEFORE)
        .and_then(|at| bytes.get(at + BEFORE.len()..))
        .is_some_and(|rest| rest.starts_with(kind) && rest.get(kind.len()) == Some(&b'"'))
}

fn belongs(record: &Record<'_>, issued: u64) -> bool {
    record.index().0 == issued || record.draft.session.is_some_and(|session| session.0 == issued)
}

fn is_loss(record: &Record<'_>) -> bool {
    matches!(record.body(), Body::Gap(_))
}

/// A session as it is shown.
#[derive(Debug, Default)]
struct Tree {
    /// Lines of the head: a name and a value.
    head: Vec<(&'static str, String)>,
    /// Boot time of the `issued` entry: times are shown from here.
    start_ns: u64,
    /// Losses in the session's time: when, and what.
    losses: Vec<(u64, String)>,
    /// Events lost in the session's time that were of others, by the kernel side's own count.
    lost_elsewhere: u64,
    /// The session's cgroup.
    cgroup: Option<u64>,
    /// How it ended; none: it is open.
    end: Option<String>,
    /// Boot time of its end.
    end_ns: Option<u64>,
    /// Acts as they came, until [`Tree::grow`] puts them where they belong.
    acts: Vec<Act>,
    processes: Vec<Process>,
    by_cookie: HashMap<u64, usize>,
    /// Acts beyond [`ACTS_MAX`].
    not_shown: u64,
}

/// One entry of a process.
#[derive(Debug)]
struct Act {
    at_ns: u64,
    cookie: u64,
    tgid: u32,
    what: Did,
}

#[derive(Debug)]
enum Did {
    Fork { child: u64, child_tgid: u32 },
    Exit(String),
    Decided { socket: u64, remote: SocketAddr, result: String },
    Step(What),
}

/// One process, from its first entry to its last.
#[derive(Debug)]
struct Process {
    tgid: u32,
    /// The process that forked it, when that is in the session too.
    parent: Option<usize>,
    first_ns: u64,
    /// What it did, in order.
    steps: Vec<Step>,
    /// How it ended, and when.
    ended: Option<(u64, String)>,
}

/// Something a process did.
#[derive(Debug)]
struct Step {
    at_ns: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// It began to run a program.
    Image(Image),
    /// It forked this process.
    Child(usize),
    /// It opened a file.
    Open(fold::Opened),
    /// It connected, and which line says how that went.
    Connect { socket: u64, line: String, result: String },
    /// Anything else, in words.
    Other(String),
}

/// A program image.
#[derive(Debug)]
struct Image {
    /// Its command line, and its path where that does not show it.
    line: String,
    /// Working directory.
    cwd: Option<String>,
    uid: u32,
    euid: u32,
    /// The file had no name any more.
    deleted: bool,
}

/// Who did a privileged act, or failed to run a program; none for other kinds.
fn privileged(body: &Body<'_>) -> Option<u32> {
    Some(match body {
        Body::ExecFailed(failed) => failed.tgid,
        Body::Creds(change) => change.tgid,
        Body::ProcessAccess(access) => access.tgid,
        Body::Signal(signal) => signal.tgid,
        Body::Mount(mount) => mount.tgid,
        Body::Namespace(change) => change.tgid,
        Body::Bpf(call) => call.tgid,
        Body::KernelLoad(load) => load.tgid,
        Body::Key(key) => key.tgid,
        Body::IoUring(ring) => ring.tgid,
        _ => return None,
    })
}

impl Tree {
    fn take(&mut self, record: &Record<'_>, issued: u64) {
        let mut at_ns = record.draft.boot.0;
        if let Body::Gap(gap) = record.body() {
            return self.lose(record, gap, issued);
        }
        if !belongs(record, issued) {
            return;
        }
        let (tgid, what) = match record.body() {
            Body::Issued(body) => return self.head_of(record, body),
            Body::Revoked(revoked) => {
                let how = view::ending(revoked.code, revoked.signal)
                    .map(|how| format!("; the command {how}"))
                    .unwrap_or_default();
                self.end_ns = Some(at_ns);
                self.end = Some(format!(
                    "{} UTC, entry {}: {}{how}",
                    crate::cli::clock::show_utc(record.draft.wall.0),
                    record.index().0,
                    view::revoke_cause(revoked.cause)
                ));
                return;
            }
            Body::Fork(fork) => (fork.tgid, Did::Fork { child: fork.child.0, child_tgid: fork.child_tgid }),
            Body::Exec(exec) => (
                exec.tgid,
                Did::Step(What::Image(Image {
                    line: view::exec_line(exec),
                    cwd: exec.cwd.as_ref().map(view::value),
                    uid: exec.uid,
                    euid: exec.euid,
                    deleted: exec.nlink == 0,
                })),
            ),
            Body::Exit(exit) => {
                let how = view::ending(exit.code, exit.signal).unwrap_or_else(|| "ended".to_owned());
                (exit.tgid, Did::Exit(how))
            }
            Body::Open(open) => (open.tgid, Did::Step(What::Open(fold::Opened::of(open)))),
            Body::FileFolded(folded) => {
                // It stands where its first open was. Whose it was says the cookie, known by the process's start.
                at_ns = folded.from.0;
                (0, Did::Step(What::Open(fold::Opened::of_folded(folded))))
            }
            Body::Connect(connect) => (
                connect.tgid,
                Did::Step(What::Connect {
                    socket: connect.socket.0,
                    line: format!("{} {}", connect.remote, connect.proto.as_str()),
                    result: view::connect_result(connect.errno),
                }),
            ),
            Body::ConnectDone(done) => (
                done.tgid,
                Did::Decided { socket: done.socket.0, remote: done.remote, result: view::connect_result(done.errno) },
            ),
            Body::Cgroup(cgroup) => (cgroup.tgid, Did::Step(What::Other(view::describe(record)))),
            Body::FileChange(change) => (change.tgid, Did::Step(What::Other(view::change_line(change)))),
            // Memory that can be written: what loads a library is in the line of its open.
            Body::FileMap(map) if map.prot & view::PROT_WRITE != 0 => {
                (map.tgid, Did::Step(What::Other(view::map_line(map))))
            }
            Body::Send(send) => (send.tgid, on_socket(record)),
            Body::Flow(flow) => (flow.tgid, on_socket(record)),
            Body::Listen(listen) => (listen.tgid, on_socket(record)),
            Body::Accept(accept) => (accept.tgid, on_socket(record)),
            Body::ConnectUnix(connect) => (connect.tgid, on_socket(record)),
            Body::ConnectVsock(connect) => (connect.tgid, on_socket(record)),
            Body::Socket(made) => (made.tgid, on_socket(record)),
            body => match privileged(body) {
                Some(tgid) => (tgid, Did::Step(What::Other(view::describe(record)))),
                None => return,
            },
        };
        let Some(cookie) = record.draft.process else { return };
        if self.acts.len() >= ACTS_MAX {
            self.not_shown += 1;
            return;
        }
        self.acts.push(Act { at_ns, cookie: cookie.0, tgid, what });
    }

    /// Notes a loss in the session's time, and whether it can be the session's.
    fn lose(&mut self, record: &Record<'_>, gap: &record::Gap<'_>, issued: u64) {
        let at_ns = gap.to.map_or(record.draft.boot.0, |to| to.0);
        let from_ns = gap.from.map_or(0, |from| from.0);
        if at_ns < self.start_ns || self.end_ns.is_some_and(|end_ns| from_ns > end_ns) {
            return;
        }
        let counted: u64 = gap.shares.iter().map(|share| share.count).sum();
        let ours: u64 =
            gap.shares.iter().filter(|share| Some(share.scope.0) == self.cgroup).map(|share| share.count).sum();
        let named = record.draft.session.map(|session| session.0);
        let whose = match named {
            Some(session) if session == issued => "all of this session".to_owned(),
            Some(_) => return self.lost_elsewhere += gap.count,
            None if ours > 0 => format!("{ours} of this session"),
            None if counted >= gap.count => return self.lost_elsewhere += gap.count,
            None => "acts of this session may be among them".to_owned(),
        };
        self.losses.push((at_ns, format!("{}; {whose}", view::loss(gap))));
    }

    /// Puts every act where it belongs. By boot time, because the kernel hands acts over through two
    /// rings: an open may stand in the log before the fork that made its process. Acts of one moment
    /// stay in the order of the log.
    fn grow(&mut self) {
        let mut acts = std::mem::take(&mut self.acts);
        acts.sort_by_key(|act| act.at_ns);
        for Act { at_ns, cookie, tgid, what } in acts {
            let process = match self.by_cookie.get(&cookie) {
                Some(&known) => known,
                // One that was not seen to begin stands at the root.
                None => self.insert(cookie, tgid, at_ns, None),
            };
            // A count of opens does not say whose tgid it was.
            if let Some(process) = self.processes.get_mut(process)
                && process.tgid == 0
            {
                process.tgid = tgid;
            }
            match what {
                Did::Fork { child, child_tgid } => {
                    // A child that acted in the moment of its fork is there already.
                    let child = match self.by_cookie.get(&child) {
                        Some(&known) => known,
                        None => self.insert(child, child_tgid, at_ns, Some(process)),
                    };
                    if let Some(made) = self.processes.get_mut(child) {
                        made.parent = Some(process);
                    }
                    self.step(process, at_ns, What::Child(child));
                }
                Did::Exit(how) => {
                    if let Some(process) = self.processes.get_mut(process) {
                        process.ended = Some((at_ns, how));
                    }
                }
                Did::Decided { socket, remote, result } => self.decide(process, at_ns, socket, remote, result),
                Did::Step(what) => self.step(process, at_ns, what),
            }
        }
    }

    fn head_of(&mut self, record: &Record<'_>, issued: &record::Issued<'_>) {
        self.start_ns = record.draft.boot.0;
        self.cgroup = Some(issued.cgroup.0);
        self.head.push(("session", view::text(&issued.id)));
        self.head.push(("identity", view::text(&issued.identity)));
        if let Some(task) = &issued.claims.task {
            self.head.push(("task", format!("{}   (the requester's words)", view::value(task))));
        }
        let labels: Vec<String> = issued
            .claims
            .labels
            .iter()
            .map(|label| format!("{}={}", view::text(&label.name), view::value(&label.value)))
            .collect();
        if !labels.is_empty() {
            self.head.push(("labels", format!("{}   (the requester's words)", labels.join(" "))));
        }
        let ttl = issued.ttl.map(|ttl| format!(", for at most {}", crate::cli::duration::show_ns(ttl.0)));
        self.head.push((
            "issued",
            format!(
                "{} UTC, entry {}, to {}{}",
                crate::cli::clock::show_utc(record.draft.wall.0),
                record.index().0,
                view::of_uid(issued.uid),
                ttl.unwrap_or_default()
            ),
        ));
    }

    /// The connect that a `connect_done` decides gets its result; without one it is its own line.
    fn decide(&mut self, process: usize, at_ns: u64, socket: u64, remote: SocketAddr, decided: String) {
        let pending = self.processes.get_mut(process).and_then(|process| {
            process.steps.iter_mut().rev().find_map(|step| match &mut step.what {
                What::Connect { socket: own, result, .. } if *own == socket => Some(result),
                _ => None,
            })
        });
        match pending {
            Some(result) => *result = decided,
            None => self.step(process, at_ns, What::Connect { socket, line: remote.to_string(), result: decided }),
        }
    }

    fn insert(&mut self, cookie: u64, tgid: u32, first_ns: u64, parent: Option<usize>) -> usize {
        let at = self.processes.len();
        self.processes.push(Process { tgid, parent, first_ns, steps: Vec::new(), ended: None });
        self.by_cookie.insert(cookie, at);
        at
    }

    fn step(&mut self, process: usize, at_ns: u64, what: What) {
        if let Some(process) = self.processes.get_mut(process) {
            process.steps.push(Step { at_ns, what });
        }
    }
}

/// What happened on a socket, aligned as connects are.
fn on_socket(record: &Record<'_>) -> Did {
    let line = view::network_line(record).map(|(verb, rest)| format!("{verb:<9} {rest}"));
    Did::Step(What::Other(line.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
