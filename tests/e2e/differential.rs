//! The same run as strace saw it: execs, opens and connects agree one to one, with the path that the kernel opened.
//!
//! The workloads are programs that we did not write. The observer is not ours either, and sees the calls from outside the
//! kernel's hooks: by ptrace, at the entry and exit of each call, with `/proc/PID/fd` for what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::{Entry, Host, Session, Traced, output_text, python, strace, strace_version, traced};

use crate::exactness::{FILE, NETWORK, PROCESS, assert_numbers_are_complete, of_session};

/// A host that records every open by itself: what is folded is compared by number and not by path.
fn unfolded() -> Result<Host> {
    Host::with("[capture]\nfold = []\n")
}

/// Runs a shell command in a session under strace and compares what both saw of every process below the shell.
fn compare(host: &Host, command: &str) -> Result<(Session, BTreeMap<u64, Traced>)> {
    let trace = host.open_directory("trace")?;
    let (program, mut arguments) = strace(&trace);
    arguments.extend(["/bin/sh", "-c", command].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let session = host.run_in_session(&program, &arguments)?;
    let entries = host.entries_after_session(&session)?;
    for class in [PROCESS, NETWORK, FILE] {
        let (_, lost) = of_session(&entries, &session, class)?;
        ensure!(lost == 0, "{lost} events of class {class} are lost at the pace of strace");
    }
    let (own, _) = of_session(&entries, &session, PROCESS)?;
    let theirs = traced(&trace)?;
    let mut ours = observed(&own)?;

    // strace itself is in the session, and nobody traces it: its own exec is there, and no other beside those traced.
    let untraced: BTreeSet<u64> = ours.keys().filter(|tgid| !theirs.contains_key(tgid)).copied().collect();
    let execs = untraced.iter().flat_map(|tgid| &ours[tgid].execs).collect::<Vec<_>>();
    ensure!(execs == ["/usr/bin/strace"], "execs that strace does not know: {execs:?}");
    for (tgid, theirs) in &theirs {
        let ours = ours.remove(tgid).unwrap_or_default();
        let name = || format!("process {tgid} ({:?}), {}", theirs.execs, strace_version().unwrap_or_default());
        ensure!(ours.execs == theirs.execs, "{}: execs {:?}", name(), ours.execs);
        same(&ours.failed_execs, &theirs.failed_execs).with_context(|| format!("{}: failed execs", name()))?;
        same(&ours.opens, &theirs.opens).with_context(|| format!("{}: opens", name()))?;
        same(&ours.connects, &theirs.connects).with_context(|| format!("{}: connects", name()))?;
    }
    assert_numbers_are_complete(&entries)?;
    fs::remove_dir_all(&trace).context("cannot remove the trace")?;
    Ok((session, theirs))
}

/// What the log says of each process, in the words of strace.
fn observed(entries: &[&Entry]) -> Result<BTreeMap<u64, Traced>> {
    let mut processes: BTreeMap<u64, Traced> = BTreeMap::new();
    for entry in entries {
        let Some(tgid) = entry.body_number("tgid") else { continue };
        let process = processes.entry(tgid).or_default();
        match entry.kind() {
            "exec" => {
                let invoked = entry.claim("invoked").with_context(|| format!("no name: {}", entry.line))?;
                let path = entry.body_text("path").with_context(|| format!("no path: {}", entry.line))?;
                let script = fs::read(invoked).is_ok_and(|content| content.starts_with(b"#!"));
                if let Ok(resolved) = fs::canonicalize(invoked)
                    && !script
                {
                    ensure!(resolved == Path::new(path), "{invoked} is {}: {}", resolved.display(), entry.line);
                }
                process.execs.push(invoked.to_owned());
            }
            "exec_failed" => {
                let invoked = entry.claim("invoked").with_context(|| format!("no name: {}", entry.line))?;
                let errno = entry.body_number("errno").with_context(|| format!("no error: {}", entry.line))?;
                process.failed_execs.push((invoked.to_owned(), errno));
            }
            "open" => process.opens.push(match entry.body_number("errno") {
                Some(errno) => Err(errno),
                None => Ok(entry.body_text("path").with_context(|| format!("no path: {}", entry.line))?.to_owned()),
            }),
            "connect" => {
                let remote = entry.body_text("remote").with_context(|| format!("no address: {}", entry.line))?;
                let errno = entry.body_number("errno").with_context(|| format!("no result: {}", entry.line))?;
                process.connects.push((remote.to_owned(), errno));
            }
            _ => {}
        }
    }
    Ok(processes)
}

/// Whether two lists hold the same, each as often: the threads of a process have no order among them.
fn same<T: Ord + std::fmt::Debug>(ours: &[T], theirs: &[T]) -> Result<()> {
    let mut balance: BTreeMap<&T, i64> = BTreeMap::new();
    for item in ours {
        *balance.entry(item).or_default() += 1;
    }
    for item in theirs {
        *balance.entry(item).or_default() -= 1;
    }
    balance.retain(|_, count| *count != 0);
    ensure!(
        balance.is_empty(),
        "{} in the log, {} by strace; more (+) or less in the log: {balance:?}",
        ours.len(),
        theirs.len()
    );
    Ok(())
}

/// Counts over all processes.
fn totals(processes: &BTreeMap<u64, Traced>) -> (usize, usize, usize) {
    let sum = |count: fn(&Traced) -> usize| processes.values().map(count).sum();
    (sum(|process| process.execs.len()), sum(|process| process.opens.len()), sum(|process| process.connects.len()))
}

fn quiet(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(output.status.success(), "{:?}: {}", command.get_program(), output_text(&output));
    Ok(())
}

#[test]
fn a_c_build_is_seen_as_strace_sees_it() -> Result<()> {
    let host = unfolded()?;
    let daemon = host.start()?;
    host.trust()?;
    let source = host.open_directory("source")?;
    for name in ["one", "two", "three"] {
        let text =
            format!("#include <stdio.h>\n#include <stdlib.h>\nint {name}(void) {{ return puts(\"{name}\"); }}\n");
        fs::write(source.join(format!("{name}.c")), text)?;
    }
    fs::write(
        source.join("main.c"),
        "int one(void); int two(void); int three(void);\nint main(void) { return one() + two() + three() < 0; }\n",
    )?;
    let command = format!(
        "cd {} && for f in one two three main; do gcc -O1 -c $f.c || exit 1; done && gcc -o all *.o && ./all",
        source.display()
    );
    let (session, seen) = compare(&host, &command)?;
    let (execs, opens, _) = totals(&seen);
    // The driver, the compiler and the assembler four times, the linker and its helper, the program.
    assert!(execs >= 4 * 3 + 3 && opens > 200, "{execs} execs, {opens} opens are not a build");
    println!("session {}: {execs} execs and {opens} opens, the same by strace", session.id);
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn a_clone_over_the_network_is_seen_as_strace_sees_it() -> Result<()> {
    let host = unfolded()?;
    let daemon = host.start()?;
    host.trust()?;
    let served = host.open_directory("served")?;
    let repository = served.join("repository");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]);
        command.arg("-C").arg(&served).args(arguments);
        quiet(&mut command)
    };
    git(&["init", "-q", "repository"])?;
    for number in 0..20 {
        fs::write(repository.join(format!("file{number}")), format!("{number}\n").repeat(100))?;
    }
    git(&["-C", "repository", "add", "."])?;
    git(&["-C", "repository", "commit", "-q", "-m", "all"])?;
    let server = GitDaemon::start(&served)?;
    let into = host.open_directory("cloned")?;
    let command = format!("git clone -q git://127.0.0.1:{}/repository {}/copy", server.port, into.display());
    let (session, seen) = compare(&host, &command)?;
    assert!(into.join("copy/file19").exists(), "nothing was cloned");
    let (execs, opens, connects) = totals(&seen);
    let remote = format!("127.0.0.1:{}", server.port);
    assert!(seen.values().any(|process| process.connects.contains(&(remote.clone(), 0))), "{connects} connects");
    println!("session {}: {execs} execs, {opens} opens, {connects} connects, the same by strace", session.id);
    drop(server);
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn an_installation_of_a_package_is_seen_as_strace_sees_it() -> Result<()> {
    let host = unfolded()?;
    let daemon = host.start()?;
    host.trust()?;
    let source = host.open_directory("source")?;
    fs::create_dir_all(source.join("measured_demo"))?;
    fs::write(source.join("measured_demo/__init__.py"), "VALUE = 1\n")?;
    let info = source.join("measured_demo-1.0.dist-info");
    fs::create_dir_all(&info)?;
    fs::write(info.join("METADATA"), "Metadata-Version: 2.1\nName: measured-demo\nVersion: 1.0\n")?;
    fs::write(info.join("WHEEL"), "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")?;
    fs::write(
        info.join("RECORD"),
        "measured_demo/__init__.py,,\nmeasured_demo-1.0.dist-info/METADATA,,\nmeasured_demo-1.0.dist-info/WHEEL,,\nmeasured_demo-1.0.dist-info/RECORD,,\n",
    )?;
    let interpreter = python()?;
    let wheel = host.path("measured_demo-1.0-py3-none-any.whl");
    let mut zip = Command::new(&interpreter);
    zip.current_dir(&source).args(["-m", "zipfile", "-c"]).arg(&wheel);
    quiet(zip.args(["measured_demo/", "measured_demo-1.0.dist-info/"]))?;
    let into = host.open_directory("installed")?;
    let command = format!(
        "{} -m pip install --no-index --no-cache-dir --disable-pip-version-check -q --target {} {}",
        interpreter.display(),
        into.display(),
        wheel.display()
    );
    let (session, seen) = compare(&host, &command)?;
    assert!(into.join("measured_demo/__init__.py").exists(), "nothing was installed");
    let (execs, opens, connects) = totals(&seen);
    assert!(opens > 500, "{opens} opens are no installation");
    println!("session {}: {execs} execs, {opens} opens, {connects} connects, the same by strace", session.id);
    daemon.stop()?;
    host.assert_verifies()
}

/// `git daemon` on a port of this machine, ended with the value.
struct GitDaemon {
    child: Child,
    port: u16,
}

impl GitDaemon {
    fn start(served: &Path) -> Result<Self> {
        // The port is free when it is asked for; if somebody takes it before the server does, the server ends and says so.
        let port = TcpListener::bind("127.0.0.1:0").context("no port")?.local_addr()?.port();
        // The server itself: `git daemon` would stay between it and the signal that ends it.
        let found = Command::new("git").arg("--exec-path").output().context("no git")?;
        let programs = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        let mut command = Command::new(Path::new(&programs).join("git-daemon"));
        command.args(["--reuseaddr", "--export-all", "--listen=127.0.0.1"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", served.display()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut server = Self { child: child.context("cannot start git daemon")?, port };
        tests::until("git daemon", || {
            if let Some(status) = server.child.try_wait().context("cannot look at git daemon")? {
                anyhow::bail!("git daemon ended with {status}");
            }
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
        })?;
        Ok(server)
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        // It is gone already, or it is gone now.
        let ended = self.child.kill().and_then(|()| self.child.wait());
        drop(ended);
    }
}
