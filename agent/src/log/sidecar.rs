//! Sidecars: the texts behind the commitments of entries, one file per bundle of entries.
//!
//! Owns the files below `log/sidecar`. A line is durable before the entry that it belongs to is, so that no acknowledged entry
//! has a value that is nowhere. Lines of entries that a crash took away stay behind until recovery cuts them off (in the
//! last bundle) or the file is begun again (in bundles after it, which then have no entry yet).
//!
//! Trust: none is needed. Whoever changes a line makes it disclose nothing; whoever removes one is found out, unless the log
//! has an `erased` entry for it.

use agent_evidence::record::{CommitRules, Disclosure, EntryIndex};
use agent_evidence::tiles;
use agent_evidence::tree::TILE_WIDTH;

use super::disk::Disk;
use super::durable::{Durable, DurableError};
use super::tiling;

/// The lines of one bundle that are not durable yet.
struct Pending {
    bundle: u64,
    /// The first entry among them.
    first: EntryIndex,
    lines: Vec<u8>,
}

/// A sidecar that is being written.
struct Current<F> {
    bundle: u64,
    path: String,
    file: F,
    /// Where the next line goes.
    offset: u64,
}

/// The sidecars as the writer has them.
pub(super) struct Sidecars<D: Disk> {
    rules: CommitRules,
    pending: Vec<Pending>,
    current: Option<Current<D::File>>,
}

fn path_of(bundle: u64) -> String {
    format!("{}/{}", tiling::DIR, tiles::sidecar_path(bundle))
}

fn bundle_of(index: EntryIndex) -> u64 {
    index.0 / TILE_WIDTH as u64
}

impl<D: Disk> Sidecars<D> {
    /// For a log that begins.
    pub(super) fn new() -> Self {
        Self { rules: CommitRules::default(), pending: Vec::new(), current: None }
    }

    /// For a log of this size: lines of entries that it does not have, and a torn one, are cut off.
    pub(super) fn resume(disk: &mut Durable<D>, size: u64) -> Result<Self, DurableError> {
        let bundle = size / TILE_WIDTH as u64;
        cut(disk, &path_of(bundle), size)?;
        Ok(Self::new())
    }

    /// Commits these values from the next entry on.
    pub(super) fn set_rules(&mut self, rules: CommitRules) {
        self.rules = rules;
    }

    /// Which values are committed.
    pub(super) fn rules(&self) -> &CommitRules {
        &self.rules
    }

    /// Takes the lines of an entry. Not durable before [`Sidecars::write`].
    pub(super) fn push(&mut self, index: EntryIndex, disclosures: &[Disclosure<'_>]) {
        if disclosures.is_empty() {
            return;
        }
        let bundle = bundle_of(index);
        if self.pending.last().is_none_or(|last| last.bundle != bundle) {
            self.pending.push(Pending { bundle, first: index, lines: Vec::new() });
        }
        if let Some(last) = self.pending.last_mut() {
            for disclosure in disclosures {
                disclosure.encode(index, &mut last.lines);
            }
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.iter().map(|pending| pending.lines.len()).sum()
    }

    /// Makes every line durable. After [`DurableError::Full`] it may be called again.
    pub(super) fn write(&mut self, disk: &mut Durable<D>) -> Result<(), DurableError> {
        while let Some(pending) = self.pending.first() {
            let mut current = match self.current.take() {
                Some(current) if current.bundle == pending.bundle => current,
                _ => open(disk, pending.bundle, pending.first)?,
            };
            let written = disk.write_durably(&current.path, &mut current.file, current.offset, &[&pending.lines]);
            if written.is_ok() {
                current.offset += pending.lines.len() as u64;
                self.pending.remove(0);
            }
            self.current = Some(current);
            written?;
        }
        Ok(())
    }

    /// Whether the text of one value is there.
    pub(super) fn holds(&mut self, disk: &mut Durable<D>, of: EntryIndex, field: &str) -> Result<bool, DurableError> {
        self.write(disk)?;
        let bytes = disk.read(&path_of(bundle_of(of)))?.unwrap_or_default();
        Ok(bytes.split_inclusive(|byte| *byte == b'\n').any(|line| is_of(line, of, field)))
    }

    /// Removes the line of one value, durably; whether there was one. The log has said so before.
    pub(super) fn erase(&mut self, disk: &mut Durable<D>, of: EntryIndex, field: &str) -> Result<bool, DurableError> {
        self.write(disk)?;
        let path = path_of(bundle_of(of));
        let Some(bytes) = disk.read(&path)? else { return Ok(false) };
        let mut kept = Vec::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_of(line, of, field)) {
            kept.extend_from_slice(line);
        }
        if kept.len() == bytes.len() {
            return Ok(false);
        }
        // The file gets another inode: what is appended next must go there.
        self.current = None;
        disk.publish(&path, &kept)?;
        Ok(true)
    }
}

/// Whether a line discloses this value.
fn is_of(line: &[u8], of: EntryIndex, field: &str) -> bool {
    Disclosure::decode(line.strip_suffix(b"\n").unwrap_or(line))
        .is_ok_and(|(index, disclosure)| index == of && disclosure.field == field)
}

/// Opens the sidecar of the bundle that is being filled, at its end, or begins it.
fn open<D: Disk>(disk: &mut Durable<D>, bundle: u64, next: EntryIndex) -> Result<Current<D::File>, DurableError> {
    let path = path_of(bundle);
    if let Some(offset) = cut(disk, &path, next.0)? {
        let file = disk.open(&path)?;
        return Ok(Current { bundle, path, file, offset });
    }
    disk.make_dirs_durably(&path)?;
    let file = disk.create_new(&path)?;
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    disk.sync_dir(directory)?;
    Ok(Current { bundle, path, file, offset: 0 })
}

/// Cuts off what a crash left: lines of entries from `size` on, and a torn one. Its length then; nothing without a file.
fn cut<D: Disk>(disk: &mut Durable<D>, path: &str, size: u64) -> Result<Option<u64>, DurableError> {
    let Some(bytes) = disk.read(path)? else { return Ok(None) };
    let kept = kept_bytes(&bytes, size);
    if kept < bytes.len() {
        disk.cut_durably(path, kept as u64, &[])?;
    }
    Ok(Some(kept as u64))
}

/// How many bytes to keep: up to the last line of an entry below `size`. Lines were durable before their entries, so what
/// follows, whatever a power cut made of it, is of entries that were never acknowledged. What cannot be read before it is
/// not the writer's doing and is left for a verifier.
fn kept_bytes(bytes: &[u8], size: u64) -> usize {
    let (mut kept, mut end) = (0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        let Some(text) = line.strip_suffix(b"\n") else { break };
        if Disclosure::decode(text).is_ok_and(|(index, _)| index.0 < size) {
            kept = end;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_crash_left_is_cut_off() {
        let line = |index: u64| {
            let disclosure = Disclosure { field: "open.path".to_owned(), salt: [1; 16], text: "/x".into() };
            let mut line = Vec::new();
            disclosure.encode(EntryIndex(index), &mut line);
            line
        };
        let both = [line(3), line(5)].concat();
        assert_eq!(kept_bytes(&both, 6), both.len());
        assert_eq!(kept_bytes(&both, 5), line(3).len(), "the entry was lost");
        assert_eq!(kept_bytes(&both[..both.len() - 1], 6), line(3).len(), "the line is torn");
        assert_eq!(kept_bytes(b"", 6), 0);
        let damaged = [b"not a line\n".to_vec(), line(5)].concat();
        assert_eq!(kept_bytes(&damaged, 6), damaged.len(), "damage is not repaired");
        let zeros = [line(3), vec![0; 40], line(7), b"\n".to_vec()].concat();
        assert_eq!(kept_bytes(&zeros, 6), line(3).len(), "blocks that a power cut left empty");
    }
}
