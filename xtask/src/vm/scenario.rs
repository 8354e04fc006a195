//! What is done in a guest, and what the host must find afterwards.
//!
//! A scenario is a script in the guest (`guest/NAME.sh`), a number of boots on one disk, and a check on the host. The check
//! sees only what the guest left on its disk: the log is verified by both readers on the host with the trust file that the
//! guest made at its first start. Between boots the host may carry files to and fro, as [`enrolment`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::tests::{Entry, TreeDirectory, entries_from_lines, program, repository};
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::disk::Disk;
use super::guest::End;
use super::kernel::Kernel;
use super::tiers::{armed_as, of_the_tier, unseen, verified};
use super::tpm::{Tpm, Vendor};
use super::{enrolment, measured};
use crate::process::quiet;

/// Kernel parameters that change what the agent may do.
#[derive(Debug)]
pub(crate) struct Variant {
    /// How lines and the command line name it.
    pub(crate) name: &'static str,
    /// Added to the kernel's command line.
    pub(crate) parameters: &'static str,
    /// Whether `bpf` is in the list of security modules.
    bpf_lsm: bool,
    /// The tier of hooks that must be armed, whichever the configuration asks for.
    pub(crate) tier: &'static str,
    /// Whether programs may read kernel memory: without, some fields are missing, and said to be.
    pub(crate) reads: bool,
}

/// As a distribution boots.
pub(crate) const DEFAULT: Variant =
    Variant { name: "default", parameters: "", bpf_lsm: true, tier: "lsm", reads: true };
/// A list of security modules in which `bpf` is missing, as many hosts have it.
const NO_BPF: Variant = Variant {
    name: "lsm without bpf",
    parameters: "lsm=landlock,lockdown,yama,apparmor",
    bpf_lsm: false,
    tier: "fentry",
    reads: true,
};
/// The lowest tier, where a better one could be had.
const TRACEPOINT: Variant = Variant {
    name: "tier tracepoint",
    parameters: "affiant.tier=tracepoint",
    bpf_lsm: true,
    tier: "tracepoint",
    reads: true,
};
/// Locked down for keeping the kernel's memory from everybody.
const CONFIDENTIALITY: Variant = Variant {
    name: "lockdown=confidentiality",
    parameters: "lockdown=confidentiality",
    bpf_lsm: true,
    tier: "lsm",
    reads: false,
};
/// The same on a host without BPF LSM.
const CONFIDENTIALITY_NO_BPF: Variant = Variant {
    name: "confidentiality, no bpf",
    parameters: "lockdown=confidentiality lsm=landlock,lockdown,yama,apparmor",
    bpf_lsm: false,
    tier: "fentry",
    reads: false,
};

/// One boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// How it ends.
    pub(crate) end: End,
    /// Added to the kernel's command line in this boot.
    pub(crate) parameters: &'static str,
}

const POWER_OFF: Turn = Turn { end: End::PowerOff, parameters: "" };
const CUT: Turn = Turn { end: End::Cut, parameters: "" };

/// What the host has of a guest that is off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Desk<'a> {
    /// The guest's disk.
    pub(crate) disk: &'a Disk,
    /// Where the host keeps what is not for the guest.
    pub(crate) directory: &'a Path,
    /// Who made the TPM.
    pub(crate) vendor: Option<&'a Vendor>,
    /// The TPM, off.
    pub(crate) tpm: Option<&'a Tpm>,
}

/// With the kernel's built-in policy of what to measure: every program, library and module, and what root reads.
const MEASURING: Variant =
    Variant { name: "ima", parameters: "ima_policy=tcb", bpf_lsm: true, tier: "lsm", reads: true };

/// What a guest is put through.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Also the name of the script.
    pub(crate) name: &'static str,
    /// The boots, in their order.
    pub(crate) boots: &'static [Turn],
    /// Under which parameters it is run, and whether `cargo xtask test` runs it under them.
    pub(crate) variants: &'static [(Variant, bool)],
    /// Whether the guest has a TPM.
    pub(crate) tpm: bool,
    /// Whether its firmware measures what it starts, and the kernel what it loads.
    pub(crate) firmware: bool,
    /// Whether the agent must be able to arm on the kernel.
    pub(crate) armed: bool,
    /// What the host does before a boot, which is counted from 1.
    pub(crate) before: fn(&Desk<'_>, u32) -> Result<()>,
    check: fn(&Left<'_>) -> Result<String>,
}

/// Every scenario.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "doctor",
        boots: &[POWER_OFF],
        variants: &[(DEFAULT, false), (NO_BPF, false), (CONFIDENTIALITY, false)],
        tpm: false,
        firmware: false,
        armed: false,
        before: nothing,
        check: doctor,
    },
    Scenario {
        name: "session",
        boots: &[POWER_OFF],
        variants: &[
            (DEFAULT, true),
            (NO_BPF, true),
            (TRACEPOINT, false),
            (CONFIDENTIALITY, true),
            (CONFIDENTIALITY_NO_BPF, false),
        ],
        tpm: false,
        firmware: false,
        armed: true,
        before: nothing,
        check: session,
    },
    Scenario {
        name: "restarts",
        boots: &[POWER_OFF, POWER_OFF, CUT, POWER_OFF],
        variants: &[(DEFAULT, false)],
        tpm: false,
        firmware: false,
        armed: true,
        before: nothing,
        check: restarts,
    },
    Scenario {
        name: "rooted",
        boots: &[POWER_OFF, POWER_OFF, CUT, POWER_OFF],
        variants: &[(DEFAULT, true)],
        tpm: true,
        firmware: false,
        armed: true,
        before: enrolment::carry,
        check: rooted,
    },
    Scenario {
        name: "measured",
        boots: &[POWER_OFF, POWER_OFF, Turn { end: End::PowerOff, parameters: measured::OTHERWISE }],
        variants: &[(MEASURING, true)],
        tpm: true,
        firmware: true,
        armed: true,
        before: measured::keep,
        check: measured::check,
    },
    Scenario {
        name: "tpm",
        boots: &[POWER_OFF],
        variants: &[(DEFAULT, true)],
        tpm: true,
        firmware: false,
        armed: false,
        before: nothing,
        check: tpm,
    },
];

/// Nothing is done between boots.
fn nothing(_desk: &Desk<'_>, _boot: u32) -> Result<()> {
    Ok(())
}

/// What a guest left after its last boot.
#[derive(Debug)]
pub(crate) struct Left<'a> {
    /// The kernel that ran.
    pub(crate) kernel: &'a Kernel,
    /// `uname -r` of it.
    pub(crate) release: &'a str,
    /// The parameters that it ran under.
    pub(crate) variant: &'a Variant,
    /// Everything that was on the disk.
    pub(crate) disk: PathBuf,
    /// What the host kept that was not for the guest.
    pub(crate) host: &'a Path,
    /// Consoles, one per boot.
    pub(crate) consoles: Vec<PathBuf>,
    /// Who made the TPM.
    pub(crate) vendor: Option<&'a Vendor>,
}

impl Scenario {
    /// Checks what the guest left; what was found, for the line that says it passed.
    pub(crate) fn check(&self, left: &Left<'_>) -> Result<String> {
        (self.check)(left)
    }
}

/// What `affiant-verify` says of a log, and the second reader too.
#[derive(Debug)]
pub(crate) struct Verdict {
    code: Option<i32>,
    report: Value,
    /// What it wrote to standard error.
    errors: String,
}

impl Verdict {
    /// Verifies a log with a trust file. That the two readers disagree is an error.
    pub(crate) fn of(log: &Path, trust: &Path) -> Result<Self> {
        let mut verify = Command::new(program("affiant-verify"));
        verify.arg(log).arg("--trust").arg(trust).arg("--json");
        let output = verify.output().context("cannot start affiant-verify")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("affiant-verify: {}, and no report: {errors}", output.status))?;
        let verdict = Self { code: output.status.code(), report, errors };
        let mut reader = Command::new("python3");
        reader.current_dir(repository()).arg("tests/verify.py").arg(log).arg("--trust").arg(trust).arg("--json");
        let output = reader.output().context("cannot start tests/verify.py")?;
        let other: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("tests/verify.py: no report: {}", String::from_utf8_lossy(&output.stderr)))?;
        let (mut ours, mut theirs) = (findings(&verdict.report), findings(&other));
        ours.sort_unstable();
        theirs.sort_unstable();
        ensure!(
            verdict.code == output.status.code() && ours == theirs,
            "affiant-verify ends with {:?} and finds {ours:?}, tests/verify.py with {:?} and {theirs:?}",
            verdict.code,
            output.status.code()
        );
        Ok(verdict)
    }

    /// The report, if this was the exit code.
    pub(crate) fn with_code(self, expected: i32) -> Result<Value> {
        let Self { code, report, errors } = self;
        ensure!(
            code == Some(expected),
            "affiant-verify: exit code {code:?}, {expected} expected\n{report:#}\n{errors}"
        );
        Ok(report)
    }
}

/// The names of a report's findings, in the order of the log.
pub(crate) fn findings(report: &Value) -> Vec<&str> {
    let findings = report.get("findings").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    findings.iter().filter_map(|finding| finding.get("name")?.as_str()).collect()
}

impl Left<'_> {
    /// What the guest's script left under this name.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.disk.join("out").join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        let path = self.out(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn json(&self, name: &str) -> Result<Value> {
        serde_json::from_str(&self.text(name)?).with_context(|| format!("{name} is not JSON"))
    }

    /// The log as the last boot left it.
    pub(crate) fn log(&self) -> PathBuf {
        self.disk.join("state/log")
    }

    /// Its entries.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        let entries = TreeDirectory::new(self.log()).entries()?;
        let lines: Vec<String> = entries.iter().map(|entry| String::from_utf8_lossy(entry).into_owned()).collect();
        entries_from_lines(&lines.join("\n"))
    }

    /// The report of a log that must verify.
    fn verified(&self) -> Result<Value> {
        Verdict::of(&self.log(), &self.out("trust.toml"))?.with_code(0)
    }
}

fn doctor(left: &Left<'_>) -> Result<String> {
    let report = left.json("doctor.json")?;
    ensure!(report.get("kernel").and_then(Value::as_str) == Some(left.release), "doctor names another kernel");
    let lsm = feature(&report, "BPF LSM")?;
    // The list of the oldest kernel never had it.
    let expected = if left.variant.bpf_lsm && left.kernel.lacks.is_none() { "yes" } else { "no" };
    ensure!(lsm == expected, "BPF LSM: {lsm}, {expected} expected");
    let doctor = left.text("doctor.exit")?;
    let daemon = left.text("daemon.exit")?;
    let tier = report.get("hook_tier").and_then(Value::as_str);
    match left.kernel.lacks {
        None => {
            let expected = left.variant.tier;
            ensure!(doctor.trim() == "0" && tier == Some(expected), "doctor: exit {}, {tier:?}", doctor.trim());
            ensure!(daemon.trim() == "0", "daemon: exit {}\n{}", daemon.trim(), left.text("daemon.log")?);
            let status = left.text("status")?;
            ensure!(status.contains(&format!("tier {expected}")), "status: {status}");
            // A tier that cannot be had is an error that says what was seen, and nothing is armed instead.
            if !left.variant.bpf_lsm {
                let forced = left.text("forced.exit")?;
                ensure!(forced.trim() == "69", "forced tier lsm: exit {}, 69 expected", forced.trim());
                let said = left.text("forced.log")?;
                ensure!(
                    said.contains("lsm: a BPF LSM program attaches and is never called"),
                    "forced tier lsm: {said}"
                );
            }
            Ok(format!("usable, tier {expected} armed; BPF LSM {lsm}"))
        }
        Some(reason) => {
            ensure!(doctor.trim() == "69" && tier.is_none(), "doctor: exit {}, 69 expected; {tier:?}", doctor.trim());
            ensure!(daemon.trim() == "69", "daemon: exit {}, 69 expected", daemon.trim());
            let log = left.text("daemon.log")?;
            let message = log.lines().find(|line| line.starts_with("affiant: ")).unwrap_or_default();
            ensure!(message.contains(reason), "the daemon's message does not name {reason}: {log}");
            Ok(format!("not usable, exit 69 of doctor and daemon; both name {reason}"))
        }
    }
}

/// Whether doctor found a feature.
fn feature<'a>(report: &'a Value, what: &str) -> Result<&'a str> {
    let features = report.get("features").and_then(Value::as_array).context("no features")?;
    let found = features.iter().find(|feature| feature.get("what").and_then(Value::as_str) == Some(what));
    found.and_then(|feature| feature.get("found")?.as_str()).with_context(|| format!("doctor does not tell of {what}"))
}

fn session(left: &Left<'_>) -> Result<String> {
    let mounts = left.text("mounts")?;
    let kinds: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    ensure!(kinds.contains(&"cgroup2") && !kinds.contains(&"cgroup"), "not pure cgroup v2:\n{mounts}");
    left.verified()?;
    let entries = left.entries()?;
    let armed = entries.iter().find(|entry| entry.kind() == "armed").context("no armed entry")?;
    let hooks = armed_as(left, armed)?;
    let first = session_id(&left.text("run-1.err")?)?;
    whole_session(&entries, &first, "/tmp/opens-1", left.variant)?;
    of_the_tier(left, &entries, &first)?;
    left_its_cgroup(&entries, &session_id(&left.text("run-2.err")?)?)?;
    privileged_acts(&entries, &session_id(&left.text("run-3.err")?)?, left.variant)?;
    unseen(left, armed, &entries, &session_id(&left.text("run-4.err")?)?)?;
    numbers_are_complete(&entries)?;
    Ok(format!(
        "tier {}, {hooks} hooks; every act of four sessions; verified, {} entries\n        instructions verified: {}",
        left.variant.tier,
        entries.len(),
        verified(&left.text("daemon.log")?)?
    ))
}

/// The id that `affiant run` wrote to standard error.
fn session_id(errors: &str) -> Result<String> {
    let line = errors.lines().find_map(|line| line.strip_prefix("affiant: session "));
    line.map(|id| id.trim().to_owned()).with_context(|| format!("no session id in {errors:?}"))
}

/// Checks the acts of `run_session` in the guest's library, one by one.
fn whole_session(entries: &[Entry], id: &str, directory: &str, variant: &Variant) -> Result<()> {
    let issued = entries.iter().find(|entry| entry.kind() == "issued" && entry.body_text("id") == Some(id));
    let issued = issued.with_context(|| format!("session {id} was not issued"))?.index()?;
    let own: Vec<&Entry> = entries.iter().filter(|entry| entry.session() == Some(issued)).collect();
    let of = |kind: &str| -> Vec<&&Entry> { own.iter().filter(|entry| entry.kind() == kind).collect() };
    let expected = [("exec", 9), ("fork", 8), ("exit", 9), ("connect", 4), ("send", 4), ("revoked", 1)];
    // Told from kernel memory, and through tracefs, only.
    let read = [("listen", 1), ("accept", 4), ("flow", 8), ("connect_unix", 2)];
    let read = read.map(|(kind, count)| (kind, if variant.reads { count } else { 0 }));
    for (kind, expected) in expected.into_iter().chain(read) {
        ensure!(of(kind).len() == expected, "session {id}: {} {kind}, {expected} expected", of(kind).len());
    }
    // Where kernel memory is closed, only the tier with hooks on exec has names.
    let named = variant.reads || variant.tier == "lsm";
    let mut execs: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for exec in of("exec") {
        let cwd = exec.body_text("cwd");
        ensure!(cwd == named.then_some("/") && exec.body_number("uid") == Some(0), "{}", exec.line);
        let argv = exec.body("argv").and_then(Value::as_array).context("an exec has arguments")?;
        let first = argv.first().and_then(Value::as_str).unwrap_or_default();
        ensure!(named != argv.is_empty(), "{}", exec.line);
        *execs.entry((exec.body_text("path").unwrap_or_default(), first.to_owned())).or_default() += 1;
    }
    let expected = [
        (("/bin/act-connects", "/bin/act-connects".to_owned()), 1),
        (("/bin/act-execs", "/bin/act-execs".to_owned()), 1),
        (("/bin/act-network", "/bin/act-network".to_owned()), 2),
        (("/bin/act-opens", "/bin/act-opens".to_owned()), 1),
        (("/bin/busybox", "/bin/sh".to_owned()), 1),
        (("/bin/busybox", "/bin/true".to_owned()), 3),
    ];
    let expected: BTreeMap<_, _> =
        if named { BTreeMap::from(expected) } else { BTreeMap::from([(("", String::new()), 9)]) };
    ensure!(execs == expected, "session {id}: execs {execs:?}");
    ensure!(of("exit").iter().all(|exit| exit.body_number("code") == Some(0)), "session {id}: a process failed");
    let mut made: Vec<&str> = of("open")
        .iter()
        .filter(|open| open.marks().any(|mark| mark == "created"))
        .filter_map(|open| open.body_text("path"))
        .collect();
    made.sort_unstable();
    let wanted: Vec<String> = (0..5).map(|number| format!("{directory}/{number}")).collect();
    ensure!(made == wanted, "session {id}: files made: {made:?}");
    let mut closed: Vec<&str> = of("file_close")
        .iter()
        .filter_map(|close| close.body_text("path"))
        .filter(|path| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')))
        .collect();
    closed.sort_unstable();
    ensure!(if variant.reads { closed == wanted } else { closed.is_empty() }, "session {id}: files closed: {closed:?}");
    for connect in of("connect") {
        let to = connect.body_text("remote").unwrap_or_default();
        let from = connect.body_text("local").unwrap_or_default();
        let from_known = from.starts_with("127.0.0.1:") || (!variant.reads && from.is_empty());
        let ends = to.starts_with("127.0.0.1:") && from_known && to != from;
        ensure!(ends && connect.body_number("errno") == Some(0), "{}", connect.line);
    }
    Ok(())
}

/// A session whose shell moved itself to the root cgroup: what it did after that is still its own.
fn left_its_cgroup(entries: &[Entry], id: &str) -> Result<()> {
    let issued = entries.iter().find(|entry| entry.kind() == "issued" && entry.body_text("id") == Some(id));
    let issued = issued.with_context(|| format!("session {id} was not issued"))?.index()?;
    let own = entries.iter().filter(|entry| entry.session() == Some(issued));
    let after = own.clone().filter(|entry| entry.kind() == "exec" && entry.claim("comm") == Some("true")).count();
    ensure!(after == 2, "session {id}: {after} execs outside of its cgroup, 2 expected");
    let moves = own.clone().filter(|entry| entry.kind() == "cgroup" && entry.body_text("op") == Some("move"));
    let away = moves.filter(|entry| entry.body_text("path") == Some("/")).count();
    ensure!(away == 1, "session {id}: {away} moves to the root cgroup, 1 expected");
    ensure!(own.clone().any(|entry| entry.kind() == "revoked"), "session {id} has no end");
    Ok(())
}

/// The third session: privileged acts by their kinds, and what only the kernel's own objects could have told.
fn privileged_acts(entries: &[Entry], id: &str, variant: &Variant) -> Result<()> {
    let issued = entries.iter().find(|entry| entry.kind() == "issued" && entry.body_text("id") == Some(id));
    let issued = issued.with_context(|| format!("session {id} was not issued"))?.index()?;
    let own: Vec<&Entry> = entries.iter().filter(|entry| entry.session() == Some(issued)).collect();
    let count = |kind: &str, matches: &dyn Fn(&Entry) -> bool| {
        own.iter().filter(|entry| entry.kind() == kind && matches(entry)).count()
    };
    let op = |word: &'static str| move |entry: &Entry| entry.body_text("op") == Some(word);
    if !variant.reads {
        // Their system calls are hooked through tracefs, which is closed too.
        for kind in ["mount", "namespace", "creds", "signal", "exec_failed"] {
            ensure!(count(kind, &|_| true) == 0, "session {id}: {kind} where it is said to be missing");
        }
        return Ok(());
    }
    let root = |entry: &Entry| op("chroot")(entry) && entry.body_text("target") == Some("/tmp");
    let user = |entry: &Entry, set: &str, name: &str| entry.body(set).and_then(|set| set.get(name)?.as_u64());
    let found = [
        ("mount", count("mount", &op("mount"))),
        ("unmount", count("mount", &op("unmount"))),
        ("chroot to /tmp", count("mount", &root)),
        ("network namespace", count("namespace", &|entry| entry.body_number("flags") == Some(0x4000_0000))),
        ("user namespace", count("namespace", &|entry| entry.body_number("flags") == Some(0x1000_0000))),
        (
            "credentials in a new user namespace",
            count("creds", &|entry| user(entry, "before", "user_namespace") != user(entry, "after", "user_namespace")),
        ),
        (
            "user id given up",
            count("creds", &|entry| {
                (user(entry, "before", "uid"), user(entry, "after", "uid")) == (Some(0), Some(65_534))
            }),
        ),
        // Found by its number in the tree of the pid namespace: the kernel was asked for process 1 and said no.
        (
            "refused signal to process 1",
            count("signal", &|entry| {
                entry.body_number("errno") == Some(1)
                    && entry.body_number("target_tgid") == Some(1)
                    && entry.body_text("target").is_some()
                    && entry.body_number("signal") == Some(9)
            }),
        ),
    ];
    for (what, times) in found {
        ensure!(times == 1, "session {id}: {what} {times} times, 1 expected");
    }
    let failed = count("exec_failed", &|entry| entry.claim("invoked") == Some("/nothing"));
    ensure!(failed >= 1, "session {id}: no failed exec of /nothing");
    Ok(())
}

/// Every kernel number of the one capture is in an entry or a gap, and no gap lost anything.
fn numbers_are_complete(entries: &[Entry]) -> Result<()> {
    let mut seen: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
    for entry in entries {
        if let Some((processor, class, number)) = entry.kernel() {
            seen.entry((processor, class)).or_default().push(number);
        }
        for (processor, class, first, last) in entry.folded_ranges() {
            seen.entry((processor, class)).or_default().extend(first..=last);
        }
        ensure!(entry.gap().is_none(), "something was lost: {}", entry.line);
    }
    ensure!(!seen.is_empty(), "no entry has a kernel number");
    for ((processor, class), mut numbers) in seen {
        numbers.sort_unstable();
        let wanted = (0..).zip(&numbers).all(|(wanted, number)| wanted == *number);
        ensure!(wanted, "processor {processor}, class {class}: numbers are missing: {numbers:?}");
    }
    Ok(())
}

fn restarts(left: &Left<'_>) -> Result<String> {
    let (sealed, recovered) = four_boots(left, &WINDOWS)?;
    Ok(format!("4 boots, {recovered} recoveries; the one cut is told; all {sealed} entries shown before it are there"))
}

/// Checks what `restarts` does; how many entries were shown before the cut, and how many recoveries there were. `expected` are
/// the windows between and around the runs.
fn four_boots(left: &Left<'_>, expected: &[&str]) -> Result<(usize, usize)> {
    let report = left.verified()?;
    let entries = left.entries()?;
    let third = left.consoles.get(2).context("a console of the third boot")?;
    let console = fs::read(third).context("cannot read the third console")?;
    let console = String::from_utf8_lossy(&console);
    let sealed = console.lines().find_map(|line| line.split_once("affiant-vm: sealed ")).map(|(_, count)| count.trim());
    let sealed: usize = sealed.context("the third boot did not say what was sealed")?.parse().context("a count")?;
    let sessions: Vec<&Entry> = entries.iter().filter(|entry| entry.kind() == "issued").collect();
    ensure!(sessions.len() == 4, "{} sessions, 4 expected", sessions.len());
    for (boot, issued) in (1..).zip(&sessions) {
        whole_session(
            &entries,
            issued.body_text("id").context("a session has an id")?,
            &format!("/tmp/opens-{boot}"),
            left.variant,
        )?;
    }
    let recovered = entries.iter().filter(|entry| entry.kind() == "recovered").count();
    ensure!(entries.len() > sealed, "{} entries after the cut, {sealed} were shown before", entries.len());
    let boots: BTreeSet<&str> =
        entries.iter().filter(|entry| entry.kind() == "armed").filter_map(|entry| entry.body_text("boot_id")).collect();
    ensure!(boots.len() == 4, "{} boots in the armed entries, 4 expected", boots.len());
    // What the verifier says of the times between: the cut, and only the cut, may have taken entries with it.
    let windows = report.get("windows").and_then(Value::as_array).context("the report has no windows")?;
    let mut kinds = Vec::new();
    for window in windows {
        let kind = window.get("kind").and_then(Value::as_str).unwrap_or_default();
        let may_miss = window.get("may_miss_entries").and_then(Value::as_bool) == Some(true);
        ensure!(may_miss == (kind == "run_cut"), "window {window}");
        kinds.push(kind);
    }
    ensure!(kinds == expected, "windows {kinds:?}, {expected:?} expected");
    Ok((sealed, recovered))
}

/// Between and around the four runs of `restarts`.
const WINDOWS: [&str; 5] = ["before_first_run", "restarted", "restarted", "run_cut", "ended"];
/// Those of `rooted`, whose last boot has two runs, between which the kernel went on capturing.
const ROOTED_WINDOWS: [&str; 6] = ["before_first_run", "restarted", "restarted", "run_cut", "resumed", "ended"];

fn rooted(left: &Left<'_>) -> Result<String> {
    four_boots(left, &ROOTED_WINDOWS)?;
    let status = left.text("status-1")?;
    ensure!(status.contains("sealed in the TPM"), "the log key is not sealed: {status}");
    let entries = left.entries()?;
    // One key all along, said again at each start with what vouches for it.
    let said: Vec<&Entry> = entries.iter().filter(|entry| entry.kind() == "attestation_key").collect();
    let vouchers: Vec<&str> = said.iter().filter_map(|entry| entry.body_text("voucher")).collect();
    ensure!(vouchers == ["nobody", "site", "site", "vendor"], "attestation keys vouched for by {vouchers:?}");
    let names: BTreeSet<&str> = said.iter().filter_map(|entry| entry.body_text("name")).collect();
    ensure!(names.len() == 1, "attestation keys {names:?} over four boots, 1 expected");

    // Start and stop of each run, but for the one that was cut; and none is skipped or repeated by it.
    let counted = entries.iter().filter(|entry| entry.kind() == "counter");
    let of = |op: &str| -> Vec<u64> {
        let chosen = counted.clone().filter(|entry| entry.body_text("op") == Some(op));
        chosen.filter_map(|entry| entry.body_number("value")).collect()
    };
    let steps = of("step");
    let consecutive = steps.windows(2).all(|pair| matches!(pair, [before, after] if after - before == 1));
    ensure!(steps.len() == 9 && consecutive && of("intent") == steps, "counter: {steps:?}, intents {:?}", of("intent"));

    let mut resets: Vec<u32> = Vec::new();
    let attested = entries.iter().filter_map(|entry| entry.body_text("attest"));
    for attest in attested {
        let reset = reset_count(attest).with_context(|| format!("an attestation without a clock: {attest}"))?;
        if resets.last() != Some(&reset) {
            resets.push(reset);
        }
    }
    let one_each = resets.windows(2).all(|pair| matches!(pair, [before, after] if after - before == 1));
    ensure!(resets.len() == 4 && one_each, "reset counts {resets:?}, one more at each of four boots expected");

    let anchors: Vec<u64> = entries
        .iter()
        .filter(|entry| entry.kind() == "anchor")
        .filter_map(|entry| entry.body_number("number"))
        .collect();
    ensure!((0..).zip(&anchors).all(|(wanted, number)| wanted == *number), "anchors {anchors:?}");
    // What was exported before the cut may not have reached the disk; of the other boots it has.
    for boot in [1, 2, 4] {
        check_quote(left, boot)?;
    }
    enrolment::verdicts(left)?;
    Ok(format!(
        "one key, {} anchors, {} steps of the counter and 4 resets without a gap over a power cut; tpm2_checkquote agrees; \
         enrolled: T1 by the site, T3 by the vendor, T0 without them",
        anchors.len(),
        steps.len()
    ))
}

/// The reset count in a `TPMS_ATTEST` (TPM 2.0 part 2, section 10.12.12), base64: behind magic, type, two sized buffers
/// and the clock.
fn reset_count(attest: &str) -> Option<u32> {
    let bytes = BASE64_STANDARD.decode(attest).ok()?;
    let mut rest = bytes.get(6..)?;
    for _ in 0..2 {
        let (size, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_be_bytes(*size))..)?;
    }
    Some(u32::from_be_bytes(rest.get(8..)?.first_chunk::<4>().copied()?))
}

/// Has tpm2-tools check a quote that the agent exported, against the qualifying data that it names.
fn check_quote(left: &Left<'_>, boot: u32) -> Result<()> {
    let said = left.text(&format!("anchor-{boot}.txt"))?;
    let data =
        said.rsplit_once(" -q ").map(|(_, data)| data.trim()).context("the agent does not say how to check it")?;
    let mut check = Command::new("tpm2");
    check.current_dir(left.out(&format!("anchor-{boot}"))).args(["checkquote", "-u", "ak.pem", "-m", "quote.msg"]);
    check.args(["-s", "quote.sig", "-f", "quote.pcrs", "-g", "sha256", "-q", data]);
    quiet(&mut check, &[0]).with_context(|| format!("the quote of boot {boot}"))
}

fn tpm(left: &Left<'_>) -> Result<String> {
    let vendor = left.vendor.context("a TPM has a vendor")?;
    let properties = left.text("properties")?;
    ensure!(properties.contains("TPM2_PT_MANUFACTURER"), "properties: {properties}");
    let pcrs = left.text("pcrs")?;
    for pcr in ["0 ", "7 ", "10"] {
        ensure!(pcrs.lines().any(|line| line.trim_start().starts_with(pcr)), "no PCR {pcr}: {pcrs}");
    }
    for index in ["0x1c00002", "0x1c0000a", "0x1c00016"] {
        chains(vendor, &left.out(&format!("certificate-{index}")))?;
    }
    let found = feature(&left.json("doctor.json")?, "TPM 2.0")?.to_owned();
    ensure!(found == "yes", "doctor does not find the TPM: {found}");
    Ok("tpmrm0 answers; three EK certificates chain to the vendor's root".to_owned())
}

/// Checks that a certificate read out of a TPM leads to the root of its vendor.
fn chains(vendor: &Vendor, certificate: &Path) -> Result<()> {
    let pem = certificate.with_extension("pem");
    let mut convert = Command::new("openssl");
    convert.args(["x509", "-inform", "DER", "-in"]).arg(certificate).arg("-out").arg(&pem);
    quiet(&mut convert, &[0])?;
    // The subject alternative name of an EK certificate is critical and of a kind that openssl does not know.
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-ignore_critical", "-CAfile"]).arg(vendor.root()).arg("-untrusted").arg(vendor.issuer());
    quiet(verify.arg(&pem), &[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kernel_number_is_found() {
        let entry = |number: u32| format!(r#"{{"kind":"exec","q":[0,0,"{number}"]}}"#);
        let whole = entries_from_lines(&format!("{}\n{}\n{}", entry(1), entry(0), entry(2))).unwrap();
        numbers_are_complete(&whole).unwrap();
        let torn = entries_from_lines(&format!("{}\n{}", entry(0), entry(2))).unwrap();
        assert!(numbers_are_complete(&torn).is_err());
    }

    #[test]
    fn the_reset_count_is_behind_both_buffers() {
        let attest = [b"\xffTCG\x80\x18".as_slice(), &[0, 1, 7, 0, 2, 7, 7], &[0; 8], &[0, 0, 1, 2], &[0; 5]].concat();
        assert_eq!(reset_count(&BASE64_STANDARD.encode(&attest)), Some(0x102));
        assert_eq!(reset_count(&BASE64_STANDARD.encode(attest.get(..18).unwrap())), None);
    }

    #[test]
    fn the_session_id_is_on_standard_error() {
        assert_eq!(session_id("affiant: session 0a1b\n3 acts\n").unwrap(), "0a1b");
        assert!(session_id("affiant: no daemon answers\n").is_err());
    }
}
