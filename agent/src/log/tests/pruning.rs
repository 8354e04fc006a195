//! Pruning: what stays and what goes, what is refused, and a fault at every single operation of it.

use agent_evidence::kept::Kept;
use agent_evidence::record::{Device, HashState, Hashed, Hold};

use super::super::prune::{Planned, PruneRefused, PruningState};
use super::*;

/// A heartbeat of a moment of its own.
fn beat(log: &mut Log<SimDisk>, at: u64) -> Result<(), LogError> {
    let states = log.sessions();
    log.append(&agent_draft(now(at), heartbeat(states)))?;
    log.seal(now(at)).map(drop)
}

fn hold(session: EntryIndex, on: bool) -> Body<'static> {
    let by = Requester { process: None, tgid: 1, uid: 0, gid: 0 };
    Body::Hold(Hold { session, on, reason: Text::new(b"case 7"), by })
}

/// A record that goes, unless it stays for its session or its place, with a value that is committed.
fn hashed() -> Body<'static> {
    Body::Hashed(Hashed {
        path: Some("/home/a person/letter".into()),
        ino: 7,
        dev: Device { major: 8, minor: 1 },
        ctime: 1,
        size: 0,
        state: HashState::Changed,
        sha256: None,
        format: None,
    })
}

fn open_committing(sim: &SimDisk) -> Result<(Log<SimDisk>, Recovery), LogError> {
    let (mut log, recovery) = open(sim)?;
    log.commit_values(CommitRules::parse(["hashed.path", "workload.labels"]).expect("rules"));
    log.tend(now(300))?;
    Ok((log, recovery))
}

/// The sessions of [`long`].
#[derive(Debug, Clone, Copy)]
struct Sessions {
    ended: EntryIndex,
    held: EntryIndex,
    open: EntryIndex,
}

/// A log of five bundles, of which one is packed, with three sessions and a heartbeat every forty entries.
fn long() -> (SimDisk, Sessions, Vec<Vec<u8>>) {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    log.commit_values(CommitRules::parse(["hashed.path", "workload.labels"]).expect("rules"));
    let ended = log.append(&draft(None, issued())).expect("append").index;
    let held = log.append(&draft(None, issued())).expect("append").index;
    let open = log.append(&draft(None, issued())).expect("append").index;
    for round in 0..32_u64 {
        for number in 0..40 {
            let session = match number {
                0..4 if round < 6 => Some(ended),
                4..8 if round < 20 => Some(held),
                8..12 => Some(open),
                _ => None,
            };
            log.append(&draft(session, if number == 20 { act() } else { hashed() })).expect("append");
        }
        let over = match round {
            6 => Some(ended),
            20 => Some(held),
            _ => None,
        };
        if let Some(session) = over {
            let hash = log.session(session).expect("open").hash;
            log.append(&draft(Some(session), revoked(hash))).expect("append");
        }
        if round == 8 {
            log.append(&draft(None, hold(held, true))).expect("append");
        }
        if round == 30 {
            // Recovery looks back to here, and at nothing before.
            log.rotate_epoch(now(100 + round)).expect("an epoch");
        }
        beat(&mut log, 100 + round).expect("seal");
    }
    log.pack().expect("pack");
    assert_eq!(sim.files("log/packed/"), ["log/packed/000"]);
    let entries = all(&mut log).expect("readable");
    check_verdict(&sim);
    (sim.after_kill(), Sessions { ended, held, open }, entries)
}

fn wait_for(log: &mut Log<SimDisk>, state: fn(&PruningState) -> bool) -> Result<(), LogError> {
    for _ in 0..200 {
        if state(&log.pruning()) {
            return Ok(());
        }
        log.commit().map(drop)?;
    }
    panic!("it does not end: {:?}", log.pruning());
}

fn prune(log: &mut Log<SimDisk>, before: u64, anew: bool) -> Result<Planned, LogError> {
    log.plan_pruning(EntryIndex(before), anew).expect("something can go");
    wait_for(log, |state| *state != PruningState::Looking)?;
    let planned = log.prune(now(300), "a test", None)?;
    let planned = planned.unwrap_or_else(|| panic!("no plan: {:?}", log.refused()));
    wait_for(log, |state| *state == PruningState::Idle)?;
    Ok(planned)
}

/// What a run of [`twice`] tells.
#[derive(Debug, Default)]
struct Run {
    acknowledged: u64,
    /// Numbers of the operations at which each pruning began and ended.
    marks: Vec<u64>,
}

/// Two prunings of the log that [`long`] gives, the second after the hold was released.
fn twice(sim: &SimDisk, sessions: Sessions, run: &mut Run) -> Result<[Planned; 2], LogError> {
    let (mut log, recovery) = open_committing(sim)?;
    log.append(&draft(None, Body::Recovered(recovery.record())))?;
    for at in 0..3 {
        beat(&mut log, 400 + at)?;
        run.acknowledged = log.durable_size().0;
    }
    run.marks.push(sim.operations());
    let first = prune(&mut log, 600, false)?;
    run.marks.push(sim.operations());
    log.append(&draft(None, hold(sessions.held, false)))?;
    log.append(&draft(Some(sessions.open), hashed()))?;
    log.seal(now(500))?;
    run.acknowledged = log.durable_size().0;
    run.marks.push(sim.operations());
    let second = prune(&mut log, 800, true)?;
    run.marks.push(sim.operations());
    log.append(&draft(None, control(1)))?;
    log.seal(now(501))?;
    run.acknowledged = log.durable_size().0;
    Ok([first, second])
}

fn left(log: &mut Log<SimDisk>) -> BTreeMap<u64, Vec<u8>> {
    let mut left = BTreeMap::new();
    log.entries_from(EntryIndex(0), |index, entry| {
        left.insert(index.0, entry.to_vec());
        ControlFlow::Continue(())
    })
    .expect("readable");
    left
}

fn stays_by_kind(entry: &[u8]) -> bool {
    let kind = record::decode(entry).expect("a record").body().kind();
    kind.is_control() || matches!(kind, Kind::Issued | Kind::Revoked | Kind::Workload | Kind::Process)
}

fn session_of(entry: &[u8]) -> Option<EntryIndex> {
    record::decode(entry).expect("a record").draft.session
}

/// What is there is what was there, and what must be is.
fn check_left(log: &mut Log<SimDisk>, sessions: Sessions, before: &[Vec<u8>]) -> BTreeMap<u64, Vec<u8>> {
    let left = left(log);
    let first = log.pruned_before().0;
    let released = left
        .values()
        .any(|entry| matches!(record::decode(entry).expect("a record").body(), Body::Hold(hold) if !hold.on));
    for (index, entry) in (0..).zip(before) {
        match left.get(&index) {
            Some(seen) => assert_eq!(seen, entry, "entry {index}"),
            None => {
                assert!(index < first, "entry {index} is gone, whole is it from {first} on");
                assert!(!stays_by_kind(entry), "entry {index} must stay");
                assert_ne!(session_of(entry), Some(sessions.open), "entry {index} is of an open session");
                assert!(released || session_of(entry) != Some(sessions.held), "entry {index} is of a held session");
            }
        }
    }
    let whole: Vec<u64> = left.keys().copied().filter(|index| *index >= first).collect();
    assert_eq!(whole, (first..log.size().0).collect::<Vec<_>>(), "no hole after");
    left
}

/// Nothing of what went is in any file.
fn check_gone(sim: &SimDisk, log: &Log<SimDisk>, left: &BTreeMap<u64, Vec<u8>>) {
    let first = log.pruned_before().0;
    for bundle in 0..first / 256 {
        for path in [format!("log/tile/entries/{bundle:03}"), format!("log/tile/0/{bundle:03}")] {
            assert!(sim.read(&path).is_err(), "{path} is still there");
        }
    }
    if first > 0 {
        assert!(sim.files("log/packed/").is_empty(), "what was packed is all before {first}");
    }
    for path in sim.files("log/sidecar/") {
        for line in sim.read(&path).expect("a sidecar").split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let (index, _) = Disclosure::decode(line).expect("a line");
            assert!(left.contains_key(&index.0), "{path} discloses entry {}", index.0);
        }
    }
}

#[test]
fn what_must_stay_stays_and_all_else_goes() {
    let (sim, sessions, before) = long();
    let [first, second] = twice(&sim, sessions, &mut Run::default()).expect("nothing fails");
    assert_eq!((first.first, first.from), (EntryIndex(512), EntryIndex(0)));
    assert_eq!((second.first, second.from), (EntryIndex(768), EntryIndex(512)));
    let by_kind = |until: usize| before[..until].iter().filter(|entry| stays_by_kind(entry)).count() as u64;
    assert_eq!((first.kept, second.kept), (by_kind(512), by_kind(768)));
    let counts = first.counts;
    assert_eq!(counts.by_kind + counts.by_session + counts.by_place + counts.gone, 512, "each is counted once");
    assert!(counts.gone > 200 && counts.by_session > 50, "{counts:?}");
    let sim = sim.after_kill();
    let (mut log, recovery) = open(&sim).expect("opens");
    assert_eq!(recovery.cause, RecoveryCause::Crash, "it was only dropped");
    assert_eq!(log.pruned_before(), EntryIndex(768));
    assert_eq!(log.pruning(), PruningState::Idle, "done is done");
    let left = check_left(&mut log, sessions, &before);
    check_gone(&sim, &log, &left);
    // Only what has to stay, but for the few that stand after the last heartbeat before.
    let place = 768 - 80;
    let session = |index: u64| session_of(&before[usize::try_from(index).expect("small")]);
    let spare = left
        .iter()
        .filter(|(index, entry)| **index < place && !stays_by_kind(entry) && session(**index) != Some(sessions.open));
    assert_eq!(spare.count(), 0, "nor what the hold had kept, which is over");
    let of_ended = left.iter().filter(|(_, entry)| session_of(entry) == Some(sessions.ended)).count();
    assert_eq!(of_ended, 2, "its beginning and its end");
    let kept = Kept::parse(&sim.read("log/kept/000").expect("kept")).expect("a file of kept entries");
    assert_eq!(kept.bundles(), 3);
    // The session that was open goes on, and its totals are known to who goes through the log.
    let state = log.session(sessions.open).expect("open");
    let next = log.append(&draft(Some(sessions.open), hashed())).expect("append");
    assert_eq!(next.session_number, Some(SessionNumber(state.number.0 + 1)));
    check_verdict(&sim);
}

#[test]
fn a_log_that_was_pruned_is_read_by_the_readers_of_the_directory() {
    let (sim, sessions, before) = long();
    twice(&sim, sessions, &mut Run::default()).expect("nothing fails");
    let sim = sim.after_kill();
    let (mut log, _) = open(&sim).expect("opens");
    let left = check_left(&mut log, sessions, &before);
    log.seal(now(700)).expect("seal");
    let size = log.sealed_size().0;
    let directory = tempfile::tempdir().expect("a directory");
    for path in sim.files("log/") {
        let to = directory.path().join(&path);
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        std::fs::write(to, sim.read(&path).expect("a file")).expect("written");
    }
    let reader = SealedLog::new(directory.path().join("log"));
    let mut seen = BTreeMap::new();
    let absent = reader
        .each(0..size, size, |index, entry| {
            seen.insert(index, entry.to_vec());
            Ok::<(), SealedError>(())
        })
        .expect("readable");
    assert!(left.iter().all(|(index, entry)| seen.get(index) == Some(entry)));
    assert_eq!(absent.count, size - seen.len() as u64);
    let note = absent.note(&reader, size).expect("something is not there");
    assert!(note.contains("were pruned by entry") && note.contains("(a test)"), "{note}");
    // A part of a withheld subtree is counted as the part it is.
    let gone = (0..768).find(|index| !left.contains_key(index)).expect("something went");
    assert_eq!(reader.entry(gone, size).expect("readable"), None);
    let one = reader.each(gone..gone + 1, size, |_, _| Ok::<(), SealedError>(())).expect("readable");
    assert_eq!((one.count, one.between), (1, Some((gone, gone))));
    let pruned = reader.pruned(size).expect("readable").expect("an entry says so");
    assert_eq!((pruned.first, pruned.rule.as_str()), (768, "a test"));
}

#[test]
fn what_cannot_be_continued_or_was_altered_is_not_pruned() {
    let (whole, sessions, before) = long();
    // Too few heartbeats since the start.
    let sim = whole.after_kill();
    let (mut log, _) = open_committing(&sim).expect("opens");
    assert!(matches!(log.plan_pruning(EntryIndex(600), false), Err(PruneRefused::Nothing { floor: 0, .. })));
    for at in 0..3 {
        beat(&mut log, 400 + at).expect("sealed");
    }
    // Nothing before the first heartbeat.
    log.plan_pruning(EntryIndex(300), false).expect("begun");
    assert_eq!(log.plan_pruning(EntryIndex(300), false), Err(PruneRefused::Busy));
    wait_for(&mut log, |state| *state != PruningState::Looking).expect("looked");
    assert!(matches!(log.pruning(), PruningState::Ready(_)));
    // A session that is held meanwhile.
    log.append(&draft(None, hold(sessions.ended, true))).expect("append");
    assert_eq!(log.prune(now(5), "a test", None).expect("no fault"), None, "the plan did not know of it");
    assert_eq!(log.pruning(), PruningState::Idle);
    let planned = prune(&mut log, 300, false).expect("pruned");
    assert_eq!(planned.first, EntryIndex(256));
    let left = left(&mut log);
    let of_ended = |(_, entry): &(usize, &Vec<u8>)| session_of(entry) == Some(sessions.ended);
    assert!(before.iter().enumerate().filter(of_ended).all(|(index, _)| left.contains_key(&(index as u64))));
    assert!(matches!(log.plan_pruning(EntryIndex(256), false), Err(PruneRefused::Nothing { first: 256, .. })));
    drop(log);

    // Before anything is damaged it was gone through for holds.
    let (mut log, _) = open_committing(&whole).expect("opens");
    log.commit().map(drop).expect("saved");
    drop(log);
    // In the text of an entry, and in the length of one.
    for (path, at, bundle) in [("log/tile/entries/001", 5000, 1), ("log/tile/entries/001", 0, 1)] {
        let sim = whole.after_kill();
        sim.flip(path, at);
        let (mut log, _) = open_committing(&sim).expect("recovery does not look there");
        for at in 0..3 {
            beat(&mut log, 400 + at).expect("sealed");
        }
        log.plan_pruning(EntryIndex(600), false).expect("begun");
        wait_for(&mut log, |state| *state != PruningState::Looking).expect("looked");
        assert_eq!(log.refused(), Some(PruneRefused::Damaged { bundle }), "{path}");
        assert!(sim.files("log/kept/").is_empty() && sim.read(path).is_ok(), "evidence stays");
    }
}

#[test]
fn nothing_is_pruned_of_a_log_that_cannot_be_gone_through_for_holds() {
    let (sim, ..) = long();
    sim.lose("log/tile/entries/001");
    let (mut log, _) = open_committing(&sim).expect("recovery does not look there");
    for at in 0..3 {
        beat(&mut log, 400 + at).expect("sealed");
        log.tend(now(400 + at)).expect("the log goes on");
    }
    assert_eq!(log.plan_pruning(EntryIndex(600), false), Err(PruneRefused::Unseen(0)));
}

#[test]
fn pruning_goes_on_a_full_disk_at_the_price_of_the_reserve() {
    let (sim, sessions, before) = long();
    let (mut log, _) = open_committing(&sim).expect("opens");
    for at in 0..3 {
        beat(&mut log, 400 + at).expect("sealed");
    }
    log.plan_pruning(EntryIndex(600), false).expect("begun");
    wait_for(&mut log, |state| *state != PruningState::Looking).expect("looked");
    sim.set_no_space(true);
    assert!(matches!(log.prune(now(5), "a test", None), Err(LogError::Full(_))), "not even the plan fits");
    let early = check_left(&mut log, sessions, &before);
    assert!((0..before.len() as u64).all(|index| early.contains_key(&index)), "nothing went");
    sim.set_no_space(false);
    // The reserve makes room.
    log.regain_reserve().expect("space again");
    sim.set_fault(sim.operations(), Fault::NoSpace);
    log.prune(now(5), "a test", None).expect("room from the reserve").expect("the plan is still good");
    wait_for(&mut log, |state| *state == PruningState::Idle).expect("done");
    let left = check_left(&mut log, sessions, &before);
    check_gone(&sim, &log, &left);
}

#[test]
fn holds_are_looked_up_again_when_their_file_is_gone() {
    let (whole, sessions, before) = long();
    let (mut log, _) = open_committing(&whole).expect("opens");
    log.commit().map(drop).expect("saved");
    drop(log);
    assert!(whole.read("retention").is_ok());
    for lost in [false, true] {
        let sim = whole.after_kill();
        if lost {
            sim.lose("retention");
        }
        let (mut log, _) = open(&sim).expect("opens");
        assert_eq!(log.is_held(sessions.held), !lost);
        for at in 0..3 {
            beat(&mut log, 400 + at).expect("sealed");
        }
        if lost {
            let refused = log.plan_pruning(EntryIndex(600), false);
            assert!(matches!(refused, Err(PruneRefused::Unseen(0))), "{refused:?}");
        }
        log.tend(now(301)).expect("tended");
        assert!(log.is_held(sessions.held));
        prune(&mut log, 600, false).expect("pruned");
        check_left(&mut log, sessions, &before);
    }
}

/// Lets each operation of two prunings go wrong in one way; after it kills the process or cuts the power, checks all. A
/// disk with the same files of the same lengths as one that was checked is not checked again: most reads that fail
/// leave the same.
fn check_every_operation_of_pruning(fault: Fault) {
    let (base, sessions, before) = long();
    let plain = base.after_kill();
    let mut peaceful = Run::default();
    twice(&plain, sessions, &mut peaceful).expect("nothing fails");
    let [begun, ended, begun_again, ended_again] = peaceful.marks[..] else { panic!("{peaceful:?}") };
    let trace = plain.trace();
    let (mut tried, mut checked) = (0, std::collections::BTreeSet::new());
    for at in (begun..ended).chain(begun_again..ended_again) {
        let (op, path) = &trace[usize::try_from(at).expect("small")];
        match fault {
            Fault::Torn if *op != DiskOp::Write => continue,
            Fault::NoSpace if !op.needs_space() => continue,
            _ => tried += 1,
        }
        let sim = base.after_kill();
        sim.set_fault(at, fault);
        let mut run = Run { acknowledged: before.len() as u64, marks: Vec::new() };
        let outcome = catch_unwind(AssertUnwindSafe(|| twice(&sim, sessions, &mut run)));
        assert!(outcome.is_ok(), "operation {at} ({op:?} {path}) {fault:?} panics");
        for survival in [None, Some(Survival::None), Some(Survival::Some(at * 31 + 7))] {
            let after = match survival {
                None => sim.after_kill(),
                Some(survival) => sim.after_power_cut(survival),
            };
            if !checked.insert((run.acknowledged, survival.is_none(), after.lengths())) {
                continue;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                if survival.is_none() {
                    // Before anything is repaired from the write-ahead log.
                    check_verdict(&after);
                }
                check_after_pruning(&after, sessions, &before, run.acknowledged);
            }));
            assert!(outcome.is_ok(), "operation {at} ({op:?} {path}) {fault:?}, then {survival:?} (None is a kill)");
        }
    }
    println!("{tried} operations tried, {} disks checked", checked.len());
    assert!(tried > 5, "too few to be pruning");
}

/// After whatever happened: the log opens, nothing that must be there is missing, what was begun is ended, and the log
/// can be gone on with, pruned further, and opened again.
fn check_after_pruning(sim: &SimDisk, sessions: Sessions, before: &[Vec<u8>], acknowledged: u64) {
    let (mut log, recovery) = open_committing(sim).expect("no false fault");
    assert!(recovery.size.0 >= acknowledged, "{} < {acknowledged}", recovery.size.0);
    let early = check_left(&mut log, sessions, before);
    log.pack().expect("what was begun is ended");
    assert_eq!(log.pruning(), PruningState::Idle);
    let left = check_left(&mut log, sessions, before);
    assert!(left.keys().all(|index| early.contains_key(index)), "nothing came back");
    check_gone(sim, &log, &left);
    for at in 0..3 {
        beat(&mut log, 600 + at).expect("goes on");
    }
    if log.pruned_before().0 < 768 {
        prune(&mut log, 800, false).expect("pruned further");
    }
    let left = check_left(&mut log, sessions, before);
    check_gone(sim, &log, &left);
    let size = log.size();
    drop(log);
    check_verdict(sim);
    let again = sim.after_power_cut(Survival::None);
    let (mut log, recovery) = open(&again).expect("opens after a power cut");
    assert_eq!(recovery.size, size);
    check_left(&mut log, sessions, before);
}

#[test]
fn any_operation_of_pruning_may_fail_and_nothing_that_must_stay_is_lost() {
    check_every_operation_of_pruning(Fault::Failed);
}

#[test]
fn any_operation_of_pruning_may_fail_although_it_happened_and_nothing_that_must_stay_is_lost() {
    check_every_operation_of_pruning(Fault::FailedButPersisted);
}

#[test]
fn any_write_of_pruning_may_be_torn_and_nothing_that_must_stay_is_lost() {
    check_every_operation_of_pruning(Fault::Torn);
}

#[test]
fn the_disk_may_be_full_at_any_operation_of_pruning_and_nothing_that_must_stay_is_lost() {
    check_every_operation_of_pruning(Fault::NoSpace);
}

#[test]
fn the_power_may_go_after_any_operation_of_pruning_and_nothing_that_must_stay_is_lost() {
    check_every_operation_of_pruning(Fault::CrashAfter);
}
