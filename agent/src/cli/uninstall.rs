//! `affiant uninstall`: takes off the host what the agent keeps outside its state directory.
//!
//! Owns what that is: pinned objects of the kernel side, session cgroups, the NV counter of this log's TPM. Keys are no
//! objects of the TPM: they are files beside the log, made into objects for each use, and stay with it. The log stays, and
//! says what was taken off, durably before it is.
//!
//! Invariant: nothing is removed that this agent did not make. A counter is the log's if it stands where the log says.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::path::Path;

use agent_evidence::record::{Body, Condition, CounterOp, Kind, NvCounter, Subject, Text, decode};
use serde_json::json;

use crate::app::{self, AppError};
use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, complain};
use crate::config::Config;
use crate::export::sealed::{SealedError, SealedLog};
use crate::log::kind_of;
use crate::pipeline::SessionCgroups;
use crate::pipeline::cgroupfs::SessionCgroup;
use crate::probe::{PinSet, cgroup2_root};
use crate::stopped::Stopped;
use crate::tpm::{CounterKnown, Device, Place};

/// Entries that are looked through at once for the counter, from the end of the log.
const SEARCH_STEP: u64 = 1 << 16;

/// What a `condition` entry says of hooks and of a counter that are taken off.
const UNINSTALLED: &str = "uninstalled";

/// Something that the agent put on the host.
enum Thing {
    Pins(PinSet),
    /// The directory of pins itself.
    PinRoot,
    Cgroup(SessionCgroup),
    /// The cgroup above those of sessions.
    Cgroups(SessionCgroups),
    Counter(Place, CounterKnown),
}

impl Thing {
    fn name(&self, config: &Config) -> String {
        match self {
            Self::Pins(set) => {
                let (links, programs, maps) = set.counts();
                format!("{} ({links} links, {programs} programs, {maps} maps)", set.dir().display())
            }
            Self::PinRoot => config.paths.bpf_pins.display().to_string(),
            Self::Cgroup(cgroup) => format!("cgroup {}", cgroup.path().display()),
            Self::Cgroups(cgroups) => format!("cgroup {}", cgroups.base().display()),
            Self::Counter(place, known) => format!("NV index {:#010x} in the TPM at {place}", known.index),
        }
    }

    fn remove(&self, config: &Config) -> Result<(), String> {
        match self {
            Self::Pins(set) => set.remove().map_err(|error| error.to_string()),
            Self::PinRoot => std::fs::remove_dir(&config.paths.bpf_pins).map_err(|error| error.to_string()),
            Self::Cgroup(cgroup) => cgroup.remove().map_err(|error| full(&error)),
            Self::Cgroups(cgroups) => cgroups.remove().map_err(|error| full(&error)),
            Self::Counter(place, known) => {
                let (place, known) = (place.clone(), known.clone());
                let index = known.index;
                let removed = app::with_tpm(move || Ok(Device::remove_counter(&place, &known)?));
                removed.map(drop).map_err(|error| by_hand(&error, index))
            }
        }
    }
}

/// What was found on the host.
#[derive(Default)]
struct Found {
    things: Vec<Thing>,
    /// What stays, and why.
    left: Vec<(String, String)>,
}

/// Takes the agent off this host, all but its state directory.
///
/// # Errors
/// A daemon runs, or the log cannot be told (69, 70); something could not be removed (69).
pub fn uninstall(config: &Config, dry_run: bool, json: bool, out: &mut Output) -> Result<u8, Exit> {
    if !rustix::process::geteuid().is_root() {
        return Err(Exit::new(exit::REFUSED, "only root can take the agent off a host"));
    }
    let socket = config.paths.control_socket();
    if UnixStream::connect(&socket).is_ok() {
        let why = format!("a daemon answers on {}: stop it first", socket.display());
        return Err(Exit::new(exit::UNAVAILABLE, why));
    }
    // Held until the end: no daemon starts meanwhile.
    let stopped = if dry_run { None } else { Stopped::open(config).map_err(failed)? };
    let Found { mut things, mut left } = find(config)?;
    let names: Vec<String> = things.iter().map(|thing| thing.name(config)).collect();
    let mut removed = Vec::new();
    if dry_run {
        removed = names;
    } else {
        if let Some((stopped, unsigned)) = stopped
            && !things.is_empty()
        {
            if let Some(error) = unsigned {
                let cause = Exit::in_full(0, &error).message.unwrap_or_default();
                complain(&format!("what the log is told now is not signed: {cause}"));
            }
            stopped.end(last_words(&things, &names)).map_err(failed)?;
            // The counter was stepped for these words, and what was not sealed before is now.
            if let Some(newest) =
                counter_of_log(&config.paths.log()).map_err(|error| Exit::in_full(exit::DATA, &error))?
            {
                for thing in &mut things {
                    if let Thing::Counter(_, known) = thing {
                        known.value = newest.value;
                    }
                }
            }
        }
        for (thing, name) in things.iter().zip(names) {
            match thing.remove(config) {
                Ok(()) => removed.push(name),
                Err(why) => left.push((name, why)),
            }
        }
    }
    if json {
        let left: Vec<_> = left.iter().map(|(what, why)| json!({"what": what, "why": why})).collect();
        out.json(&json!({"removed": removed, "left": left, "dry_run": dry_run, "state": config.paths.state}))?;
    } else {
        let done = if dry_run { "would remove" } else { "removed" };
        for name in &removed {
            out.line(&format!("{done} {name}"))?;
        }
        for (name, why) in &left {
            out.line(&format!("LEFT {name}: {why}"))?;
        }
        if removed.is_empty() && left.is_empty() {
            out.line("there is nothing of the agent on this host but its state directory")?;
        }
        out.line(&format!("the log and its keys stay in {}", config.paths.state.display()))?;
    }
    Ok(if left.is_empty() { 0 } else { exit::UNAVAILABLE })
}

fn failed(error: AppError) -> Exit {
    Exit::in_full(error.exit_code(), &error)
}

fn full(error: &dyn std::error::Error) -> String {
    Exit::in_full(0, error).message.unwrap_or_default()
}

fn by_hand(error: &dyn std::error::Error, index: u32) -> String {
    format!("{}; if it is nobody else's: tpm2_nvundefine -C o {index:#010x}", full(error))
}

/// What the log is told before anything is removed.
fn last_words(things: &[Thing], names: &[String]) -> Vec<Body<'static>> {
    let words = |subject, is_of: fn(&Thing) -> bool| {
        let names: Vec<&str> =
            things.iter().zip(names).filter(|(thing, _)| is_of(thing)).map(|(_, name)| name.as_str()).collect();
        (!names.is_empty()).then(|| {
            let detail = format!("`affiant uninstall` removes {}", names.join(", "));
            Body::Condition(Condition {
                subject,
                ok: false,
                state: UNINSTALLED.into(),
                detail: Some(Text::from(detail)),
            })
        })
    };
    let of_tpm: fn(&Thing) -> bool = |thing| matches!(thing, Thing::Counter(..));
    let of_kernel: fn(&Thing) -> bool = |thing| !matches!(thing, Thing::Counter(..));
    words(Subject::Hooks, of_kernel).into_iter().chain(words(Subject::Tpm, of_tpm)).collect()
}

/// Looks for everything. Changes nothing.
fn find(config: &Config) -> Result<Found, Exit> {
    let mut found = Found::default();
    let pins = &config.paths.bpf_pins;
    let sets = PinSet::all(pins)
        .map_err(|error| Exit::new(exit::UNAVAILABLE, format!("cannot list {}: {error}", pins.display())))?;
    found.things.extend(sets.into_iter().map(Thing::Pins));
    if pins.is_dir() {
        found.things.push(Thing::PinRoot);
    }
    find_cgroups(config, &mut found)?;
    find_counter(config, &mut found)?;
    Ok(found)
}

fn find_cgroups(config: &Config, found: &mut Found) -> Result<(), Exit> {
    let mount = match &config.paths.cgroup_root {
        Some(root) => root.clone(),
        None => cgroup2_root().map_err(|error| Exit::in_full(exit::UNAVAILABLE, &error))?,
    };
    let Some(cgroups) = SessionCgroups::existing(&mount, &config.paths.cgroup_name) else { return Ok(()) };
    let mut is_empty = true;
    for cgroup in cgroups.all().map_err(|error| Exit::in_full(exit::UNAVAILABLE, &error))? {
        let thing = Thing::Cgroup(cgroup);
        match &thing {
            Thing::Cgroup(cgroup) if cgroup.populated().unwrap_or(true) => {
                is_empty = false;
                found.left.push((thing.name(config), "processes of a session are in it".to_owned()));
            }
            _ => found.things.push(thing),
        }
    }
    if is_empty {
        found.things.push(Thing::Cgroups(cgroups));
    }
    Ok(())
}

fn find_counter(config: &Config, found: &mut Found) -> Result<(), Exit> {
    let Some(place) = Place::of(&config.tpm.device) else { return Ok(()) };
    let Some(known) = counter_of_log(&config.paths.log()).map_err(|error| Exit::in_full(exit::DATA, &error))? else {
        return Ok(());
    };
    let (at, wanted) = (place.clone(), known.clone());
    let index = known.index;
    match app::with_tpm(move || Ok(Device::find_counter(&at, &wanted)?)) {
        Ok(Some(_value)) => found.things.push(Thing::Counter(place, known)),
        Ok(None) => {}
        Err(error) => {
            let name = Thing::Counter(place, known).name(config);
            found.left.push((name, by_hand(&error, index)));
        }
    }
    Ok(())
}

/// The counter as the newest entry that certifies it names it. `None`: there is no log, or it never had a counter.
fn counter_of_log(directory: &Path) -> Result<Option<CounterKnown>, SealedError> {
    let log = SealedLog::new(directory.to_owned());
    let size = match log.head() {
        Err(error) if error.is_missing() => return Ok(None),
        other => other?.size,
    };
    let mut end = size;
    while end > 0 {
        let begin = end.saturating_sub(SEARCH_STEP);
        let mut newest = None;
        // The control chain stays when others are pruned.
        let _pruned = log.each(begin..end, size, |_, entry| {
            if kind_of(entry) == Some(Kind::NvCounter)
                && let Ok(record) = decode(entry)
                && let Body::NvCounter(NvCounter { op: CounterOp::Step | CounterOp::Late, index, name, value, .. }) =
                    record.body()
                && let Some(name) = name
            {
                newest = Some(CounterKnown { index: *index, name: name.as_bytes().to_vec(), value: *value });
            }
            Ok::<(), SealedError>(())
        })?;
        if newest.is_some() {
            return Ok(newest);
        }
        end = begin;
    }
    Ok(None)
}
