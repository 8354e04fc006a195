//! What each tier of hooks must see, and say that it does not see, of the sessions in a guest.

use std::collections::BTreeSet;

use ::tests::Entry;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::scenario::{Left, Variant};

/// The entries of a session.
fn own<'a>(entries: &'a [Entry], id: &str) -> Result<Vec<&'a Entry>> {
    let issued = entries.iter().find(|entry| entry.kind() == "issued" && entry.body_text("id") == Some(id));
    let issued = issued.with_context(|| format!("session {id} was not issued"))?.index()?;
    Ok(entries.iter().filter(|entry| entry.session() == Some(issued)).collect())
}

/// Whether an entry has a mark.
fn has(entry: &Entry, mark: &str) -> bool {
    entry.marks().any(|found| found == mark)
}

/// The one entry of a kind with this path.
fn only<'a>(own: &[&'a Entry], kind: &str, path: &str) -> Result<&'a Entry> {
    let of_path = |entry: &&&Entry| entry.kind() == kind && entry.body_text("path") == Some(path);
    let found: Vec<&&Entry> = own.iter().filter(of_path).collect();
    let [entry] = found.as_slice() else { anyhow::bail!("{} entries {kind} of {path}, 1 expected", found.len()) };
    Ok(entry)
}

/// How the name of a hook begins, after the event that it serves.
const HOOK_KINDS: [&str; 8] =
    [": tracepoint/", ": tp_btf/", ": cgroup/", ": iter/", ": lsm/", ": lsm.s/", ": fentry/", ": fexit/"];

/// Calls that kernels under test may be too old for: since 6.6, 6.13 and 6.13.
const YOUNG_CALLS: [&str; 3] = ["sys_exit_fchmodat2", "sys_exit_setxattrat", "sys_exit_removexattrat"];

/// Checks that the tier expected is in force with every hook that this kernel can have; how many there are.
pub(crate) fn armed_as(left: &Left<'_>, armed: &Entry) -> Result<usize> {
    let Variant { tier, reads, .. } = *left.variant;
    ensure!(armed.body_text("hook_tier") == Some(tier), "tier {tier} expected: {}", armed.line);
    let hooks = armed.body("hooks").and_then(Value::as_array).context("armed has no hooks")?;
    let missing = armed.body("not_covered").and_then(Value::as_array).context("armed says nothing of coverage")?;
    // A hook that could not be had is named, with its kind, among what is not covered: these kernels have all but the youngest,
    // and where kernel memory is closed those that read it are missing, each with the reason.
    let hook = |what: &str| HOOK_KINDS.iter().any(|kind| what.contains(kind));
    for line in missing {
        let word = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
        let young = YOUNG_CALLS.iter().any(|call| word("what").ends_with(call));
        let closed = !reads && word("why").contains("lockdown=confidentiality");
        ensure!(young || closed || !hook(word("what")), "hook absent: {line}");
    }
    ensure!(!hooks.is_empty(), "no hooks: {}", armed.line);
    let closed = missing.iter().filter_map(|line| line.get("why")?.as_str());
    let closed = closed.filter(|why| why.contains("lockdown=confidentiality")).count();
    ensure!((closed > 0) != reads, "{closed} lines on lockdown: {}", armed.line);
    Ok(hooks.len())
}

/// What only some tiers see of the first session.
pub(crate) fn of_the_tier(left: &Left<'_>, entries: &[Entry], id: &str) -> Result<()> {
    let Variant { tier, reads, .. } = *left.variant;
    let own = own(entries, id)?;
    let of = |kind: &str| own.iter().filter(|entry| entry.kind() == kind).count();
    // Each library that a program loads is mapped as executable memory once, and told once, by whichever hook.
    let maps = own.iter().filter(|entry| entry.kind() == "file_map");
    let named = maps.clone().filter(|entry| entry.body_text("path").is_some_and(|path| path.contains("libc.so")));
    let processes: BTreeSet<_> = named.clone().map(|entry| entry.body_number("tgid")).collect();
    ensure!(named.clone().count() == processes.len(), "a mapping of libc is told twice");
    ensure!(!reads || processes.len() >= 3, "libc was mapped by name in {} processes", processes.len());
    if tier == "tracepoint" {
        ensure!(of("file_received") == 0, "file_received at a tier without");
        return Ok(());
    }
    let racy = own.iter().filter(|entry| entry.marks().any(|mark| mark == "racy")).count();
    ensure!(racy == 0, "{racy} racy opens at tier {tier}");
    // Those of the programs themselves too, which exec makes.
    ensure!(maps.count() >= 7, "{} file_map", of("file_map"));
    let unobserved = own.iter().filter(|entry| entry.kind() == "open");
    let unobserved = unobserved.filter(|entry| entry.marks().any(|mark| mark == "result_not_observed")).count();
    ensure!(unobserved >= 7, "{unobserved} opens of programs by exec, at least 7 expected");
    let sums = left.text("sums")?;
    for exec in own.iter().filter(|entry| entry.kind() == "exec") {
        let hash = exec.body_text("sha256");
        let path = exec.body_text("path").unwrap_or_default();
        if tier == "lsm" && left.kernel.hashes {
            let hash = hash.with_context(|| format!("no hash: {}", exec.line))?;
            ensure!(sums.contains(&format!("{hash}  {path}\n")), "{hash} is not what sha256sum says of {path}");
        } else {
            ensure!(hash.is_none(), "{}", exec.line);
        }
    }
    Ok(())
}

/// The fourth session: ways around open(2), descriptors, long arguments and execs that change credentials.
pub(crate) fn unseen(left: &Left<'_>, armed: &Entry, entries: &[Entry], id: &str) -> Result<()> {
    let Variant { tier, reads, .. } = *left.variant;
    let own = own(entries, id)?;
    let at = |name: &str| format!("/tmp/unseen/{name}");
    let around = ["by-32", "by-handle", "by-ring", "by-worker"].map(at);
    let execs = own.iter().filter(|entry| entry.kind() == "exec");
    let mut long = execs.clone().filter(|exec| exec.body_number("argc") == Some(2001));
    let long = long.next().context("no exec with 2,001 arguments")?;
    let kept = long.body("argv").and_then(Value::as_array).context("an exec has arguments")?.len();
    if tier == "tracepoint" {
        let opened =
            own.iter().filter_map(|entry| entry.body_text("path")).filter(|path| around.contains(&(*path).to_owned()));
        ensure!(opened.count() == 0, "a tier without their hooks sees opens around open(2)");
        for what in ["open: io_uring", "open: open_by_handle_at", "open: 32-bit and x32 calls"] {
            ensure!(armed.line.contains(&format!("\"what\":\"{what}\"")), "not said to be missing: {what}");
        }
        ensure!(kept < 2001 && has(long, "argv_truncated"), "{}", long.line);
        return Ok(());
    }
    let mut processes = Vec::new();
    for path in &around {
        let open = only(&own, "open", path)?;
        let unobserved = has(open, "result_not_observed") && open.body("fd").is_none() && open.body("errno").is_none();
        ensure!(unobserved && open.body_number("ino").is_some(), "{}", open.line);
        ensure!(has(open, "io_worker") == path.ends_with("by-worker"), "{}", open.line);
        processes.push((open.process(), open.body_number("tgid")));
    }
    processes.dedup();
    ensure!(processes.len() == 1, "one process opened all four, the log names {processes:?}");
    ensure!(own.iter().all(|entry| !has(entry, "racy")), "racy at tier {tier}");

    let failed = own.iter().filter(|entry| entry.kind() == "open" && entry.body_number("errno") == Some(2));
    let asked = failed.clone().filter(|entry| entry.claim("asked") == Some(&at("absent"))).count();
    let unread = failed.filter(|entry| has(entry, "claim_unread")).count();
    ensure!(if reads { asked == 1 } else { asked == 0 && unread >= 1 }, "{asked} failed opens named, {unread} not");
    if reads {
        let by_path = only(&own, "open", &at("by-path"))?;
        ensure!(by_path.body_number("fd").is_some(), "{}", by_path.line);
    } else {
        ensure!(own.iter().any(|entry| entry.kind() == "open" && has(entry, "unresolved")), "no unresolved open");
    }
    if reads || tier == "lsm" {
        only(&own, "file_received", &at("passed"))?;
    } else {
        ensure!(own.iter().filter(|entry| entry.kind() == "file_received").count() == 1, "no descriptor was received");
    }
    if tier != "lsm" {
        ensure!(own.iter().all(|entry| !has(entry, "set_id") && !has(entry, "file_caps")), "marks of another tier");
        return Ok(());
    }
    ensure!(kept == 2001 && !has(long, "argv_truncated"), "{kept} arguments kept: {}", long.line);
    let set_id = only(&own, "exec", &at("set-id"))?;
    let before = set_id.body("before").context("no credentials before")?;
    ensure!(before.get("euid").and_then(Value::as_u64) == Some(1000), "{}", set_id.line);
    let changed = has(set_id, "set_id") && !has(set_id, "file_caps") && set_id.body_number("euid") == Some(0);
    ensure!(changed && set_id.body_number("uid") == Some(1000), "{}", set_id.line);
    let granted = only(&own, "exec", &at("granted"))?;
    let changed = has(granted, "file_caps") && !has(granted, "set_id") && granted.body_number("euid") == Some(1000);
    ensure!(changed && granted.body("before").is_some_and(|before| before.get("caps").is_some()), "{}", granted.line);
    if left.kernel.hashes {
        // Three times each of two versions, which differ by their content and their change time alone.
        let versions = left.text("versions")?;
        let sums = versions.lines().filter_map(|line| line.split(' ').next()).flat_map(|sum| [sum; 3]);
        let path = at("changes/true");
        let changed = execs.filter(|exec| exec.body_text("path") == Some(&path)).map(|exec| exec.body_text("sha256"));
        let (changed, sums): (Vec<_>, Vec<_>) = (changed.collect(), sums.map(Some).collect());
        ensure!(changed == sums, "hashes of a program that changes: {changed:?}, {sums:?} expected");
    }
    Ok(())
}

/// How many instructions the verifier looked at for each program, from what the daemon says of them.
pub(crate) fn verified(log: &str) -> Result<String> {
    let lines = log.lines().filter_map(|line| line.split_once("program in force ")).map(|(_, said)| said);
    let mut each: Vec<String> = lines
        .filter_map(|said| {
            let word =
                |key: &str| said.split(' ').find_map(|word| word.strip_prefix(key)).map(|word| word.trim_matches('"'));
            let count = word("verified=").unwrap_or("?");
            Some(format!("{} {count}", word("program=")?))
        })
        .collect();
    // One program may be on many hooks.
    each.dedup();
    ensure!(!each.is_empty(), "the daemon does not say what the verifier counted: {log}");
    Ok(each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_verifier_counted_is_read_from_the_daemons_words() {
        let log = "2026 DEBUG agent::probe::load: program in force program=\"exec\" hook=\"tp_btf/x\" verified=12 attached_now=true\n\
                   2026 DEBUG agent::probe::load: program in force program=\"exit\" hook=\"tp_btf/y\" attached_now=true";
        assert_eq!(verified(log).unwrap(), "exec 12, exit ?");
        assert!(verified("INFO armed").is_err());
    }
}
