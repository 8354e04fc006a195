//! One line for one record, as a person would want to read it.
//!
//! Owns wording only. Whatever a workload could have chosen passes through the escaping of
//! `output`, and is marked as its claim where it is one.
#![forbid(unsafe_code)]

mod privilege;

use agent_evidence::record::{
    ActMarks, Body, CgroupOp, Connect, ConnectUnix, Exec, FileChange, FileFolded, FileMap, FileOp, Gap, GapCause, Open,
    Record, RevokeCause, SocketMade, Text, Value, ValueList, WitnessOutcome,
};

use crate::cli::duration::show_ns;
use crate::cli::output::{printable_bytes, shell_word};
use crate::export::ocsf::errno_name;
use crate::export::ocsf::network::{family_name, vsock_address};

/// What the record says, without its time and index.
#[must_use]
pub fn describe(record: &Record<'_>) -> String {
    match record.body() {
        Body::Genesis(genesis) => {
            format!("the log {} begins, key tier {}", text(&genesis.origin), genesis.key_tier.as_str())
        }
        Body::Epoch(epoch) => format!("key epoch {} begins ({})", epoch.number.0, epoch.how.as_str()),
        Body::Armed(armed) => format!(
            "armed: hook tier {}, key tier {}, kernel {}{}{}",
            text(&armed.hook_tier),
            armed.key_tier.as_str(),
            text(&armed.kernel),
            if armed.resumed { ", capture taken over" } else { "" },
            match armed.not_covered.iter().count() {
                0 => String::new(),
                count => format!(", {count} kinds of acts not covered"),
            }
        ),
        Body::Heartbeat(beat) => format!(
            "heartbeat: {} counters, {} open sessions{}",
            beat.counters.iter().count(),
            beat.sessions.iter().count(),
            if beat.hooks_ok { "" } else { ", HOOKS CHANGED" }
        ),
        Body::Disarmed(disarmed) => format!("disarmed ({})", disarmed.cause.as_str()),
        Body::Gap(gap) => loss(gap),
        Body::Recovered(recovered) => format!(
            "recovered after a {} stop: {} entries found, {} replayed, {} torn bytes",
            recovered.cause.as_str(),
            recovered.size.0,
            recovered.replayed,
            recovered.torn_bytes
        ),
        Body::Scope(scope) => format!("scope: {}", text(&scope.text)),
        Body::Policy(policy) => format!("a set of {} policies is in force", policy.count),
        Body::Witness(answer) => format!(
            "witness {} {} the checkpoint of size {}{}",
            text(&answer.name),
            match answer.outcome {
                WitnessOutcome::Cosigned => "cosigned",
                WitnessOutcome::Refused => "REFUSED",
                WitnessOutcome::Conflict => "KNOWS ANOTHER HISTORY THAN",
            },
            answer.size.0,
            answer.detail.as_ref().map(|detail| format!(": {}", text(detail))).unwrap_or_default()
        ),
        Body::AttestationKey(key) => {
            format!("attestation key of {}, vouched for by {}", text(&key.tpm), key.voucher.as_str())
        }
        Body::Anchor(anchor) => {
            format!("anchor {} over {} entries ({})", anchor.number, anchor.size.0, anchor.cause.as_str())
        }
        Body::NvCounter(counter) => format!("counter {} ({})", counter.value, counter.op.as_str()),
        Body::Pruned(pruned) => {
            format!("entries before {} are no longer kept ({})", pruned.first.0, text(&pruned.rule))
        }
        Body::Erased(erased) => {
            format!("{} of entry {} was erased: {}", text(&erased.field), erased.of.0, text(&erased.reason))
        }
        Body::Hold(hold) => {
            let what = if hold.on { "on hold" } else { "no longer on hold" };
            format!("the session of entry {} is {what}: {}", hold.session.0, text(&hold.reason))
        }
        Body::Storage(storage) => format!("storage {}: {} bytes free", storage.state.as_str(), storage.free),
        Body::Exported(range) => {
            format!("entries {} to {} went to sink {}", range.from.0, range.to.0.saturating_sub(1), text(&range.sink))
        }
        Body::Condition(condition) => format!(
            "{}: {}{}",
            condition.subject.as_str(),
            text(&condition.state),
            if condition.ok { "" } else { " (NOT AS IT SHOULD BE)" }
        ),
        Body::Unknown(unknown) => format!("unknown workload in cgroup {}: {}", unknown.cgroup.0, text(&unknown.reason)),
        Body::Identified(identified) => {
            format!("the workload of entry {} is the one of entry {}", identified.of.0, identified.workload.0)
        }
        Body::Workload(workload) => {
            format!("workload {} {} ({})", workload.sort.as_str(), text(&workload.id), text(&workload.how))
        }
        Body::Process(process) => {
            format!("{} was alive: {}", process.tgid, process.path.as_ref().map_or_else(unknown_path, value))
        }
        Body::Issued(issued) => format!(
            "session {} issued to {} as {}{}",
            text(&issued.id),
            of_uid(issued.uid),
            text(&issued.identity),
            issued
                .claims
                .task
                .as_ref()
                .map(|task| format!(", for {:?} by its own word", value(task)))
                .unwrap_or_default()
        ),
        Body::Revoked(revoked) => format!(
            "session {} ended: {}{}; {} entries",
            text(&revoked.id),
            revoke_cause(revoked.cause),
            ending(revoked.code, revoked.signal).map(|how| format!(", its command {how}")).unwrap_or_default(),
            revoked.entries
        ),
        Body::Fork(fork) => format!("{} forked {}", fork.tgid, fork.child_tgid),
        Body::Exec(exec) => format!("{} runs {}", exec.tgid, exec_line(exec)),
        Body::Exit(exit) => {
            format!("{} {}", exit.tgid, ending(exit.code, exit.signal).unwrap_or_else(|| "ended".to_owned()))
        }
        Body::Connect(connect) => format!("{} {}", connect.tgid, connect_line(connect)),
        Body::ConnectDone(done) => {
            format!("{} connection to {} {}", done.tgid, done.remote, connect_result(done.errno))
        }
        Body::Open(open) => format!("{} {}", open.tgid, open_line(open)),
        Body::FileChange(change) => format!("{} {}", change.tgid, change_line(change)),
        Body::FileClose(close) => {
            let totals = if close.marks.contains(ActMarks::TOTALS_PARTIAL) {
                "could write it; how much was not counted".to_owned()
            } else {
                format!("{} bytes read, {} written", close.read, close.written)
            };
            format!("{} closes {} ({totals})", close.tgid, path_of(close.path.as_ref()))
        }
        Body::FileMap(map) => format!("{} {}", map.tgid, map_line(map)),
        Body::FileReceived(received) => {
            format!("{} received a descriptor of {}", received.tgid, path_of(received.path.as_ref()))
        }
        Body::FileFolded(folded) => folded_line(folded),
        Body::Send(body) => format!("{} {}", body.tgid, network_words(record)),
        Body::Flow(body) => format!("{} {}", body.tgid, network_words(record)),
        Body::Listen(body) => format!("{} {}", body.tgid, network_words(record)),
        Body::Accept(body) => format!("{} {}", body.tgid, network_words(record)),
        Body::ConnectUnix(body) => format!("{} {}", body.tgid, network_words(record)),
        Body::ConnectVsock(body) => format!("{} {}", body.tgid, network_words(record)),
        Body::Socket(body) => format!("{} {}", body.tgid, network_words(record)),
        Body::ExecFailed(failed) => privilege::exec_failed(failed),
        Body::Creds(change) => privilege::creds(change),
        Body::ProcessAccess(access) => privilege::process_access(access),
        Body::Signal(signal) => privilege::signal(signal),
        Body::Mount(mount) => privilege::mount(mount),
        Body::Namespace(change) => privilege::namespace(change),
        Body::Bpf(call) => privilege::bpf(call),
        Body::KernelLoad(load) => privilege::kernel_load(load),
        Body::Key(key) => privilege::key(key),
        Body::IoUring(ring) => privilege::io_uring(ring),
        Body::Cgroup(cgroup) => {
            let path = cgroup.path.as_ref().map_or_else(|| cgroup.id.0.to_string(), text);
            match cgroup.op {
                CgroupOp::Create => format!("{} created cgroup {path}", cgroup.tgid),
                CgroupOp::Remove => format!("{} removed cgroup {path}", cgroup.tgid),
                CgroupOp::Move => format!(
                    "{} moved {} to cgroup {path}",
                    cgroup.tgid,
                    cgroup.moved_tgid.map_or_else(|| "a process".to_owned(), |tgid| tgid.to_string())
                ),
            }
        }
        // Kinds without a sentence of their own yet: the word, never silence.
        body => format!("{} (its content: -o json)", body.kind().as_str()),
    }
}

/// Bytes of a record as text that is safe on a terminal.
#[must_use]
pub fn text(text: &Text<'_>) -> String {
    printable_bytes(text.as_bytes())
}

/// A value of a record as text that is safe on a terminal; of a committed one, that it is withheld.
#[must_use]
pub fn value(value: &Value<'_>) -> String {
    value.clear().map_or_else(|| value.display(), text)
}

/// Whom a session was opened for.
#[must_use]
pub fn of_uid(uid: Option<u32>) -> String {
    uid.map_or_else(|| "several users".to_owned(), |uid| format!("uid {uid}"))
}

fn unknown_path() -> String {
    "(path not known)".to_owned()
}

/// A command line as a shell would read it, with a path in front where argv hides it.
#[must_use]
pub fn exec_line(exec: &Exec<'_>) -> String {
    let path = exec.path.as_ref().map_or_else(unknown_path, value);
    let arguments = command_line(&exec.argv);
    let cut = if exec.marks.contains(ActMarks::ARGV_TRUNCATED) { " ..." } else { "" };
    let shown = match arguments {
        Some(arguments) => arguments,
        None => return format!("{path} (arguments not known)"),
    };
    let base = path.rsplit('/').next().unwrap_or(&path);
    let word = shown.split(' ').next().unwrap_or_default();
    // `python x.py` with /usr/bin/python is plain; anything else must show what really ran.
    if word == path || word == base { format!("{shown}{cut}") } else { format!("{shown}{cut}  [{path}]") }
}

fn command_line(argv: &ValueList<'_>) -> Option<String> {
    let words: Vec<String> = argv
        .iter()
        .map(|word| word.clear().map_or_else(|| word.display(), |text| shell_word(text.as_bytes())))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// How a process or command ended.
#[must_use]
pub fn ending(code: Option<u32>, signal: Option<u32>) -> Option<String> {
    match (code, signal) {
        (_, Some(signal)) => Some(format!("was ended by signal {signal}{}", signal_name(signal))),
        (Some(code), None) => Some(format!("exited with {code}")),
        (None, None) => None,
    }
}

fn signal_name(signal: u32) -> &'static str {
    match signal {
        1 => " (HUP)",
        2 => " (INT)",
        3 => " (QUIT)",
        6 => " (ABRT)",
        9 => " (KILL)",
        11 => " (SEGV)",
        13 => " (PIPE)",
        14 => " (ALRM)",
        15 => " (TERM)",
        _ => "",
    }
}

/// Why a session ended.
#[must_use]
pub fn revoke_cause(cause: RevokeCause) -> &'static str {
    match cause {
        RevokeCause::Exit => "its command ended and no descendant was left",
        RevokeCause::Expiry => "its time was up",
        RevokeCause::Operator => "it was revoked",
        RevokeCause::HostStop => "the host stopped",
    }
}

fn connect_line(connect: &Connect<'_>) -> String {
    format!("connects to {} ({}) {}", connect.remote, connect.proto.as_str(), connect_result(connect.errno))
}

fn network_words(record: &Record<'_>) -> String {
    network_line(record).map(|(verb, rest)| format!("{verb} {rest}")).unwrap_or_default()
}

/// What happened on a socket, as a verb and the rest; none for other kinds and for connects over IP.
#[must_use]
pub fn network_line(record: &Record<'_>) -> Option<(&'static str, String)> {
    Some(match record.body() {
        Body::Send(send) => {
            let many = if send.marks.contains(ActMarks::FIRST_OF_MANY) { "  (more than once)" } else { "" };
            ("sends", format!("to {} ({}) without connecting{many}", send.remote, send.proto.as_str()))
        }
        Body::Flow(flow) => {
            let lasted = flow.duration.map(|lasted| format!(" in {}", show_ns(lasted.0))).unwrap_or_default();
            let (remote, proto) = (flow.remote, flow.proto.as_str());
            let partial = if flow.marks.contains(ActMarks::TOTALS_PARTIAL) { "  (totals incomplete)" } else { "" };
            (
                "ends",
                format!("{remote} ({proto}): {} bytes sent, {} received{lasted}{partial}", flow.sent, flow.received),
            )
        }
        Body::Listen(listen) => {
            ("listens", format!("on {} ({}){}", listen.local, listen.proto.as_str(), failure(listen.errno)))
        }
        Body::Accept(accept) => {
            ("accepts", format!("{} on {} ({})", accept.remote, accept.local, accept.proto.as_str()))
        }
        Body::ConnectUnix(connect) => ("connects", unix_words(connect)),
        Body::ConnectVsock(connect) => {
            ("connects", format!("to {} {}", vsock_address(connect.cid, connect.port), connect_result(connect.errno)))
        }
        Body::Socket(made) => ("makes", socket_words(made)),
        _ => return None,
    })
}

fn unix_words(connect: &ConnectUnix<'_>) -> String {
    let name = match (&connect.path, &connect.abstract_name) {
        (Some(path), _) => value(path),
        (None, Some(name)) => format!("@{}", value(name)),
        (None, None) => "a socket not known".to_owned(),
    };
    let peer = match (connect.peer_tgid, connect.peer_uid) {
        (Some(tgid), Some(uid)) => format!(", served by {tgid} of uid {uid}"),
        _ => String::new(),
    };
    let racy = if connect.marks.contains(ActMarks::RACY) { RACY_ONLY } else { "" };
    format!("to {name} (unix) {}{peer}{racy}", connect_result(connect.errno))
}

fn socket_words(made: &SocketMade<'_>) -> String {
    let sort = match made.type_ {
        1 => "SOCK_STREAM".to_owned(),
        2 => "SOCK_DGRAM".to_owned(),
        3 => "SOCK_RAW".to_owned(),
        5 => "SOCK_SEQPACKET".to_owned(),
        other => format!("type {other}"),
    };
    let family = family_name(made.family);
    format!("a socket: {family} {sort} protocol {}{}", made.protocol, failure(made.errno))
}

fn failure(errno: Option<u32>) -> String {
    match errno {
        Some(0) => String::new(),
        Some(errno) => format!("  FAILED {}", errno_name(errno)),
        None => "  (result not observed)".to_owned(),
    }
}

/// The result of a connect.
#[must_use]
pub fn connect_result(errno: Option<u32>) -> String {
    match errno {
        Some(0) => "connected".to_owned(),
        Some(115) => "in progress".to_owned(),
        Some(111) => "REFUSED".to_owned(),
        Some(errno) => format!("FAILED {}", errno_name(errno)),
        None => "(result not observed)".to_owned(),
    }
}

/// What an open asked for, in a word.
#[must_use]
pub fn access(open: &Open<'_>) -> &'static str {
    const O_PATH: u32 = 0o10_000_000;
    const O_TRUNC: u32 = 0o1000;
    // inode(7): the type bits of a mode, and a directory's.
    let directory = open.mode.is_some_and(|mode| mode & 0o170_000 == 0o040_000);
    if open.marks.contains(ActMarks::CREATED) {
        return "create";
    }
    if open.oflags & O_PATH != 0 {
        return "look at";
    }
    match open.oflags & 0o3 {
        0 if directory => "list",
        0 => "read",
        _ if open.oflags & O_TRUNC != 0 => "overwrite",
        1 => "write",
        _ => "update",
    }
}

fn open_line(open: &Open<'_>) -> String {
    let what = access(open);
    match (&open.path, open.errno) {
        (Some(path), None) => format!("opens to {what} {}{}", value(path), doubts(open)),
        (_, errno) => format!(
            "FAILED to open {} to {what}: {}",
            asked(open),
            errno.map_or_else(|| "reason not known".to_owned(), errno_name)
        ),
    }
}

fn path_of(path: Option<&Value<'_>>) -> String {
    path.map_or_else(unknown_path, value)
}

/// A change of a file: a path that the kernel resolved stands bare, one that the caller said in quotes.
#[must_use]
pub fn change_line(change: &FileChange<'_>) -> String {
    let claimed = |claim: &Option<Value<'_>>| claim.as_ref().map(|claim| format!("\"{}\"", value(claim)));
    let asked = || claimed(&change.claims.asked).unwrap_or_else(|| "a path not known".to_owned());
    let file = change.path.as_ref().map_or_else(asked, value);
    let from = |descriptor: Option<u32>| {
        descriptor.map(|descriptor| format!(" (from descriptor {descriptor})")).unwrap_or_default()
    };
    let file = format!("{file}{}", from(change.claims.dir_fd));
    let other = change.to.as_ref().map(value).or_else(|| claimed(&change.claims.asked_to));
    let other = format!("{}{}", other.unwrap_or_else(|| "a name not known".to_owned()), from(change.claims.to_dir_fd));
    let owner = || change.owner.zip(change.group).map(|(owner, group)| format!("{owner}:{group}"));
    let mode = || change.mode.map(|mode| format!("{:04o}", mode & 0o7777));
    let name = || {
        let name = change.attribute.as_ref().map(text).or_else(|| claimed(&change.claims.asked_to));
        name.unwrap_or_else(|| "of a name not known".to_owned())
    };
    let (verb, what) = match change.op {
        FileOp::Create => ("make", format!("the node {file}")),
        FileOp::Mkdir => ("make", format!("the directory {file}")),
        FileOp::Symlink => ("make", format!("{file} a symbolic link to {other}")),
        FileOp::Link => ("link", format!("{file} as {other}")),
        FileOp::Rename => ("rename", format!("{file} to {other}")),
        FileOp::Exchange => ("exchange", format!("{file} and {other}")),
        FileOp::Unlink => ("remove", file),
        FileOp::Rmdir => ("remove", format!("the directory {file}")),
        FileOp::Chmod => ("change", format!("permissions of {file}{}", to(mode()))),
        FileOp::Chown => ("change", format!("the owner of {file}{}", to(owner()))),
        FileOp::Truncate => {
            ("change", format!("the length of {file}{}", to(change.size.map(|size| format!("{size} bytes")))))
        }
        FileOp::SetXattr => ("set", format!("the attribute {} of {file}", name())),
        FileOp::RemoveXattr => ("remove", format!("the attribute {} of {file}", name())),
    };
    let doubts = doubts_of(change.marks);
    match change.errno {
        // The third person of every verb above.
        Some(0) => format!("{verb}s {what}{doubts}"),
        Some(errno) => format!("FAILED to {verb} {what}: {}{doubts}", errno_name(errno)),
        None => format!("tries to {verb} {what} (result not observed){doubts}"),
    }
}

fn to(what: Option<String>) -> String {
    what.map(|what| format!(" to {what}")).unwrap_or_default()
}

/// `PROT_WRITE`.
pub const PROT_WRITE: u32 = 2;
/// `PROT_EXEC`.
const PROT_EXEC: u32 = 4;

/// A mapping, with what makes it worth a record.
#[must_use]
pub fn map_line(map: &FileMap<'_>) -> String {
    let how = match (map.prot & PROT_EXEC != 0, map.prot & PROT_WRITE != 0) {
        (true, true) => "executable and writable memory",
        (true, false) => "executable memory",
        (false, _) => "writable shared memory",
    };
    format!("maps {} as {how}{}", path_of(map.path.as_ref()), doubts_of(map.marks))
}

fn folded_line(folded: &FileFolded<'_>) -> String {
    let below = folded.directory.as_ref().map_or_else(|| "several directories".to_owned(), value);
    format!("{} opens for reading in {below}, only counted", folded.count)
}

/// The path that the caller asked for: its claim.
#[must_use]
pub fn asked(open: &Open<'_>) -> String {
    open.claims.asked.as_ref().map_or_else(|| "a path not known".to_owned(), |asked| format!("\"{}\"", value(asked)))
}

/// What [`doubts`] says when the descriptor table was shared and nothing else is in doubt.
pub const RACY_ONLY: &str = "  (racy)";

/// What makes the path of an open less than certain.
#[must_use]
pub fn doubts(open: &Open<'_>) -> String {
    doubts_of(open.marks)
}

fn doubts_of(marks: ActMarks) -> String {
    let mut doubts = Vec::new();
    for (mark, words) in [
        (ActMarks::RACY, "racy"),
        (ActMarks::DIFFERS, "not what was asked for"),
        (ActMarks::PATH_PARTIAL, "only the end of the path"),
        (ActMarks::PATH_UNREADABLE, "path partly unreadable"),
        (ActMarks::UNRESOLVED, "not resolved"),
    ] {
        if marks.contains(mark) {
            doubts.push(words);
        }
    }
    if doubts.is_empty() { String::new() } else { format!("  ({})", doubts.join(", ")) }
}

/// A loss, loudly.
#[must_use]
pub fn loss(gap: &Gap<'_>) -> String {
    let why = match gap.cause {
        GapCause::RingFull => "the ring was full",
        GapCause::Decode => "messages could not be read",
        GapCause::Unexplained => "NOT ACCOUNTED FOR",
        GapCause::NotObserved => "nobody was there to read",
        GapCause::DiskFull => "the disk was full",
    };
    let mut classes: Vec<&str> = gap.ranges.iter().map(|range| range.class.name()).collect();
    classes.sort_unstable();
    classes.dedup();
    let span = match (gap.from, gap.to) {
        (Some(from), Some(to)) => format!(", within {}", show_ns(to.0.saturating_sub(from.0))),
        _ => String::new(),
    };
    format!("LOST {} events ({}): {why}{span}", gap.count, classes.join(", "))
}

#[cfg(test)]
mod tests {
    use agent_evidence::record::{ChangeClaims, CommClaims, Device};

    use super::*;

    fn change(op: FileOp, errno: u32) -> FileChange<'static> {
        FileChange {
            op,
            path: None,
            to: None,
            errno: Some(errno),
            ino: None,
            dev: None,
            mode: None,
            mode_before: None,
            owner: None,
            group: None,
            size: None,
            nlink: None,
            attribute: None,
            tgid: 1,
            uid: 0,
            euid: None,
            marks: ActMarks::NONE,
            claims: ChangeClaims {
                comm: "sh".into(),
                asked: Some("a\u{1b}[2J".into()),
                asked_to: Some("b".into()),
                dir_fd: None,
                to_dir_fd: Some(4),
            },
        }
    }

    #[test]
    fn what_a_caller_said_is_quoted_and_escaped_and_what_the_kernel_resolved_is_not() {
        assert_eq!(change_line(&change(FileOp::Rename, 0)), r#"renames "a\u{1b}[2J" to "b" (from descriptor 4)"#);
        assert_eq!(change_line(&change(FileOp::Unlink, 2)), r#"FAILED to remove "a\u{1b}[2J": ENOENT"#);
        assert_eq!(change_line(&change(FileOp::SetXattr, 0)), r#"sets the attribute "b" of "a\u{1b}[2J""#);
        let by_descriptor = FileChange {
            path: Some("/data/x".into()),
            mode: Some(0o104_755),
            marks: ActMarks::RACY,
            claims: ChangeClaims { comm: "sh".into(), asked: None, asked_to: None, dir_fd: None, to_dir_fd: None },
            ..change(FileOp::Chmod, 0)
        };
        assert_eq!(change_line(&by_descriptor), "changes permissions of /data/x to 4755  (racy)");
    }

    #[test]
    fn a_mapping_says_what_kind_of_memory_it_is() {
        let map = |prot| FileMap {
            path: Some("/lib/x.so".into()),
            ino: 1,
            dev: Device { major: 8, minor: 1 },
            prot,
            flags: 1,
            tgid: 1,
            uid: 0,
            euid: None,
            marks: ActMarks::NONE,
            claims: CommClaims { comm: "sh".into() },
        };
        assert_eq!(map_line(&map(5)), "maps /lib/x.so as executable memory");
        assert_eq!(map_line(&map(7)), "maps /lib/x.so as executable and writable memory");
        assert_eq!(map_line(&map(3)), "maps /lib/x.so as writable shared memory");
    }
}
