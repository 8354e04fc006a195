//! Every change, close and mapping of a file by a session is in the log or in a `gap`, exactly.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use tests::{Entry, Host, Session, python, repository};

use crate::exactness::{FILE, assert_numbers_are_complete, of_session};

/// How often each act happens.
const TIMES: u64 = 500;

/// What a change was: `op`, the beginning of its name or path up to the last dash, error number.
type What = (String, String, u64);

/// A host whose files are in a directory of its own, and what sessions do there.
struct Acts {
    host: Host,
    directory: PathBuf,
}

impl Acts {
    fn new() -> Result<Self> {
        let host = Host::new()?;
        let directory = host.path("files");
        fs::create_dir(&directory).context("cannot make a directory")?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).context("cannot open it to all")?;
        Ok(Self { host, directory })
    }

    fn directory(&self) -> Result<&str> {
        self.directory.to_str().context("a temporary directory is UTF-8")
    }

    fn run(&self, acts: &str, times: u64) -> Result<Session> {
        let script = repository().join("tests/helpers/file_calls.py");
        let script = script.to_str().context("the repository's path is UTF-8")?;
        let times = times.to_string();
        self.host.run_in_session(&python()?, &["-I", "-B", script, acts, &times, self.directory()?])
    }

    /// The changes of a session below the directory, by what they were; those whose events were lost make it fail.
    fn changes(&self, session: &Session) -> Result<(Vec<Entry>, BTreeMap<What, u64>)> {
        let entries = self.host.entries_after_session(session)?;
        let (own, lost) = of_session(&entries, session, FILE)?;
        assert_eq!(lost, 0, "the machine is too slow to tell each act");
        let mut counts: BTreeMap<What, u64> = BTreeMap::new();
        for entry in &own {
            if entry.kind() != "file_change" {
                continue;
            }
            let op = entry.body_text("op").context("a change says what was done")?.to_owned();
            let name = entry.claim("asked").or(entry.body_text("path")).unwrap_or_default();
            let name = name.strip_prefix(self.directory()?).unwrap_or(name);
            let name = name.rsplit_once('-').map_or(name, |(name, _)| name).to_owned();
            let errno = entry.body_number("errno").context("a change has its result")?;
            *counts.entry((op, name, errno)).or_default() += 1;
        }
        Ok((own.into_iter().cloned().collect(), counts))
    }
}

fn expected(rows: &[(&str, &str, u64, u64)]) -> BTreeMap<What, u64> {
    rows.iter()
        .map(|(op, name, errno, times)| (((*op).to_owned(), (*name).to_owned(), *errno), times * TIMES))
        .collect()
}

#[test]
fn each_of_500_changes_of_every_kind_is_in_the_log() -> Result<()> {
    let acts = Acts::new()?;
    let daemon = acts.host.start()?;
    acts.host.trust()?;
    let session = acts.run("calls", TIMES)?;
    let (own, counts) = acts.changes(&session)?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("no kernel release")?;
    let xattrat = u64::from(has_xattrat(&kernel));
    let mut rows = vec![
        ("mkdir", "/mkdir", 0, 1),
        ("mkdir", "mkdirat", 0, 1),
        ("rmdir", "/mkdir", 0, 1),
        ("rmdir", "mkdirat", 0, 1),
        ("create", "/mknod", 0, 1),
        ("create", "mknodat", 0, 1),
        ("unlink", "mknodat", 0, 1),
        ("unlink", "/renameat2", 0, 1),
        ("link", "/mknod", 0, 1),
        ("link", "mknod", 0, 1),
        ("rename", "/link", 0, 1),
        ("rename", "linkat", 0, 1),
        ("rename", "rename", 0, 1),
        ("exchange", "/rename", 0, 1),
        ("symlink", "/symlink", 0, 1),
        ("symlink", "symlinkat", 0, 1),
        ("chmod", "/mknod", 0, 1),
        ("chmod", "mknod", 0, 2),
        ("chown", "/mknod", 0, 1),
        ("chown", "/symlink", 0, 1),
        ("chown", "mknod", 0, 1),
        // By descriptor: the path is a fact.
        ("chmod", "/file", 0, 1),
        ("chown", "/file", 0, 1),
        // By name once, by descriptor twice; the fallocate that keeps the length is none.
        ("truncate", "/file", 0, 3),
        ("set_xattr", "/file", 0, 3),
        ("remove_xattr", "/file", 0, 3),
    ];
    if xattrat == 1 {
        rows.extend([("set_xattr", "file", 0, 1), ("remove_xattr", "file", 0, 1)]);
    }
    assert_eq!(counts, expected(&rows));

    let of = |op: &str, test: &dyn Fn(&Entry) -> bool| {
        own.iter()
            .filter(|entry| entry.kind() == "file_change" && entry.body_text("op") == Some(op))
            .filter(|entry| test(entry))
            .count() as u64
    };
    let by_descriptor = |entry: &Entry| entry.body_text("path").is_some() && entry.claim("asked").is_none();
    // The facts of a descriptor, after the change.
    assert_eq!(
        of("chmod", &|entry| by_descriptor(entry)
            && entry.body_number("mode").is_some_and(|mode| mode & 0o770 == 0o600)),
        TIMES
    );
    assert_eq!(
        of("chown", &|entry| (entry.body_number("owner"), entry.body_number("group")) == (Some(3), Some(4))),
        TIMES
    );
    assert_eq!(of("truncate", &|entry| by_descriptor(entry) && entry.body_number("size").is_some()), 2 * TIMES);
    assert_eq!(of("truncate", &|entry| !by_descriptor(entry) && entry.body_number("size").is_some()), TIMES);
    assert_eq!(
        of("set_xattr", &|entry| entry.claim("asked_to").is_some_and(|name| name.starts_with("user."))),
        (3 + xattrat) * TIMES
    );
    // The second name, and the descriptors that the two start from.
    let descriptor = |entry: &Entry, key| entry.body("claims").and_then(|claims| claims.get(key)?.as_u64());
    assert_eq!(
        of("rename", &|entry| entry.claim("asked_to").is_some_and(|name| name.starts_with("renameat-"))
            && descriptor(entry, "dir_fd").is_some()
            && descriptor(entry, "to_dir_fd").is_some()),
        TIMES
    );
    assert_eq!(
        of("symlink", &|entry| entry.claim("asked_to").is_some_and(|target| target.starts_with("target-"))),
        2 * TIMES
    );
    // A call on a name says nothing of the file as fact.
    assert_eq!(of("unlink", &|entry| entry.body("path").is_some() || entry.body("ino").is_some()), 0);
    assert_numbers_are_complete(&acts.host.entries()?)?;
    daemon.stop()?;
    acts.host.assert_verifies()
}

/// Whether the kernel has setxattrat(2): since 6.13.
fn has_xattrat(release: &str) -> bool {
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(6), Some(13))
}

#[test]
fn each_of_500_failed_changes_is_in_the_log_with_its_error() -> Result<()> {
    let acts = Acts::new()?;
    let daemon = acts.host.start()?;
    acts.host.trust()?;
    let session = acts.run("failures", TIMES)?;
    let (own, counts) = acts.changes(&session)?;
    let rows = [
        ("unlink", "/no-unlink", 2, 1),
        ("rename", "/no-rename", 2, 1),
        ("mkdir", "/nowhere/no-mkdir", 2, 1),
        ("rmdir", "/file-0/no", 2, 0),
        ("truncate", "/no-truncate", 2, 1),
        ("link", "/no-linkat", 2, 1),
        ("remove_xattr", "", 61, 1),
        // A descriptor that leads nowhere, and a string that cannot be read.
        ("chmod", "", 9, 1),
        ("unlink", "", 14, 1),
    ];
    let mut rows = expected(&rows);
    rows.retain(|_, times| *times > 0);
    rows.insert(("rmdir".to_owned(), "/file-N/no".to_owned(), 2), TIMES);
    // The name of the directory has the number here.
    let mut seen: BTreeMap<What, u64> = BTreeMap::new();
    for ((op, name, errno), times) in counts {
        let name = if op == "rmdir" { "/file-N/no".to_owned() } else { name };
        *seen.entry((op, name, errno)).or_default() += times;
    }
    assert_eq!(seen, rows);
    let marked = |mark: &str| {
        own.iter().filter(|entry| entry.kind() == "file_change" && entry.marks().any(|one| one == mark)).count() as u64
    };
    assert_eq!((marked("unresolved"), marked("claim_unread")), (TIMES, TIMES));

    fs::write(acts.directory.join("denied"), b"").context("cannot make a file")?;
    let session = acts.run("denied", TIMES)?;
    let (_, counts) = acts.changes(&session)?;
    let rows = [
        ("unlink", "/denied", 13, 1),
        ("rename", "/denied", 13, 1),
        ("mkdir", "/denied", 13, 1),
        ("chmod", "/denied", 1, 1),
        ("chown", "/denied", 1, 1),
    ];
    assert_eq!(counts, expected(&rows));
    assert_numbers_are_complete(&acts.host.entries()?)?;
    daemon.stop()?;
    acts.host.assert_verifies()
}

#[test]
fn changes_through_links_other_roots_and_threads_say_what_the_caller_said() -> Result<()> {
    let acts = Acts::new()?;
    let _daemon = acts.host.start()?;
    let times = 20;
    let make = |name: &str| fs::create_dir(acts.directory.join(name)).context("cannot make a directory");
    make("real")?;
    make("root")?;
    symlink("real", acts.directory.join("by-link")).context("cannot make a link")?;
    for number in 0..times {
        let touch = |name: String| fs::write(acts.directory.join(name), b"").context("cannot make a file");
        touch(format!("real/file-{number}"))?;
        touch(format!("root/inside-{number}"))?;
    }
    let session = acts.run("places", times)?;
    let (_, counts) = acts.changes(&session)?;
    // The link is in the name that was asked for, and the other root is not: neither is claimed to be more.
    let what = |op: &str, name: &str| (op.to_owned(), name.to_owned(), 0);
    let rows = BTreeMap::from([(what("rename", "/by-link/file"), times), (what("unlink", "/inside"), times)]);
    assert_eq!(counts, rows);

    let session = acts.run("threads", times)?;
    let (own, counts) = acts.changes(&session)?;
    let rows = BTreeMap::from([(what("chmod", "/file"), times), (what("mkdir", "/by-thread"), times)]);
    assert_eq!(counts, rows);
    let racy = |op: &str| {
        own.iter().filter(|entry| entry.body_text("op") == Some(op) && entry.marks().any(|mark| mark == "racy")).count()
            as u64
    };
    // What was found by a descriptor may be another's; a string is a claim either way.
    assert_eq!((racy("chmod"), racy("mkdir")), (times, 0));
    Ok(())
}

#[test]
fn closes_and_mappings_are_in_the_log_with_their_files() -> Result<()> {
    let acts = Acts::new()?;
    let daemon = acts.host.start()?;
    acts.host.trust()?;
    let below = |entry: &Entry, name: &str| {
        let path = acts.directory.join(name);
        entry.body_text("path").is_some_and(|found| {
            Path::new(found).starts_with(&acts.directory) && found.starts_with(&*path.to_string_lossy())
        })
    };
    let session = acts.run("closes", TIMES)?;
    let entries = acts.host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, FILE)?;
    assert_eq!(lost, 0);
    let closed =
        |name: &str| own.iter().filter(|entry| entry.kind() == "file_close" && below(entry, name)).count() as u64;
    // Once each: not when it was open for reading, not while another descriptor held it, not at the end of the process.
    assert_eq!((closed("written-"), closed("twice-"), closed("left")), (TIMES, TIMES, 0));
    let partial = |entry: &&&Entry| entry.marks().any(|mark| mark == "totals_partial");
    let closes = || own.iter().filter(|entry| entry.kind() == "file_close");
    assert_eq!(closes().count(), closes().filter(partial).count());

    let session = acts.run("maps", TIMES)?;
    let entries = acts.host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, FILE)?;
    assert_eq!(lost, 0);
    let mapped = |flags: u64, prot: u64| {
        own.iter()
            .filter(|entry| entry.kind() == "file_map" && below(entry, "mapped"))
            .filter(|entry| (entry.body_number("flags"), entry.body_number("prot")) == (Some(flags), Some(prot)))
            .count() as u64
    };
    assert_eq!((mapped(1, 3), mapped(2, 5), mapped(2, 3), mapped(1, 1)), (TIMES, TIMES, 0, 0));
    // The libraries of the interpreter are mapped as code too.
    assert!(own.iter().any(|entry| entry.kind() == "file_map" && entry.body_text("path").is_some_and(|path| path.contains(".so"))));
    assert_numbers_are_complete(&acts.host.entries()?)?;
    daemon.stop()?;
    acts.host.assert_verifies()
}

#[test]
fn plain_reads_of_installed_software_are_counted_and_nothing_else_is() -> Result<()> {
    let acts = Acts::new()?;
    let lib = acts.directory.join("lib");
    fs::create_dir(&lib).context("cannot make a directory")?;
    acts.host.configure(&format!("[capture]\nfold = [{lib:?}]"))?;
    let make = |name: &str, mode: u32| {
        let path = acts.directory.join(name);
        fs::write(&path, b"").context("cannot make a file")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("cannot set its mode")
    };
    for number in 0..TIMES {
        make(&format!("lib/{number}"), 0o644)?;
    }
    make("lib/secret", 0o600)?;
    make("lib/anybodys", 0o666)?;
    make("beside", 0o644)?;
    let daemon = acts.host.start()?;
    acts.host.trust()?;
    let session = acts.run("reads", TIMES)?;
    let entries = acts.host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, FILE)?;
    assert_eq!(lost, 0);

    // Each read is counted once, in order, with its name.
    let mut next = 0;
    for entry in own.iter().filter(|entry| entry.kind() == "file_folded") {
        assert_eq!(entry.body_text("directory"), lib.to_str());
        let count = entry.body_number("count").context("a fold has a count")?;
        assert_eq!(entry.folded_ranges().iter().map(|(_, _, first, last)| last - first + 1).sum::<u64>(), count);
        let mut hash = Sha256::new();
        for number in next..next + count {
            let name = number.to_string();
            hash.update(u32::try_from(name.len())?.to_be_bytes());
            hash.update(&name);
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(entry.body_text("names"), Some(hex.as_str()));
        next += count;
    }
    assert_eq!(next, TIMES);
    // The rest of what the directory saw stands there by itself.
    let below = acts.directory()?;
    let mut opened: Vec<&str> = own
        .iter()
        .filter(|entry| entry.kind() == "open")
        .filter_map(|entry| entry.body_text("path").or(entry.claim("asked"))?.strip_prefix(below))
        .collect();
    opened.sort_unstable();
    assert_eq!(opened, ["/beside", "/lib", "/lib/0", "/lib/anybodys", "/lib/missing", "/lib/secret"]);
    assert_numbers_are_complete(&acts.host.entries()?)?;
    daemon.stop()?;
    acts.host.assert_verifies()
}
