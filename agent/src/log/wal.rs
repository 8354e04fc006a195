//! The write-ahead log: where an entry becomes durable, one write and one fdatasync for a whole group.
//!
//! Owns the files of `wal/`: their names, their bytes, when a new one is begun and when an old one is used again.
//! It does not know what an entry says. The bytes of a group are kept exactly as entry bundles hold them
//! (`u16` big-endian length, entry), so that the same buffer serves both.
//!
//! A segment is named by the index of its first entry, 20 decimal digits, and holds groups one after the other:
//! ```text
//! offset  size
//!  0      8     ff fe 'A' 'W' 'G' 00 ff 01   a sequence that no entry can contain: entries are UTF-8 without NUL
//!  8      8     index of the first entry      little-endian, as all numbers of this file but the entry lengths
//! 16      4     how many entries
//! 20      4     bytes of the body
//! 24      4     CRC-32C of the body and the trailer
//! 28      4     CRC-32C of the 28 bytes above
//! 32      n     body: entries, each `u16` big-endian length and bytes
//! 32+n    8     trailer: zeros, overwritten by the header of the next group
//! ```
//! A segment that is needed no more is used again under a new name, without being emptied: writing over blocks
//! that the file already has costs a third of the time of new ones. The index in each header tells old groups from new.
//!
//! Invariants: a group is begun only after the one before it is durable, so at most the last group can be torn,
//! and any whole group after a damaged one proves that the damaged one was once acknowledged: that is a fault,
//! not a torn tail. Limit of what can be told: when the very last group was acknowledged, is not yet covered by a
//! checkpoint and rots, it looks torn.
//!
//! Trust: the CRC finds accidents. Against an adversary only the signed checkpoint counts, see `recover.rs`.

use std::collections::VecDeque;

use super::disk::Disk;
use super::durable::{Durable, DurableError};

/// Directory of the segments.
pub(super) const DIR: &str = "wal";
/// Name of a segment waiting to be used again.
const SPARE: &str = "wal/spare";

const MAGIC: [u8; 8] = [0xff, 0xfe, b'A', b'W', b'G', 0x00, 0xff, 0x01];
const HEADER: usize = 32;
const TRAILER: [u8; 8] = [0; 8];

/// Why the write-ahead log cannot be believed. Always an evidence fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalFault {
    /// A damaged group is followed by a whole one, so it was durable once.
    #[error(
        "{segment} is damaged at byte {offset} (entry {index}), before a later group that is whole: \
         acknowledged entries are lost"
    )]
    DamagedBeforeTail {
        /// Path of the segment.
        segment: String,
        /// Where the damage begins.
        offset: u64,
        /// Index of the entry that should begin there.
        index: u64,
    },
    /// A segment does not begin where the one before it ends.
    #[error("{segment} should begin with entry {expected}: a segment of the write-ahead log is missing")]
    Gap {
        /// Path of the segment.
        segment: String,
        /// The next entry of the segment before.
        expected: u64,
    },
    /// A group is whole but its body is not what its header says.
    #[error("{segment} has a group at byte {offset} whose entries do not fill it: written by another program")]
    Malformed {
        /// Path of the segment.
        segment: String,
        /// Where the group begins.
        offset: u64,
    },
    /// A file that this version does not know.
    #[error("{path} is not a segment of the write-ahead log: move it away")]
    UnknownFile {
        /// Its path.
        path: String,
    },
}

/// A failure to read or to recover the write-ahead log.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk failed.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The bytes cannot be believed.
    #[error(transparent)]
    Fault(#[from] WalFault),
}

struct Segment {
    first: u64,
    /// Index after its last entry.
    next: u64,
}

struct Current<F> {
    path: String,
    file: F,
    /// Where the next header goes.
    offset: u64,
}

/// The write-ahead log as the writer has it.
pub(super) struct Wal<D: Disk> {
    /// Oldest first; the last one is being written if `current` is there.
    segments: VecDeque<Segment>,
    current: Option<Current<D::File>>,
    has_spare: bool,
    /// A new segment is begun when the one being written has this many bytes.
    segment_bytes: u64,
}

/// What was found at the end of the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tail {
    /// Index of the first entry that is still in the write-ahead log.
    pub(super) first: u64,
    /// Index after the last entry.
    pub(super) next: u64,
    /// Bytes of a group that was being written when the writer ended, and were cut. At least: when the header of
    /// the group did not survive, only the header is counted.
    pub(super) torn_bytes: u64,
}

impl<D: Disk> Wal<D> {
    /// Reads every group in order, gives each to `group` (first index, body), cuts a torn tail.
    ///
    /// Memory: one segment at a time. `Ok(None)` as the tail: there is not one whole group.
    pub(super) fn recover<E: From<WalError>>(
        disk: &mut Durable<D>,
        segment_bytes: u64,
        mut group: impl FnMut(&mut Durable<D>, u64, &[u8]) -> Result<(), E>,
    ) -> Result<(Self, Option<Tail>), E> {
        // In a state directory without a log there is nothing to sync otherwise.
        disk.ensure_dir(DIR).map_err(WalError::from)?;
        let mut wal = Self { segments: VecDeque::new(), current: None, has_spare: false, segment_bytes };
        let mut tail: Option<Tail> = None;
        let mut torn: Option<Torn> = None;
        let mut last: Option<LastGroup> = None;
        for (path, first) in wal.list(disk)? {
            let Some(bytes) = disk.read(&path).map_err(WalError::from)? else { continue };
            let expected = tail.map_or(first, |tail| tail.next);
            let mut found = Scan { path: &path, bytes: &bytes, position: 0, next: first };
            let mut whole = false;
            let mut start = 0;
            while let Some((index, body)) = found.group().map_err(WalError::from)? {
                if let Some(torn) = &torn {
                    return Err(WalError::from(torn.fault()).into());
                }
                if index != expected && !whole {
                    return Err(WalError::from(WalFault::Gap { segment: path.clone(), expected }).into());
                }
                whole = true;
                start = found.position - HEADER - body.len();
                group(disk, index, body)?;
                let tail = tail.get_or_insert(Tail { first: index, next: index, torn_bytes: 0 });
                tail.next = found.next;
            }
            if let Some(torn_bytes) = found.torn().map_err(WalError::from)? {
                if let Some(torn) = &torn {
                    return Err(WalError::from(torn.fault()).into());
                }
                let offset = found.position as u64;
                torn = Some(Torn { path: path.clone(), offset, index: found.next, bytes: torn_bytes });
            }
            if whole {
                let bytes = bytes[start..found.position].to_vec();
                last = Some(LastGroup { path: path.clone(), offset: start as u64, bytes });
                wal.segments.push_back(Segment { first, next: found.next });
            } else if torn.is_none() {
                // Begun, never written to, so the last one, or the writer would have gone on with it.
                if first != expected {
                    return Err(WalError::from(WalFault::Gap { segment: path, expected }).into());
                }
                wal.retire(disk, &path).map_err(WalError::from)?;
            }
        }
        if let Some(torn) = torn {
            disk.cut_durably(&torn.path, torn.offset, &TRAILER).map_err(WalError::from)?;
            if torn.offset == 0 {
                wal.retire(disk, &torn.path).map_err(WalError::from)?;
            }
            if let Some(tail) = &mut tail {
                tail.torn_bytes = torn.bytes;
            }
        }
        if let Some(last) = last {
            // A group whose fsync failed reads back whole from the page cache and is on no disk. The group before
            // was durable when this one was begun, so only this one is in doubt: written again, it is not.
            let mut file = disk.open(&last.path).map_err(WalError::from)?;
            let parts: [&[u8]; 2] = [&last.bytes, &TRAILER];
            disk.write_durably(&last.path, &mut file, last.offset, &parts).map_err(WalError::from)?;
        }
        disk.sync_dir(DIR).map_err(WalError::from)?;
        Ok((wal, tail))
    }

    /// Removes every segment: for a creation that was never acknowledged.
    pub(super) fn discard(disk: &mut Durable<D>) -> Result<(), DurableError> {
        for name in disk.list(DIR)? {
            disk.remove(&format!("{DIR}/{name}"))?;
        }
        disk.sync_dir(DIR)
    }

    /// Writes one group and makes it durable. After [`DurableError::Full`] the same call may be made again.
    pub(super) fn append(
        &mut self,
        disk: &mut Durable<D>,
        first: u64,
        count: u32,
        body: &[u8],
    ) -> Result<(), DurableError> {
        let mut current = match self.current.take() {
            Some(current) if current.offset < self.segment_bytes => current,
            _ => self.begin(disk, first)?,
        };
        let header = header(first, count, body);
        let written = disk.write_durably(&current.path, &mut current.file, current.offset, &[&header, body, &TRAILER]);
        if written.is_ok() {
            current.offset += (HEADER + body.len()) as u64;
            if let Some(segment) = self.segments.back_mut() {
                segment.next = first + u64::from(count);
            }
        }
        self.current = Some(current);
        written
    }

    /// Index after the last entry of the oldest segment, if there is a newer one: what would have to be durable
    /// elsewhere for [`recycle`](Self::recycle) to give up a segment.
    pub(super) fn oldest_end(&self) -> Option<u64> {
        self.segments.front().filter(|_| self.segments.len() > 1).map(|segment| segment.next)
    }

    /// Index of the first entry that is here.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments.front().map(|segment| segment.first)
    }

    /// Begins another segment with the next group, so that the one at hand can be given up.
    pub(super) fn turn_over(&mut self) {
        // One that has no group yet is the next one already.
        if self.segments.back().is_some_and(|segment| segment.next > segment.first) {
            self.current = None;
        }
    }

    /// Removes the file that is kept for the next segment: it holds entries of long ago.
    pub(super) fn drop_spare(&mut self, disk: &mut Durable<D>) -> Result<(), DurableError> {
        if self.has_spare {
            disk.remove(SPARE)?;
            self.has_spare = false;
            disk.sync_dir(DIR)?;
        }
        Ok(())
    }

    /// How many segments there are.
    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Gives up every segment whose entries all come before `index`. The caller vouches that those entries are
    /// durable elsewhere.
    pub(super) fn recycle(&mut self, disk: &mut Durable<D>, index: u64) -> Result<(), DurableError> {
        while self.segments.len() > 1 && self.segments.front().is_some_and(|segment| segment.next <= index) {
            if let Some(segment) = self.segments.pop_front() {
                self.retire(disk, &path_of(segment.first))?;
                // One at a time, oldest first: a crash never leaves a hole in the middle.
                disk.sync_dir(DIR)?;
            }
        }
        Ok(())
    }

    /// Begins a segment, in an old file if there is one. Its name is durable when this returns.
    fn begin(&mut self, disk: &mut Durable<D>, first: u64) -> Result<Current<D::File>, DurableError> {
        let path = path_of(first);
        let file = if self.has_spare {
            disk.rename(SPARE, &path)?;
            self.has_spare = false;
            disk.open(&path)?
        } else {
            disk.create_new(&path)?
        };
        disk.sync_dir(DIR)?;
        self.segments.push_back(Segment { first, next: first });
        Ok(Current { path, file, offset: 0 })
    }

    fn retire(&mut self, disk: &mut Durable<D>, path: &str) -> Result<(), DurableError> {
        if self.has_spare {
            return disk.remove(path);
        }
        disk.rename(path, SPARE)?;
        self.has_spare = true;
        Ok(())
    }

    fn list(&mut self, disk: &mut Durable<D>) -> Result<Vec<(String, u64)>, WalError> {
        let mut segments = Vec::new();
        for name in disk.list(DIR)? {
            let path = format!("{DIR}/{name}");
            if path == SPARE {
                self.has_spare = true;
                continue;
            }
            match name.parse::<u64>() {
                Ok(first) if path_of(first) == path => segments.push((path, first)),
                _ => return Err(WalFault::UnknownFile { path }.into()),
            }
        }
        // Fixed width: sorted by name is sorted by number.
        Ok(segments)
    }
}

fn path_of(first: u64) -> String {
    format!("{DIR}/{first:020}")
}

fn header(first: u64, count: u32, body: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&first.to_le_bytes());
    header[16..20].copy_from_slice(&count.to_le_bytes());
    // A group is at most the pending buffer, far below 4 GiB.
    let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    header[20..24].copy_from_slice(&bytes.to_le_bytes());
    header[24..28].copy_from_slice(&body_crc(body).to_le_bytes());
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn body_crc(body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(body), &TRAILER)
}

struct LastGroup {
    path: String,
    offset: u64,
    bytes: Vec<u8>,
}

struct Torn {
    path: String,
    offset: u64,
    index: u64,
    bytes: u64,
}

impl Torn {
    fn fault(&self) -> WalFault {
        WalFault::DamagedBeforeTail { segment: self.path.clone(), offset: self.offset, index: self.index }
    }
}

/// Fields of a header that is whole.
struct Header {
    first: u64,
    count: u32,
    body_bytes: usize,
    body_crc: u32,
}

fn parse_header(bytes: &[u8]) -> Option<Header> {
    let header = bytes.get(..HEADER)?;
    let word = |at: usize| {
        let bytes = header.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if header[..8] != MAGIC || crc32c::crc32c(&header[..28]) != word(28)? {
        return None;
    }
    Some(Header {
        first: u64::from_le_bytes(header[8..16].try_into().ok()?),
        count: word(16)?,
        body_bytes: usize::try_from(word(20)?).ok()?,
        body_crc: word(24)?,
    })
}

/// Goes through one segment.
struct Scan<'a> {
    path: &'a str,
    bytes: &'a [u8],
    position: usize,
    /// Index of the entry that comes next.
    next: u64,
}

impl<'a> Scan<'a> {
    /// The next whole group: its first index and its body.
    fn group(&mut self) -> Result<Option<(u64, &'a [u8])>, WalFault> {
        let rest = &self.bytes[self.position..];
        let Some(header) = parse_header(rest).filter(|header| header.first == self.next) else { return Ok(None) };
        let end = HEADER + header.body_bytes;
        let Some(body) = rest.get(HEADER..end) else { return Ok(None) };
        if rest.get(end..end + TRAILER.len()).is_none() || body_crc(body) != header.body_crc {
            // The trailer itself may hold the next header by now.
            return Ok(None);
        }
        let mut count = 0;
        for entry in Entries(body) {
            if entry.is_none() {
                let offset = self.position as u64;
                return Err(WalFault::Malformed { segment: self.path.to_owned(), offset });
            }
            count += 1;
        }
        if count != header.count {
            return Err(WalFault::Malformed { segment: self.path.to_owned(), offset: self.position as u64 });
        }
        let first = self.next;
        self.position += end;
        self.next += u64::from(count);
        Ok(Some((first, body)))
    }

    /// After the last whole group: whether a group was begun there, and how many bytes it had; a fault when a
    /// later whole group proves that it had been durable.
    fn torn(&self) -> Result<Option<u64>, WalFault> {
        let rest = &self.bytes[self.position..];
        let begun = match parse_header(rest) {
            // The header of an earlier use of the file: nothing was written here since.
            Some(header) if header.first < self.next => None,
            Some(header) => Some((HEADER + header.body_bytes + TRAILER.len()).min(rest.len())),
            None if rest.iter().take(TRAILER.len()).all(|byte| *byte == 0) => None,
            None => Some(HEADER.min(rest.len())),
        };
        // Looked for also where nothing seems to have been begun: a zeroed block in the middle is damage too.
        let mut at = 1;
        while let Some(found) = rest.get(at..).and_then(|rest| find(rest, &MAGIC)) {
            at += found;
            if let Some(header) = parse_header(&rest[at..])
                && header.first > self.next
            {
                return Err(WalFault::DamagedBeforeTail {
                    segment: self.path.to_owned(),
                    offset: self.position as u64,
                    index: self.next,
                });
            }
            at += 1;
        }
        Ok(begun.map(|bytes| bytes as u64))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut start = 0;
    loop {
        start += haystack.get(start..)?.iter().position(|byte| *byte == first)?;
        if haystack[start..].starts_with(needle) {
            return Some(start);
        }
        start += 1;
    }
}

/// Entries of a body or bundle, one after the other; `None` once when the bytes end inside an entry.
#[derive(Clone)]
pub(super) struct Entries<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some((len, rest)) = self.0.split_first_chunk::<2>() else {
            let whole = self.0.is_empty();
            self.0 = &[];
            return if whole { None } else { Some(None) };
        };
        let len = usize::from(u16::from_be_bytes(*len));
        match rest.split_at_checked(len) {
            Some((entry, rest)) => {
                self.0 = rest;
                Some(Some(entry))
            }
            None => {
                self.0 = &[];
                Some(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simdisk::{Fault, SimDisk, Survival};
    use super::*;

    fn body(entries: &[&str]) -> Vec<u8> {
        let mut body = Vec::new();
        for entry in entries {
            body.extend_from_slice(&u16::try_from(entry.len()).expect("short").to_be_bytes());
            body.extend_from_slice(entry.as_bytes());
        }
        body
    }

    fn fresh() -> (SimDisk, Durable<SimDisk>, Wal<SimDisk>) {
        let sim = SimDisk::default();
        let mut disk = Durable::new(sim.clone());
        disk.ensure_dir(DIR).expect("directory");
        disk.sync_dir("").expect("sync");
        let (wal, tail) = Wal::recover(&mut disk, 200, |_, _, _| Ok::<(), WalError>(())).expect("nothing yet");
        assert_eq!(tail, None);
        (sim, disk, wal)
    }

    type Recovered = (Vec<(u64, String)>, Option<Tail>);

    fn recover(sim: &SimDisk) -> Result<Recovered, WalError> {
        let mut disk = Durable::new(sim.clone());
        let mut seen = Vec::new();
        let (_, tail) = Wal::recover(&mut disk, 200, |_, mut index, body| {
            for entry in Entries(body) {
                let text = String::from_utf8(entry.expect("whole").to_vec()).expect("text");
                seen.push((index, text));
                index += 1;
            }
            Ok::<(), WalError>(())
        })?;
        Ok((seen, tail))
    }

    fn entry(index: u64) -> String {
        format!("{{\"entry\":{index}}}")
    }

    fn append(disk: &mut Durable<SimDisk>, wal: &mut Wal<SimDisk>, first: u64, count: u32) {
        let entries: Vec<String> = (first..first + u64::from(count)).map(entry).collect();
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        wal.append(disk, first, count, &body(&entries)).expect("append");
    }

    #[test]
    fn what_was_appended_comes_back_in_order_across_segments() {
        let (sim, mut disk, mut wal) = fresh();
        for group in 0..20 {
            append(&mut disk, &mut wal, group * 3, 3);
        }
        assert!(wal.segments() > 3, "the test needs several segments");
        let (seen, tail) = recover(&sim.after_power_cut(Survival::None)).expect("recover");
        assert_eq!(seen, (0..60).map(|index| (index, entry(index))).collect::<Vec<_>>());
        assert_eq!(tail, Some(Tail { first: 0, next: 60, torn_bytes: 0 }));
    }

    #[test]
    fn a_recycled_segment_is_used_again_and_its_old_groups_are_not_seen() {
        let (sim, mut disk, mut wal) = fresh();
        for group in 0..40 {
            append(&mut disk, &mut wal, group, 1);
            let keep = group.saturating_sub(5);
            wal.recycle(&mut disk, keep).expect("recycle");
        }
        assert!(sim.trace().iter().any(|(_, path)| path == SPARE));
        let (seen, tail) = recover(&sim.after_power_cut(Survival::None)).expect("recover");
        let tail = tail.expect("tail");
        assert!(tail.first > 20 && tail.first <= 35);
        assert_eq!(tail.next, 40);
        assert_eq!(seen, (tail.first..40).map(|index| (index, entry(index))).collect::<Vec<_>>());
        assert_eq!(tail.torn_bytes, 0);
    }

    #[test]
    fn a_torn_last_group_is_cut_and_counted() {
        let (sim, mut disk, mut wal) = fresh();
        append(&mut disk, &mut wal, 0, 2);
        sim.set_fault(sim.operations(), Fault::Torn);
        let torn = body(&[&entry(2), &entry(3)]);
        let failure = wal.append(&mut disk, 2, 2, &torn).expect_err("torn");
        assert!(matches!(failure, DurableError::Fatal { .. }));
        let after = sim.after_kill();
        let (seen, tail) = recover(&after).expect("recover");
        assert_eq!(seen.len(), 2);
        let torn_bytes = (HEADER + torn.len() + TRAILER.len()) as u64 / 2;
        assert_eq!(tail, Some(Tail { first: 0, next: 2, torn_bytes }));
        let (_, again) = recover(&after).expect("recover again");
        assert_eq!(again, Some(Tail { first: 0, next: 2, torn_bytes: 0 }), "cut once, clean afterwards");
    }

    #[test]
    fn damage_before_the_tail_is_a_fault_wherever_it_is() {
        let (sim, mut disk, mut wal) = fresh();
        for group in 0..12 {
            append(&mut disk, &mut wal, group, 1);
        }
        let segments = sim.files("wal/");
        assert!(segments.len() > 2);
        for segment in &segments[..segments.len() - 1] {
            let group = HEADER + body(&[&entry(0)]).len();
            for offset in 0..group {
                let damaged = sim.after_kill();
                damaged.flip(segment, offset);
                let error = recover(&damaged).expect_err("damage must not pass");
                assert!(
                    matches!(error, WalError::Fault(WalFault::DamagedBeforeTail { .. } | WalFault::Gap { .. })),
                    "{segment} {offset}: {error}"
                );
            }
        }
    }

    #[test]
    fn a_missing_segment_is_a_gap() {
        let (sim, mut disk, mut wal) = fresh();
        for group in 0..12 {
            append(&mut disk, &mut wal, group, 1);
        }
        let segments = sim.files("wal/");
        sim.lose(&segments[1]);
        let error = recover(&sim).expect_err("gap");
        assert!(matches!(error, WalError::Fault(WalFault::Gap { .. })), "{error}");
    }

    #[test]
    fn a_segment_that_was_only_begun_is_empty_and_not_torn() {
        let (sim, mut disk, mut wal) = fresh();
        for group in 0..4 {
            append(&mut disk, &mut wal, group, 1);
        }
        let next = path_of(4);
        let mut begun = Durable::new(sim.clone());
        begun.create_new(&next).expect("begin");
        begun.sync_dir(DIR).expect("sync");
        let (seen, tail) = recover(&sim).expect("recover");
        assert_eq!(seen.len(), 4);
        assert_eq!(tail.map(|tail| tail.torn_bytes), Some(0));
    }

    #[test]
    fn a_full_disk_leaves_the_group_to_be_written_again() {
        let (sim, mut disk, mut wal) = fresh();
        append(&mut disk, &mut wal, 0, 1);
        sim.set_no_space(true);
        let group = body(&[&entry(1)]);
        assert!(matches!(wal.append(&mut disk, 1, 1, &group), Err(DurableError::Full { .. })));
        sim.set_no_space(false);
        wal.append(&mut disk, 1, 1, &group).expect("space again");
        let (seen, _) = recover(&sim.after_power_cut(Survival::None)).expect("recover");
        assert_eq!(seen.len(), 2);
    }
}
