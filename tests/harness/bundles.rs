//! A C2SP tiles directory as files, to do damage to: entry bundles are lists of entries, each behind its length.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

/// Entries in a full bundle (C2SP tlog-tiles).
const BUNDLE_ENTRIES: u64 = 256;

/// A log directory that nobody writes to.
#[derive(Debug)]
pub struct TreeDirectory {
    path: PathBuf,
}

impl TreeDirectory {
    /// Takes the directory that holds `checkpoint` and `tile/`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tree size that the checkpoint states.
    pub fn size(&self) -> Result<u64> {
        let text = fs::read_to_string(self.path.join("checkpoint")).context("no checkpoint")?;
        text.lines().nth(1).context("a checkpoint has a second line")?.parse().context("the second line is the size")
    }

    /// The entries of the bundle with this number, as stored.
    pub fn bundle(&self, number: u64) -> Result<Vec<Vec<u8>>> {
        let path = self.bundle_path(number)?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut rest = bytes.as_slice();
        let mut entries = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            ensure!(after.len() >= length, "{}: an entry ends beyond the file", path.display());
            let (entry, after) = after.split_at(length);
            entries.push(entry.to_vec());
            rest = after;
        }
        Ok(entries)
    }

    /// Writes a bundle.
    pub fn write_bundle(&self, number: u64, entries: &[Vec<u8>]) -> Result<()> {
        let path = self.bundle_path(number)?;
        let mut bytes = Vec::new();
        for entry in entries {
            bytes.extend(u16::try_from(entry.len()).context("an entry is too long")?.to_be_bytes());
            bytes.extend(entry);
        }
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Every entry, in order.
    pub fn entries(&self) -> Result<Vec<Vec<u8>>> {
        let mut entries = Vec::new();
        for number in 0..self.size()?.div_ceil(BUNDLE_ENTRIES) {
            entries.extend(self.bundle(number)?);
        }
        Ok(entries)
    }

    /// Writes every entry anew into the bundles there are: what does not fit into the last is left out.
    pub fn write_entries(&self, entries: &[Vec<u8>]) -> Result<()> {
        let size = self.size()?;
        let whole = usize::try_from(BUNDLE_ENTRIES).context("a small number")?;
        let fitting = entries.get(..usize::try_from(size).context("a small log")?).unwrap_or(entries);
        for (number, bundle) in (0..size.div_ceil(BUNDLE_ENTRIES)).zip(fitting.chunks(whole)) {
            self.write_bundle(number, bundle)?;
        }
        Ok(())
    }

    /// Index of the first entry of a kind.
    pub fn find(&self, kind: &str) -> Result<usize> {
        let wanted = format!("\"kind\":\"{kind}\"");
        let entries = self.entries()?;
        let found = entries.iter().position(|entry| String::from_utf8_lossy(entry).contains(&wanted));
        found.with_context(|| format!("no entry of kind {kind}"))
    }

    /// Bundle number and place inside it of the first entry with a text in it.
    pub fn find_text(&self, wanted: &str) -> Result<(u64, usize)> {
        for number in 0..self.size()?.div_ceil(BUNDLE_ENTRIES) {
            let entries = self.bundle(number)?;
            let place = entries.iter().position(|entry| String::from_utf8_lossy(entry).contains(wanted));
            if let Some(place) = place {
                return Ok((number, place));
            }
        }
        bail!("no entry with {wanted}")
    }

    /// Number of the first entry of a bundle.
    #[must_use]
    pub fn first_index(number: u64) -> u64 {
        number * BUNDLE_ENTRIES
    }

    /// The file of a bundle: the full one, or the partial one that the tree size names.
    fn bundle_path(&self, number: u64) -> Result<PathBuf> {
        let full = self.path.join("tile/entries").join(tile_name(number));
        if full.is_file() {
            return Ok(full);
        }
        let width = self.size()? % BUNDLE_ENTRIES;
        let partial = self.path.join("tile/entries").join(format!("{}.p/{width}", tile_name(number)));
        ensure!(partial.is_file(), "neither {} nor {}", full.display(), partial.display());
        Ok(partial)
    }
}

/// The path of tile `number` below its level: groups of three digits, all but the last with an x before them.
fn tile_name(mut number: u64) -> String {
    let mut name = format!("{:03}", number % 1000);
    while number >= 1000 {
        number /= 1000;
        name = format!("x{:03}/{name}", number % 1000);
    }
    name
}

/// Copies a directory with everything in it.
pub fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    let mut open = vec![(from.to_path_buf(), to.to_path_buf())];
    while let Some((from, to)) = open.pop() {
        fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
        for item in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
            let item = item.context("cannot read a directory")?;
            let target = to.join(item.file_name());
            if item.file_type().context("no file type")?.is_dir() {
                open.push((item.path(), target));
            } else {
                fs::copy(item.path(), &target).with_context(|| format!("cannot copy to {}", target.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_named_as_the_specification_says() {
        assert_eq!(tile_name(0), "000");
        assert_eq!(tile_name(999), "999");
        assert_eq!(tile_name(1_234_067), "x001/x234/067");
    }
}
