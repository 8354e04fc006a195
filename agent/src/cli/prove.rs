//! `affiant prove`: the proof of one entry, from the sealed log.
//!
//! Reads the checkpoint, a few tiles and the entry's bundle; asks no daemon. What it prints was verified to hold, not
//! whose it is: that is `affiant-verify`'s, with a trust file.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use agent_evidence::checkpoint::Checkpoint;
use agent_evidence::command::Directory;
use agent_evidence::note::{NOTE_BYTES_MAX, Note};
use agent_evidence::proof::Proof;
use agent_evidence::prove::{ProveError, prove as prove_entry, prove_under};
use agent_evidence::record::EntryIndex;
use agent_evidence::verify::Source as _;

use crate::cli::args::ProveArguments;
use crate::cli::exit::{self, Exit};
use crate::cli::output::{Output, printable};
use crate::export::sealed::SealedLog;

/// How often a log that grows meanwhile is read again: a partial tile may be replaced after the checkpoint was read.
const ATTEMPTS: usize = 5;
/// Most files of witnesses that are looked at.
const WITNESSES_MAX: usize = 64;

/// Proves one entry.
///
/// # Errors
/// There is no readable log, or no such entry under its checkpoint; a file exists or cannot be written.
pub fn prove(log: &Path, wish: &ProveArguments, out: &mut Output) -> Result<u8, Exit> {
    let index = EntryIndex(wish.index);
    // Told apart before the library looks: not allowed, and not there.
    if let Err(error) = fs::File::open(log.join("checkpoint")) {
        return Err(unreadable(log, &error));
    }
    let mut source = Directory::open(log).map_err(|error| Exit::new(exit::UNAVAILABLE, error.in_full()))?;
    let mut attempt = 1;
    let (proof, entry) = loop {
        let proved = if wish.witnessed {
            let (checkpoint, note) = newest_witnessed(log, &mut source)?;
            prove_under(&mut source, index, checkpoint, note)
        } else {
            prove_entry(&mut source, index).map(|(proof, entry)| (with_cosignatures(log, &mut source, proof), entry))
        };
        match proved {
            Ok(proved) => break proved,
            Err(ProveError::Missing { .. } | ProveError::Malformed { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(error @ ProveError::NotSealed { .. }) => return Err(Exit::in_full(exit::USAGE, &error)),
            Err(error @ ProveError::Pruned { .. }) => {
                let sealed = SealedLog::new(log.to_owned());
                let by = sealed.pruned(sealed.head()?.size)?.map_or_else(String::new, |pruned| {
                    format!(", by entry {} ({})", pruned.record, printable(&pruned.rule))
                });
                return Err(Exit::new(exit::DATA, format!("{error}{by}")));
            }
            Err(error @ ProveError::NoCheckpoint) => return Err(Exit::in_full(exit::UNAVAILABLE, &error)),
            Err(error) => return Err(Exit::in_full(exit::DATA, &error)),
        }
    };
    if let Some(path) = &wish.entry_out {
        create(path, &entry)?;
    }
    match &wish.output {
        Some(path) => create(path, proof.to_text().as_bytes())?,
        None => out.bytes(proof.to_text().as_bytes())?,
    }
    Ok(0)
}

fn unreadable(log: &Path, error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Exit::new(
            exit::UNAVAILABLE,
            format!("there is no log at {}; start `affiant daemon`, or name --state", log.display()),
        ),
        io::ErrorKind::PermissionDenied => Exit::new(
            exit::REFUSED,
            format!("cannot read {}: {error}; be root or in access.reader_group", log.display()),
        ),
        _ => Exit::new(exit::DATA, format!("cannot read {}: {error}", log.display())),
    }
}

/// The checkpoints that witnesses cosigned, as the log keeps them; what cannot be read is not one.
fn cosigned(log: &Path, source: &mut Directory) -> Vec<(Checkpoint, Note)> {
    let Ok(directories) = fs::read_dir(log.join("witness")) else { return Vec::new() };
    directories
        .filter_map(|directory| directory.ok()?.file_name().into_string().ok())
        .take(WITNESSES_MAX)
        .filter_map(|name| source.read(&format!("witness/{name}/checkpoint"), NOTE_BYTES_MAX).ok().flatten())
        .filter_map(|bytes| Checkpoint::parse(&bytes).ok())
        .collect()
}

/// The largest of the cosigned checkpoints, with every signature that stands on one of the same text.
pub(super) fn newest_witnessed(log: &Path, source: &mut Directory) -> Result<(Checkpoint, Note), Exit> {
    let all = cosigned(log, source);
    let Some((checkpoint, note)) = all.iter().max_by_key(|(checkpoint, _)| checkpoint.size).cloned() else {
        return Err(Exit::new(exit::UNAVAILABLE, "no witness has cosigned a checkpoint of this log yet"));
    };
    Ok((checkpoint, merged(note, all)))
}

/// Cosignatures on this very checkpoint come along.
fn with_cosignatures(log: &Path, source: &mut Directory, proof: Proof) -> Proof {
    let note = merged(proof.note, cosigned(log, source));
    Proof { note, ..proof }
}

fn merged(mut note: Note, others: Vec<(Checkpoint, Note)>) -> Note {
    for (_, other) in others.into_iter().filter(|(_, other)| other.text == note.text) {
        for line in other.signatures {
            if !note.signatures.contains(&line) {
                note.signatures.push(line);
            }
        }
    }
    note
}

fn create(path: &Path, bytes: &[u8]) -> Result<(), Exit> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| Exit::new(exit::USAGE, format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Output;

    fn wish(index: u64, at: &Path) -> ProveArguments {
        ProveArguments {
            index,
            output: Some(at.join(format!("{index}.tlog-proof"))),
            entry_out: Some(at.join(format!("{index}.json"))),
            witnessed: false,
        }
    }

    #[test]
    fn a_proof_of_a_kept_log_is_believed_with_its_trust_file() {
        let vector = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/witnessed");
        let at = tempfile::tempdir().unwrap();
        let mut out = Output::open();
        assert_eq!(prove(&vector.join("log"), &wish(12, at.path()), &mut out).unwrap(), 0);
        let verified = agent_evidence::command::verify_proof(
            &at.path().join("12.tlog-proof"),
            &at.path().join("12.json"),
            Some(&vector.join("trust.toml")),
        );
        // One witness of two cosigned the newest checkpoint: the cosignature came along, and is no quorum.
        let (text, code) = verified.unwrap();
        assert_eq!((code, text.contains("no quorum")), (1, true), "{text}");
        let proof = Proof::parse(&fs::read(at.path().join("12.tlog-proof")).unwrap()).unwrap();
        assert_eq!(proof.note.signatures.len(), 3);
        let trust = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/in_order/trust.toml");
        let (text, code) = agent_evidence::command::verify_proof(
            &at.path().join("12.tlog-proof"),
            &at.path().join("12.json"),
            Some(&trust),
        )
        .unwrap();
        assert_eq!(code, 0, "{text}");
        // Files are never overwritten.
        assert_eq!(prove(&vector.join("log"), &wish(12, at.path()), &mut out).unwrap_err().code, exit::USAGE);
    }

    #[test]
    fn what_is_not_there_has_its_exit_code() {
        let vector = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/in_order");
        let at = tempfile::tempdir().unwrap();
        let mut out = Output::open();
        assert_eq!(prove(&vector.join("log"), &wish(14, at.path()), &mut out).unwrap_err().code, exit::USAGE);
        assert_eq!(prove(&at.path().join("none"), &wish(0, at.path()), &mut out).unwrap_err().code, exit::UNAVAILABLE);
        let none = ProveArguments { witnessed: true, ..wish(0, at.path()) };
        assert_eq!(prove(&vector.join("log"), &none, &mut out).unwrap_err().code, exit::UNAVAILABLE);
    }
}
