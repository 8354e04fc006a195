//! Evidence bundles: one file (`.evb`) that hands over chosen sessions of a log with all that checking them needs.
//!
//! Owns the file's form and the hashes of what is withheld; `verify` judges it. A bundle is
//! a `tar` archive of which every byte follows from what it holds, so that there is one bundle and not many for the
//! same evidence (FORMAT.md, section 17).
//!
//! | file | what |
//! |---|---|
//! | `select.rs` | which entries belong in a bundle |
//! | `make.rs` | a bundle from a log's directory |
//!
//! Untrusted when read: nothing is allocated by a stated size before the bytes have come.

#![forbid(unsafe_code)]

mod make;
mod select;

pub use make::{Made, MakeError, make, make_under};
pub(crate) use select::Closing;
pub use select::{Selected, Selection};

use std::io::{self, BufRead, BufReader, Read, Write};

use serde::Deserialize;

use crate::blob::{self, BLOB_BYTES_MAX};
use crate::record::{DISCLOSURE_BYTES_MAX, Digest, ENTRY_BYTES_MAX, EntryIndex, TreeSize};
use crate::tree::{NodeHash, Subtrees, TreeError, complete_subtrees};

/// Bytes of an archive's block.
const BLOCK: usize = 512;
/// Longest manifest, in bytes: every session and head that one may name.
pub const MANIFEST_BYTES_MAX: u64 = 2 << 20;
/// Most bytes of hashes: 4,194,304 of them, which a reader holds in memory.
pub const HASHES_BYTES_MAX: u64 = 128 << 20;
/// Most bytes of entries: what eleven octal digits can say.
pub const ENTRIES_BYTES_MAX: u64 = 0o777_7777_7777;
/// Most sessions that one bundle hands over.
pub const SESSIONS_MAX: usize = 1024;
/// Most sizes for which a bundle shows an earlier root.
pub const HEADS_MAX: usize = 65_536;

/// The members, in their order.
const MANIFEST: &str = "manifest.json";
const CHECKPOINT: &str = "checkpoint";
const HASHES: &str = "hashes";
const ENTRIES: &str = "entries";
/// Only there when a value is disclosed.
const SIDECAR: &str = "sidecar";
/// In messages: each blob is a member under its own name.
const BLOB: &str = "blob";

/// Why bytes are not a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// It does not begin as one.
    #[error("it does not begin with the header of `{MANIFEST}`")]
    NotABundle,
    /// It could not be read.
    #[error("cannot read: {reason}")]
    Read {
        /// What the system says.
        reason: String,
    },
    /// It breaks the form.
    #[error("{member}: {reason}")]
    Malformed {
        /// In which member, or behind the last.
        member: &'static str,
        /// What is wrong.
        reason: String,
    },
}

fn malformed(member: &'static str, reason: impl Into<String>) -> BundleError {
    BundleError::Malformed { member, reason: reason.into() }
}

/// What a bundle is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Indexes of the `issued` entries of its sessions, ascending.
    pub sessions: Vec<EntryIndex>,
    /// Tree sizes below the checkpoint's for which it shows the root, ascending.
    pub heads: Vec<TreeSize>,
}

/// The manifest as its JSON has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestForm {
    version: u32,
    sessions: Vec<u64>,
    heads: Vec<u64>,
}

impl Manifest {
    /// The one form of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let list =
            |numbers: &mut dyn Iterator<Item = u64>| numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let sessions = list(&mut self.sessions.iter().map(|session| session.0));
        let heads = list(&mut self.heads.iter().map(|head| head.0));
        format!("{{\"version\":1,\"sessions\":[{sessions}],\"heads\":[{heads}]}}").into_bytes()
    }

    /// Reads it; only the form that [`Manifest::encode`] writes is accepted.
    ///
    /// # Errors
    /// [`BundleError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let form: ManifestForm =
            serde_json::from_slice(bytes).map_err(|error| malformed(MANIFEST, error.to_string()))?;
        if form.version != 1 {
            return Err(malformed(MANIFEST, format!("version {}, this program knows 1", form.version)));
        }
        let ascends =
            |numbers: &[u64]| numbers.is_sorted_by(|a, b| a < b) && numbers.last() <= Some(&EntryIndex::MAX.0);
        if form.sessions.is_empty() || form.sessions.len() > SESSIONS_MAX || !ascends(&form.sessions) {
            return Err(malformed(MANIFEST, format!("`sessions` is not 1 to {SESSIONS_MAX} ascending indexes")));
        }
        if form.heads.len() > HEADS_MAX || !ascends(&form.heads) || form.heads.first() == Some(&0) {
            return Err(malformed(MANIFEST, format!("`heads` is not up to {HEADS_MAX} ascending sizes above 0")));
        }
        let manifest = Self {
            sessions: form.sessions.into_iter().map(EntryIndex).collect(),
            heads: form.heads.into_iter().map(TreeSize).collect(),
        };
        if manifest.encode() != bytes {
            return Err(malformed(MANIFEST, "not in the one permitted form"));
        }
        Ok(manifest)
    }
}

/// The header of a member: `ustar` of POSIX.1-1988, every field fixed but name and size.
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        if let Some(room) = block.get_mut(at..at + text.len()) {
            room.copy_from_slice(text);
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000600\x000000000\x000000000\0");
    put(124, format!("{size:011o}\x00").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\x000000000\0");
    // The sum counts its own field as spaces.
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(room) = block.get_mut(148..156) {
        room.copy_from_slice(format!("{sum:06o}\x00 ").as_bytes());
    }
    block
}

/// Bytes of zeros that fill a member's last block.
fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0)
}

/// An entry that a bundle discloses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disclosed {
    /// Which.
    pub index: EntryIndex,
    /// How many bytes it has.
    pub bytes: u32,
}

/// The complete subtrees whose hashes stand for what is withheld, from left to right: each run of withheld entries,
/// divided at the sizes in `heads`, by [`complete_subtrees`].
pub fn withheld(disclosed: &[Disclosed], heads: &[TreeSize], size: TreeSize) -> impl Iterator<Item = (u32, u64)> {
    let mut at = 0;
    let mut disclosed = disclosed.iter().map(|entry| entry.index.0).peekable();
    let mut heads = heads.iter().map(|head| head.0).peekable();
    let runs = std::iter::from_fn(move || {
        while disclosed.next_if_eq(&at).is_some() {
            at += 1;
        }
        let past = disclosed.peek().copied().unwrap_or(size.0);
        if at >= past {
            return None;
        }
        while heads.next_if(|head| *head <= at).is_some() {}
        let past = heads.peek().copied().unwrap_or(past).min(past);
        let first = std::mem::replace(&mut at, past);
        Some((first, past))
    });
    runs.flat_map(|(first, past)| complete_subtrees(first, past))
}

/// Writes the first part of a bundle: everything before the entries.
///
/// # Errors
/// What `out` or `subtrees` answer; [`io::ErrorKind::InvalidData`] when the bundle would pass a limit.
pub fn write_proof<E: From<io::Error> + From<TreeError>>(
    out: &mut impl Write,
    manifest: &Manifest,
    (checkpoint, size): (&[u8], TreeSize),
    disclosed: &[Disclosed],
    subtrees: &impl Subtrees,
) -> Result<(), E> {
    let text = manifest.encode();
    Manifest::parse(&text).map_err(|error| invalid(error.to_string()))?;
    member(out, MANIFEST, &text)?;
    member(out, CHECKPOINT, checkpoint)?;
    let hashes = withheld(disclosed, &manifest.heads, size);
    let bytes = hashes.fold(0_u64, |sum, _| sum.saturating_add(32));
    if bytes > HASHES_BYTES_MAX {
        return Err(invalid(format!("{bytes} bytes of hashes, a bundle has at most {HASHES_BYTES_MAX}")).into());
    }
    out.write_all(&header(HASHES, bytes))?;
    for (height, number) in withheld(disclosed, &manifest.heads, size) {
        out.write_all(&subtrees.subtree(height, number)?)?;
    }
    Ok(fill(out, bytes)?)
}

/// Writes the rest of a bundle. `entry` is asked for the bytes of each disclosed entry, in order.
///
/// # Errors
/// What `out` or `entry` answer; [`io::ErrorKind::InvalidData`] when an entry has another length than was said, or the
/// bundle would pass a limit.
pub fn write_entries<E: From<io::Error>>(
    out: &mut impl Write,
    disclosed: &[Disclosed],
    mut entry: impl FnMut(EntryIndex, &mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = disclosed.iter().fold(0_u64, |sum, entry| sum.saturating_add(u64::from(entry.bytes) + 1));
    if bytes > ENTRIES_BYTES_MAX {
        return Err(invalid(format!("{bytes} bytes of entries, a bundle has at most {ENTRIES_BYTES_MAX}")).into());
    }
    out.write_all(&header(ENTRIES, bytes))?;
    let mut line = Vec::new();
    for Disclosed { index, bytes } in disclosed {
        line.clear();
        entry(*index, &mut line)?;
        if u32::try_from(line.len()).ok() != Some(*bytes) {
            return Err(invalid(format!("entry {} has {} bytes, not {bytes}", index.0, line.len())).into());
        }
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(fill(out, bytes)?)
}

/// Writes the lines that disclose committed values, which have so many bytes in all, if there are any.
///
/// # Errors
/// What `out` or `lines` answer; [`io::ErrorKind::InvalidData`] when the lines have another length than was said, or the
/// bundle would pass a limit.
pub fn write_sidecar<E: From<io::Error>>(
    out: &mut impl Write,
    bytes: u64,
    lines: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), E>,
) -> Result<(), E> {
    if bytes == 0 {
        return Ok(());
    }
    if bytes > ENTRIES_BYTES_MAX {
        return Err(invalid(format!("{bytes} bytes of values, a bundle has at most {ENTRIES_BYTES_MAX}")).into());
    }
    out.write_all(&header(SIDECAR, bytes))?;
    let mut written = 0_u64;
    lines(&mut |line| {
        written = written.saturating_add(line.len() as u64);
        out.write_all(line)
    })?;
    if written != bytes {
        return Err(invalid(format!("the values have {written} bytes, not {bytes}")).into());
    }
    Ok(fill(out, bytes)?)
}

/// Writes a blob that disclosed entries refer to: after the sidecar, in ascending order of digest.
///
/// # Errors
/// What `out` answers; [`io::ErrorKind::InvalidData`] when the content is longer than a blob may be.
pub fn write_blob(out: &mut impl Write, digest: &Digest, content: &[u8]) -> io::Result<()> {
    if content.len() > BLOB_BYTES_MAX {
        return Err(invalid(format!("{} bytes of a blob, it has at most {BLOB_BYTES_MAX}", content.len())));
    }
    member(out, &blob::path(digest), content)
}

/// Ends a bundle.
///
/// # Errors
/// What `out` answers.
pub fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn member(out: &mut impl Write, name: &str, bytes: &[u8]) -> io::Result<()> {
    let size = bytes.len() as u64;
    out.write_all(&header(name, size))?;
    out.write_all(bytes)?;
    fill(out, size)
}

fn fill(out: &mut impl Write, size: u64) -> io::Result<()> {
    out.write_all([0; BLOCK].get(..padding(size)).unwrap_or_default())
}

/// Reads a bundle from its beginning to its end, once.
#[derive(Debug)]
pub struct BundleReader<R> {
    input: BufReader<R>,
    /// The member whose lines are read, its size, and how much of it was not read yet.
    member: &'static str,
    bytes: u64,
    left: u64,
    lines: u64,
    /// The block behind the last line.
    next: Option<[u8; BLOCK]>,
    /// The blob that was read last.
    blob: Option<Digest>,
}

impl<R: Read> BundleReader<R> {
    /// A reader of the bundle, and its manifest.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(input: R) -> Result<(Self, Manifest), BundleError> {
        let input = BufReader::with_capacity(1 << 16, input);
        let mut reader = Self { input, member: ENTRIES, bytes: 0, left: 0, lines: 0, next: None, blob: None };
        let size = reader.header(MANIFEST, MANIFEST_BYTES_MAX).map_err(|error| match error {
            BundleError::Malformed { .. } => BundleError::NotABundle,
            other => other,
        })?;
        let manifest = Manifest::parse(&reader.contents(MANIFEST, size)?)?;
        Ok((reader, manifest))
    }

    /// The checkpoint: the next after the manifest.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn checkpoint(&mut self) -> Result<Vec<u8>, BundleError> {
        let size = self.header(CHECKPOINT, crate::note::NOTE_BYTES_MAX as u64)?;
        self.contents(CHECKPOINT, size)
    }

    /// The hashes: the next after the checkpoint.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn hashes(&mut self) -> Result<Vec<NodeHash>, BundleError> {
        let size = self.header(HASHES, HASHES_BYTES_MAX)?;
        let bytes = self.contents(HASHES, size)?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(malformed(HASHES, "not a whole number of hashes"));
        }
        let hashes = hashes.to_vec();
        self.left = self.header(ENTRIES, ENTRIES_BYTES_MAX)?;
        self.bytes = self.left;
        Ok(hashes)
    }

    /// The next entry, after the hashes, into `line`; `false` after the last one.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn entry(&mut self, line: &mut Vec<u8>) -> Result<bool, BundleError> {
        self.line(line, ENTRY_BYTES_MAX)
    }

    /// The next line that discloses a value, after the entries, into `line`; `false` after the last one.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn disclosure(&mut self, line: &mut Vec<u8>) -> Result<bool, BundleError> {
        line.clear();
        if self.next.is_some() {
            return Ok(false);
        }
        if self.member == ENTRIES {
            let block = self.behind(ENTRIES)?;
            if name_of(&block) != SIDECAR.as_bytes() {
                self.next = Some(block);
                return Ok(false);
            }
            self.bytes = stated(&block, SIDECAR, SIDECAR, ENTRIES_BYTES_MAX)?;
            if self.bytes == 0 {
                return Err(malformed(SIDECAR, "it is empty: then it must not be there"));
            }
            (self.member, self.left, self.lines) = (SIDECAR, self.bytes, 0);
        }
        let read = self.line(line, DISCLOSURE_BYTES_MAX)?;
        if !read {
            self.next = Some(self.behind(SIDECAR)?);
        }
        Ok(read)
    }

    /// The next blob, after the lines that disclose values, by the digest in its name, which is above the one before; nothing
    /// after the last one, when the end of the bundle was found to be in order. Whether the content has this digest is not
    /// judged.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn blob(&mut self) -> Result<Option<(Digest, Vec<u8>)>, BundleError> {
        let mut block = [0; BLOCK];
        match self.next.take() {
            Some(next) => block = next,
            None => self.exactly("the end", &mut block)?,
        }
        if block == [0; BLOCK] {
            self.end(BLOCK)?;
            return Ok(None);
        }
        let Some(digest) = blob::parse(name_of(&block)) else {
            return Err(malformed("the end", "neither two blocks of zeros nor a member that may stand here"));
        };
        if self.blob.is_some_and(|before| before >= digest) {
            return Err(malformed(BLOB, format!("{} does not ascend", blob::path(&digest))));
        }
        self.blob = Some(digest);
        let size = stated(&block, BLOB, &blob::path(&digest), BLOB_BYTES_MAX as u64)?;
        Ok(Some((digest, self.contents(BLOB, size)?)))
    }

    /// The block behind a member of lines.
    fn behind(&mut self, member: &'static str) -> Result<[u8; BLOCK], BundleError> {
        self.zeros(member, padding(self.bytes))?;
        let mut block = [0; BLOCK];
        self.exactly("the end", &mut block)?;
        Ok(block)
    }

    fn line(&mut self, line: &mut Vec<u8>, bytes_max: usize) -> Result<bool, BundleError> {
        line.clear();
        if self.left == 0 {
            return Ok(false);
        }
        let limit = self.left.min(bytes_max as u64 + 1);
        let read = (&mut self.input).take(limit).read_until(b'\n', line).map_err(unreadable)?;
        self.left = self.left.saturating_sub(read as u64);
        if line.pop() != Some(b'\n') {
            let what = format!("line {} does not end within {bytes_max} bytes and the member", self.lines);
            return Err(malformed(self.member, what));
        }
        self.lines += 1;
        Ok(true)
    }

    /// That so many zero bytes follow, and nothing else.
    fn end(&mut self, zeros: usize) -> Result<(), BundleError> {
        self.zeros("the end", zeros)?;
        match self.input.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(malformed("the end", "something follows it")),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// The size that the header of this member states, which must be the next.
    fn header(&mut self, name: &'static str, bytes_max: u64) -> Result<u64, BundleError> {
        let mut block = [0_u8; BLOCK];
        self.exactly(name, &mut block)?;
        stated(&block, name, name, bytes_max)
    }

    /// The bytes of a member, whose size is within its limit.
    fn contents(&mut self, name: &'static str, size: u64) -> Result<Vec<u8>, BundleError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(size).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 != size {
            return Err(malformed(name, "the file ends within it"));
        }
        self.zeros(name, padding(size))?;
        Ok(bytes)
    }

    fn zeros(&mut self, name: &'static str, count: usize) -> Result<(), BundleError> {
        let mut bytes = [0_u8; 2 * BLOCK];
        let bytes = bytes.get_mut(..count).unwrap_or_default();
        self.exactly(name, bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(malformed(name, "what fills its last block is not zero"));
        }
        Ok(())
    }

    fn exactly(&mut self, name: &'static str, bytes: &mut [u8]) -> Result<(), BundleError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => malformed(name, "the file ends within it, or before"),
            _ => unreadable(error),
        })
    }
}

/// The name in a header, whatever else is wrong with it.
fn name_of(block: &[u8; BLOCK]) -> &[u8] {
    let field = block.get(..100).unwrap_or_default();
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The size that the header of the member of this name states.
fn stated(block: &[u8; BLOCK], member: &'static str, name: &str, bytes_max: u64) -> Result<u64, BundleError> {
    let digits = block.get(124..135).and_then(|digits| std::str::from_utf8(digits).ok());
    let size = digits.and_then(|digits| u64::from_str_radix(digits, 8).ok());
    let Some(size) = size.filter(|size| header(name, *size) == *block) else {
        return Err(malformed(member, "its header is not the one permitted, or another member's"));
    };
    if size > bytes_max {
        return Err(malformed(member, format!("{size} bytes, at most {bytes_max} are read")));
    }
    Ok(size)
}

fn unreadable(error: io::Error) -> BundleError {
    BundleError::Read { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::LeafHash;
    use crate::tree::{Peaks, Tree, fold_tile};

    fn leaf(index: u64) -> NodeHash {
        crate::tree::leaf_hash(&index.to_be_bytes()).0
    }

    struct Leaves(Vec<NodeHash>);

    impl Subtrees for Leaves {
        fn subtree(&self, height: u32, number: u64) -> Result<NodeHash, TreeError> {
            let first = usize::try_from(number << height).unwrap();
            Ok(fold_tile(&self.0[first..first + (1 << height)]).unwrap())
        }
    }

    /// The roots at the heads and at the end, from the disclosed leaves and the hashes of the others.
    fn roots(size: u64, disclosed: &[Disclosed], heads: &[TreeSize]) -> Vec<[u8; 32]> {
        let leaves = Leaves((0..size).map(leaf).collect());
        let mut withheld = withheld(disclosed, heads, TreeSize(size)).peekable();
        let mut peaks = Peaks::new();
        let mut roots = Vec::new();
        while peaks.size().0 < size {
            let at = peaks.size().0;
            if disclosed.iter().any(|entry| entry.index.0 == at) {
                peaks.push(0, leaf(at)).unwrap();
            } else {
                let (height, number) = withheld.next().unwrap();
                assert_eq!(number << height, at);
                peaks.push(height, leaves.subtree(height, number).unwrap()).unwrap();
            }
            if heads.contains(&peaks.size()) {
                roots.push(peaks.root().0);
            }
        }
        assert_eq!(withheld.next(), None);
        roots.push(peaks.root().0);
        roots
    }

    #[test]
    fn every_choice_of_entries_and_heads_gives_the_roots_of_the_tree() {
        for size in 1..=9_u64 {
            let mut tree = Tree::new();
            let expected: Vec<_> = (0..size)
                .map(|index| {
                    tree.append(LeafHash(leaf(index)), |_| {});
                    tree.root().0
                })
                .collect();
            for choice in 0..1_u64 << size {
                let disclosed: Vec<_> = (0..size)
                    .filter(|index| choice >> index & 1 == 1)
                    .map(|index| Disclosed { index: EntryIndex(index), bytes: 0 })
                    .collect();
                for head in 1..=size {
                    let heads: &[TreeSize] = if head < size { &[TreeSize(head)] } else { &[] };
                    let seen = roots(size, &disclosed, heads);
                    assert_eq!(seen.last(), expected.last());
                    if head < size {
                        assert_eq!(seen.first(), expected.get(usize::try_from(head).unwrap() - 1));
                    }
                }
            }
        }
    }

    #[test]
    fn a_forged_size_of_the_tree_costs_nothing() {
        let size = EntryIndex::MAX.0;
        assert_eq!(withheld(&[], &[], TreeSize(size)).count(), 53);
        assert_eq!(withheld(&[], &[TreeSize(1)], TreeSize(size)).count(), 105);
    }

    #[test]
    fn a_manifest_has_one_form() {
        let manifest = Manifest { sessions: vec![EntryIndex(6), EntryIndex(40)], heads: vec![TreeSize(3)] };
        let text = br#"{"version":1,"sessions":[6,40],"heads":[3]}"#;
        assert_eq!(manifest.encode(), text);
        assert_eq!(Manifest::parse(text), Ok(manifest));
        for wrong in [
            r#"{"version":1,"sessions":[6,40],"heads":[3]} "#,
            r#"{"version":1,"sessions":[40,6],"heads":[3]}"#,
            r#"{"version":1,"sessions":[6,6],"heads":[3]}"#,
            r#"{"version":1,"sessions":[],"heads":[3]}"#,
            r#"{"version":1,"sessions":[6],"heads":[0]}"#,
            r#"{"version":1,"sessions":[06],"heads":[]}"#,
            r#"{"version":1,"sessions":[6.0],"heads":[]}"#,
            r#"{"version":1,"sessions":[9007199254740992],"heads":[]}"#,
            r#"{"version":2,"sessions":[6],"heads":[]}"#,
            r#"{"version":1,"version":1,"sessions":[6],"heads":[]}"#,
            r#"{"version":1,"sessions":[6],"heads":[],"more":1}"#,
            r#"{"sessions":[6],"version":1,"heads":[]}"#,
            r#"{"version":1,"sessions":[6]}"#,
            "",
        ] {
            assert!(Manifest::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
