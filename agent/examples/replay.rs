//! Captures raw kernel events of a workload, and replays them into a log: the tool behind `cargo xtask bench pipeline`.
//!
//! `replay capture OBJECT FILE COMMAND...` (root) runs a command in a cgroup of its own and saves every message of it.
//! `replay run FILE STATE STAGE COUNT` takes COUNT messages, those of FILE again and again under new numbers, as far as STAGE
//! (read, decode, translate, encode, append, seal) into a fresh log in the empty directory STATE, and prints how long it took.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring tool: it prints, and reads the clock"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use agent::event::capture::{CaptureReader, CaptureWriter};
use agent::log::{Birth, Limits, Log, Now};
use agent::pipeline::Clock;
use agent::pipeline::replay::{Replay, Stage};
use agent::probe::{Probe, ProbeConfig, Rings, TierChoice};
use agent::sign::software::SoftwareKey;
use agent_common::header::Header;
use agent_common::stats::family;
use agent_evidence::record::Text;
use anyhow::{Context as _, Result, bail, ensure};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Messages between two looks at what is due, as in the pipeline.
const BATCH: usize = 4_096;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["capture", object, file, program, rest @ ..] => capture(Path::new(object), Path::new(file), program, rest),
        ["run", file, state, stage, count] => {
            let stage = match *stage {
                // What every stage needs besides: the messages themselves.
                "read" => None,
                "decode" => Some(Stage::Decode),
                "translate" => Some(Stage::Translate),
                "encode" => Some(Stage::Encode),
                "append" => Some(Stage::Append),
                "seal" => Some(Stage::Seal),
                other => bail!("there is no stage {other}"),
            };
            run(Path::new(file), Path::new(state), stage, count.parse().context("COUNT is a number")?)
        }
        _ => bail!("capture OBJECT FILE COMMAND..., or run FILE STATE STAGE COUNT"),
    }
}

/// Runs the command in scope and saves what the kernel side says of it.
fn capture(object: &Path, file: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let name = format!("affiant-capture-{}", std::process::id());
    let config = ProbeConfig {
        object: fs::read(object).with_context(|| format!("cannot read {}", object.display()))?,
        pin_root: PathBuf::from("/sys/fs/bpf").join(&name),
        agent_tgid: std::process::id(),
        tier: TierChoice::Auto,
    };
    let mut probe = Probe::arm(&config)?;
    let mounts = fs::read_to_string("/proc/mounts").context("no /proc/mounts")?;
    let mount = mounts
        .lines()
        .find_map(|line| match line.split(' ').collect::<Vec<_>>().as_slice() {
            [_, mount, "cgroup2", ..] => Some(PathBuf::from(mount)),
            _ => None,
        })
        .context("no cgroup2 hierarchy is mounted")?;
    let cgroup = mount.join(&name);
    fs::create_dir(&cgroup).with_context(|| format!("cannot create {}", cgroup.display()))?;
    let outcome = capture_in(&mut probe, &cgroup, file, program, arguments);
    // Taken away whatever came of it; the first error is the one to tell.
    let removed = fs::remove_dir(&cgroup).with_context(|| format!("cannot remove {}", cgroup.display()));
    let disarmed = probe.disarm(false).context("cannot disarm");
    outcome.and(removed).and(disarmed)
}

fn capture_in(probe: &mut Probe, cgroup: &Path, file: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let id = fs::metadata(cgroup).context("no cgroup")?.ino();
    probe.scope_set(id, id, family::NETWORK | family::FILE)?;
    let mut rings = probe.rings()?;
    let out = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    let mut writer = CaptureWriter::new(BufWriter::new(out))?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
        .arg(cgroup.join("cgroup.procs"))
        .arg(program)
        .args(arguments)
        .spawn()
        .context("cannot start the command")?;
    let mut count = 0;
    loop {
        let ended = child.try_wait().context("cannot wait")?;
        count += save(&mut rings, id, &mut writer)?;
        if let Some(status) = ended {
            ensure!(status.success(), "the command: {status}");
            break;
        }
    }
    writer.finish()?;
    println!("{count} messages");
    Ok(())
}

/// Saves what is in the rings and of this scope.
fn save(rings: &mut Rings, scope: u64, writer: &mut CaptureWriter<BufWriter<File>>) -> Result<u64> {
    let mut count = 0;
    for ring in [&mut rings.crit, &mut rings.bulk] {
        while let Some(message) = ring.next_message()? {
            let Ok((header, _)) = Header::read_from_prefix(message) else { continue };
            if header.scope_id == scope {
                writer.push(message)?;
                count += 1;
            }
        }
        let position = ring.position();
        ring.release(position)?;
    }
    Ok(count)
}

/// Replays and tells how long it took.
fn run(file: &Path, state: &Path, stage: Option<Stage>, count: usize) -> Result<()> {
    let input = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut reader = CaptureReader::new(BufReader::new(input))?;
    let mut captured = Vec::new();
    while let Some(message) = reader.next_message()? {
        captured.push(message.to_vec());
    }
    ensure!(!captured.is_empty(), "{} holds no message", file.display());
    let messages = renumbered(&captured, count);

    let clock = Clock;
    let now = Now { wall: clock.wall(), boot: clock.boot() };
    let birth = Birth { boot_id: Text::new(b"replay"), kernel: Text::new(b"replay"), machine: None, predecessor: None };
    let key = Box::new(SoftwareKey::create(&state.join("keys"))?);
    // Stages that never commit keep everything pending.
    let pending_bytes_max =
        if stage < Some(Stage::Seal) { usize::MAX / 2 } else { Limits::default().pending_bytes_max };
    let limits = Limits { pending_bytes_max, ..Limits::default() };
    let log = Log::create(state, limits, "replay.example/log", key, &birth, now)?;
    let mut replay = Replay::new(log, stage.unwrap_or(Stage::Decode));
    let bytes: usize = messages.iter().map(Vec::len).sum();

    let start = Instant::now();
    for batch in messages.chunks(BATCH) {
        for message in batch {
            match stage {
                Some(_) => drop(replay.take(message)?),
                None => drop(std::hint::black_box(message.len())),
            }
        }
        replay.batch_end()?;
    }
    let (entries, refused) = replay.finish()?;
    let nanoseconds = start.elapsed().as_nanos();
    println!("{} acts in {nanoseconds} ns", messages.len());
    println!("{entries} entries, {refused} messages left out, {bytes} message bytes");
    Ok(())
}

/// `count` messages, the captured ones over and over, numbered without holes per processor and class.
fn renumbered(captured: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    let mut next: BTreeMap<(u32, u8), u64> = BTreeMap::new();
    captured
        .iter()
        .cycle()
        .take(count)
        .map(|message| {
            let mut message = message.clone();
            if let Ok((mut header, _)) = Header::read_from_prefix(&message) {
                let number = next.entry((header.cpu, header.class)).or_default();
                header.seq = *number;
                *number += 1;
                if let Some(place) = message.get_mut(..size_of::<Header>()) {
                    place.copy_from_slice(header.as_bytes());
                }
            }
            message
        })
        .collect()
}
