//! Logs put aside and continued, with a fault at every operation.

use super::*;

/// Every file of a log as the state directory holds it: what must not change when it is put aside.
fn files_of_log(sim: &SimDisk, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let ours = ["log/", "wal/", "head"];
    let files = ours.iter().flat_map(|name| sim.files(&format!("{prefix}{name}")));
    files.map(|path| (path[prefix.len()..].to_owned(), sim.read(&path).expect("readable"))).collect()
}

fn succeed(sim: &SimDisk, ended: &succession::Ended) -> Result<(), LogError> {
    let predecessor = Predecessor {
        origin: Text::new(ended.origin.as_bytes()),
        size: ended.size,
        root: ended.root,
        cause: ended.why,
    };
    let birth = Birth { predecessor: Some(predecessor), ..birth() };
    drop(Log::create_on(sim.clone(), limits(), "example.org/host/2", key(), &birth, now(9))?);
    succession::finish_on(sim.clone()).map_err(|error| match error {
        succession::SuccessionError::Durable(error) => error.into(),
        error => panic!("{error}"),
    })
}

#[test]
fn a_log_is_put_aside_unchanged_and_its_successor_names_its_head() {
    let sim = SimDisk::default();
    script(&sim, &mut Told::default()).expect("nothing fails");
    let before = files_of_log(&sim, "");
    let (head, _) = Checkpoint::parse(&sim.read("head").expect("a head")).expect("signed");
    let (log, _) = open(&sim.after_kill()).expect("a log");
    drop(log);
    let ended = succession::freeze_on(sim.clone(), SuccessionCause::Operator).expect("put aside");
    assert_eq!((ended.origin.as_str(), ended.size, ended.root), (ORIGIN, head.size, head.root));
    assert_eq!(files_of_log(&sim, "frozen/000/"), before);
    assert!(matches!(open(&sim).err(), Some(LogError::NotCreated)));
    assert_eq!(succession::resume_on(sim.clone()).expect("again"), Some(ended.clone()));
    succeed(&sim, &ended).expect("a successor");
    assert_eq!(succession::resume_on(sim.clone()).expect("done"), None);
    check_genesis_names(&sim, &ended);
    assert_eq!(files_of_log(&sim, "frozen/000/"), before);
}

fn check_genesis_names(sim: &SimDisk, ended: &succession::Ended) {
    let opened = Log::open_on(sim.clone(), limits(), "example.org/host/2", key(), now(10));
    let (mut log, _) = opened.expect("the successor opens");
    let entries = all(&mut log).expect("readable");
    let genesis = record::decode(&entries[0]).expect("a genesis");
    let Body::Genesis(genesis) = genesis.body() else { panic!("entry 0 is no genesis") };
    let predecessor = genesis.predecessor.as_ref().expect("a predecessor");
    assert_eq!((predecessor.size, predecessor.root, predecessor.cause), (ended.size, ended.root, ended.why));
}

#[test]
fn a_succession_may_be_interrupted_at_any_operation_and_goes_on() {
    let plain = SimDisk::default();
    let mut log = create(&plain).expect("create");
    run(&mut log, &mut Told::default(), 3).expect("run");
    drop(log);
    // Everything durable, so that what is lost afterwards was lost by the succession.
    let plain = plain.after_power_cut(Survival::All);
    let before = files_of_log(&plain, "");
    let (base, whole) = (plain.operations(), plain.after_kill());
    let ended = succession::freeze_on(whole.clone(), SuccessionCause::Fault).expect("put aside");
    succeed(&whole, &ended).expect("a successor");
    println!("{} operations", whole.operations() - base);
    for at in base..whole.operations() {
        for fault in [Fault::Failed, Fault::FailedButPersisted, Fault::Torn, Fault::NoSpace, Fault::CrashAfter] {
            let sim = plain.after_kill();
            sim.set_fault(at, fault);
            let outcome = succession::freeze_on(sim.clone(), SuccessionCause::Fault);
            let outcome = outcome.map(|ended| succeed(&sim, &ended));
            for survival in [None, Some(Survival::None), Some(Survival::Some(at * 31 + 7))] {
                let after = match survival {
                    None => sim.after_kill(),
                    Some(survival) => sim.after_power_cut(survival),
                };
                let what = format!("operation {at} {fault:?} then {survival:?}, it ended {outcome:?}");
                // As a start does it.
                let resumed = succession::resume_on(after.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
                match resumed {
                    None if after.read("frozen/000/head").is_err() => {
                        assert_eq!(files_of_log(&after, ""), before, "not begun: {what}");
                        continue;
                    }
                    None => {}
                    Some(ended) if after.read("head").is_err() => {
                        succeed(&after, &ended).unwrap_or_else(|error| panic!("{what}: {error}"));
                    }
                    Some(_) => succession::finish_on(after.clone()).expect("the successor was there"),
                }
                assert_eq!(files_of_log(&after, "frozen/000/"), before, "{what}");
                check_genesis_names(&after, &ended);
                assert!(after.read("succession").is_err(), "{what}");
            }
        }
    }
}

#[test]
fn a_disk_that_damages_every_log_is_not_given_a_new_one_for_ever() {
    let sim = SimDisk::default();
    drop(create(&sim).expect("create"));
    for _ in 0..succession::FAULTS_MAX {
        let ended = succession::freeze_on(sim.clone(), SuccessionCause::Fault).expect("put aside");
        succeed(&sim, &ended).expect("a successor");
    }
    let refused = succession::freeze_on(sim.clone(), SuccessionCause::Fault);
    assert!(matches!(refused, Err(succession::SuccessionError::TooManyFaults(3))));
    let asked = succession::freeze_on(sim, SuccessionCause::Operator).expect("an operator may");
    assert_eq!(asked.directory, "frozen/003");
}

#[test]
fn a_log_without_a_head_and_a_log_in_use_are_not_put_aside() {
    let sim = SimDisk::default();
    let nothing = succession::freeze_on(sim.clone(), SuccessionCause::Operator);
    assert!(matches!(nothing, Err(succession::SuccessionError::NoHead)));
    let log = create(&sim).expect("create");
    let locked = succession::freeze_on(sim.clone(), SuccessionCause::Operator);
    assert!(matches!(locked, Err(succession::SuccessionError::Locked)));
    drop(log);
    sim.put("head", b"garbage");
    let garbage = succession::freeze_on(sim, SuccessionCause::Operator);
    assert!(matches!(garbage, Err(succession::SuccessionError::Head(_))));
}
