//! How fast entries are written, read and verified, on one core, and verified in several threads: ns
//! per entry of each step.
//!
//! `cargo run --release -p agent-evidence --example speed [ENTRIES]`

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent_evidence::fixture::Builder;
use agent_evidence::record::{
    ActMarks, Body, Class, Device, Draft, EntryIndex, LeafHash, Open, OpenClaims, Placement, ProcessCookie,
    SessionNumber, decode_with,
};
use agent_evidence::tree::{Tree, leaf_hash};
use agent_evidence::verify::{Options, verify_in_threads};

fn open() -> Body<'static> {
    Body::Open(Open {
        path: Some("/usr/lib/python3.11/site-packages/numpy/__init__.py".into()),
        oflags: 0o2_000_000,
        fd: Some(3),
        errno: None,
        ino: Some(1_311_768),
        dev: Some(Device { major: 254, minor: 1 }),
        mode: Some(0o100_644),
        nlink: Some(1),
        tgid: 41_234,
        uid: 1000,
        euid: None,
        marks: ActMarks::NONE,
        claims: OpenClaims { comm: "python3".into(), asked: None, dir_fd: None },
    })
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its result")]
fn print(step: &str, entries: usize, bytes: usize, took: Duration) {
    let nanoseconds = took.as_nanos() / (entries as u128).max(1);
    let rate = entries as f64 / took.as_secs_f64();
    println!("{step:<28} {nanoseconds:>6} ns/entry {rate:>10.0} entries/s {:>5} bytes/entry", bytes / entries.max(1));
}

fn main() -> ExitCode {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(300_000_usize);
    let Ok(mut log) = Builder::new() else { return ExitCode::FAILURE };
    log.append(Builder::armed());
    let workload = log.append(Builder::workload());
    let mut draft = Draft {
        process: Some(ProcessCookie(123_456_789_012_345)),
        workload: Some(workload),
        session: Some(EntryIndex(1)),
        verdict: None,
        kernel: Some(log.number(0, Class::File)),
        ..log.draft(open())
    };
    let mut place = Placement {
        index: EntryIndex(1_000_000),
        session_number: Some(SessionNumber(1_000)),
        control_number: None,
        previous: LeafHash([7; 32]),
        random: [9; 16],
    };
    let mut out = Vec::with_capacity(70_000);
    let mut bytes = 0;
    let took = timed(|| {
        for _ in 0..count {
            out.clear();
            place.index.0 += 1;
            black_box(&draft).encode(&place, &mut out);
            bytes += black_box(&out).len();
        }
    });
    print("encode", count, bytes, took);
    let took = timed(|| {
        for _ in 0..count {
            out.clear();
            place.index.0 += 1;
            black_box(&draft).encode(&place, &mut out);
            place.previous = leaf_hash(black_box(&out));
        }
    });
    print("encode, leaf hash", count, bytes, took);
    let mut scratch = Vec::new();
    let took = timed(|| {
        for _ in 0..count {
            let _record = black_box(decode_with(black_box(&out), &mut scratch));
        }
    });
    print("decode, canonical check", count, bytes, took);
    let mut tree = Tree::new();
    let took = timed(|| {
        for _ in 0..count {
            tree.append(black_box(place.previous), |_| {});
        }
    });
    print("tree append", count, bytes, took);
    while log.entries.len() < count {
        draft.kernel = Some(log.number(0, Class::File));
        draft.session = None;
        log.append_draft(&draft, |_| {});
    }
    let heartbeat = log.heartbeat(&[]);
    log.append(Body::Heartbeat(heartbeat));
    let total: usize = log.entries.iter().map(Vec::len).sum();
    let (Ok(mut files), Ok(trust)) = (log.files(), log.trust()) else { return ExitCode::FAILURE };
    let entries = log.entries.len();
    drop(log);
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut code = 1;
    for threads in [1, 2, processors, 2 * processors].into_iter().collect::<BTreeSet<_>>() {
        let Some(threads) = NonZeroUsize::new(threads) else { continue };
        let took = timed(|| {
            if let Ok(report) = verify_in_threads(&mut files, Some(&trust), Options::default(), threads) {
                code = report.verdict.exit_code();
            }
        });
        print(&format!("verify in memory, {threads} threads"), entries, total, took);
    }
    ExitCode::from(code)
}
