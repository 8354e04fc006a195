//! A workload that tries to act unseen. For each attempt: what is recorded, and to whom it is attributed; where this host's
//! tier cannot see the act, that the record of coverage says so, in the words asserted here.
//!
//! The attempts are in `tests/helpers/evade.py`. What it says of itself (inodes, ports) is what it really did, because it
//! looked at what it got; what the log says must agree.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tests::{Entry, Host, Session, python, repository};

use crate::exactness::{FILE, NETWORK, PROCESS, assert_numbers_are_complete, of_session};

/// Runs one attempt in a session; the session and all entries of the log.
fn attempt(host: &Host, arguments: &[&str]) -> Result<(Session, Vec<Entry>)> {
    let script = repository().join("tests/helpers/evade.py");
    let script = script.to_str().context("the repository's path is UTF-8")?;
    let mut all = vec!["-B", script];
    all.extend(arguments);
    let session = host.run_in_session(&python()?, &all)?;
    let entries = host.entries_after_session(&session)?;
    Ok((session, entries))
}

/// What the attempt said: the words after `key`, one for each line.
fn said<'a>(session: &'a Session, key: &str) -> Result<Vec<&'a str>> {
    let text = std::str::from_utf8(&session.output.stdout).context("not text")?;
    let words: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(key)).map(str::trim).collect();
    ensure!(!words.is_empty(), "the attempt said nothing of {key:?}: {text}");
    Ok(words)
}

/// Entries of a kind of the session itself.
fn own<'a>(entries: &'a [Entry], session: &Session, kind: &str, class: u64) -> Result<Vec<&'a Entry>> {
    let (own, lost) = of_session(entries, session, class)?;
    ensure!(lost == 0, "{lost} events of class {class} are lost");
    Ok(own.into_iter().filter(|entry| entry.kind() == kind).collect())
}

/// Whether the record of coverage names an act as not covered.
fn not_covered(entries: &[Entry], act: &str) -> Result<bool> {
    let armed = entries.iter().find(|entry| entry.kind() == "armed").context("no armed entry")?;
    let listed = armed.body("not_covered").and_then(|list| list.as_array()).context("no list")?;
    Ok(listed.iter().any(|line| line.to_string().contains(act)))
}

fn directory(host: &Host) -> Result<String> {
    let path = host.open_directory("evade")?;
    Ok(path.to_str().context("a temporary directory is UTF-8")?.to_owned())
}

/// How often each inode was opened among files of the directory, by the log.
fn opened_below(entries: &[&Entry], directory: &str) -> Vec<(String, String)> {
    let opened = entries.iter().filter_map(|entry| {
        let path = entry.body_text("path")?;
        let ino = entry.body_number("ino")?;
        path.starts_with(directory).then(|| (path.to_owned(), ino.to_string()))
    });
    opened.collect()
}

#[test]
fn a_path_that_another_thread_rewrites_is_recorded_as_the_kernel_opened_it() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    let at = directory(&host)?;
    let (session, entries) = attempt(&host, &["rewritten_path", &at, "2000"])?;
    let opens = own(&entries, &session, "open", FILE)?;
    let seen: Vec<(String, String)> = opened_below(&opens, &at);
    // The two files were made by the attempt itself; after that each open in order.
    let seen: Vec<&str> = seen.iter().skip(2).map(|(_, ino)| ino.as_str()).collect();
    assert_eq!(seen, said(&session, "opened")?);
    for open in &opens {
        let Some(path) = open.body_text("path").filter(|path| path.starts_with(&at)) else { continue };
        let ino = fs::metadata(path).map(|file| std::os::unix::fs::MetadataExt::ino(&file))?;
        assert_eq!(open.body_number("ino"), Some(ino), "{}", open.line);
    }
    assert_numbers_are_complete(&entries)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn a_link_that_another_process_swaps_is_recorded_as_the_kernel_followed_it() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let at = directory(&host)?;
    let (session, entries) = attempt(&host, &["swapped_link", &at, "2000"])?;
    let opens = own(&entries, &session, "open", FILE)?;
    let seen = opened_below(&opens, &at);
    assert!(seen.iter().all(|(path, _)| !path.ends_with("/link")), "a link was never what was opened");
    let seen: Vec<&str> = seen.iter().skip(2).map(|(_, ino)| ino.as_str()).collect();
    assert_eq!(seen, said(&session, "opened")?);
    Ok(())
}

#[test]
fn programs_without_a_name_are_recorded_by_what_they_are() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let at = directory(&host)?;
    for (attempted, mark) in
        [(vec!["memory_program", "/bin/true"], "memfd"), (vec!["deleted_program", "/bin/true", &at], "path_unlinked")]
    {
        let (session, entries) = attempt(&host, &attempted)?;
        let inode = said(&session, "inode")?.concat();
        let execs = own(&entries, &session, "exec", PROCESS)?;
        let found: Vec<&&Entry> = execs
            .iter()
            .filter(|exec| exec.body_number("ino").map(|ino| ino.to_string()).as_ref() == Some(&inode))
            .collect();
        assert_eq!(found.len(), 1, "{attempted:?}: inode {inode} in {execs:?}");
        assert!(found[0].marks().any(|found| found == mark), "{mark}: {}", found[0].line);
    }
    Ok(())
}

#[test]
fn a_script_is_recorded_with_its_interpreter_and_its_own_name() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let at = directory(&host)?;
    let (session, entries) = attempt(&host, &["script", &at])?;
    let script = format!("{at}/script");
    let execs = own(&entries, &session, "exec", PROCESS)?;
    let found: Vec<&&Entry> = execs.iter().filter(|exec| exec.claim("invoked") == Some(&script)).collect();
    assert_eq!(found.len(), 1, "{execs:?}");
    let interpreter = fs::canonicalize("/bin/sh").context("no shell")?;
    assert_eq!(found[0].body_text("path").map(Path::new), Some(interpreter.as_path()));
    // The kernel puts the script in the place of the name that the caller chose for argv[0].
    let argv = found[0].body("argv").and_then(|argv| argv.as_array()).context("no argv")?;
    assert_eq!(argv.iter().filter_map(|word| word.as_str()).collect::<Vec<_>>(), ["/bin/sh", &script, "argument"]);
    Ok(())
}

#[test]
fn a_name_of_its_choice_is_a_claim_and_hides_nothing() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let path = format!("{}/made", directory(&host)?);
    let (session, entries) = attempt(&host, &["renamed", &path])?;
    let opens = own(&entries, &session, "open", FILE)?;
    let found: Vec<&&Entry> = opens.iter().filter(|open| open.body_text("path") == Some(&path)).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].claim("comm"), Some("kworker/0:1"));
    assert_eq!(found[0].body_number("tgid").map(|pid| pid.to_string()), Some(said(&session, "pid")?.concat()));
    // Its process is the one that `exec` names, whatever it calls itself.
    let execs = own(&entries, &session, "exec", PROCESS)?;
    assert!(execs.iter().any(|exec| exec.process() == found[0].process() && exec.process().is_some()));
    Ok(())
}

#[test]
fn a_root_of_its_own_does_not_shorten_a_path_and_a_user_namespace_does_not_change_who() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let at = directory(&host)?;
    let (session, entries) = attempt(&host, &["own_root", &at, "made"])?;
    let inode = said(&session, "inode")?.concat();
    let opens = own(&entries, &session, "open", FILE)?;
    let made: Vec<&&Entry> =
        opens.iter().filter(|open| open.body_text("path").is_some_and(|path| path.ends_with("/made"))).collect();
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].body_text("path"), Some(format!("{at}/made").as_str()), "as seen from the host's root");
    assert_eq!(made[0].body_number("ino").map(|ino| ino.to_string()), Some(inode));
    assert_eq!(made[0].body_number("uid"), Some(0), "ids are those of the first user namespace");
    Ok(())
}

#[test]
fn what_a_kernel_worker_does_for_it_is_recorded_or_named_as_not_covered() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let path = format!("{}/made", directory(&host)?);
    let (session, entries) = attempt(&host, &["ring_open", &path])?;
    assert!(fs::metadata(&path).is_ok(), "the attempt opened nothing");
    said(&session, "inode")?;
    let opens = own(&entries, &session, "open", FILE)?;
    let seen = opens.iter().any(|open| open.body_text("path") == Some(&path));
    assert!(seen || not_covered(&entries, "open: io_uring")?, "neither recorded nor named");

    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let port = listener.local_addr()?.port();
    let (session, entries) = attempt(&host, &["ring_connect", &port.to_string()])?;
    said(&session, "connected from")?;
    let connects = own(&entries, &session, "connect", NETWORK)?;
    let remote = format!("127.0.0.1:{port}");
    let found: Vec<&&Entry> = connects.iter().filter(|connect| connect.body_text("remote") == Some(&remote)).collect();
    assert_eq!(found.len(), 1, "{connects:?}");
    assert!(found[0].marks().any(|mark| mark == "result_not_observed"), "{}", found[0].line);
    Ok(())
}

#[test]
fn an_open_by_the_other_table_of_system_calls_is_named_as_not_covered() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let path = format!("{}/made", directory(&host)?);
    let (session, entries) = attempt(&host, &["other_tables", &path])?;
    said(&session, "inode")?;
    let opens = own(&entries, &session, "open", FILE)?;
    let seen = opens.iter().any(|open| open.body_text("path") == Some(&path));
    assert!(seen || not_covered(&entries, "open: 32-bit and x32 calls")?, "neither recorded nor named");
    Ok(())
}

#[test]
fn an_exec_in_a_flood_of_opens_is_recorded() -> Result<()> {
    // A small ring would do as well; the default one shows that the default is enough.
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    let at = directory(&host)?;
    let (session, entries) = attempt(&host, &["flooded", &at, "100"])?;
    let (own, lost) = of_session(&entries, &session, PROCESS)?;
    assert_eq!(lost, 0, "the flood is in the other ring");
    let mut numbers: Vec<u64> = own
        .iter()
        .filter(|entry| entry.kind() == "exec" && entry.body_text("path").is_some_and(|path| path.ends_with("/true")))
        .filter_map(|entry| entry.body("argv")?.get(1)?.as_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<u64>>());
    let (own, lost) = of_session(&entries, &session, FILE)?;
    let opens = own.iter().filter(|entry| entry.kind() == "open").count();
    println!("100 execs found among {opens} opens, of which {lost} more were lost and are counted");
    assert!(opens > 10_000, "{opens} opens are no flood");
    assert_numbers_are_complete(&entries)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn a_descriptor_that_was_handed_over_is_recorded_where_it_was_opened_and_its_receipt_is_named_as_not_covered()
-> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let at = directory(&host)?;
    let (session, entries) = attempt(&host, &["passed", &at])?;
    let inode = said(&session, "inode")?.concat();
    let opens = own(&entries, &session, "open", FILE)?;
    let file = format!("{at}/file");
    let found: Vec<&&Entry> = opens.iter().filter(|open| open.body_text("path") == Some(&file)).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].body_number("ino").map(|ino| ino.to_string()), Some(inode));
    let (own, _) = of_session(&entries, &session, FILE)?;
    let received = own.iter().any(|entry| entry.kind() == "file_received");
    assert!(received || not_covered(&entries, "received over sockets")?, "neither recorded nor named");
    Ok(())
}

#[test]
fn who_moves_itself_out_of_its_cgroup_and_leaves_its_family_stays_in_its_session() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let root = tests::cgroup2_mount()?;
    let root = root.to_str().context("a mount point is UTF-8")?;
    let (session, entries) = attempt(&host, &["own_cgroup", root])?;
    let (own, lost) = of_session(&entries, &session, PROCESS)?;
    assert_eq!(lost, 0);
    let execs = own.iter().filter(|entry| entry.kind() == "exec");
    let far = execs.filter(|exec| exec.body("argv").is_some_and(|argv| argv.to_string().contains("far-away"))).count();
    assert_eq!(far, 1, "an orphan in another cgroup and another process group is still its session's");
    let moved = own.iter().filter(|entry| entry.kind() == "cgroup" && entry.body_text("op") == Some("move")).count();
    assert_eq!(moved, 1, "the move is recorded");
    Ok(())
}
