//! Evidence bundles of a log with thousands of entries: each session's verifies, and nothing that is done to one passes.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use agent_evidence::blob;
use agent_evidence::bundle::{Disclosed, MakeError, Manifest, Selected, make};
use agent_evidence::fixture::{Builder, CAPTURE};
use agent_evidence::record::{
    ActMarks, Body, CgroupId, Class, CommClaims, Disclosure, Draft, EntryIndex, Exit, Gap, GapCause, Issued,
    IssuedClaims, Kind, KindCount, List, LossShare, Measured, MeasuredLog, NumberRange, Open, OpenClaims, RevokeCause,
    Revoked, SessionSort, Succession, Text, TreeSize, Value,
};
use agent_evidence::trust::{Head, Trust};
use agent_evidence::verify::{Finding, Options, Outcome, Report, Verdict, VerifyError, verify, verify_bundle};

/// A content beside the log, in the window of every bundle.
const MEASURED: &[u8] = b"10 91f34b5c671d ima-ng sha256:00 boot_aggregate\n";

/// Numbers that look random and are the same in every run (Knuth's MMIX generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn exit(code: u32) -> Body<'static> {
    Body::Exit(Exit {
        tgid: 100,
        code: Some(code),
        signal: None,
        user_time: None,
        system_time: None,
        uid: 1000,
        marks: ActMarks::NONE,
        claims: CommClaims { comm: "sh".into() },
    })
}

/// An open of a file whose path is committed.
fn committed_open(path: &Disclosure<'_>) -> Body<'static> {
    Body::Open(Open {
        path: Some(Value::Committed(path.commitment())),
        oflags: 0,
        fd: Some(3),
        errno: None,
        ino: None,
        dev: None,
        mode: None,
        nlink: None,
        tgid: 100,
        uid: 1000,
        euid: None,
        marks: ActMarks::NONE,
        claims: OpenClaims { comm: "sh".into(), asked: None, dir_fd: None },
    })
}

/// A session that is told.
struct Told {
    id: String,
    issued: EntryIndex,
    exits: u64,
    opens: u64,
}

/// A log with sessions that overlap, losses, epochs and heartbeats.
struct Town {
    log: Builder,
    workload: EntryIndex,
    open: Vec<Told>,
    ids: Vec<String>,
}

impl Town {
    fn build(entries: u64, sessions: usize) -> Self {
        let mut log = Builder::new().unwrap();
        log.append(Builder::armed());
        let workload = log.append(Builder::workload());
        let mut town = Self { log, workload, open: Vec::new(), ids: Vec::new() };
        town.issue();
        let content = town.log.blob(MEASURED);
        town.log.append(Body::Measured(Measured { log: MeasuredLog::Ima, content, from: 0, complete: true }));
        let mut dice = Dice(entries);
        while (town.log.entries.len() as u64) < entries {
            town.step(&mut dice, sessions);
        }
        while !town.open.is_empty() {
            town.revoke(0);
        }
        town.heartbeat();
        town.heartbeat();
        let disarmed = town.log.disarmed();
        town.log.append(Body::Disarmed(disarmed));
        town
    }

    fn step(&mut self, dice: &mut Dice, sessions: usize) {
        match dice.below(100) {
            0..2 if self.ids.len() < sessions => self.issue(),
            2..3 if self.open.len() > 1 => {
                let which = usize::try_from(dice.below(self.open.len() as u64)).unwrap();
                self.revoke(which);
            }
            3..5 => self.heartbeat(),
            5 => self.lose(dice.below(3)),
            6 => {
                self.log.next_epoch(u8::try_from(10 + dice.below(200)).unwrap(), Succession::Continued).unwrap();
            }
            7..50 if !self.open.is_empty() => {
                let which = usize::try_from(dice.below(self.open.len() as u64)).unwrap();
                self.act(which);
            }
            _ => {
                self.log.event(exit(1), Class::Process, None);
            }
        }
    }

    fn issue(&mut self) {
        let id = format!("session-{}", self.ids.len());
        let issued = self.log.append(Body::Issued(Issued {
            id: id.as_str().into(),
            identity: "spiffe://affiant.example/session".into(),
            cgroup: CgroupId(100 + self.ids.len() as u64),
            uid: Some(1000),
            gid: Some(1000),
            ttl: None,
            sort: SessionSort::Run,
            rule: None,
            parent: None,
            by: None,
            claims: IssuedClaims { task: None, labels: List::default() },
        }));
        self.ids.push(id.clone());
        self.open.push(Told { id, issued, exits: 0, opens: 0 });
    }

    fn act(&mut self, which: usize) {
        let told = &mut self.open[which];
        let opens = told.exits > 2 * told.opens;
        told.opens += u64::from(opens);
        told.exits += u64::from(!opens);
        let (workload, session) = (Some(self.workload), Some(told.issued));
        let path = Disclosure {
            field: "open.path".into(),
            salt: [9; 16],
            text: Text::from(format!("/home/ada/{}", self.log.entries.len())),
        };
        let (body, class) = if opens { (committed_open(&path), Class::File) } else { (exit(0), Class::Process) };
        let kernel = Some(self.log.number(0, class));
        let draft = Draft { kernel, workload, session, ..self.log.draft(body) };
        let index = self.log.append_draft(&draft, |_| {});
        if opens {
            let mut line = Vec::new();
            path.encode(index, &mut line);
            self.log.values.push((index, line));
        }
    }

    fn revoke(&mut self, which: usize) {
        let Told { id, issued, exits, opens } = self.open.remove(which);
        let state = self.log.session(issued);
        let acts: Vec<_> = [(Kind::Exit, exits), (Kind::Open, opens)]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| KindCount { kind, count })
            .collect();
        let revoked = Body::Revoked(Revoked {
            id: id.as_str().into(),
            cause: RevokeCause::Exit,
            code: Some(0),
            signal: None,
            residual: None,
            acts: acts.into(),
            entries: state.number.0 + 1,
            hash: state.hash,
        });
        let draft = Draft { session: Some(issued), ..self.log.draft(revoked) };
        self.log.append_draft(&draft, |_| {});
    }

    fn heartbeat(&mut self) {
        let sessions: Vec<_> = self.open.iter().map(|session| session.issued).collect();
        let heartbeat = self.log.heartbeat(&sessions);
        self.log.append(Body::Heartbeat(heartbeat));
    }

    fn lose(&mut self, own: u64) {
        let number = self.log.number(0, Class::Process);
        let scope = self.open.first().map_or(0, |session| session.issued.0) + own;
        self.log.append(Body::Gap(Gap {
            cause: GapCause::RingFull,
            capture_id: CAPTURE,
            ranges: vec![NumberRange { cpu: 0, class: Class::Process, first: number.seq, last: number.seq }].into(),
            count: 1,
            shares: vec![LossShare { scope: CgroupId(scope), count: 1 }].into(),
            from: None,
            to: None,
        }));
    }
}

fn check(bundle: &[u8], trust: &Trust) -> Result<Report, VerifyError> {
    verify_bundle(bundle, Some(trust), Options::default())
}

/// Whether a bundle passes, for whatever reason it does not otherwise.
fn passes(bundle: &[u8], trust: &Trust) -> bool {
    check(bundle, trust).is_ok_and(|report| report.verdict == Verdict::Proved)
}

fn names(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(Finding::name).collect()
}

#[test]
fn each_session_of_a_large_log_is_handed_over_and_proved() {
    let town = Town::build(6_000, 12);
    let log = &town.log;
    let trust = log.trust().unwrap();
    let whole = verify(&mut log.files().unwrap(), Some(&trust), Options::default()).unwrap();
    assert_eq!((whole.verdict, names(&whole)), (Verdict::Proved, vec![]));
    assert_eq!(town.ids.len(), 12);
    let mut disclosed = 0;
    for id in &town.ids {
        let bundle = log.bundle_of(&[id], &[]).unwrap();
        let report = check(&bundle, &trust).unwrap();
        assert_eq!((report.verdict, names(&report)), (Verdict::Proved, vec![]), "{id}");
        let [session] = report.sessions.as_slice() else { panic!("{report}") };
        let told = whole.sessions.iter().find(|told| told.id == *id).unwrap();
        assert_eq!((session.issued, session.revoked, session.entries), (told.issued, told.revoked, told.entries));
        assert!(matches!(session.outcome(), Outcome::Proved(text) if text.contains("losses")), "{id}");
        disclosed += report.bundle.unwrap().entries;
    }
    // Every session's acts, and not those of the host or of each other.
    assert!(disclosed < 12 * whole.checkpoint.unwrap().size.0 / 2, "{disclosed}");
    let all: Vec<&str> = town.ids.iter().map(String::as_str).collect();
    let report = check(&log.bundle_of(&all, &[]).unwrap(), &trust).unwrap();
    assert_eq!((report.verdict, report.sessions.len()), (Verdict::Proved, 12));
}

#[test]
fn no_entry_can_be_left_out_and_none_added() {
    let town = Town::build(400, 3);
    let log = &town.log;
    let trust = log.trust().unwrap();
    for id in &town.ids {
        let Selected { sessions, disclosed, open, closed, anchored, pruned: _ } = log.selected(&[id]).unwrap();
        assert!(anchored.is_empty());
        assert_eq!((open, closed), (vec![], true));
        let manifest = Manifest { sessions, heads: Vec::new() };
        assert!(passes(&log.bundle(&manifest, &disclosed).unwrap(), &trust));
        for left_out in &disclosed {
            let fewer: Vec<_> = disclosed.iter().filter(|entry| *entry != left_out).copied().collect();
            let bundle = log.bundle(&manifest, &fewer).unwrap();
            assert!(!passes(&bundle, &trust), "{id} passes without entry {}", left_out.index.0);
        }
        for (index, entry) in log.entries.iter().enumerate() {
            let added = Disclosed { index: EntryIndex(index as u64), bytes: u32::try_from(entry.len()).unwrap() };
            if disclosed.binary_search(&added).is_ok() {
                continue;
            }
            let mut more = disclosed.clone();
            more.push(added);
            more.sort_unstable();
            let report = check(&log.bundle(&manifest, &more).unwrap(), &trust).unwrap();
            assert!(names(&report).contains(&"evb_entry_foreign"), "{id} with entry {index}: {:?}", names(&report));
        }
    }
}

fn small() -> (Vec<u8>, Trust) {
    let town = Town::build(30, 2);
    let mut trust = town.log.trust().unwrap();
    let mut then = agent_evidence::tree::Tree::new();
    for entry in town.log.entries.iter().take(7) {
        then.append(agent_evidence::tree::leaf_hash(entry), |_| {});
    }
    trust.heads.insert(0, Head { size: then.size(), root: then.root() });
    let bundle = town.log.bundle_of(&[&town.ids[0]], &[TreeSize(7)]).unwrap();
    assert!(passes(&bundle, &trust));
    (bundle, trust)
}

#[test]
fn no_changed_byte_of_a_bundle_passes() {
    let (bundle, trust) = small();
    for position in 0..bundle.len() {
        let mut changed = bundle.clone();
        changed[position] ^= 1 << (position % 8);
        assert!(!passes(&changed, &trust), "byte {position}");
    }
}

#[test]
fn no_part_of_a_bundle_passes_and_nothing_may_follow_it() {
    let (bundle, trust) = small();
    for length in (0..bundle.len()).step_by(3) {
        assert!(!passes(&bundle[..length], &trust), "the first {length} bytes");
    }
    for more in [&[0][..], &[0; 512], &[0; 1024], &bundle] {
        assert!(!passes(&[bundle.as_slice(), more].concat(), &trust), "{} bytes more", more.len());
    }
    for block in 0..bundle.len() / 512 {
        let mut twice = bundle.clone();
        let copy = bundle[block * 512..block * 512 + 512].to_vec();
        twice.splice(block * 512..block * 512, copy);
        assert!(!passes(&twice, &trust), "block {block} twice");
        let mut without = bundle.clone();
        without.drain(block * 512..block * 512 + 512);
        assert!(!passes(&without, &trust), "without block {block}");
    }
}

#[test]
fn a_bundle_of_another_log_is_not_this_one() {
    let (bundle, _) = small();
    let trust = Town::build(61, 2).log.trust().unwrap();
    let report = check(&bundle, &trust).unwrap();
    assert_eq!(report.verdict, Verdict::Findings);
}

#[test]
fn a_bundle_is_the_same_from_the_directory_as_from_the_entries() {
    let town = Town::build(1_300, 4);
    let mut files = town.log.files().unwrap();
    let heads = [TreeSize(700), TreeSize(3), TreeSize(3), TreeSize(0), TreeSize(9_999)];
    for id in &town.ids {
        let mut bundle = Vec::new();
        let made = make(&mut files, [id.as_bytes().to_vec()], heads, &mut bundle).unwrap();
        assert_eq!(made.heads, [TreeSize(3), TreeSize(700)]);
        assert!(bundle == town.log.bundle_of(&[id], &made.heads).unwrap());
    }
    let none = make(&mut files, [b"nobody".to_vec()], [], &mut Vec::new());
    assert!(matches!(none, Err(MakeError::NoSession { id, .. }) if id == "nobody"));
    // A content that is not there is not in the bundle, which says so; one that is wrong is, and is found.
    let path = blob::path(&blob::reference(MEASURED).sha256);
    let held = files.0.remove(&path).unwrap();
    let mut without = Vec::new();
    make(&mut files, [town.ids[0].as_bytes().to_vec()], heads, &mut without).unwrap();
    let report = check(&without, &town.log.trust().unwrap()).unwrap();
    assert!(report.notes.iter().any(|note| note.name == "blob_absent"));
    assert_eq!(
        names(&report),
        names(&check(&town.log.bundle_of(&[&town.ids[0]], &[]).unwrap(), &town.log.trust().unwrap()).unwrap())
    );
    files.0.insert(path.clone(), b"another".to_vec());
    let mut altered = Vec::new();
    make(&mut files, [town.ids[0].as_bytes().to_vec()], heads, &mut altered).unwrap();
    assert!(names(&check(&altered, &town.log.trust().unwrap()).unwrap()).contains(&"blob_altered"));
    files.0.insert(path, held);
    let sidecar = files.0.remove("sidecar/000").unwrap();
    let mut silent = Vec::new();
    make(&mut files, [town.ids[0].as_bytes().to_vec()], heads, &mut silent).unwrap();
    assert!(names(&check(&silent, &town.log.trust().unwrap()).unwrap()).contains(&"value_absent"));
    files.0.insert("sidecar/000".to_owned(), sidecar[..sidecar.len() - 9].to_vec());
    make(&mut files, [town.ids[0].as_bytes().to_vec()], heads, &mut Vec::new()).unwrap();
    files.0.insert("sidecar/000".to_owned(), b"nonsense\n".to_vec());
    let wrong = make(&mut files, [town.ids[0].as_bytes().to_vec()], heads, &mut Vec::new());
    assert!(matches!(wrong, Err(MakeError::Sidecar { path, .. }) if path == "sidecar/000"));
    files.0.remove("tile/0/000");
    let missing = make(&mut files, [town.ids[0].as_bytes().to_vec()], [], &mut Vec::new());
    assert!(missing.is_err_and(|error| error.to_string().contains("tile/0/000")));
}

#[test]
fn an_unknown_session_is_named() {
    let town = Town::build(60, 1);
    assert_eq!(town.log.selected(&["nobody"]), Err("no session nobody".to_owned()));
}
