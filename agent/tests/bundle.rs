//! `affiant bundle` and `affiant verify` as commands, on a log in a directory.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use agent_evidence::fixture::{Builder, Files};
use agent_evidence::record::{
    ActMarks, Body, CgroupId, Class, CommClaims, Draft, EntryIndex, Exit, Issued, IssuedClaims, Kind, KindCount, List,
    RevokeCause, Revoked, SessionSort, TreeSize,
};
use agent_evidence::tree::{Tree, leaf_hash};
use agent_evidence::trust::{Head, Trust};

fn exit() -> Body<'static> {
    Body::Exit(Exit {
        tgid: 100,
        code: Some(0),
        signal: None,
        user_time: None,
        system_time: None,
        uid: 1000,
        marks: ActMarks::NONE,
        claims: CommClaims { comm: "sh".into() },
    })
}

fn issue(log: &mut Builder, id: &'static str) -> EntryIndex {
    log.append(Body::Issued(Issued {
        id: id.into(),
        sort: SessionSort::Run,
        identity: "spiffe://affiant.example/session".into(),
        rule: None,
        parent: None,
        cgroup: CgroupId(7),
        uid: Some(1000),
        gid: Some(1000),
        ttl: None,
        by: None,
        claims: IssuedClaims { task: None, labels: List::default() },
    }))
}

fn revoke(log: &mut Builder, id: &'static str, session: EntryIndex, acts: u64) {
    let state = log.session(session);
    let revoked = Body::Revoked(Revoked {
        id: id.into(),
        cause: RevokeCause::Exit,
        code: Some(0),
        signal: None,
        residual: None,
        acts: vec![KindCount { kind: Kind::Exit, count: acts }].into(),
        entries: state.number.0 + 1,
        hash: state.hash,
    });
    let draft = Draft { session: Some(session), ..log.draft(revoked) };
    log.append_draft(&draft, |_| {});
}

/// 3,000 acts of two sessions and the host; the second session has not ended. The trust file knows the first 2 entries.
fn log() -> (Files, Trust) {
    let mut log = Builder::new().unwrap();
    let trust = log.trust().unwrap();
    log.append(Builder::armed());
    let first = issue(&mut log, "first");
    let second = issue(&mut log, "second");
    for _ in 0..1_000 {
        for session in [Some(first), Some(second), None] {
            log.event(exit(), Class::Process, session);
        }
    }
    let heartbeat = log.heartbeat(&[first, second]);
    log.append(Body::Heartbeat(heartbeat));
    revoke(&mut log, "first", first, 1_000);
    for _ in 0..2 {
        let heartbeat = log.heartbeat(&[second]);
        log.append(Body::Heartbeat(heartbeat));
    }
    let mut tree = Tree::new();
    for entry in log.entries.iter().take(2) {
        tree.append(leaf_hash(entry), |_| {});
    }
    assert_eq!(trust.heads, [Head { size: TreeSize(2), root: tree.root() }]);
    (log.files().unwrap(), trust)
}

fn lay_out(directory: &Path) {
    let (files, trust) = log();
    for (path, bytes) in files.0 {
        let path = directory.join("log").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    fs::write(directory.join("trust.toml"), trust.to_toml().unwrap()).unwrap();
}

/// Runs the command in this directory, with a configuration that is not the host's.
fn affiant(directory: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_affiant"))
        .args(["--state", "."])
        .args(words.split(' '))
        .current_dir(directory)
        .output()
        .unwrap()
}

#[track_caller]
fn ends_with(output: &Output, code: i32) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn a_session_is_handed_over_and_verified() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    lay_out(place);
    let said = ends_with(&affiant(place, "bundle first -o first.evb --trust trust.toml --log log"), 0);
    assert!(said.contains("first.evb: 1007 of 3009 entries"), "{said}");
    assert_eq!(fs::metadata(place.join("first.evb")).unwrap().permissions().mode() & 0o777, 0o600);
    let said = ends_with(&affiant(place, "verify first.evb --trust trust.toml"), 0);
    assert!(said.contains("1002 entries from 3 to"), "{said}");
    assert!(said.contains("0 losses, 0 unattributed acts"), "{said}");
    assert!(said.contains("requires of a part of a log is proved"), "coverage is not: {said}");
    assert!(said.contains("Signed by: the key that the trust file names"), "{said}");
    let said = ends_with(&affiant(place, "verify first.evb"), 2);
    assert!(said.contains("Signed by: not established"), "{said}");

    let said = ends_with(&affiant(place, "bundle first -o first.evb --log log"), 64);
    assert!(said.contains("exists"), "{said}");
    let mut changed = fs::read(place.join("first.evb")).unwrap();
    let last = changed.len() - 3_000;
    changed[last] ^= 1;
    fs::write(place.join("changed.evb"), changed).unwrap();
    ends_with(&affiant(place, "verify changed.evb --trust trust.toml"), 1);
}

#[test]
fn what_a_bundle_cannot_prove_is_said_when_it_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    lay_out(place);
    let said = ends_with(&affiant(place, "bundle first -o without.evb --log log"), 0);
    assert!(said.contains("pass the receiver's trust file"), "{said}");
    let said = ends_with(&affiant(place, "verify without.evb --trust trust.toml"), 1);
    assert!(said.contains("claim_not_proved") && said.contains("continuity"), "{said}");

    let said = ends_with(&affiant(place, "bundle second first -o both.evb --head 2 --log log"), 0);
    assert!(said.contains("a session has not ended"), "{said}");
    let said = ends_with(&affiant(place, "verify both.evb --trust trust.toml"), 1);
    assert!(
        said.contains("second spiffe://affiant.example/session: not proved")
            && said.contains("its end is not in the bundle"),
        "{said}"
    );

    let said = ends_with(&affiant(place, "bundle nobody -o nobody.evb --log log"), 65);
    assert!(said.contains("no session \"nobody\""), "{said}");
    assert!(!place.join("nobody.evb").exists());
    ends_with(&affiant(place, "bundle first -o none.evb --log elsewhere"), 69);
}

#[test]
fn a_bundle_under_a_cosigned_checkpoint_carries_the_cosignature() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let vector = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/witnessed").canonicalize().unwrap();
    let (log, trust) = (vector.join("log"), vector.join("trust.toml"));
    let (log, trust) = (log.display(), trust.display());
    let words = format!("bundle s-1 -o s-1.evb --witnessed --trust {trust} --log {log}");
    ends_with(&affiant(place, &words), 0);
    ends_with(&affiant(place, &format!("bundle s-1 -o plain.evb --trust {trust} --log {log}")), 0);
    let lines = |name: &str| {
        let bundle = fs::read(place.join(name)).unwrap();
        String::from_utf8_lossy(&bundle).matches("\u{2014} ").count()
    };
    assert_eq!((lines("plain.evb"), lines("s-1.evb")), (2, 3));
    // One of the two witnesses that the trust file wants has cosigned this checkpoint; nothing else is wrong.
    let said = ends_with(&affiant(place, &format!("verify s-1.evb --trust {trust}")), 1);
    assert!(said.contains("Findings (1)") && said.contains("non_equivocation"), "{said}");
    // Nobody has cosigned the other log.
    lay_out(place);
    let said = ends_with(&affiant(place, "bundle first -o first.evb --witnessed --log log"), 69);
    assert!(said.contains("no witness has cosigned"), "{said}");
    assert!(!place.join("first.evb").exists());
}
