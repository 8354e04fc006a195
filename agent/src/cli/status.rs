//! `affiant status`: what the daemon says of itself, losses and faults in capitals.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::cli::duration::show_ns;
use crate::cli::exit::Exit;
use crate::cli::output::{Lines as _, Output, printable};
use crate::session::client::{Client, ClientError};
use crate::session::protocol::{Reply, Request, Status};

/// Most hooks of one event that are named one by one.
const HOOKS_SHOWN_MAX: usize = 6;

/// Prints what the daemon says of itself.
///
/// # Errors
/// No daemon, or standard output is gone.
pub fn status(socket: &Path, json: bool, out: &mut Output) -> Result<u8, Exit> {
    let status = match Client::connect(socket)?.ask(&Request::Status {})? {
        Reply::Status(status) => status,
        _ => return Err(ClientError::Mismatch.into()),
    };
    if json {
        out.json(&status)?;
        return Ok(0);
    }
    print_status(&status, out)?;
    Ok(0)
}

fn print_status(status: &Status, out: &mut Output) -> Result<(), Exit> {
    out.line(&format!(
        "affiant {}, process {}, armed for {}{}",
        status.version,
        status.pid,
        show_ns(status.uptime_ns),
        if status.resumed { ", took over the capture of an earlier run" } else { "" }
    ))?;
    out.line(&format!("trust     {}", printable(&status.trust_tier)))?;
    out.line(&format!("hooks     tier {}", status.hook_tier))?;
    let mut events: Vec<&str> = Vec::new();
    for hook in &status.hooks {
        if !events.contains(&hook.event.as_str()) {
            events.push(&hook.event);
        }
    }
    for event in events {
        let hooks: Vec<&str> =
            status.hooks.iter().filter(|hook| hook.event == event).map(|hook| hook.hook.as_str()).collect();
        // A system call each, for some: which ones is in --json and in `doctor`.
        let shown = match hooks.as_slice() {
            [first, .., last] if hooks.len() > HOOKS_SHOWN_MAX => format!("{} hooks, {first} to {last}", hooks.len()),
            _ => hooks.join(", "),
        };
        out.line(&format!("          {event:<14} {shown}"))?;
    }
    if !status.not_covered.is_empty() {
        out.line(&format!(
            "          NOT COVERED: {} kinds of acts; `affiant doctor` and --json name them",
            status.not_covered.len()
        ))?;
    }
    out.line(&format!("log       {}", printable(&status.origin)))?;
    let epoch = status
        .epoch
        .map_or_else(|| "NOT SIGNED: the log waits for its key".to_owned(), |epoch| format!("epoch {epoch}"));
    out.line(&format!("          {} entries durable, {} sealed, {epoch}", status.entries, status.sealed))?;
    if let Some(size) = status.log_size {
        out.line(&format!("          {size} bytes"))?;
    }
    print_tpm(status, out)?;
    let storage = &status.storage;
    let free = storage.free_bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let state = if storage.state == "ok" { "ok".to_owned() } else { printable(&storage.state).to_uppercase() };
    let left_out =
        if storage.left_out == 0 { String::new() } else { format!(", LEFT OUT {} events", storage.left_out) };
    out.line(&format!("storage   {state}, {free} free{left_out}"))?;
    let retention = &status.retention;
    let rules = if retention.rules.is_empty() { "no rule".to_owned() } else { retention.rules.join(", ") };
    let pruned = match retention.record {
        None => "nothing was pruned".to_owned(),
        Some(record) => format!(
            "PRUNED before #{} by entry #{record}, {} of those kept for what they are",
            retention.first_entry, retention.kept
        ),
    };
    let working = match retention.state.as_str() {
        "looking" => "; looking at what can go",
        "removing" => "; removing",
        _ => "",
    };
    let held = if retention.held == 0 { String::new() } else { format!(", {} sessions held", retention.held) };
    out.line(&format!("retention {}: {pruned}{held}{working}", printable(&rules)))?;
    out.line(&format!("sessions  {} open", status.sessions))?;
    for class in &status.classes {
        let loss = if class.dropped == 0 { String::new() } else { format!("  LOST {}", class.dropped) };
        out.line(&format!("events    {:<8} {} numbered{loss}", class.class, class.generated))?;
    }
    for sink in &status.sinks {
        let pruned =
            if sink.pruned == 0 { String::new() } else { format!(", {} PRUNED BEFORE THEY WERE SENT", sink.pruned) };
        let fault = sink.fault.as_ref().map(|fault| format!("  FAULT {}", printable(fault))).unwrap_or_default();
        out.line(&format!(
            "sink      {:<10} {} entries behind, {} sent, {} without an event, {} failures{pruned}{fault}",
            sink.name, sink.lag_entries, sink.sent, sink.filtered, sink.failures
        ))?;
    }
    if status.sinks.is_empty() {
        out.line("sink      none configured")?;
    }
    Ok(())
}

fn print_tpm(status: &Status, out: &mut Output) -> Result<(), Exit> {
    let Some(tpm) = &status.tpm else { return out.line("TPM       none: nothing ties the log to this machine") };
    let state = match tpm.state.as_str() {
        "ready" | "starting" => tpm.state.clone(),
        trouble => printable(trouble).to_uppercase(),
    };
    let detail = tpm.detail.as_ref().map(|detail| format!(": {}", printable(detail))).unwrap_or_default();
    let model = tpm.tpm.as_ref().map(|model| format!(" ({})", printable(model))).unwrap_or_default();
    out.line(&format!("TPM       {state}{detail}, {}{model}", printable(&tpm.device)))?;
    let age =
        tpm.anchor_age_ns.map_or_else(|| "none since the start".to_owned(), |age| format!("{} ago", show_ns(age)));
    out.line(&format!(
        "          {} anchors, the last {age}; {} operations in the last hour, {} of its time",
        tpm.anchors,
        tpm.operations_last_hour,
        show_ns(tpm.busy_ns_last_hour)
    ))?;
    match tpm.counter {
        Some(value) => out.line(&format!(
            "          counter at {value}, stepped {} of at most {} times in 24 h",
            tpm.steps_today, tpm.steps_per_day_max
        )),
        None => out.line("          counter not in use"),
    }
}
