//! Packing: what is packed, what never is, and what waits for room. Faults at its operations: the script of the parent.

use super::*;

#[test]
fn a_damaged_bundle_is_evidence_and_never_packed() {
    for (path, offset) in [("log/tile/entries/000", 300), ("log/tile/0/000", 5)] {
        let sim = SimDisk::default();
        let mut log = create(&sim).expect("create");
        for _ in 0..270 {
            log.append(&draft(None, act())).expect("append");
        }
        log.commit().map(drop).expect("commit");
        sim.flip(path, offset);
        log.append(&draft(None, act())).expect("append");
        log.seal(now(3)).expect("seal");
        log.pack().expect("pack");
        assert!(sim.files("log/packed/").is_empty());
        assert!(sim.read("log/tile/entries/000").is_ok() && sim.read("log/tile/0/000").is_ok());
    }
}

#[test]
fn plain_files_that_differ_from_a_segment_are_kept_at_the_next_start() {
    let sim = SimDisk::default();
    let mut told = Told::default();
    script(&sim, &mut told).expect("nothing fails");
    let (bundle, _) = {
        let segment = packed::Segment::parse(sim.read("log/packed/000").expect("packed")).expect("a segment");
        let unpacked = segment.bundle(0).expect("whole").expect("one block");
        (unpacked.bundle, unpacked.leaves)
    };
    sim.put("log/tile/entries/000", &bundle);
    let (mut log, _) = open(&sim).expect("open");
    log.pack().expect("pack");
    drop(log);
    assert!(sim.read("log/tile/entries/000").is_err(), "the same bytes are needed once");
    let mut edited = bundle;
    edited[77] ^= 1;
    sim.put("log/tile/entries/000", &edited);
    let (mut log, _) = open(&sim).expect("open");
    log.pack().expect("pack");
    assert_eq!(sim.read("log/tile/entries/000").expect("kept"), edited);
}

#[test]
fn packing_waits_while_the_disk_is_full_and_spends_no_reserve() {
    let sim = SimDisk::default();
    let mut log = create(&sim).expect("create");
    for _ in 0..300 {
        log.append(&draft(None, act())).expect("append");
    }
    log.seal(now(3)).expect("seal");
    assert!(sim.files("log/packed/").is_empty(), "begun, not done");
    sim.set_no_space(true);
    assert!(matches!(log.pack(), Err(LogError::Full(_))));
    assert!(!log.is_full() && sim.files("tmp/").is_empty());
    sim.set_no_space(false);
    log.pack().expect("pack");
    assert_eq!(sim.files("log/packed/"), ["log/packed/000"]);
    check_directory(&sim);
}
