//! Copies of the log on another disk, with a fault at every operation.

use super::*;

/// Copies the log of one disk onto another.
fn copy_to(from: &SimDisk, to: &SimDisk, form: copy::Form) -> Result<copy::Copied, copy::CopyError> {
    copy::copy(&mut Directory(from.clone()), to.clone(), form)
}

/// What the verifier says of a copy.
fn findings_of(copy: &SimDisk) -> Vec<String> {
    struct Copy(SimDisk);
    impl Source for Copy {
        fn read(&mut self, path: &str, _bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
            Ok(Disk::read(&self.0, path).ok())
        }
    }
    let report = verify::verify(&mut Copy(copy.clone()), None, verify::Options::default()).expect("a log");
    assert!(report.notes.iter().all(|note| note.name != "blob_absent"), "every content was copied");
    let ours = |finding: &&verify::Finding| finding.claim() != Claim::Coverage && finding.name() != "revoked_wrong";
    report.findings.iter().filter(ours).map(ToString::to_string).collect()
}

#[test]
fn a_copy_is_whole_plain_or_packed_and_goes_on_where_it_stopped() {
    for form in [copy::Form::AsStored, copy::Form::Plain] {
        let (sim, copy) = (SimDisk::default(), SimDisk::default());
        let mut log = create(&sim).expect("create");
        run(&mut log, &mut Told::default(), 4).expect("run");
        let first = copy_to(&sim, &copy, form).expect("a first copy");
        assert_eq!((first.from.0, first.to), (0, log.sealed_size()));
        for _ in 0..3 {
            run(&mut log, &mut Told::default(), 5).expect("run");
        }
        log.pack().expect("pack");
        let next = copy_to(&sim, &copy, form).expect("the rest");
        assert_eq!((next.from, next.to), (first.to, log.sealed_size()));
        assert_eq!(findings_of(&copy), [""; 0]);
        assert_eq!(sim.read("log/checkpoint").expect("there"), copy.read("checkpoint").expect("copied"));
        let again = copy_to(&sim, &copy, form).expect("nothing new");
        assert_eq!((again.from, again.to), (next.to, next.to));
        // From nothing, when the source is packed already.
        let late = SimDisk::default();
        copy_to(&sim, &late, form).expect("a late copy");
        assert_eq!(findings_of(&late), [""; 0]);
        assert_eq!(late.files("packed/").len(), usize::from(form == copy::Form::AsStored));
        assert!(late.files("tmp").is_empty());
        // What is erased afterwards does not stay in a copy that goes on.
        let erased = all(&mut log)
            .expect("readable")
            .iter()
            .position(|entry| record::decode(entry).is_ok_and(|record| record.committed > 0));
        let erased = EntryIndex(erased.expect("a committed value") as u64);
        assert!(log.erase(erased, "workload.labels.0.1").expect("erased"));
        copy_to(&sim, &copy, form).expect("a later copy");
        assert_eq!(copy.read("sidecar/000").ok(), sim.read("log/sidecar/000").ok());
    }
}

#[test]
fn a_copy_is_refused_where_it_would_hide_or_spread_damage() {
    let (sim, copy) = (SimDisk::default(), SimDisk::default());
    let mut log = create(&sim).expect("create");
    let early = sim.after_kill();
    for _ in 0..3 {
        run(&mut log, &mut Told::default(), 5).expect("run");
    }
    drop(log);
    copy_to(&sim, &copy, copy::Form::AsStored).expect("a copy");
    assert!(matches!(copy_to(&early, &copy, copy::Form::AsStored), Err(copy::CopyError::Ahead { now: 2, .. })));
    let other = SimDisk::default();
    drop(Log::create_on(other.clone(), limits(), "example.org/other", key(), &birth(), now(0)).expect("create"));
    assert!(matches!(copy_to(&other, &copy, copy::Form::AsStored), Err(copy::CopyError::OtherLog { .. })));
    let damaged = sim.after_kill();
    let content = format!("log/{}", blob::path(&blob::reference(CONTENT).sha256));
    damaged.flip(&content, 0);
    assert!(matches!(copy_to(&damaged, &SimDisk::default(), copy::Form::AsStored), Err(copy::CopyError::Blob { .. })));
    let damaged = sim.after_kill();
    damaged.flip("log/tile/entries/001", 300);
    let into = SimDisk::default();
    assert!(matches!(copy_to(&damaged, &into, copy::Form::AsStored), Err(copy::CopyError::Root { .. })));
    assert!(into.read("checkpoint").is_err(), "nothing says that this is a copy");
    damaged.lose("log/packed/000");
    let missing = copy_to(&damaged, &SimDisk::default(), copy::Form::AsStored);
    assert!(matches!(missing, Err(copy::CopyError::Missing { .. })));
}

#[test]
fn a_copy_may_be_interrupted_at_any_operation_and_goes_on() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    run(&mut log, &mut Told::default(), 3).expect("run");
    let early = sim.after_kill();
    for _ in 0..3 {
        run(&mut log, &mut Told::default(), 5).expect("run");
    }
    log.pack().expect("pack");
    drop(log);
    // One copy from nothing, and one that goes on.
    for begun in [false, true] {
        let start = SimDisk::default();
        if begun {
            copy_to(&early, &start, copy::Form::AsStored).expect("a first copy");
        }
        let base = start.operations();
        let plain = start.after_kill();
        copy_to(&sim, &plain, copy::Form::AsStored).expect("nothing fails");
        for at in base..plain.operations() {
            for fault in [Fault::Failed, Fault::FailedButPersisted, Fault::Torn, Fault::NoSpace, Fault::CrashAfter] {
                let disk = start.after_kill();
                disk.set_fault(at, fault);
                let outcome = copy_to(&sim, &disk, copy::Form::AsStored);
                // A killed copy has more than one whose power went; what it has may be all that a failure left.
                let survivals = [None, Some(Survival::None), Some(Survival::Some(at * 31 + 7))];
                for survival in survivals.into_iter().skip(usize::try_from(at % 3).expect("small")).take(1) {
                    let after = match survival {
                        None => disk.after_kill(),
                        Some(survival) => disk.after_power_cut(survival),
                    };
                    let what = format!("operation {at} {fault:?} then {survival:?}, the copy ended {outcome:?}");
                    if after.read("checkpoint").is_ok() {
                        assert_eq!(findings_of(&after), [""; 0], "{what}");
                    }
                    assert!(outcome.is_err() || after.read("checkpoint").is_ok(), "{what}");
                    copy_to(&sim, &after, copy::Form::AsStored).unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(findings_of(&after), [""; 0], "{what}");
                    assert_eq!(sim.read("log/checkpoint").expect("there"), after.read("checkpoint").expect("copied"));
                }
            }
        }
    }
}
