//! Every act of a session is in the log or in a `gap`, exactly.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use tests::{Entry, Host, Session, program};

/// Class numbers of kernel numbers.
pub(crate) const PROCESS: u64 = 0;
pub(crate) const NETWORK: u64 = 2;
pub(crate) const FILE: u64 = 3;

/// Every kernel number from 0 to the highest one seen is in exactly one entry, one folded entry or one gap, per processor
/// and class.
///
/// Only for a log whose whole life was one capture, on a fresh set of maps.
pub(crate) fn assert_numbers_are_complete(entries: &[Entry]) -> Result<()> {
    let mut seen: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for entry in entries {
        if let Some((cpu, class, number)) = entry.kernel() {
            seen.entry((cpu, class)).or_default().push((number, number));
        }
        for (cpu, class, first, last) in entry.gap_ranges().into_iter().chain(entry.folded_ranges()) {
            seen.entry((cpu, class)).or_default().push((first, last));
        }
    }
    ensure!(!seen.is_empty(), "no entry has a kernel number");
    for ((cpu, class), mut ranges) in seen {
        ranges.sort_unstable();
        let mut next = 0;
        for (first, last) in ranges {
            ensure!(first == next, "cpu {cpu} class {class}: expected number {next}, found {first}");
            next = last + 1;
        }
    }
    Ok(())
}

/// Entries of one session, and the events of one class that gaps say it lost.
pub(crate) fn of_session<'a>(entries: &'a [Entry], session: &Session, class: u64) -> Result<(Vec<&'a Entry>, u64)> {
    let issued = entries
        .iter()
        .find(|entry| entry.kind() == "issued" && entry.body_text("id") == Some(session.id.as_str()))
        .context("the session has an issued entry")?;
    let cgroup = issued.body_number("cgroup").context("the session has a cgroup")?;
    let issued = issued.index()?;
    let own: Vec<&Entry> = entries.iter().filter(|entry| entry.session() == Some(issued)).collect();
    let lost = entries
        .iter()
        .filter_map(Entry::gap)
        .filter(|gap| gap.classes.contains(&class))
        .flat_map(|gap| gap.shares)
        .filter(|(scope, _)| *scope == cgroup)
        .map(|(_, count)| count)
        .sum();
    Ok((own, lost))
}

fn count(entries: &[&Entry], matches: impl Fn(&Entry) -> bool) -> u64 {
    entries.iter().filter(|entry| matches(entry)).count() as u64
}

#[test]
fn each_of_2000_execs_of_a_shell_loop_is_in_the_log() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    let shell_loop = "i=0; while [ $i -lt 2000 ]; do /bin/true; i=$((i+1)); done";
    let session = host.run_in_session(Path::new("/bin/sh"), &["-c", shell_loop])?;
    let entries = host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, PROCESS)?;
    let execs = count(&own, |entry| {
        entry.kind() == "exec" && entry.body_text("path").is_some_and(|path| path.ends_with("/bin/true"))
    });
    if lost == 0 {
        assert_eq!(execs, 2000);
        // Each of them was forked by the shell and ended.
        assert!(count(&own, |entry| entry.kind() == "fork") >= 2000);
        assert!(count(&own, |entry| entry.kind() == "exit") >= 2001);
    } else {
        let acts = count(&own, |entry| matches!(entry.kind(), "fork" | "exec" | "exit"));
        assert!(execs <= 2000 && acts + lost >= 6000, "{execs} execs, {acts} acts, {lost} lost");
    }
    assert_numbers_are_complete(&entries)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn each_of_2000_connects_is_in_the_log() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).context("cannot listen")?;
        let address = listener.local_addr().context("no address")?.to_string();
        // Accepts for as long as the test lives; the thread ends with the process.
        thread::spawn(move || {
            for connection in listener.incoming() {
                drop(connection)
            }
        });
        let session = host.run_in_session(&program("act-connects"), &["2000", "tcp", &address])?;
        let entries = host.entries_after_session(&session)?;
        let (own, lost) = of_session(&entries, &session, NETWORK)?;
        let connects = count(&own, |entry| {
            entry.kind() == "connect"
                && entry.body_text("proto") == Some("tcp")
                && entry.body_text("remote") == Some(address.as_str())
                && entry.body_number("errno") == Some(0)
        });
        assert_eq!(connects + lost, 2000, "{connects} connects to {address}, {lost} lost");
    }
    assert_numbers_are_complete(&host.entries()?)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn a_refused_connect_and_a_udp_connect_have_their_results() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    // Bound and not listening: nobody else takes the port, and every connect is refused.
    let reserved = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let address = reserved.local_addr().context("no address")?.to_string();
    drop(reserved);
    let session = host.run_in_session(&program("act-connects"), &["3", "tcp", &address, "refused"])?;
    let entries = host.entries_after_session(&session)?;
    let (own, _) = of_session(&entries, &session, NETWORK)?;
    // 111 is ECONNREFUSED.
    let refused = count(&own, |entry| entry.kind() == "connect" && entry.body_number("errno") == Some(111));
    assert_eq!(refused, 3);

    let session = host.run_in_session(&program("act-connects"), &["3", "udp", "127.0.0.1:53535"])?;
    let entries = host.entries_after_session(&session)?;
    let (own, _) = of_session(&entries, &session, NETWORK)?;
    let connected = count(&own, |entry| {
        entry.kind() == "connect"
            && entry.body_text("proto") == Some("udp")
            && entry.body_text("remote") == Some("127.0.0.1:53535")
            && entry.body_number("errno") == Some(0)
    });
    assert_eq!(connected, 3);
    Ok(())
}

#[test]
fn each_of_20000_opens_is_in_the_log_with_its_path() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    let directory = host.open_directory("files")?;
    let directory = directory.to_str().context("a temporary directory is UTF-8")?;
    let session = host.run_in_session(&program("act-opens"), &["20000", directory])?;
    let entries = host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, FILE)?;
    let prefix = format!("{directory}/");
    let mut names: Vec<u64> = own
        .iter()
        .filter(|entry| entry.kind() == "open")
        .filter_map(|entry| entry.body_text("path")?.strip_prefix(&prefix)?.parse().ok())
        .collect();
    names.sort_unstable();
    assert!(names.iter().all(|name| *name < 20_000));
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a file is in the log twice");
    // The session opens other files too (libraries); with losses only the sum over all numbers can be exact.
    if lost == 0 {
        assert_eq!(names.len(), 20_000);
    } else {
        let found = names.len() as u64;
        assert!(found + lost >= 20_000, "{found} found, {lost} lost");
    }
    assert_numbers_are_complete(&entries)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn what_left_its_parent_and_its_session_is_still_attributed() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let marker = host.open_directory("marker")?.join("made-by-an-orphan");
    let marker = marker.to_str().context("a temporary directory is UTF-8")?;
    let session = host.run_in_session(&program("act-orphan"), &[marker])?;
    let entries = host.entries_after_session(&session)?;
    let (own, _) = of_session(&entries, &session, FILE)?;
    assert_eq!(count(&own, |entry| entry.kind() == "open" && entry.body_text("path") == Some(marker)), 1);
    Ok(())
}

#[test]
fn an_open_under_a_shared_file_table_is_marked_racy_and_keeps_the_claim() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let directory = host.open_directory("files")?;
    let directory = directory.to_str().context("a temporary directory is UTF-8")?;
    let session = host.run_in_session(&program("act-thread-opens"), &["10", directory])?;
    let entries = host.entries_after_session(&session)?;
    let (own, _) = of_session(&entries, &session, FILE)?;
    let prefix = format!("{directory}/");
    let racy = count(&own, |entry| {
        entry.kind() == "open"
            && entry.body_text("path").is_some_and(|path| path.starts_with(&prefix))
            && entry.marks().any(|mark| mark == "racy")
            && entry.claim("asked").is_some_and(|asked| asked.starts_with(&prefix))
    });
    assert_eq!(racy, 10);
    Ok(())
}

#[test]
fn the_arguments_of_an_exec_are_in_the_log() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let session = host.run_in_session(&program("act-execs"), &["5", "/bin/sh", "-c", "exit 0"])?;
    let entries = host.entries_after_session(&session)?;
    let (own, _) = of_session(&entries, &session, PROCESS)?;
    let shells = count(&own, |entry| {
        entry.kind() == "exec"
            && entry.body("argv").is_some_and(|argv| *argv == serde_json::json!(["/bin/sh", "-c", "exit 0"]))
    });
    assert_eq!(shells, 5);
    Ok(())
}
