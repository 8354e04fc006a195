//! Privileged acts of a session: each in the log, under the session, with what was before and after.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use tests::{Entry, Host, Session, python, repository};

use crate::exactness::{assert_numbers_are_complete, of_session};

/// Class number of kernel numbers.
const PRIVILEGE: u64 = 4;
/// The same, of failed execs.
const PROCESS: u64 = 0;
/// How often each act is done.
const TIMES: u64 = 20;

/// Does one kind of act in a session of its own.
fn act(host: &Host, name: &str, argument: &str) -> Result<Session> {
    let script = repository().join("tests/helpers/privileged.py");
    let script = script.to_str().context("the repository's path is UTF-8")?;
    host.run_in_session(&python()?, &["-I", "-S", script, name, &TIMES.to_string(), argument])
}

/// Asserts that as many entries of a kind as were made are there, or were lost and counted.
#[track_caller]
fn assert_count(own: &[&Entry], lost: u64, kind: &str, expected: u64, matches: impl Fn(&Entry) -> bool) {
    let found = own.iter().filter(|entry| entry.kind() == kind && matches(entry)).count() as u64;
    assert!(found <= expected && found + lost >= expected, "{found} {kind} of {expected}, {lost} lost");
}

/// A member of one of the two credential sets.
fn id(entry: &Entry, set: &str, name: &str) -> Option<u64> {
    entry.body(set)?.get(name)?.as_u64()
}

#[test]
fn what_a_session_does_with_privilege_is_in_the_log_under_it() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;

    // Its own credentials, in the process and in a thread under a false name.
    let session = act(&host, "creds", "")?;
    let entries = host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, PRIVILEGE)?;
    let euids = |entry: &Entry| (id(entry, "before", "euid"), id(entry, "after", "euid"));
    assert_count(&own, lost, "creds", TIMES, |entry| euids(entry) == (Some(0), Some(65_534)));
    assert_count(&own, lost, "creds", TIMES, |entry| euids(entry) == (Some(65_534), Some(0)));
    let session = act(&host, "thread_creds", "")?;
    let entries = host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, PRIVILEGE)?;
    assert_count(&own, lost, "creds", TIMES, |entry| {
        id(entry, "after", "uid") == Some(65_534) && entry.claim("comm") == Some("sshd")
    });

    // Namespaces, and programs that cannot be run.
    let session = act(&host, "namespaces", "")?;
    let entries = host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, PRIVILEGE)?;
    assert_count(&own, lost, "namespace", TIMES, |entry| entry.body_number("flags") == Some(0x1000_0000));
    assert_count(&own, lost, "namespace", TIMES, |entry| entry.body_text("op") == Some("enter"));
    assert_count(&own, lost, "creds", TIMES, |entry| {
        id(entry, "before", "user_namespace") != id(entry, "after", "user_namespace")
    });
    let session = act(&host, "failed_execs", "")?;
    let entries = host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, PROCESS)?;
    for (errno, asked) in [(2, "/affiant-test/nothing"), (13, "/etc/passwd")] {
        assert_count(&own, lost, "exec_failed", TIMES, |entry| {
            entry.body_number("errno") == Some(errno) && entry.claim("invoked") == Some(asked)
        });
    }

    // Objects of the kernel.
    let directory = host.open_directory("mounts")?;
    let directory = directory.to_str().context("a temporary directory is UTF-8")?;
    for (name, kind, per_round) in [("mounts", "mount", 3), ("bpf", "bpf", 2), ("keys", "key", 2)] {
        let session = act(&host, name, directory)?;
        let entries = host.entries_after_session(&session)?;
        let (own, lost) = of_session(&entries, &session, PRIVILEGE)?;
        // The mounts are made private first.
        let before = u64::from(name == "mounts");
        assert_count(&own, lost, kind, before + per_round * TIMES, |_| true);
    }

    // What the daemon does to its own maps and to sessions is not an act; another's reach for it is, loudly.
    let session = act(&host, "signals", &daemon.id().to_string())?;
    let entries = host.entries_after_session(&session)?;
    let (own, lost) = of_session(&entries, &session, PRIVILEGE)?;
    assert_count(&own, lost, "signal", TIMES, |entry| {
        entry.body_number("target_tgid") == Some(u64::from(daemon.id()))
            && entry.body_number("signal") == Some(18)
            && entry.marks().any(|mark| mark == "against_agent")
    });
    let tail = host.affiant(&["tail", "--kind", "signal"]).output().context("cannot start affiant tail")?;
    let text = String::from_utf8_lossy(&tail.stdout).into_owned();
    assert!(text.contains("sent signal 18") && text.contains("AGAINST THE AGENT"), "{text}");

    let all = host.entries()?;
    let privileged = ["creds", "process_access", "signal", "mount", "namespace", "bpf", "key", "io_uring"];
    let agents = all.iter().filter(|entry| privileged.contains(&entry.kind()));
    assert_eq!(agents.filter(|entry| entry.body_number("tgid") == Some(u64::from(daemon.id()))).count(), 0);
    let scope = all.iter().find(|entry| entry.kind() == "scope").context("a scope entry")?;
    assert_eq!(scope.body_number("host_classes"), Some(0b1_0011));
    let armed = all.iter().find(|entry| entry.kind() == "armed").context("an armed entry")?;
    assert!(armed.line.contains("privileged acts: 32-bit and x32 calls"), "{}", armed.line);
    assert_numbers_are_complete(&all)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn a_session_that_reaches_into_another_is_told_with_whom_it_reached() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let mut victim = host.affiant(&["run", "--", "/bin/sleep", "1000"]);
    let mut victim = victim.stdin(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start affiant run")?;
    let sleeper = tests::until("the other session's command runs", || {
        let entries = host.entries()?;
        let exec = entries.iter().find(|entry| {
            // Whoever else sleeps on this host is in no session.
            let sleeps = entry.body_text("path").is_some_and(|path| path.ends_with("/sleep"));
            entry.kind() == "exec" && sleeps && entry.session().is_some()
        });
        let Some(exec) = exec else { return Ok(None) };
        let tgid = exec.body_number("tgid").context("an exec has a tgid")?;
        let issued = exec.session().context("the exec is of a session")?;
        let issued = entries.iter().find(|entry| entry.index().ok() == Some(issued)).context("issued")?;
        let cgroup = issued.body_number("cgroup").context("the session has a cgroup")?;
        Ok(Some((tgid, exec.process().context("an exec has a process")?.to_owned(), cgroup)))
    })?;
    let (tgid, cookie, cgroup) = sleeper;
    for name in ["reach", "signals"] {
        let session = act(&host, name, &tgid.to_string())?;
        let entries = host.entries_after_session(&session)?;
        let (own, lost) = of_session(&entries, &session, PRIVILEGE)?;
        let whom = |entry: &Entry| entry.body_text("target") == Some(&cookie) && entry.body_number("errno") == Some(0);
        if name == "signals" {
            assert_count(&own, lost, "signal", TIMES, whom);
            continue;
        }
        for how in ["ptrace", "vm_read", "getfd"] {
            assert_count(&own, lost, "process_access", TIMES, |entry| {
                whom(entry)
                    && entry.body_text("how") == Some(how)
                    && entry.body_number("target_scope") == Some(cgroup)
                    && entry.body_number("target_tgid") == Some(tgid)
            });
        }
    }
    // The sleeper ended by its own user, from outside of every session.
    let killed = Command::new("/bin/kill").args(["-KILL", &tgid.to_string()]).status().context("cannot start kill")?;
    anyhow::ensure!(killed.success(), "kill: {killed}");
    victim.wait().context("affiant run")?;
    tests::until("the signal from outside is in the log", || {
        let entries = host.entries()?;
        // Others on this host send signals too.
        let kills = |entry: &&Entry| {
            entry.kind() == "signal" && entry.session().is_none() && entry.body_text("target") == Some(&cookie)
        };
        Ok(entries.iter().filter(kills).any(|entry| entry.body_number("signal") == Some(9)).then_some(()))
    })
}

#[test]
fn what_killed_the_agent_is_in_the_log_and_what_the_next_does_at_its_start_is_not_against_it() -> Result<()> {
    let host = Host::new()?;
    let killed = host.start()?;
    let victim = u64::from(killed.id());
    killed.kill()?;
    let daemon = host.start()?;
    // Whoever else reads a map of it is, and comes after all that the second daemon did at its start.
    let set = std::fs::read_dir(host.pins()).context("pins")?.next().context("a set is pinned")?.context("pins")?;
    let map = set.path().join("SETTINGS");
    let session = act(&host, "meddle", map.to_str().context("a pin's path is UTF-8")?)?;
    let entries = host.entries_after_session(&session)?;
    let marked = |entry: &&Entry| entry.marks().any(|mark| mark == "against_agent");
    let (own, lost) = of_session(&entries, &session, PRIVILEGE)?;
    assert_count(&own, lost, "bpf", TIMES, |entry| marked(&entry) && entry.body_text("name") == Some("SETTINGS"));
    let others: Vec<_> = entries.iter().filter(marked).filter(|entry| entry.session().is_none()).collect();
    // The kernel side outlived the daemon that it reports the end of, and its successor read what it had left.
    let lines = || others.iter().map(|entry| entry.line.as_str()).collect::<Vec<_>>().join("\n");
    assert_eq!(others.len(), 1, "{}", lines());
    let end = others.first().context("one")?;
    let (whom, what) = (end.body_number("target_tgid"), end.body_number("signal"));
    assert_eq!((end.kind(), whom, what), ("signal", Some(victim), Some(9)), "{}", lines());
    assert_eq!(end.body_number("tgid"), Some(u64::from(std::process::id())), "this process sent it: {}", lines());
    daemon.stop()
}
