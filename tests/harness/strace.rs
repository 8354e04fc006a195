//! Another observer of the same run: what strace(1) says a program and its children did, to be compared with the log.
//!
//! One file for each thread (`-ff`), descriptors shown with the path that the kernel gives for them (`-y`). Only what is
//! compared is read; a line that should be understood and is not is an error, so that nothing drops out of a comparison.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// What strace saw of one process, in order for a process of one thread.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Traced {
    /// Names given to exec calls that succeeded.
    pub execs: Vec<String>,
    /// Names given to exec calls that failed, with the error number.
    pub failed_execs: Vec<(String, u64)>,
    /// Opens: the path of the descriptor that came back, or the error number.
    pub opens: Vec<Result<String, u64>>,
    /// IPv4 and IPv6 connects: address, and the error number or 0.
    pub connects: Vec<(String, u64)>,
}

/// The command that runs `program` under strace with its trace below `directory`. The program follows as arguments.
#[must_use]
pub fn strace(directory: &Path) -> (std::path::PathBuf, Vec<String>) {
    let arguments = ["-ff", "-y", "-qq", "-s", "4096", "-e", "signal=none", "-e"];
    let calls = "trace=execve,execveat,open,openat,openat2,creat,connect,clone,clone3,fork,vfork";
    let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    arguments.extend([calls.to_owned(), "-o".to_owned(), directory.join("trace").display().to_string()]);
    ("/usr/bin/strace".into(), arguments)
}

/// Reads the trace: processes by tgid.
pub fn traced(directory: &Path) -> Result<BTreeMap<u64, Traced>> {
    let mut threads = BTreeMap::new();
    for file in fs::read_dir(directory).context("no trace")? {
        let path = file?.path();
        let thread = path.extension().and_then(|text| text.to_str()).and_then(|text| text.parse::<u64>().ok());
        let thread = thread.with_context(|| format!("{}: not named after a thread", path.display()))?;
        threads.insert(thread, fs::read_to_string(&path).with_context(|| format!("{}: not text", path.display()))?);
    }
    ensure!(!threads.is_empty(), "strace left nothing");
    let mut leader_of: BTreeMap<u64, u64> = BTreeMap::new();
    let mut order: Vec<u64> = threads.keys().copied().collect();
    // A thread is named by who made it, which may itself be a thread: makers come first.
    let made = |text: &str| -> Result<Vec<u64>> {
        let lines = text.lines().filter(|line| line.starts_with("clone") && line.contains("CLONE_THREAD"));
        lines.map(|line| result(line).map(|made| made.unwrap_or_default())).collect()
    };
    let mut makers: BTreeMap<u64, u64> = BTreeMap::new();
    for (thread, text) in &threads {
        makers.extend(made(text)?.into_iter().map(|made| (made, *thread)));
    }
    for thread in &order {
        let mut leader = *thread;
        while let Some(maker) = makers.get(&leader) {
            leader = *maker;
        }
        leader_of.insert(*thread, leader);
    }
    order.sort_unstable();
    let mut processes: BTreeMap<u64, Traced> = BTreeMap::new();
    for thread in order {
        let process = processes.entry(leader_of[&thread]).or_default();
        for line in threads[&thread].lines() {
            read(line, process).with_context(|| format!("strace said: {line}"))?;
        }
    }
    Ok(processes)
}

/// Whether strace is there and says which version it is: named in a failure, because its output has no version.
pub fn strace_version() -> Result<String> {
    let output = Command::new("/usr/bin/strace").arg("--version").output().context("strace is not installed")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

fn read(line: &str, into: &mut Traced) -> Result<()> {
    let Some((call, rest)) = line.split_once('(') else { bail!("no call") };
    if line.ends_with("<unfinished ...>") || line.contains(") = ? ") {
        bail!("a call without an end: choose a workload without signals");
    }
    match call {
        "execve" => {
            let name = quoted(rest)?;
            match result(line)? {
                Ok(_) => into.execs.push(name),
                Err(error) => into.failed_execs.push((name, error)),
            }
        }
        "open" | "openat" | "openat2" | "creat" => into.opens.push(match result(line)? {
            Ok(_) => Ok(descriptor(line)?),
            Err(error) => Err(error),
        }),
        "connect" => {
            let between = |from: &str, to: char| {
                rest.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(found, _)| found)
            };
            let port = between("htons(", ')');
            let address = match (between("inet_addr(\"", '"'), between("inet_pton(AF_INET6, \"", '"'), port) {
                (Some(four), _, Some(port)) => format!("{four}:{port}"),
                (_, Some(six), Some(port)) => format!("[{six}]:{port}"),
                _ => return Ok(()),
            };
            into.connects.push((address, result(line)?.err().unwrap_or(0)));
        }
        "clone" | "clone3" | "fork" | "vfork" => {}
        other => bail!("{other} was not asked for"),
    }
    Ok(())
}

/// The first string of a call's arguments.
fn quoted(arguments: &str) -> Result<String> {
    let (_, text) = arguments.split_once('"').context("no string")?;
    let (text, _) = text.split_once('"').context("a string without end")?;
    ensure!(!text.contains('\\'), "a name with escapes: choose another workload");
    Ok(text.to_owned())
}

/// What a call returned: a number, or the number of its error.
fn result(line: &str) -> Result<Result<u64, u64>> {
    let (_, value) = line.rsplit_once(") = ").or_else(|| line.rsplit_once(" = ")).context("no result")?;
    let number: String = value.chars().take_while(|character| character.is_ascii_digit()).collect();
    if let Ok(number) = number.parse() {
        return Ok(Ok(number));
    }
    let name = value.strip_prefix("-1 ").and_then(|rest| rest.split_whitespace().next()).context("no error name")?;
    ERRORS.iter().find(|(known, _)| *known == name).map(|(_, number)| Err(*number)).with_context(|| format!("{name}?"))
}

/// The path that strace shows for the descriptor that came back.
fn descriptor(line: &str) -> Result<String> {
    let (_, value) = line.rsplit_once(") = ").context("no result")?;
    let (_, path) = value.split_once('<').context("no path")?;
    let path = path.strip_suffix('>').context("a path without end")?;
    ensure!(!path.contains('\\'), "a path with escapes: choose another workload");
    // What `/proc/PID/fd` appends for a file without a name is no part of one.
    Ok(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

/// `errno(3)`, as far as the workloads go.
const ERRORS: &[(&str, u64)] = &[
    ("EPERM", 1),
    ("ENOENT", 2),
    ("ENXIO", 6),
    ("EACCES", 13),
    ("EEXIST", 17),
    ("ENOTDIR", 20),
    ("EISDIR", 21),
    ("EINVAL", 22),
    ("ELOOP", 40),
    ("EADDRNOTAVAIL", 99),
    ("ENETUNREACH", 101),
    ("ECONNREFUSED", 111),
    ("EINPROGRESS", 115),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_strace_writes_them() -> Result<()> {
        let mut seen = Traced::default();
        for line in [
            "execve(\"/bin/true\", [\"true\"], 0x7ffd /* 3 vars */) = 0",
            "execve(\"/nowhere\", [\"x\"], 0x7ffd /* 3 vars */) = -1 ENOENT (No such file or directory)",
            "openat(AT_FDCWD</tmp>, \"a\", O_RDONLY) = 3</etc/passwd>",
            "openat(AT_FDCWD</tmp>, \"a\", O_RDWR|O_TMPFILE, 0600) = 4</tmp/#12 (deleted)>",
            "open(\"b\", O_RDONLY) = -1 EACCES (Permission denied)",
            "connect(3<socket:[7]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr(\"127.0.0.1\")}, 16) = 0",
            "connect(3<socket:[7]>, {sa_family=AF_UNIX, sun_path=\"/run/x\"}, 9) = -1 ENOENT (No such file or directory)",
        ] {
            read(line, &mut seen)?;
        }
        assert_eq!(seen.execs, ["/bin/true"]);
        assert_eq!(seen.failed_execs, [("/nowhere".to_owned(), 2)]);
        assert_eq!(seen.opens, [Ok("/etc/passwd".to_owned()), Ok("/tmp/#12".to_owned()), Err(13)]);
        assert_eq!(seen.connects, [("127.0.0.1:80".to_owned(), 0)]);
        assert!(read("ptrace(PTRACE_TRACEME) = 0", &mut seen).is_err());
        assert!(read("openat(AT_FDCWD</tmp>, \"a\", O_RDONLY <unfinished ...>", &mut seen).is_err());
        Ok(())
    }
}
