//! Processes that were alive before capture began.
//!
//! From the kernel's task iterator: facts, of one pass over the task list (a process can start or end during it).
//! From `/proc`, where the iterator is not to be had: the start is known to a clock tick only (10 ms), so the cookie
//! derived from it need not be the one that later events carry; the entry says so.
#![forbid(unsafe_code)]

use crate::event::WalkedPath;
use agent_common::WIRE_VERSION;
use agent_common::stats;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use zerocopy::FromBytes as _;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Process id in the initial namespace (in this process's, from `/proc`).
    pub tgid: u32,
    /// When it started, nanoseconds since boot.
    pub start_ns: u64,
    /// Its parent; 0 for none.
    pub parent_tgid: u32,
    /// When its parent started; 0 for none, or not known.
    pub parent_start_ns: u64,
    /// Its cgroup v2 id; 0 when not known.
    pub cgroup_id: u64,
    /// Its scope; 0 for none.
    pub scope_id: u64,
    /// Real user id, in the initial user namespace from the iterator.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
    /// The binary it runs; `None` when it has none any more.
    pub path: Option<Vec<u8>>,
    /// Its own name for itself: a claim.
    pub comm: Vec<u8>,
    /// Where all this is from.
    pub how: &'static str,
}

/// Said of entries from the iterator.
const FROM_ITERATOR: &str = "kernel task iterator";
/// Said of entries from `/proc`.
const FROM_PROC: &str = "/proc, start to within a clock tick";

/// What the iterator wrote is not what this program reads.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("process {index} at byte {at} of the task iterator's {len}: length {stated}, wire version {version}")]
pub(super) struct BackfillError {
    index: usize,
    at: usize,
    len: usize,
    stated: u32,
    version: u8,
}

/// Reads what the iterator wrote.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Alive>, BackfillError> {
    let mut alive = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let error = |stated, version| BackfillError {
            index: alive.len(),
            at: bytes.len() - rest.len(),
            len: bytes.len(),
            stated,
            version,
        };
        let (wire, _) = stats::Alive::read_from_prefix(rest).map_err(|_short| error(0, 0))?;
        let head = wire.header;
        let message = usize::try_from(head.len).ok().and_then(|len| rest.get(..len));
        let names = message.and_then(|message| message.get(size_of::<stats::Alive>()..));
        let (Some(message), Some(names), WIRE_VERSION) = (message, names, head.version) else {
            return Err(error(head.len, head.version));
        };
        rest = rest.get(message.len()..).unwrap_or_default();
        let mut path = Vec::new();
        let flags = u16::try_from(wire.path_flags).unwrap_or(0);
        WalkedPath { names, flags }.write(&mut path);
        alive.push(Alive {
            tgid: head.tgid,
            start_ns: head.start_ns,
            parent_tgid: head.parent_tgid,
            parent_start_ns: head.parent_start_ns,
            cgroup_id: head.cgroup_id,
            scope_id: head.scope_id,
            uid: head.uid,
            gid: head.gid,
            euid: head.euid,
            egid: head.egid,
            path: (!path.is_empty()).then_some(path),
            comm: until_nul(&head.comm).to_vec(),
            how: FROM_ITERATOR,
        });
    }
    Ok(alive)
}

/// Nanoseconds of one tick of `USER_HZ`, in which `/proc` tells times.
pub const TICK_NS: u64 = 10_000_000;

/// Reads `/proc`. A process that ends meanwhile is left out.
pub(super) fn from_proc(proc: &Path) -> io::Result<Vec<Alive>> {
    let mut alive = Vec::new();
    for entry in std::fs::read_dir(proc)? {
        let entry = entry?;
        let Some(tgid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let dir = entry.path();
        let (Ok(stat), Ok(status)) = (std::fs::read(dir.join("stat")), std::fs::read(dir.join("status"))) else {
            continue;
        };
        let Some((comm, parent_tgid, ticks)) = stat_fields(&stat) else { continue };
        let [uid, euid] = ids(&status, b"Uid:");
        let [gid, egid] = ids(&status, b"Gid:");
        alive.push(Alive {
            tgid,
            start_ns: ticks.saturating_mul(TICK_NS),
            parent_tgid,
            parent_start_ns: 0,
            cgroup_id: 0,
            scope_id: 0,
            uid,
            gid,
            euid,
            egid,
            path: std::fs::read_link(dir.join("exe")).ok().map(|path| path.as_os_str().as_bytes().to_vec()),
            comm: comm.to_vec(),
            how: FROM_PROC,
        });
    }
    alive.sort_by_key(|process| process.tgid);
    Ok(alive)
}

/// When this process started, as the kernel tells user space: in ticks of [`TICK_NS`] since boot. None without `/proc`.
#[must_use]
pub fn own_start_ticks() -> Option<u64> {
    stat_fields(&std::fs::read("/proc/self/stat").ok()?).map(|(_, _, ticks)| ticks)
}

/// comm, parent and start in ticks of `USER_HZ` (100 on every architecture supported), from `/proc/PID/stat`. The
/// name stands in parentheses and may hold any byte, so the last closing one counts.
fn stat_fields(stat: &[u8]) -> Option<(&[u8], u32, u64)> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let comm = stat.get(open + 1..close)?;
    let after = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = after.split_ascii_whitespace();
    // After the name come state (3rd field of the file), parent (4th) and, as the 22nd, the start.
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((comm, parent, start))
}

/// Real and effective id from a line of `/proc/PID/status`; `u32::MAX` when absent.
fn ids(status: &[u8], line: &[u8]) -> [u32; 2] {
    let found = status.split(|byte| *byte == b'\n').find_map(|text| text.strip_prefix(line));
    let text = found.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().unwrap_or(u32::MAX));
    [numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(u32::MAX)]
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::file::path_flag;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    fn message(tgid: u32, names: &[u8]) -> Vec<u8> {
        let mut wire = stats::Alive::new_zeroed();
        wire.header.version = WIRE_VERSION;
        wire.header.tgid = tgid;
        wire.header.len = u32::try_from(size_of::<stats::Alive>() + names.len()).unwrap();
        wire.header.comm[..2].copy_from_slice(b"sh");
        wire.path_flags = path_flag::COMPLETE.into();
        [wire.as_bytes(), names].concat()
    }

    #[test]
    fn every_process_written_is_read() {
        let bytes = [message(1, b"init\0sbin\0"), message(7, b"sh\0bin\0")].concat();
        let alive = parse(&bytes).unwrap();
        let seen: Vec<_> = alive.iter().map(|process| (process.tgid, process.path.as_deref())).collect();
        assert_eq!(seen, [(1, Some(b"/sbin/init".as_slice())), (7, Some(b"/bin/sh".as_slice()))]);
        assert_eq!(alive[0].comm, b"sh");
    }

    #[test]
    fn every_truncation_inside_a_process_is_refused() {
        let bytes = message(1, b"init\0sbin\0");
        for len in 1..bytes.len() {
            let error = parse(&bytes[..len]).unwrap_err();
            assert_eq!((error.index, error.at, error.len), (0, 0, len));
        }
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = b"42 (a) b (c) S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 99 100";
        assert_eq!(stat_fields(stat), Some((b"a) b (c".as_slice(), 7, 12345)));
        assert_eq!(stat_fields(b"42 S 7"), None);
    }

    #[test]
    fn proc_shows_this_process() {
        let alive = from_proc(Path::new("/proc")).unwrap();
        let me = alive.iter().find(|process| process.tgid == std::process::id()).unwrap();
        assert_eq!(me.how, FROM_PROC);
        assert!(me.path.is_some() && me.start_ns > 0 && me.uid == me.euid);
    }
}
