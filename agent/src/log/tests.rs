//! The log as a whole: what survives, what is refused, and a fault at every single operation.

mod copies;
mod packing;
mod pruning;
mod successors;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use agent_evidence::blob;
use agent_evidence::chain;
use agent_evidence::checkpoint::Checkpoint;
use agent_evidence::packed;
use agent_evidence::record::{
    self, BootTime, CgroupId, ChainHash, CommitRules, Commitment, DisarmCause, Disarmed, Disclosure, Heartbeat, Id128,
    Issued, IssuedClaims, Label, List, Measured, MeasuredLog, RecoveryCause, Requester, RevokeCause, Revoked, Scope,
    SessionSort, Succession, SuccessionCause, Workload, WorkloadKind,
};
use agent_evidence::tiles::{TileKind, TilePath, width_in};
use agent_evidence::tree::{Tree, leaf_hash};
use agent_evidence::verify::{self, Claim, Source, SourceError};

use super::disk::DiskOp;
use super::simdisk::{Dice, Fault, SimDisk, Survival};
use super::*;
use crate::export::sealed::{SealedError, SealedLog};
use crate::sign::software::SoftwareKey;

const ORIGIN: &str = "example.org/host";

/// A content beside the log.
const CONTENT: &[u8] = b"10 91f34b5c671d ima-ng sha256:00 boot_aggregate\n";

/// Small enough that a short script fills bundles, rotates segments and reuses them.
fn limits() -> Limits {
    Limits {
        commit_bytes: 4 << 10,
        pending_bytes_max: 512 << 10,
        seal_entries: 10_000,
        segment_bytes: 16 << 10,
        segments_max: 8,
        reserve_bytes: 4096,
        sessions_max: 4,
        // The first bundle, soon, and always at the same operation.
        packing: Some(Packing { hot_entries: 16, level: 1, bundles: 1, in_background: false }),
        ..Limits::default()
    }
}

fn key() -> Box<dyn Signer> {
    Box::new(SoftwareKey::from_seed(&[9; 32]))
}

fn now(tick: u64) -> Now {
    Now { wall: WallTime(1_000_000_000 + tick), boot: BootTime(tick) }
}

fn birth() -> Birth<'static> {
    Birth {
        boot_id: Text::new(b"d9b2d63d-a233-4123-847a-7090b38f3c5e"),
        kernel: Text::new(b"6.12.0"),
        machine: None,
        predecessor: None,
    }
}

fn create(sim: &SimDisk) -> Result<Log<SimDisk>, LogError> {
    let mut log = Log::create_on(sim.clone(), limits(), ORIGIN, key(), &birth(), now(0))?;
    log.commit_values(committed());
    Ok(log)
}

fn open(sim: &SimDisk) -> Result<(Log<SimDisk>, Recovery), LogError> {
    let (mut log, recovery) = Log::open_on(sim.clone(), limits(), ORIGIN, key(), now(1))?;
    log.commit_values(committed());
    Ok((log, recovery))
}

fn draft(session: Option<EntryIndex>, body: Body<'_>) -> Draft<'_> {
    Draft { session, ..agent_draft(now(5), body) }
}

/// A short record of the control chain that refers to nothing.
fn control(number: u32) -> Body<'static> {
    Body::Scope(Scope { text: Text::new(b"tests"), host_classes: number, roots: List::default() })
}

fn issued() -> Body<'static> {
    Body::Issued(Issued {
        sort: SessionSort::Run,
        rule: None,
        parent: None,
        id: Text::new(b"s"),
        identity: Text::new(b"spiffe://example.org/s"),
        cgroup: CgroupId(4),
        uid: Some(0),
        gid: Some(0),
        ttl: None,
        by: Some(Requester { process: None, tgid: 7, uid: 0, gid: 0 }),
        claims: IssuedClaims { task: None, labels: List::default() },
    })
}

fn revoked(hash: ChainHash) -> Body<'static> {
    Body::Revoked(Revoked {
        id: Text::new(b"s"),
        cause: RevokeCause::Exit,
        code: Some(0),
        signal: None,
        residual: None,
        acts: List::default(),
        entries: 1,
        hash,
    })
}

fn heartbeat(sessions: Vec<SessionState>) -> Body<'static> {
    Body::Heartbeat(Heartbeat {
        capture_id: Id128([1; 16]),
        counters: List::default(),
        sessions: sessions.into(),
        hooks_ok: true,
        hooks_digest: record::Digest([0; 32]),
        canaries: List::default(),
    })
}

fn disarmed(sessions: Vec<SessionState>) -> Body<'static> {
    Body::Disarmed(Disarmed {
        cause: DisarmCause::Operator,
        capture_id: Id128([1; 16]),
        counters: List::default(),
        sessions: sessions.into(),
    })
}

/// What the tests' logs commit: the label of [`act`].
fn committed() -> CommitRules {
    CommitRules::parse(["workload.labels"]).expect("a rule")
}

/// A record outside the control chain that refers to nothing, with a value that is committed.
fn act() -> Body<'static> {
    Body::Workload(Workload {
        sort: WorkloadKind::Host,
        id: Text::new(b"spiffe://example.org/host"),
        cgroup: CgroupId(1),
        path: Text::new(b"/"),
        how: Text::new(b"test"),
        labels: vec![Label { name: "owner".into(), value: "a person".into() }].into(),
    })
}

fn all<D: Disk>(log: &mut Log<D>) -> Result<Vec<Vec<u8>>, LogError> {
    let mut entries = Vec::new();
    log.entries_from(EntryIndex(0), |_, entry| {
        entries.push(entry.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

/// The log's directory as the verifier reads it.
struct Directory(SimDisk);

impl Source for Directory {
    fn read(&mut self, path: &str, _bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(Disk::read(&self.0, &format!("log/{path}")).ok())
    }
}

/// What a public C2SP reader can check in the directory: every tile and bundle that the visible checkpoint needs is
/// there, plain or packed, of the right size, and they lead to its root. Gives the entries.
fn check_directory(sim: &SimDisk) -> Vec<Vec<u8>> {
    let bytes = sim.read("log/checkpoint").expect("a checkpoint");
    let (checkpoint, note) = Checkpoint::parse(&bytes).expect("a signed checkpoint");
    let log_key = sign::verifier(ORIGIN, key().public_key()).expect("a key");
    assert_eq!(note.signed_by(&log_key), Ok(true));
    let size = checkpoint.size;
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let mut tree = Tree::new();
    let mut tiles: Vec<(TilePath, Vec<u8>)> = Vec::new();
    let mut directory = verify::Cold::new(Directory(sim.clone()));
    let mut stored = |path: TilePath| {
        let stored = directory.read(&path.path(), usize::MAX).expect("readable");
        stored.unwrap_or_else(|| panic!("{} is missing", path.path()))
    };
    for number in 0..size.0.div_ceil(256) {
        let path = TilePath { kind: TileKind::Entries, number, width: width_in(size, 0, number) };
        let bundle = stored(path);
        let bundle = agent_evidence::tiles::entries(&bundle, path.width).expect("a whole bundle");
        for entry in bundle {
            let mut full = Vec::new();
            tree.append(leaf_hash(entry), |view| {
                let path = TilePath { kind: TileKind::Hashes { level: view.level }, number: view.number, width: 256 };
                full.push((path, view.hashes.as_flattened().to_vec()));
            });
            tiles.append(&mut full);
            entries.push(entry.to_vec());
        }
    }
    assert_eq!(tree.root(), checkpoint.root, "the entries lead to the root that was signed");
    for view in tree.partial_tiles() {
        let width = u16::try_from(view.hashes.len()).expect("partial");
        let path = TilePath { kind: TileKind::Hashes { level: view.level }, number: view.number, width };
        tiles.push((path, view.hashes.as_flattened().to_vec()));
    }
    for (path, hashes) in tiles {
        assert_eq!(stored(path), hashes, "{}", path.path());
    }
    check_chains(&entries);
    check_values(sim, &entries);
    check_blobs(sim, &entries);
    entries
}

/// Every committed value of an entry that a checkpoint covers is disclosed by its sidecar.
fn check_values(sim: &SimDisk, entries: &[Vec<u8>]) {
    let mut disclosed: BTreeMap<EntryIndex, Vec<(String, Commitment)>> = BTreeMap::new();
    for path in sim.files("log/sidecar/") {
        for line in sim.read(&path).expect("a sidecar").split(|byte| *byte == b'\n') {
            if let Ok((index, disclosure)) = Disclosure::decode(line) {
                disclosed.entry(index).or_default().push((disclosure.field.clone(), disclosure.commitment()));
            }
        }
    }
    for entry in entries {
        let record = record::decode(entry).expect("a record");
        if record.committed > 0 {
            let found = disclosed.remove(&record.index()).unwrap_or_default();
            assert_eq!(record.commitments(), found, "values of entry {}", record.index().0);
        }
    }
}

/// Every content that an entry which a checkpoint covers refers to is there.
fn check_blobs(sim: &SimDisk, entries: &[Vec<u8>]) {
    for entry in entries {
        let record = record::decode(entry).expect("a record");
        for blob in record.blobs() {
            let path = format!("log/{}", blob::path(&blob.sha256));
            let content = sim.read(&path).unwrap_or_else(|error| panic!("{path} of {:?}: {error}", record.index()));
            assert_eq!(&blob::reference(&content), blob);
        }
    }
}

/// What the verifier of the product says of everything that is the log's own work.
fn check_verdict(sim: &SimDisk) {
    let report = verify::verify(&mut Directory(sim.clone()), None, verify::Options::default()).expect("a log");
    assert_eq!(report.findings.len() as u64, report.findings_total, "every finding is looked at");
    for finding in &report.findings {
        // The tests' sessions and heartbeats say of capture and totals what nobody captured or counted.
        let ours = !matches!(finding.claim(), Claim::Coverage) && finding.name() != "revoked_wrong";
        assert!(!ours, "{finding:?}");
    }
}

/// Indexes, previous hashes, session and control numbers, epochs.
fn check_chains(entries: &[Vec<u8>]) {
    let mut previous = LeafHash([0; 32]);
    let mut control = 0;
    let mut epochs = 0;
    let mut sessions = std::collections::HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let record = record::decode(entry).expect("a record");
        let placement = record.placement;
        assert_eq!(placement.index.0, index as u64);
        assert_eq!(placement.previous, previous);
        previous = leaf_hash(entry);
        if let Some(number) = placement.control_number {
            assert_eq!(number.0, control);
            control += 1;
        }
        if let Body::Epoch(epoch) = &record.draft.body {
            assert_eq!(epoch.number.0, epochs);
            assert_eq!(epoch.first_size.0, index as u64 + 1);
            epochs += 1;
        }
        match (&record.draft.body, record.draft.session) {
            (Body::Issued(_), Some(session)) => {
                assert_eq!(session.0, index as u64);
                sessions.insert(session, (0, chain::session_start(previous)));
            }
            (body, Some(session)) => {
                let (number, hash) = sessions.get_mut(&session).expect("an open session");
                if let Body::Revoked(revoked) = body {
                    assert_eq!(revoked.hash, *hash, "the running hash survived");
                }
                *number += 1;
                *hash = chain::step(*hash, previous);
                assert_eq!(placement.session_number, Some(SessionNumber(*number)));
            }
            (body, None) => assert!(!matches!(body, Body::Revoked(_))),
        }
    }
}

/// What one run was told, so that it can be demanded afterwards.
#[derive(Default)]
struct Told {
    /// Every entry appended, in order of index; later ones replace those that a crash forgot.
    appended: Vec<Vec<u8>>,
    acknowledged: u64,
    sealed: u64,
}

impl Told {
    fn note(&mut self, log: &mut Log<SimDisk>) {
        // From memory: reading the disk would be an operation more.
        let from = log.tiling.first();
        self.appended.truncate(usize::try_from(from).expect("small"));
        for entry in wal::Entries(log.tiling.tail()) {
            self.appended.push(entry.expect("whole").to_vec());
        }
    }

    fn commit(&mut self, log: &mut Log<SimDisk>) -> Result<Committed, LogError> {
        self.note(log);
        let committed = log.commit()?;
        self.acknowledged = self.acknowledged.max(committed.size.0);
        Ok(committed)
    }

    fn seal(&mut self, log: &mut Log<SimDisk>, at: Now) -> Result<Sealed, LogError> {
        self.note(log);
        let sealed = log.seal(at)?;
        self.sealed = sealed.checkpoint.size.0;
        self.acknowledged = self.acknowledged.max(self.sealed);
        Ok(sealed)
    }
}

/// Genesis, sessions, commits, seals, full bundles, rotation of segments and of the epoch, and a reopening.
fn script(sim: &SimDisk, told: &mut Told) -> Result<(), LogError> {
    let mut log = create(sim)?;
    told.acknowledged = log.durable_size().0;
    told.sealed = log.sealed_size().0;
    run(&mut log, told, 7)?;
    drop(log);
    let (mut log, recovery) = open(sim)?;
    assert_eq!(recovery.size.0, told.acknowledged);
    assert_eq!(recovery.cause, RecoveryCause::Clean);
    log.append(&draft(None, Body::Recovered(recovery.record())))?;
    told.seal(&mut log, now(90))?;
    run(&mut log, told, 2)
}

fn run(log: &mut Log<SimDisk>, told: &mut Told, groups: u64) -> Result<(), LogError> {
    let session = log.append(&draft(None, issued()))?.index;
    for group in 0..groups {
        for _ in 0..40 {
            log.append(&draft(Some(session), act()))?;
        }
        let _acknowledged = told.commit(log)?;
        if group % 3 == 2 {
            told.seal(log, now(group))?;
        }
    }
    // The first is there already when the script comes here again.
    for content in [CONTENT.to_vec(), log.size().0.to_be_bytes().to_vec()] {
        let content = log.store_blob(&content)?;
        let measured = Measured { log: MeasuredLog::Ima, content, from: 0, complete: true };
        log.append(&draft(None, Body::Measured(measured)))?;
        // Or its entry would wait for the next seal.
        let _acknowledged = told.commit(log)?;
    }
    let states = log.sessions();
    log.append(&draft(None, heartbeat(states)))?;
    for _ in 0..10 {
        log.append(&draft(None, control(1)))?;
    }
    told.note(log);
    log.rotate_epoch(now(50))?;
    told.seal(log, now(51))?;
    let hash = log.session(session).map_or(ChainHash([0; 32]), |state| state.hash);
    log.append(&draft(Some(session), revoked(hash)))?;
    let states = log.sessions();
    log.append(&draft(None, disarmed(states)))?;
    told.seal(log, now(60))?;
    Ok(())
}

/// After whatever happened: the log opens or was never created, nothing that was acknowledged is missing, and it
/// can be gone on with.
fn check_after(sim: &SimDisk, told: &Told) {
    let (mut log, recovery) = match open(sim) {
        Ok(opened) => opened,
        Err(LogError::NotCreated) if told.acknowledged == 0 => {
            let log = create(sim).expect("creation is tried again");
            drop(log);
            check_directory(sim);
            return;
        }
        Err(error) => panic!("false fault: {error:?}"),
    };
    assert!(recovery.size.0 >= told.acknowledged, "{} < {}", recovery.size.0, told.acknowledged);
    assert!(recovery.sealed.0 >= told.sealed, "a checkpoint that was shown is gone");
    let entries = all(&mut log).expect("readable");
    for (index, entry) in told.appended.iter().take(usize::try_from(told.acknowledged).expect("small")).enumerate() {
        assert_eq!(entries.get(index), Some(entry), "acknowledged entry {index}");
    }
    log.append(&draft(None, Body::Recovered(recovery.record()))).expect("append");
    let sealed = log.seal(now(100)).expect("seal");
    let size = log.size();
    assert_eq!(sealed.checkpoint.size, size);
    drop(log);
    assert_eq!(check_directory(sim).len() as u64, size.0);
    let temporary: Vec<String> = sim.files("tmp/");
    assert!(temporary.is_empty(), "left over: {temporary:?}");
    // What only the page cache had shown would be gone now.
    let (mut log, recovery) = open(&sim.after_power_cut(Survival::None)).expect("opens after a power cut");
    assert_eq!(recovery.size, size, "what the second life sealed");
    assert!(all(&mut log).expect("readable").starts_with(&entries));
}

#[test]
fn a_scripted_run_passes_every_check_a_public_reader_can_make() {
    let sim = SimDisk::default();
    let mut told = Told::default();
    script(&sim, &mut told).expect("nothing fails");
    let entries = check_directory(&sim);
    check_verdict(&sim);
    assert_eq!(entries.len() as u64, told.sealed);
    assert!(sim.trace().iter().any(|(_, path)| path == "wal/spare"), "a segment was recycled");
    assert!(entries.len() > 300, "more than one bundle");
    assert_eq!(sim.files("log/packed/"), ["log/packed/000"]);
    assert!(sim.read("log/tile/entries/000").is_err() && sim.read("log/tile/0/000").is_err(), "only packed");
    let kept = sim.files("wal/").len();
    assert!(kept <= 4, "the write-ahead log is short: {kept} segments");
    check_after(&sim.after_power_cut(Survival::None), &told);
}

/// Lets each operation of the script go wrong in one way; after it kills the process or cuts the power, checks all.
fn check_every_operation(fault: Fault) {
    let plain = SimDisk::default();
    script(&plain, &mut Told::default()).expect("nothing fails");
    let mut tried = 0;
    for (at, (op, _)) in (0..).zip(plain.trace()) {
        // At every other operation these two are what `Failed` is.
        match fault {
            Fault::Torn if op != DiskOp::Write => continue,
            Fault::NoSpace if !op.needs_space() => continue,
            _ => tried += 1,
        }
        let sim = SimDisk::default();
        sim.set_fault(at, fault);
        let mut told = Told::default();
        let outcome = script(&sim, &mut told);
        let what = sim.trace().get(usize::try_from(at).expect("small")).cloned();
        for survival in [None, Some(Survival::None), Some(Survival::Some(at * 31 + 7))] {
            let checked = catch_unwind(AssertUnwindSafe(|| {
                let after = match survival {
                    None => sim.after_kill(),
                    Some(survival) => sim.after_power_cut(survival),
                };
                check_after(&after, &told);
                if survival.is_none() {
                    check_verdict(&after);
                }
            }));
            assert!(
                checked.is_ok(),
                "operation {at} ({what:?}) {fault:?}, then {survival:?} (None is a kill); the run ended {outcome:?}"
            );
        }
    }
    println!("{tried} operations of {} tried", plain.operations());
}

#[test]
fn any_operation_may_fail_and_nothing_acknowledged_is_lost() {
    check_every_operation(Fault::Failed);
}

#[test]
fn any_operation_may_fail_although_it_happened_and_nothing_acknowledged_is_lost() {
    check_every_operation(Fault::FailedButPersisted);
}

#[test]
fn any_write_may_be_torn_and_nothing_acknowledged_is_lost() {
    check_every_operation(Fault::Torn);
}

#[test]
fn the_disk_may_be_full_at_any_operation_and_nothing_acknowledged_is_lost() {
    check_every_operation(Fault::NoSpace);
}

#[test]
fn the_power_may_go_after_any_operation_and_nothing_acknowledged_is_lost() {
    check_every_operation(Fault::CrashAfter);
}

#[test]
fn random_runs_with_random_faults_lose_nothing() {
    let seed = u64::from(std::process::id()) << 20 | 0x5eed;
    println!("seed {seed:#x}");
    let mut dice = Dice(seed);
    for round in 0..100 {
        let case = dice.next() | 1;
        let checked = catch_unwind(AssertUnwindSafe(|| random_run(case)));
        assert!(checked.is_ok(), "seed {seed:#x} round {round} case {case:#x}");
    }
}

/// Several lives of one log, each ended by a fault, a kill or a power cut.
fn random_run(case: u64) {
    let mut dice = Dice(case);
    let mut sim = SimDisk::default();
    let mut told = Told::default();
    for _life in 0..4 {
        let base = sim.operations();
        let fault = [Fault::Failed, Fault::FailedButPersisted, Fault::Torn, Fault::CrashAfter, Fault::NoSpace];
        let fault = fault[usize::try_from(dice.below(5)).expect("small")];
        if dice.below(3) > 0 {
            sim.set_fault(base + dice.below(250), fault);
        }
        let _ended = random_life(&sim, &mut dice, &mut told);
        sim = match dice.below(4) {
            0 => sim.after_kill(),
            1 => sim.after_power_cut(Survival::None),
            2 => sim.after_power_cut(Survival::All),
            _ => sim.after_power_cut(Survival::Some(dice.next())),
        };
    }
    check_after(&sim, &told);
    check_verdict(&sim);
}

fn random_life(sim: &SimDisk, dice: &mut Dice, told: &mut Told) -> Result<(), LogError> {
    let mut log = match open(sim) {
        Ok((log, recovery)) => {
            assert!(recovery.size.0 >= told.acknowledged);
            log
        }
        Err(LogError::NotCreated) if told.acknowledged == 0 => create(sim)?,
        Err(error @ LogError::Fault(_)) => panic!("false fault: {error:?}"),
        Err(error) => return Err(error),
    };
    told.appended.clear();
    told.appended.extend(all(&mut log)?);
    for _ in 0..dice.below(60) {
        match dice.below(12) {
            0 if log.chains.open_sessions() < 4 => drop(log.append(&draft(None, issued()))?),
            1 => {
                if let Some(state) = log.sessions().first() {
                    log.append(&draft(Some(state.session), revoked(state.hash)))?;
                }
            }
            2 => {
                let states = log.sessions();
                log.append(&draft(None, heartbeat(states)))?;
            }
            3 => drop(told.seal(&mut log, now(dice.below(1000)))?),
            4 => {
                told.note(&mut log);
                log.rotate_epoch(now(7))?;
            }
            5 | 6 => drop(told.commit(&mut log)?),
            _ => {
                let session = log.sessions().last().map(|state| state.session);
                for _ in 0..dice.below(60) {
                    log.append(&draft(session, act()))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn only_one_process_owns_a_state_directory() {
    let sim = SimDisk::default();
    let log = create(&sim).expect("create");
    assert!(matches!(open(&sim).err(), Some(LogError::Locked)));
    drop(log);
    open(&sim).expect("free again");
}

#[test]
fn nothing_is_created_by_opening_and_nothing_is_overwritten_by_creating() {
    let sim = SimDisk::default();
    assert!(matches!(open(&sim).err(), Some(LogError::NotCreated)));
    drop(create(&sim).expect("create"));
    let before = sim.read("log/checkpoint").expect("checkpoint");
    assert!(matches!(create(&sim).err(), Some(LogError::AlreadyCreated)));
    assert_eq!(sim.read("log/checkpoint").expect("checkpoint"), before);
}

/// A key that is known, and waits.
struct Waiting(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Signer for Waiting {
    fn tier(&self) -> agent_evidence::record::KeyTier {
        key().tier()
    }

    fn place(&self) -> &'static str {
        "the log key waits"
    }

    fn is_available(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn public_key(&self) -> agent_evidence::record::PublicKey {
        key().public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<agent_evidence::record::Signature, crate::sign::SignError> {
        if self.is_available() {
            key().sign(message)
        } else {
            Err(crate::sign::SignError::Unavailable { why: "it waits".to_owned() })
        }
    }
}

#[test]
fn a_log_whose_key_waits_keeps_everything_and_seals_it_once_the_key_is_there() {
    let sim = grown();
    let available = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let open = || Log::open_unsigned_on(sim.clone(), limits(), ORIGIN, Box::new(Waiting(available.clone())));
    let (mut log, recovery) = open().unwrap();
    let (before, sealed) = (log.size(), log.sealed_size());
    log.append(&draft(None, Body::Recovered(recovery.record()))).unwrap();
    for number in 0..600 {
        log.append(&draft(None, control(number))).unwrap();
    }
    let _durable = log.commit().unwrap();
    // Nothing is due but commits, whatever the time; nothing is signed, and nothing is shown.
    let due = log.due(BootTime(u64::MAX));
    assert!(!due.seal && !due.rotate_epoch && log.epoch().is_none() && log.anchorable().is_none());
    assert!(matches!(log.begin_epoch(now(2), None), Err(LogError::Sign(_))));
    assert!(matches!(log.seal(now(2)), Err(LogError::Unsigned)));
    assert!(matches!(log.rotate_epoch(now(2)), Err(LogError::Unsigned)));
    assert_eq!(log.sealed_size(), sealed);
    let unsigned = all(&mut log).unwrap();
    drop(log);

    // A crash while it waits, and the next run gets the key.
    let (mut log, recovery) = open().unwrap();
    assert_eq!((recovery.size.0, log.size().0), (before.0 + 601, before.0 + 601));
    log.append(&draft(None, Body::Recovered(recovery.record()))).unwrap();
    available.store(true, std::sync::atomic::Ordering::Relaxed);
    log.begin_epoch(now(3), Some(41)).unwrap();
    assert!(log.anchorable().is_none(), "no checkpoint covers the epoch yet");
    let head = log.seal(now(3)).unwrap();
    assert_eq!((head.checkpoint.size, log.anchorable().map(|(_, epoch)| epoch)), (log.size(), Some(head.epoch)));
    let entries = all(&mut log).unwrap();
    assert_eq!(entries[..unsigned.len()], unsigned[..]);
    let last = entries.last().map(Vec::as_slice).and_then(|entry| record::decode(entry).ok()).unwrap();
    assert!(matches!(last.body(), Body::Epoch(epoch) if epoch.counter == Some(41)));
    drop(log);
    check_directory(&sim);
}

#[test]
fn a_creation_that_a_crash_ended_is_begun_anew() {
    let plain = SimDisk::default();
    drop(create(&plain).expect("create"));
    for at in 0..plain.operations() - 1 {
        let sim = SimDisk::default();
        sim.set_fault(at, Fault::CrashAfter);
        assert!(create(&sim).is_err());
        let after = sim.after_power_cut(Survival::All);
        if after.read("head").is_ok() {
            continue;
        }
        let other = Log::create_on(after.clone(), limits(), "example.org/again", key(), &birth(), now(0));
        drop(other.expect("nothing was there yet"));
        let opened = Log::open_on(after, limits(), "example.org/again", key(), now(1));
        assert_eq!(opened.expect("open").1.size, TreeSize(2));
    }
}

/// A log with entries in the tiles, in the write-ahead log only, and beyond the checkpoint.
fn grown() -> SimDisk {
    let sim = SimDisk::default();
    let mut told = Told::default();
    let mut log = create(&sim).expect("create");
    run(&mut log, &mut told, 9).expect("run");
    run(&mut log, &mut told, 9).expect("run");
    for _ in 0..20 {
        log.append(&draft(None, control(3))).expect("append");
    }
    let _acknowledged = log.commit().expect("commit");
    drop(log);
    sim
}

fn fault(sim: &SimDisk) -> EvidenceFault {
    match open(sim).err() {
        Some(LogError::Fault(fault)) => fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

#[test]
fn a_store_that_was_changed_is_refused_with_the_reason() {
    let whole = grown();
    drop(open(&whole.after_kill()).expect("unchanged, it opens"));

    let sim = whole.after_kill();
    for path in sim.files("wal/") {
        sim.lose(&path);
    }
    assert!(matches!(fault(&sim), EvidenceFault::WalMissing { .. }));

    let sim = whole.after_kill();
    let segments = sim.files("wal/0");
    for path in &segments[..segments.len() - 1] {
        sim.lose(path);
    }
    let found = fault(&sim);
    assert!(matches!(found, EvidenceFault::WalLate { .. } | EvidenceFault::Tile { .. }), "{found:?}");

    let sim = whole.after_kill();
    sim.lose(segments.last().expect("a segment"));
    assert!(matches!(fault(&sim), EvidenceFault::Truncated { .. }));

    let sim = whole.after_kill();
    sim.lose("head");
    assert!(matches!(fault(&sim), EvidenceFault::Head(HeadFault::Ahead { durable: 0, .. })));

    let sim = whole.after_kill();
    sim.lose("log/packed/000");
    assert!(matches!(fault(&sim), EvidenceFault::Tile { .. }));

    let sim = whole.after_kill();
    sim.flip("log/packed/000", 5000);
    assert!(matches!(fault(&sim), EvidenceFault::Tile { .. }));

    let sim = whole.after_kill();
    sim.lose("log/tile/0/001");
    assert!(matches!(fault(&sim), EvidenceFault::Tile { .. }));

    let sim = whole.after_kill();
    sim.flip("log/tile/0/001", 100);
    assert!(matches!(fault(&sim), EvidenceFault::Root { .. } | EvidenceFault::Leaf { .. }));

    let sim = whole.after_kill();
    let note = String::from_utf8(sim.read("head").expect("head")).expect("text");
    let size: u64 = note.lines().nth(1).and_then(|line| line.parse().ok()).expect("size");
    let changed = note.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size - 1), 1);
    sim.put("head", changed.as_bytes());
    sim.lose("log/checkpoint");
    assert!(matches!(fault(&sim), EvidenceFault::Forged(_)));

    let sim = whole.after_kill();
    let other = SoftwareKey::from_seed(&[10; 32]);
    let opened = Log::open_on(sim, limits(), ORIGIN, Box::new(other), now(1));
    assert!(matches!(opened.err(), Some(LogError::Fault(EvidenceFault::NotSigned))));

    let sim = whole.after_kill();
    let opened = Log::open_on(sim, limits(), "example.org/other", key(), now(1));
    assert!(matches!(opened.err(), Some(LogError::Fault(EvidenceFault::Origin { .. }))));
}

#[test]
fn an_older_head_put_back_is_noticed_as_a_rollback() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    let old = sim.read("head").expect("head");
    log.append(&draft(None, control(1))).expect("append");
    log.seal(now(3)).expect("seal");
    drop(log);
    sim.put("head", &old);
    assert!(matches!(fault(&sim), EvidenceFault::Head(HeadFault::Ahead { visible: 3, durable: 2 })));
}

#[test]
fn a_full_disk_takes_the_last_records_from_the_reserve_and_acknowledges_nothing_it_cannot_keep() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    for _ in 0..30 {
        log.append(&draft(None, act())).expect("append");
    }
    // Full from here on; removing the reserve makes room.
    sim.set_fault(sim.operations(), Fault::NoSpace);
    let committed = log.commit().expect("the reserve made room");
    assert!(committed.full);
    assert!(log.is_full());
    assert!(matches!(log.append(&draft(None, act())).err(), Some(LogError::Full(None))));
    log.append(&draft(None, control(7))).expect("the control chain goes on");
    log.append(&draft(None, disarmed(Vec::new()))).expect("and the end");
    log.seal(now(9)).expect("and sealed");
    assert!(log.regain_reserve().expect("space again"));
    log.append(&draft(None, act())).expect("every kind again");
    drop(log);
    assert_eq!(check_directory(&sim).len(), 34);
}

#[test]
fn a_disk_that_stays_full_keeps_what_is_pending_until_there_is_space() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    for _ in 0..600 {
        log.append(&draft(None, act())).expect("append");
    }
    sim.set_no_space(true);
    assert!(matches!(log.commit(), Err(LogError::Full(Some(_)))));
    assert_eq!(log.durable_size(), TreeSize(2));
    log.append(&draft(None, control(1))).expect("pending");
    assert!(matches!(log.seal(now(4)), Err(LogError::Full(Some(_)))));
    sim.set_no_space(false);
    log.seal(now(5)).expect("space again");
    assert_eq!(log.sealed_size(), TreeSize(603));
    drop(log);
    assert_eq!(check_directory(&sim.after_power_cut(Survival::All)).len(), 603);
    drop(open(&sim.after_power_cut(Survival::None)).expect("opens"));
}

#[test]
fn partial_tiles_stay_until_the_full_one_is_covered_by_a_visible_checkpoint() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    for at in 0..5 {
        for _ in 0..50 {
            log.append(&draft(None, act())).expect("append");
        }
        log.seal(now(at)).expect("seal");
    }
    let partials = sim.files("log/tile/entries/000.p/");
    assert_eq!(partials.len(), 6, "one for each checkpoint: {partials:?}");
    drop(log);
    let (mut log, _) = open(&sim).expect("open");
    for _ in 0..50 {
        log.append(&draft(None, act())).expect("append");
    }
    let _acknowledged = log.commit().expect("commit");
    assert_eq!(sim.files("log/tile/entries/000.p/").len(), 6, "the full one is there, its checkpoint is not");
    log.seal(now(9)).expect("seal");
    let left: Vec<String> = sim.files("log/tile/").into_iter().filter(|path| path.contains("000.p/")).collect();
    assert_eq!(left, ["log/tile/1/000.p/1"]);
    check_directory(&sim);
}

#[test]
fn sessions_go_on_after_a_restart_with_their_running_hash() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    let first = log.append(&draft(None, issued())).expect("append").index;
    let second = log.append(&draft(None, issued())).expect("append").index;
    let ended = log.append(&draft(None, issued())).expect("append").index;
    for _ in 0..300 {
        log.append(&draft(Some(first), act())).expect("append");
    }
    let states = log.sessions();
    // Two heartbeats of one moment, as when the rows do not fit one entry; an act falls between them.
    log.append(&draft(None, heartbeat(states[..1].to_vec()))).expect("append");
    log.append(&draft(Some(first), act())).expect("append");
    log.append(&draft(None, heartbeat(states[1..].to_vec()))).expect("append");
    log.append(&draft(Some(second), act())).expect("append");
    let hash = log.session(ended).expect("open").hash;
    log.append(&draft(Some(ended), revoked(hash))).expect("append");
    let third = log.append(&draft(None, issued())).expect("append").index;
    let expected = log.sessions();
    let _acknowledged = log.commit().expect("commit");
    drop(log);
    let (mut log, recovery) = open(&sim.after_power_cut(Survival::None)).expect("open");
    assert_eq!(recovery.cause, RecoveryCause::Crash);
    assert_eq!(log.sessions(), expected);
    assert_eq!(expected.iter().map(|state| state.session).collect::<Vec<_>>(), [first, second, third]);
    assert!(matches!(log.append(&draft(Some(ended), act())).err(), Some(LogError::SessionNotOpen(_))));
    let next = log.append(&draft(Some(first), act())).expect("append");
    assert_eq!(next.session_number, Some(SessionNumber(302)));
}

#[test]
fn each_start_is_an_orphan_epoch_and_each_hour_a_continued_one() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    assert!(!log.due(BootTime(0)).rotate_epoch);
    assert!(log.due(BootTime(3_600_000_000_000)).rotate_epoch);
    log.rotate_epoch(now(3_600_000_000_000)).expect("rotate");
    log.seal(now(3_600_000_000_001)).expect("seal");
    drop(log);
    let (mut log, _) = open(&sim).expect("open");
    log.seal(now(2)).expect("seal");
    let how: Vec<Succession> = all(&mut log)
        .expect("readable")
        .iter()
        .filter_map(|entry| match record::decode(entry).expect("a record").draft.body {
            Body::Epoch(epoch) => Some(epoch.how),
            _ => None,
        })
        .collect();
    assert_eq!(how, [Succession::First, Succession::Continued, Succession::Orphan]);
    let note = sim.read("log/checkpoint").expect("checkpoint");
    let (_, note) = Checkpoint::parse(&note).expect("signed");
    let names: Vec<&str> = note.signatures.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(names, [ORIGIN, "example.org/host/epoch"]);
}

fn scratch(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("affiant-log-{}-{name}", std::process::id()));
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).expect("scratch directory");
    dir
}

#[test]
fn a_log_on_a_real_disk_comes_back_with_everything_committed() {
    let dir = scratch("real");
    let mut log = Log::create(&dir, limits(), ORIGIN, key(), &birth(), now(0)).expect("create");
    for round in 0..40 {
        for _ in 0..30 {
            log.append(&draft(None, act())).expect("append");
        }
        let _acknowledged = log.commit().expect("commit");
        if round % 5 == 0 {
            log.seal(now(round)).expect("seal");
        }
    }
    let expected = all(&mut log).expect("readable");
    // As kill -9 leaves it: nothing is written when the value goes.
    drop(log);
    let (mut log, recovery) = Log::open(&dir, limits(), ORIGIN, key(), now(9)).expect("open");
    assert_eq!((recovery.size, recovery.cause), (TreeSize(1202), RecoveryCause::Crash));
    assert_eq!((recovery.replayed, recovery.torn_bytes), (120, 0));
    assert!(all(&mut log).expect("readable").starts_with(&expected));
    log.seal(now(10)).expect("seal");
    let kept = std::fs::read_dir(dir.join("wal")).expect("wal").count();
    // How many there are depends on when `syncfs` returned; that there are no more than a commit waits for does not.
    assert!(kept <= limits().segments_max + 1, "segments are used again: {kept}");
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn a_reader_beside_a_writer_sees_every_entry_once_and_in_order() {
    let dir = scratch("reader");
    let mut log = Log::create(&dir, limits(), ORIGIN, key(), &birth(), now(0)).expect("create");
    let path = dir.join("log");
    let reader = std::thread::spawn(move || {
        let reader = SealedLog::new(path);
        let mut next = EntryIndex(0);
        // The writer ends the log with a `disarmed`.
        loop {
            let mut ended = false;
            let size = reader.head().expect("a checkpoint").size;
            let absent = reader
                .each(next.0..size, size, |index, entry| {
                    assert_eq!(index, next.0);
                    let record = record::decode(entry).expect("a record");
                    assert_eq!(record.placement.index, next);
                    ended = record.draft.body.kind() == Kind::Disarmed;
                    next = EntryIndex(index + 1);
                    Ok::<(), SealedError>(())
                })
                .expect("readable");
            assert_eq!(absent.count, 0);
            assert_eq!(next.0, size);
            if ended {
                return next.0;
            }
        }
    });
    for round in 0..200 {
        for _ in 0..1 + round % 13 {
            log.append(&draft(None, act())).expect("append");
        }
        log.seal(now(round)).expect("seal");
    }
    log.append(&draft(None, disarmed(Vec::new()))).expect("append");
    log.seal(now(900)).expect("seal");
    assert_eq!(reader.join().expect("the reader saw nothing wrong"), log.size().0);
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn what_is_due_follows_the_time_it_is_told() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    let idle = log.due(BootTime(10));
    assert!(!idle.commit && !idle.seal);
    log.append(&draft(None, control(1))).expect("append");
    let due = log.due(BootTime(1_000));
    assert_eq!((due.commit, due.seal, due.next), (false, false, BootTime(50_001_000)));
    assert!(log.due(BootTime(50_001_000)).commit);
    assert!(log.due(BootTime(900)).next.0 <= 50_000_900, "a clock that went back puts nothing off");
    let _acknowledged = log.commit().expect("commit");
    let due = log.due(BootTime(60_000_000));
    assert!(!due.commit && !due.seal);
    assert!(log.due(BootTime(1_000_001_000)).seal);
    log.seal(now(1)).expect("seal");
    assert!(!log.due(BootTime(1_000_001_001)).seal);
    while !log.due(BootTime(1_000_001_002)).commit {
        log.append(&draft(None, act())).expect("append");
    }
    assert!(log.pending_bytes() >= limits().commit_bytes, "by size, before its time");
}

#[test]
fn a_wall_clock_that_goes_back_is_noted() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    log.append(&draft(None, control(1))).expect("append");
    log.seal(now(500)).expect("seal");
    log.append(&draft(None, control(1))).expect("append");
    let sealed = log.seal(now(200)).expect("seal");
    assert_eq!(sealed.wall_went_back, Some(Nanoseconds(300)));
    assert!(!log.seal(now(200)).expect("again").new);
}

#[test]
fn appends_are_refused_when_the_pending_buffer_is_full_and_taken_after_a_commit() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    let refused = loop {
        if let Err(error) = log.append(&draft(None, act())) {
            break error;
        }
    };
    assert!(matches!(refused, LogError::PendingFull { max, .. } if max == limits().pending_bytes_max));
    let _acknowledged = log.commit().expect("commit");
    log.append(&draft(None, act())).expect("room again");
    let open_many = (0..5).map(|_| log.append(&draft(None, issued()))).find_map(Result::err);
    assert!(matches!(open_many, Some(LogError::SessionsFull { max: 4 })));
}

#[test]
fn an_erased_value_is_gone_from_the_sidecar_and_the_others_stay() {
    let sim = SimDisk::default();
    let mut log = create(&sim).unwrap();
    let first = log.append(&draft(None, act())).unwrap().index;
    let second = log.append(&draft(None, act())).unwrap().index;
    log.seal(now(2)).unwrap();
    let entries = check_directory(&sim);
    assert!(!entries.iter().any(|entry| String::from_utf8_lossy(entry).contains("a person")), "only its hash is there");
    assert!(log.erase(first, "workload.labels.0.1").unwrap());
    assert!(!log.erase(first, "workload.labels.0.1").unwrap(), "once is enough");
    assert!(!log.erase(first, "workload.labels.7.1").unwrap());
    let third = log.append(&draft(None, act())).unwrap().index;
    log.seal(now(3)).unwrap();
    let sidecar = sim.read("log/sidecar/000").unwrap();
    let lines: Vec<EntryIndex> = sidecar
        .split(|byte| *byte == b'\n')
        .filter_map(|line| Disclosure::decode(line).ok())
        .map(|(index, _)| index)
        .collect();
    assert_eq!(lines, [second, third], "what was appended afterwards is in the new file");
}

#[test]
fn a_content_is_stored_once_whatever_was_there_and_takes_nothing_of_the_reserve() {
    let sim = SimDisk::default();
    let mut log = create(&sim).unwrap();
    let blob = log.store_blob(CONTENT).unwrap();
    let path = format!("log/{}", blob::path(&blob.sha256));
    assert_eq!((sim.read(&path).unwrap().as_slice(), blob.size), (CONTENT, CONTENT.len() as u64));
    let written = |sim: &SimDisk| sim.trace().iter().filter(|(op, _)| *op == DiskOp::Write).count();
    let before = written(&sim);
    assert_eq!(log.store_blob(CONTENT).unwrap(), blob);
    assert_eq!(written(&sim), before, "it was there");
    sim.flip(&path, 3);
    assert_eq!(log.store_blob(CONTENT).unwrap(), blob);
    assert_eq!(sim.read(&path).unwrap(), CONTENT, "what is referred to is there");
    sim.set_fault(sim.operations() + 2, Fault::NoSpace);
    assert!(matches!(log.store_blob(b"another"), Err(LogError::Full(Some(_)))), "{:?}", sim.trace().last());
    assert!(!log.is_full(), "the reserve is for entries");
    sim.set_no_space(false);
    log.store_blob(b"another").unwrap();
    let long = vec![0; blob::BLOB_BYTES_MAX + 1];
    assert!(matches!(log.store_blob(&long), Err(LogError::BlobTooLong { .. })));
}

#[test]
fn after_a_failed_sync_everything_is_refused() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    log.append(&draft(None, control(1))).expect("append");
    let sync = sim.operations() + 1;
    sim.set_fault(sync, Fault::Failed);
    let failure = log.commit().expect_err("the sync fails");
    assert_eq!(sim.trace()[usize::try_from(sync).expect("small")].0, DiskOp::SyncData);
    assert!(matches!(failure, LogError::Disk(DurableError::Fatal { op: DiskOp::SyncData, .. })));
    assert!(failure.is_evidence_fault());
    assert!(matches!(log.append(&draft(None, control(1))).err(), Some(LogError::Disk(DurableError::Poisoned { .. }))));
    assert!(matches!(log.commit().err(), Some(LogError::Disk(DurableError::Poisoned { .. }))));
    assert!(matches!(log.seal(now(3)).err(), Some(LogError::Disk(DurableError::Poisoned { .. }))));
}
