//! `affiant-verify` as a function, for the program itself and for `affiant verify`. The only file of this crate that
//! reads files, and only behind the feature `cli`.
//!
//! The directory is untrusted: whatever is in it is read with a limit, and only regular files are.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

#[cfg(feature = "http")]
use crate::http::{HttpError, Patience, WebServer};
use crate::proof::{Proof, ProofError, TLOG_PROOF_BYTES_MAX};
use crate::tiles::ENTRY_BYTES_MAX;
use crate::trust::{TRUST_BYTES_MAX, Trust};
use crate::verify::{
    Options, Report, Source, SourceError, VerifyError, verify_bundle, verify_entry, verify_in_threads,
};

/// Exit code when nothing could be checked.
pub const COULD_NOT_CHECK: u8 = 2;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The log's directory is not there, or not a directory.
    #[error("{path} is neither a directory with a log nor an evidence bundle")]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A proof, or its entry, could not be read.
    #[error("cannot read {path}")]
    ProofFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The proof is not one.
    #[error("{path} is no proof")]
    Proof {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ProofError,
    },
    /// The address is not that of a log.
    #[cfg(feature = "http")]
    #[error(transparent)]
    Address(HttpError),
    /// The address is that of a web server, and this program was built without them.
    #[cfg(not(feature = "http"))]
    #[error(
        "cannot read {address}: this program was built without the feature `http`; fetch the log and give its directory"
    )]
    NoHttp {
        /// The address.
        address: String,
    },
    /// The trust file could not be read.
    #[error("cannot read the trust file {path}")]
    TrustFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The trust file is not one.
    #[error("cannot use the trust file {path}")]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: crate::trust::TrustError,
    },
    /// The directory holds nothing that could be checked.
    #[error("cannot check {path}")]
    Verify {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: VerifyError,
    },
}

impl CommandError {
    /// The error with its causes, in one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// A log in a directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The log in this directory.
    ///
    /// # Errors
    /// [`CommandError::NoDirectory`].
    pub fn open(path: &Path) -> Result<Self, CommandError> {
        let failed = |source| CommandError::NoDirectory { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        Ok(Self { path: path.to_owned() })
    }
}

impl Source for Directory {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let failed = |reason: String| SourceError { path: path.to_owned(), reason };
        match read_regular(&self.path.join(path), bytes_max, Links::Refused) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// Whether a file may be named by a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// The reader named it, and may.
    Followed,
    /// Whoever made the directory named it, and must not lead the reader elsewhere.
    Refused,
}

/// Reads a regular file of at most `bytes_max` bytes. A pipe or device in its place is refused, not waited for.
fn read_regular(path: &Path, bytes_max: usize, links: Links) -> io::Result<Vec<u8>> {
    let metadata = match links {
        Links::Followed => fs::metadata(path)?,
        Links::Refused => fs::symlink_metadata(path)?,
    };
    if metadata.is_symlink() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a symbolic link, where a log has a regular file"));
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let too_long = || io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {bytes_max} bytes"));
    if metadata.len() > limit {
        return Err(too_long());
    }
    let file = File::open(path)?;
    if !same_file(&metadata, &file.metadata()?) {
        return Err(io::Error::other("replaced while it was opened"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max { Err(too_long()) } else { Ok(bytes) }
}

/// Verifies one entry by its proof, all from files. Gives what there is to print and the exit code: 0 proved, 1 not, 2 not
/// proved of any log in particular for want of a trust file.
///
/// # Errors
/// [`CommandError`] when nothing could be checked; the exit code is then [`COULD_NOT_CHECK`].
pub fn verify_proof(proof: &Path, entry: &Path, trust: Option<&Path>) -> Result<(String, u8), CommandError> {
    let trust = trust.map(read_trust).transpose()?;
    let read = |path: &Path, bytes_max| {
        read_regular(path, bytes_max, Links::Followed)
            .map_err(|source| CommandError::ProofFile { path: path.to_owned(), source })
    };
    let bytes = read(proof, TLOG_PROOF_BYTES_MAX)?;
    // An entry saved as a line has a line feed after it, which is not the entry's: entries end with a brace.
    let mut entry = read(entry, ENTRY_BYTES_MAX + 1)?;
    if entry.ends_with(b"}\n") {
        entry.pop();
    }
    let proof = Proof::parse(&bytes).map_err(|source| CommandError::Proof { path: proof.to_owned(), source })?;
    Ok(match verify_entry(&proof, &entry, trust.as_ref()) {
        Ok(proved) => (proved.to_string(), if proved.trusted { 0 } else { COULD_NOT_CHECK }),
        Err(fault) => (format!("not proved: {fault}\n"), 1),
    })
}

/// Whether what was opened is what was looked at.
#[cfg(unix)]
fn same_file(looked_at: &Metadata, opened: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (looked_at.dev(), looked_at.ino()) == (opened.dev(), opened.ino())
}

/// Whether what was opened is what was looked at: elsewhere only its sort can be told.
#[cfg(not(unix))]
fn same_file(_: &Metadata, opened: &Metadata) -> bool {
    opened.is_file()
}

/// Reads a trust file.
///
/// # Errors
/// [`CommandError::TrustFile`], [`CommandError::Trust`].
pub fn read_trust(path: &Path) -> Result<Trust, CommandError> {
    let unreadable = |source| CommandError::TrustFile { path: path.to_owned(), source };
    let bytes = read_regular(path, TRUST_BYTES_MAX, Links::Followed).map_err(unreadable)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error.utf8_error().to_string())))?;
    Trust::parse(&text).map_err(|source| CommandError::Trust { path: path.to_owned(), source })
}

/// Verifies the log in a directory, with a trust file or without, with as many threads as there are processors.
///
/// # Errors
/// [`CommandError`] when nothing could be checked; the exit code is then [`COULD_NOT_CHECK`].
pub fn verify_directory(log: &Path, trust: Option<&Path>, options: Options) -> Result<Report, CommandError> {
    verify_directory_in_threads(log, trust, options, processors())
}

/// The same with this many threads.
///
/// # Errors
/// [`CommandError`] when nothing could be checked; the exit code is then [`COULD_NOT_CHECK`].
pub fn verify_directory_in_threads(
    log: &Path,
    trust: Option<&Path>,
    options: Options,
    threads: NonZeroUsize,
) -> Result<Report, CommandError> {
    let trust = trust.map(read_trust).transpose()?;
    let mut source = Directory::open(log)?;
    verify_in_threads(&mut source, trust.as_ref(), options, threads)
        .map_err(|source| CommandError::Verify { path: log.to_owned(), source })
}

/// Verifies the log on a web server, or the evidence bundle there if the address ends with `.evb`.
#[cfg(feature = "http")]
fn verify_address(
    address: &str,
    trust: Option<&Path>,
    options: Options,
    reading: Reading,
) -> Result<Report, CommandError> {
    let trust = trust.map(read_trust).transpose()?;
    let mut patience = Patience::default();
    if let Some(bytes_max) = reading.download_bytes_max {
        patience.bytes_max = bytes_max;
    }
    let threads = reading.threads.unwrap_or_else(processors);
    let mut server = WebServer::open(address, patience).map_err(CommandError::Address)?;
    let failed = |source: VerifyError| CommandError::Verify { path: PathBuf::from(address), source };
    if address.ends_with(".evb") {
        let file = server.bundle().map_err(|error| failed(error.into()))?;
        return verify_bundle(file, trust.as_ref(), options).map_err(failed);
    }
    verify_in_threads(&mut server, trust.as_ref(), options, threads).map_err(failed)
}

/// This program reads files only.
#[cfg(not(feature = "http"))]
fn verify_address(address: &str, _: Option<&Path>, _: Options, _: Reading) -> Result<Report, CommandError> {
    Err(CommandError::NoHttp { address: address.to_owned() })
}

/// How many processors this process may use.
fn processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Verifies what is at this path or address: the log in a directory or on a web server, with this many threads or as many as there are processors, or the
/// evidence bundle in a file, which is read in one pass.
///
/// # Errors
/// As [`verify_directory`].
pub fn verify_path(
    path: &Path,
    trust: Option<&Path>,
    options: Options,
    threads: Option<NonZeroUsize>,
) -> Result<Report, CommandError> {
    verify_path_with(path, trust, options, Reading { threads, download_bytes_max: None })
}

/// How what is verified is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// With how many threads; as many as there are processors if nothing else is asked for.
    pub threads: Option<NonZeroUsize>,
    /// Most bytes taken from a web server in all; 64 GiB if nothing else is asked for.
    pub download_bytes_max: Option<u64>,
}

/// As [`verify_path`].
///
/// # Errors
/// As [`verify_directory`].
pub fn verify_path_with(
    path: &Path,
    trust: Option<&Path>,
    options: Options,
    reading: Reading,
) -> Result<Report, CommandError> {
    if let Some(address) = path.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://")) {
        return verify_address(address, trust, options, reading);
    }
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return verify_directory_in_threads(path, trust, options, reading.threads.unwrap_or_else(processors));
    }
    let trust = trust.map(read_trust).transpose()?;
    let failed = |source: VerifyError| CommandError::Verify { path: path.to_owned(), source };
    let unreadable = |error: io::Error| {
        failed(VerifyError::Source(SourceError { path: "the bundle".to_owned(), reason: error.to_string() }))
    };
    let file = File::open(path).map_err(unreadable)?;
    // What was a file a moment ago may have become a pipe, which is read to its end all the same.
    verify_bundle(file, trust.as_ref(), options).map_err(failed)
}
