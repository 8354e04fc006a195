//! Where a sink stands, durably: the next entry to send.
//!
//! One small file per sink: `affiant cursor v1`, the origin, the next index, one per line. It is
//! written as a whole, made durable, and renamed over the old one; after a crash it is the old or
//! the new, never a mixture. The directory is trusted (root's). A cursor that is behind costs
//! duplicates; one that would be ahead could lose events, so it is written only after the sink's
//! bytes are durable, and a file that cannot be understood is an error, not a fresh start.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// First line of the file: what it is, and which version.
const HEADER: &str = "affiant cursor v1";

/// Largest cursor file, in bytes: header, an origin and twenty digits.
const FILE_SIZE_MAX: u64 = 4096;

/// A position in one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Origin of the log: a position means nothing in another.
    pub origin: String,
    /// Index of the next entry to send.
    pub next: u64,
}

/// Why a cursor cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// A step failed.
    #[error("cannot {step} {path}: {source}")]
    Io {
        /// The step.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a cursor.
    #[error("{path} is not a cursor; move it away to send everything again")]
    NotACursor {
        /// The file.
        path: PathBuf,
    },
}

/// The steps of a durable replacement, so that a test can make each of them fail.
pub trait Files {
    /// Writes a new file with these bytes and makes the bytes durable.
    ///
    /// # Errors
    /// What the system says.
    fn write_durable(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Renames.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a directory's names durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_directory(&mut self, path: &Path) -> io::Result<()>;
}

/// The real file system.
#[derive(Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn write_durable(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "the directory's fsync follows in `replace`, the only caller")]
        fs::rename(from, to)
    }

    fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// One sink's cursor.
#[derive(Debug)]
pub struct Cursor<F = Disk> {
    path: PathBuf,
    files: F,
    position: Option<Position>,
}

impl Cursor<Disk> {
    /// Opens the cursor of a sink below `directory`, which is made when absent (mode as inherited).
    ///
    /// # Errors
    /// The directory or file cannot be read, or the file is not a cursor.
    pub fn open(directory: &Path, sink: &str) -> Result<Self, CursorError> {
        fs::create_dir_all(directory).map_err(|source| CursorError::Io {
            step: "make the directory",
            path: directory.to_owned(),
            source,
        })?;
        Self::open_with(directory.join(sink), Disk)
    }
}

impl<F: Files> Cursor<F> {
    /// Opens a cursor file through `files`.
    ///
    /// # Errors
    /// The file cannot be read or is not a cursor.
    pub fn open_with(path: PathBuf, files: F) -> Result<Self, CursorError> {
        let position = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(metadata) if metadata.len() > FILE_SIZE_MAX => {
                return Err(CursorError::NotACursor { path });
            }
            _ => {
                let bytes =
                    fs::read(&path).map_err(|source| CursorError::Io { step: "read", path: path.clone(), source })?;
                match parse(&bytes) {
                    Some(position) => Some(position),
                    None => return Err(CursorError::NotACursor { path }),
                }
            }
        };
        Ok(Self { path, files, position })
    }

    /// The next entry of the log with this origin: 0 when the cursor is new or of another log.
    #[must_use]
    pub fn next(&self, origin: &str) -> u64 {
        self.position.as_ref().filter(|position| position.origin == origin).map_or(0, |position| position.next)
    }

    /// Moves the cursor. Durable when this returns; on an error the old position stands, here and
    /// on disk or the new one on disk only, which the next start takes.
    ///
    /// # Errors
    /// A step failed.
    pub fn advance(&mut self, position: Position) -> Result<(), CursorError> {
        let text = format!("{HEADER}\n{}\n{}\n", position.origin, position.next);
        replace(&mut self.files, &self.path, text.as_bytes())?;
        self.position = Some(position);
        Ok(())
    }
}

/// Replaces a file as a whole: written beside it, made durable, renamed over it, and the name made
/// durable. After a fault or a crash the file is the old or the new, never a mixture.
///
/// # Errors
/// A step failed.
pub fn replace(files: &mut impl Files, path: &Path, bytes: &[u8]) -> Result<(), CursorError> {
    let fail = |step, path: &Path| {
        let path = path.to_owned();
        move |source| CursorError::Io { step, path, source }
    };
    let temporary = path.with_extension("tmp");
    files.write_durable(&temporary, bytes).map_err(fail("write", &temporary))?;
    files.rename(&temporary, path).map_err(fail("rename over", path))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    files.sync_directory(directory).map_err(fail("make durable", directory))
}

fn parse(bytes: &[u8]) -> Option<Position> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next()? != HEADER {
        return None;
    }
    let origin = lines.next()?.to_owned();
    let digits = lines.next()?;
    let next: u64 = digits.parse().ok()?;
    (lines.next().is_none() && next.to_string() == digits && !origin.is_empty()).then_some(Position { origin, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: u64) -> Position {
        Position { origin: "o".into(), next }
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Step {
        Write,
        Rename,
        Sync,
    }

    /// Fails at one step, before or after its effect.
    struct Faulty {
        step: Step,
        effect: bool,
        torn: bool,
    }

    impl Faulty {
        fn act(&self, step: Step, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
            if self.step != step {
                return act();
            }
            if self.effect {
                act()?;
            }
            Err(io::Error::other("injected"))
        }
    }

    impl Files for Faulty {
        fn write_durable(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            let kept = if self.torn { bytes.len() / 2 } else { bytes.len() };
            self.act(Step::Write, || Disk.write_durable(path, &bytes[..kept]))
        }
        fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
            self.act(Step::Rename, || Disk.rename(from, to))
        }
        fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
            self.act(Step::Sync, || Disk.sync_directory(path))
        }
    }

    #[test]
    fn a_position_survives_being_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(&directory.path().join("cursors"), "ocsf_file").unwrap();
        assert_eq!(cursor.next("o"), 0);
        cursor.advance(at(7)).unwrap();
        let again = Cursor::open(&directory.path().join("cursors"), "ocsf_file").unwrap();
        assert_eq!(again.next("o"), 7);
        assert_eq!(again.next("another log"), 0);
    }

    #[test]
    fn after_a_fault_at_any_step_the_file_holds_the_old_or_the_new_position() {
        // step, took effect, torn, position in memory, position after a restart
        let table = [
            (Step::Write, false, false, 7),
            (Step::Write, true, false, 7),
            (Step::Write, true, true, 7),
            (Step::Rename, false, false, 7),
            (Step::Rename, true, false, 9),
            (Step::Sync, false, false, 9),
            (Step::Sync, true, false, 9),
        ];
        for (step, effect, torn, after) in table {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("sink");
            Cursor::open(directory.path(), "sink").unwrap().advance(at(7)).unwrap();
            let mut cursor = Cursor::open_with(path, Faulty { step, effect, torn }).unwrap();
            assert!(matches!(cursor.advance(at(9)), Err(CursorError::Io { .. })), "{step:?}");
            assert_eq!(cursor.next("o"), 7, "{step:?}");
            let again = Cursor::open(directory.path(), "sink").unwrap();
            assert_eq!(again.next("o"), after, "{step:?} {effect} {torn}");
        }
    }

    #[test]
    fn a_file_that_is_not_a_cursor_is_an_error_and_not_a_fresh_start() {
        for bytes in [
            "",
            "affiant cursor v1\no\n",
            "affiant cursor v1\no\n07\n",
            "affiant cursor v1\n\n7\n",
            "affiant cursor v1\no\n7",
            "affiant cursor v1\no\n7\n8\n",
            "affiant cursor v2\no\n7\n",
        ] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("sink"), bytes).unwrap();
            let opened = Cursor::open(directory.path(), "sink");
            assert!(matches!(opened, Err(CursorError::NotACursor { .. })), "{bytes:?}");
        }
    }
}
