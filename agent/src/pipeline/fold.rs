//! Plain reads of installed software, counted together instead of one by one.
//!
//! An interpreter opens thousands of files of its own library at each start; one entry per process and directory says
//! as much. Only an open that needs no words of its own is folded: it read, it succeeded, nothing about its path is in
//! doubt, it is a file of the host's own directory (same device), which everybody may read and only its owner may write.
//! So it is nothing that file permissions keep from anybody. Whoever may write to such a directory can put files of his own
//! there: that they were made or changed is recorded as any other act, and reading them is then only counted. The kernel numbers of what is held here are in no
//! entry until [`Folds::next`] has given it up; whoever commits the log, ends a session or says what is settled asks
//! first.
//!
//! Pure: events in, entries out.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use agent_common::file::{open_flag, path_flag};
use agent_evidence::record::{
    BootTime, Device, Digest, EntryIndex, FileFolded, KernelNumber, List, NumberRange, ProcessCookie, Text,
};
use sha2::Digest as _;

use crate::event::Open;

/// Most entries held at once: about 200 bytes each beside their ranges. One more gives the oldest up.
const FOLDS_MAX: usize = 1_024;
/// Most of them that are looked through for one open, newest first: one further back is begun anew, which makes one entry
/// more and bounds the work for each open.
const LOOKED_AT_MAX: usize = 64;
/// Most ranges of one entry: at most 50 bytes each as JSON, so that an entry has 25 KB of the 64 that it may have.
const RANGES_MAX: usize = 512;

/// Access mode, and the `O_*` flags with which an open is more than a read (x86-64 and arm64 agree on these):
/// `O_CREAT`, `O_TRUNC`, `O_PATH`, `O_TMPFILE`.
const O_MORE_THAN_READ: u32 = 0o3 | 0o100 | 0o1000 | 0o10_000_000 | 0o20_000_000;
/// `FMODE_WRITE` and `FMODE_CREATED` (include/linux/fs.h).
const FMODE_MORE_THAN_READ: u32 = 0x2 | 0x10_0000;
/// File type bits and a regular file's (inode(7)); who may write beside the owner; whether anybody may read.
const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;
const WRITABLE_BY_OTHERS: u16 = 0o022;
const READABLE_BY_ALL: u16 = 0o004;

/// A directory of installed software, as the host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldRoot {
    /// Its path, resolved, without a slash at the end.
    pub path: Vec<u8>,
    /// The device of its file system: another one's directory of the same name is not this one.
    pub device: Device,
}

/// Whose act it was: session and workload as an entry states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Of {
    /// The process.
    pub(super) process: ProcessCookie,
    /// Its session, by the `issued` entry.
    pub(super) session: Option<EntryIndex>,
    /// The session's scope; 0 for none.
    pub(super) scope: u64,
    /// Else its workload, by the entry that describes it.
    pub(super) workload: Option<EntryIndex>,
}

/// Opens that became one entry.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) of: Of,
    directory: Vec<u8>,
    ranges: Vec<NumberRange>,
    count: u64,
    names: sha2::Sha256,
    from: BootTime,
    to: BootTime,
}

impl Fold {
    /// The body of its entry.
    pub(super) fn body(&self) -> FileFolded<'_> {
        FileFolded {
            directory: Some(Text::new(&self.directory).into()),
            ranges: List::from(self.ranges.as_slice()),
            count: self.count,
            names: Digest(self.names.clone().finalize().into()),
            from: self.from,
            to: self.to,
        }
    }

    /// Its kernel numbers.
    pub(super) fn ranges(&self) -> &[NumberRange] {
        &self.ranges
    }

    /// How many opens.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn add(&mut self, number: KernelNumber, name: &[u8], boot: BootTime) {
        // Only the newest range of a processor can go on.
        match self.ranges.iter_mut().rev().find(|range| range.cpu == number.cpu) {
            Some(range) if range.last.checked_add(1) == Some(number.seq) => range.last = number.seq,
            _ => self.ranges.push(range_of(number)),
        }
        self.count += 1;
        self.hash(name);
        self.from = self.from.min(boot);
        self.to = self.to.max(boot);
    }

    fn hash(&mut self, name: &[u8]) {
        // A name of a walked path has at most 255 bytes.
        let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
        self.names.update(len.to_be_bytes());
        self.names.update(name);
    }
}

fn range_of(number: KernelNumber) -> NumberRange {
    NumberRange { cpu: number.cpu, class: number.class, first: number.seq, last: number.seq }
}

/// What is held.
#[derive(Debug, Default)]
pub(super) struct Folds {
    roots: Vec<FoldRoot>,
    /// Oldest first.
    held: VecDeque<Fold>,
}

impl Folds {
    pub(super) fn new(roots: Vec<FoldRoot>) -> Self {
        Self { roots, held: VecDeque::new() }
    }

    /// Whether this open, whose path `path` is, is one that is only counted.
    pub(super) fn takes(&self, open: &Open<'_>, path: &[u8]) -> bool {
        let wire = &open.wire;
        wire.result >= 0
            && wire.open_flags & open_flag::ALL == 0
            && wire.path_flags == path_flag::COMPLETE
            && open.header.flags == 0
            && wire.asked_flags & O_MORE_THAN_READ == 0
            && wire.file_flags & O_MORE_THAN_READ == 0
            && wire.file_mode & FMODE_MORE_THAN_READ == 0
            && wire.mode & S_IFMT == S_IFREG
            && wire.mode & WRITABLE_BY_OTHERS == 0
            && wire.mode & READABLE_BY_ALL != 0
            && wire.nlink > 0
            && self.is_below_root(path, Device { major: wire.dev >> 20, minor: wire.dev & 0xf_ffff })
    }

    fn is_below_root(&self, path: &[u8], device: Device) -> bool {
        self.roots.iter().any(|root| {
            root.device == device
                && path.strip_prefix(root.path.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/'))
        })
    }

    /// Holds an open that [`Folds::takes`].
    pub(super) fn hold(&mut self, of: Of, open: &Open<'_>, path: &[u8]) {
        let cut = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (directory, name) = path.split_at(cut);
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let (number, boot) = (open.header.number, open.header.boot);
        let fits = |fold: &&mut Fold| fold.of == of && fold.directory == directory && fold.ranges.len() < RANGES_MAX;
        if let Some(fold) = self.held.iter_mut().rev().take(LOOKED_AT_MAX).find(fits) {
            return fold.add(number, name, boot);
        }
        let mut fold = Fold {
            of,
            directory: directory.to_vec(),
            ranges: vec![range_of(number)],
            count: 1,
            names: sha2::Sha256::new(),
            from: boot,
            to: boot,
        };
        fold.hash(name);
        self.held.push_back(fold);
    }

    /// Whether more is held than there is room for.
    pub(super) fn is_crowded(&self) -> bool {
        self.held.len() > FOLDS_MAX
    }

    /// The oldest that is held.
    pub(super) fn next(&self) -> Option<&Fold> {
        self.held.front()
    }

    /// Lets go of the oldest: it is in the log.
    pub(super) fn done(&mut self) {
        self.held.pop_front();
    }

    /// Whether the first of what is held waits for longer than `wait_ns`: then a commit is due.
    pub(super) fn is_due(&self, now: BootTime, wait_ns: u64) -> bool {
        self.held.iter().any(|fold| now.0.saturating_sub(fold.from.0) >= wait_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{self, Event};
    use agent_common::header::{class, kind};
    use agent_common::{WIRE_VERSION, file};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    const DISK: Device = Device { major: 8, minor: 1 };
    const OF: Of = Of { process: ProcessCookie(7), session: Some(EntryIndex(9)), scope: 5, workload: None };

    fn folds() -> Folds {
        Folds::new(vec![FoldRoot { path: b"/usr/lib".to_vec(), device: DISK }])
    }

    /// A read of a library by processor `cpu` with number `seq`.
    fn wire(cpu: u32, seq: u64) -> file::Open {
        let mut open = file::Open::new_zeroed();
        open.header.kind = kind::OPEN;
        open.header.class = class::FILE;
        open.header.version = WIRE_VERSION;
        (open.header.cpu, open.header.seq, open.header.boot_ns) = (cpu, seq, 100 + seq);
        open.result = 3;
        open.dev = 8 << 20 | 1;
        open.nlink = 1;
        open.mode = 0o100_644;
        open.path_flags = path_flag::COMPLETE;
        open
    }

    fn with_open<T>(mut wire: file::Open, test: impl FnOnce(&Open<'_>) -> T) -> T {
        wire.header.len = u32::try_from(size_of::<file::Open>()).unwrap();
        let Event::Open(open) = event::decode(wire.as_bytes()).unwrap() else { panic!("not an open") };
        test(&open)
    }

    fn hold(folds: &mut Folds, of: Of, cpu: u32, seq: u64, path: &[u8]) {
        with_open(wire(cpu, seq), |open| {
            assert!(folds.takes(open, path), "{}", String::from_utf8_lossy(path));
            folds.hold(of, open, path);
        });
    }

    #[test]
    fn only_what_needs_no_words_of_its_own_is_folded() {
        let takes = |change: &dyn Fn(&mut file::Open), path: &[u8]| {
            let mut wire = wire(0, 0);
            change(&mut wire);
            with_open(wire, |open| folds().takes(open, path))
        };
        let path = b"/usr/lib/x.so";
        assert!(takes(&|_| {}, path));
        assert!(!takes(&|_| {}, b"/usr/libx/x.so"));
        assert!(!takes(&|_| {}, b"/usr/lib"));
        assert!(!takes(&|_| {}, b"/home/usr/lib/x.so"));
        type Change<'a> = &'a dyn Fn(&mut file::Open);
        let refused: [(&str, Change<'_>); 17] = [
            ("failed", &|open| open.result = -13),
            ("another device of that name", &|open| open.dev = 7 << 20),
            ("open for writing", &|open| open.asked_flags = 1),
            ("could create", &|open| open.asked_flags = 0o100),
            ("created", &|open| open.file_mode = 0x10_0000),
            ("can write", &|open| open.file_mode = 2),
            ("truncates", &|open| open.asked_flags = 0o1000),
            ("only a path", &|open| open.asked_flags = 0o10_000_000),
            ("flags say other than was asked", &|open| open.file_flags = 2),
            ("racy", &|open| open.open_flags = open_flag::RACY),
            ("flags are a claim", &|open| open.open_flags = open_flag::ASKED_FLAGS_CLAIMED),
            ("path in part", &|open| open.path_flags = 0),
            ("another mount namespace", &|open| open.path_flags |= path_flag::DETACHED),
            ("no file", &|open| open.mode = 0o040_755),
            ("not for everybody", &|open| open.mode = 0o100_640),
            ("others may write", &|open| open.mode = 0o100_666),
            ("deleted", &|open| open.nlink = 0),
        ];
        for (why, change) in refused {
            assert!(!takes(change, path), "{why}");
        }
    }

    #[test]
    fn numbers_that_follow_each_other_are_one_range_for_each_processor() {
        let mut folds = folds();
        for (cpu, seq) in [(0, 1), (0, 2), (1, 7), (0, 3), (1, 8), (0, 5)] {
            hold(&mut folds, OF, cpu, seq, b"/usr/lib/a");
        }
        let fold = folds.next().unwrap();
        let ranges: Vec<_> = fold.ranges().iter().map(|range| (range.cpu, range.first, range.last)).collect();
        assert_eq!(ranges, [(0, 1, 3), (1, 7, 8), (0, 5, 5)]);
        let counted: u64 = fold.ranges().iter().map(|range| range.last - range.first + 1).sum();
        assert_eq!((fold.count(), counted), (6, 6));
        assert_eq!((fold.from, fold.to), (BootTime(101), BootTime(108)));
    }

    #[test]
    fn the_digest_is_of_the_names_in_order_each_behind_its_length() {
        let mut folds = folds();
        hold(&mut folds, OF, 0, 0, b"/usr/lib/ab");
        hold(&mut folds, OF, 0, 1, b"/usr/lib/c");
        let expected: [u8; 32] = sha2::Sha256::digest(b"\0\0\0\x02ab\0\0\0\x01c").into();
        let body = folds.next().unwrap().body();
        assert_eq!(body.names, Digest(expected));
        assert_eq!(body.directory, Some(Text::new(b"/usr/lib").into()));
    }

    #[test]
    fn each_process_and_directory_has_its_own_entry_and_the_oldest_comes_first() {
        let mut folds = folds();
        let other = Of { process: ProcessCookie(8), ..OF };
        hold(&mut folds, OF, 0, 0, b"/usr/lib/a");
        hold(&mut folds, other, 0, 1, b"/usr/lib/a");
        hold(&mut folds, OF, 0, 2, b"/usr/lib/d/a");
        hold(&mut folds, OF, 0, 3, b"/usr/lib/b");
        let mut seen = Vec::new();
        while let Some(fold) = folds.next() {
            seen.push((fold.of.process.0, fold.count()));
            folds.done();
        }
        assert_eq!(seen, [(7, 2), (8, 1), (7, 1)]);
    }

    #[test]
    fn a_directory_that_was_left_long_ago_is_begun_anew() {
        let mut folds = folds();
        hold(&mut folds, OF, 0, 0, b"/usr/lib/a/x");
        for seq in 1..LOOKED_AT_MAX as u64 {
            hold(&mut folds, OF, 0, seq, format!("/usr/lib/{seq}/x").as_bytes());
        }
        hold(&mut folds, OF, 0, 100, b"/usr/lib/a/y");
        assert_eq!((folds.held.len(), folds.next().unwrap().count()), (LOOKED_AT_MAX, 2), "still looked at");
        hold(&mut folds, OF, 0, 101, b"/usr/lib/z/x");
        hold(&mut folds, OF, 0, 102, b"/usr/lib/a/z");
        assert_eq!((folds.held.len(), folds.next().unwrap().count()), (LOOKED_AT_MAX + 2, 2));
    }

    #[test]
    fn nothing_is_held_beyond_its_bounds() {
        let mut folds = folds();
        for seq in 0..2 * RANGES_MAX as u64 {
            // Every second number is somebody else's.
            hold(&mut folds, OF, 0, 2 * seq, b"/usr/lib/a");
        }
        assert_eq!(folds.held.iter().map(|fold| fold.ranges.len()).collect::<Vec<_>>(), [RANGES_MAX, RANGES_MAX]);
        for process in 0..FOLDS_MAX as u64 {
            hold(&mut folds, Of { process: ProcessCookie(process), ..OF }, 1, process, b"/usr/lib/a");
        }
        assert!(folds.is_crowded());
    }

    #[test]
    fn what_is_held_makes_a_commit_due_in_time() {
        let mut folds = folds();
        assert!(!folds.is_due(BootTime(u64::MAX), 50));
        hold(&mut folds, OF, 0, 0, b"/usr/lib/a");
        assert!(!folds.is_due(BootTime(149), 50));
        assert!(folds.is_due(BootTime(150), 50));
    }
}
