//! The cases of `tests/vectors`: a log, a trust file or none, and the findings that must come of it.

use agent_evidence::checkpoint::EPOCH_SUFFIX;
use agent_evidence::fixture::{Builder, CAPTURE, Files, FixedSigner, ORIGIN, specimens};
use agent_evidence::note::NoteError;
use agent_evidence::record::{
    ActMarks, Armed, Blob, Body, BootTime, Bytes, Capabilities, CgroupId, Class, CommClaims, Connect, Decision, Device,
    Digest, DisarmCause, Draft, Enforcement, EntryIndex, Exec, ExecClaims, Exit, FileFolded, Gap, GapCause, Genesis,
    Hold, Id128, Identified, Issued, IssuedClaims, KernelNumber, KeyTier, KindCount, List, NumberRange, Open,
    OpenClaims, Policy, ProcessCookie, Recovered, RecoveryCause, Requester, RevokeCause, Revoked, RootHash, Scope,
    SecretSort, SecretUse, SessionSort, Signature, SocketCookie, Succession, Text, Transport, TreeSize, Unknown,
    ValueList, Verdict,
};
use agent_evidence::trust::{Head, Limits, Trust};
use agent_evidence::verify::{Challenge, Claim, Options, Report, VerifyError, verify, verify_bundle};

#[path = "blobs.rs"]
mod blobs;
#[path = "bundles.rs"]
mod bundles;
#[path = "changes.rs"]
mod changes;
#[path = "pruned.rs"]
mod pruned;
#[path = "segments.rs"]
mod segments;

#[path = "attacks.rs"]
mod attacks;
#[path = "attested.rs"]
mod attested;
#[path = "booted.rs"]
mod booted;

pub(crate) use changes::{ADDED_ENTRIES_FILE, added_entries};

/// One case.
pub(crate) struct Case {
    /// Name of its directory.
    pub(crate) name: String,
    /// What was done to the log.
    #[cfg_attr(test, expect(dead_code, reason = "the generator writes it, the test does not need it"))]
    pub(crate) what: &'static str,
    /// The log.
    pub(crate) files: Files,
    /// The evidence bundle, when the case is not about a log.
    pub(crate) bundle: Option<Vec<u8>>,
    /// The trust file.
    pub(crate) trust: Option<String>,
    /// Whether the strict rule is asked for.
    pub(crate) strict: bool,
    /// What an anchor must carry, if that is asked for.
    pub(crate) challenge: Option<Challenge>,
    /// The exit code.
    pub(crate) exit: u8,
    /// Names of the findings, in order.
    pub(crate) findings: Vec<&'static str>,
}

/// File with entries of every kind, one per line.
pub(crate) const ENTRIES_FILE: &str = "entries.jsonl";

/// Entries of every kind, with and without what may be absent.
pub(crate) fn entries() -> Vec<u8> {
    lines(specimens(6))
}

fn lines(specimens: Vec<(agent_evidence::record::Kind, Vec<u8>)>) -> Vec<u8> {
    specimens.into_iter().flat_map(|(_, entry)| entry.into_iter().chain(*b"\n")).collect()
}

/// A log that is told as one session and what it did.
struct Story {
    log: Builder,
    workload: EntryIndex,
    session: EntryIndex,
}

fn open(path: &[u8]) -> Body<'_> {
    Body::Open(Open {
        path: Some(path.into()),
        oflags: 0,
        fd: Some(3),
        errno: None,
        ino: Some(42),
        dev: Some(Device { major: 8, minor: 1 }),
        mode: Some(0o100_600),
        nlink: Some(1),
        tgid: 100,
        uid: 1000,
        euid: None,
        marks: ActMarks::NONE,
        claims: OpenClaims { comm: "python3".into(), asked: None, dir_fd: None },
    })
}

fn exec(path: &'static str) -> Body<'static> {
    Body::Exec(Exec {
        path: Some(path.into()),
        script: None,
        argv: ValueList::Nul(b"python3\0-c\0print(\"\\n\")\0\xff\0"),
        argc: 4,
        cwd: Some("/home/ada".into()),
        tgid: 100,
        parent: ProcessCookie(4_194_304),
        uid: 1000,
        gid: 1000,
        euid: 1000,
        egid: 1000,
        suid: 1000,
        sgid: 1000,
        login_uid: None,
        caps: Capabilities(0),
        caps_permitted: None,
        caps_ambient: None,
        before: None,
        ino: 7,
        dev: Device { major: 8, minor: 1 },
        nlink: 1,
        mode: 0o100_755,
        size: 6_831_704,
        ctime: None,
        sha256: None,
        marks: ActMarks::NONE,
        claims: ExecClaims { comm: "python3".into(), invoked: Some("python3".into()) },
    })
}

fn connect() -> Body<'static> {
    Body::Connect(Connect {
        proto: Transport::Tcp,
        local: None,
        remote: ([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1], 8080).into(),
        errno: Some(0),
        socket: SocketCookie(9),
        tgid: 100,
        uid: 1000,
        euid: None,
        name: None,
        marks: ActMarks::NONE,
        claims: CommClaims { comm: "python3".into() },
    })
}

fn exit() -> Body<'static> {
    Body::Exit(Exit {
        tgid: 100,
        code: Some(0),
        signal: None,
        uid: 1000,
        user_time: None,
        system_time: None,
        marks: ActMarks::NONE,
        claims: CommClaims { comm: Text::new(b"tail\x1b[31m") },
    })
}

fn issued() -> Body<'static> {
    Body::Issued(Issued {
        id: "s-1".into(),
        sort: SessionSort::Run,
        identity: "spiffe://affiant.example/session/s-1".into(),
        rule: None,
        parent: None,
        cgroup: CgroupId(77),
        uid: Some(1000),
        gid: Some(1000),
        ttl: None,
        by: Some(Requester { process: Some(ProcessCookie(4_194_304)), tgid: 96, uid: 1000, gid: 1000 }),
        claims: IssuedClaims { task: Some("ein Beispiel: größer".into()), labels: List::default() },
    })
}

fn gap(cause: GapCause, class: Class, first: u64, last: u64, count: u64) -> Body<'static> {
    Body::Gap(Gap {
        cause,
        capture_id: CAPTURE,
        ranges: vec![NumberRange { cpu: 0, class, first, last }].into(),
        count,
        shares: List::default(),
        from: None,
        to: None,
    })
}

impl Story {
    /// Up to the session's first acts: 0 genesis, 1 epoch, 2 recovered, 3 armed, 4 scope, 5 workload, 6 issued,
    /// 7 exec, 8 open, 9 connect.
    fn begin() -> Result<Self, NoteError> {
        Ok(Self::begin_in(Builder::new()?))
    }

    fn begin_in(mut log: Builder) -> Self {
        let size = TreeSize(log.entries.len() as u64);
        let recovered = Recovered { cause: RecoveryCause::Clean, size, replayed: 0, torn_bytes: 0 };
        log.append(Body::Recovered(recovered));
        log.append(Builder::armed());
        log.append(Body::Scope(Scope { text: "sessions".into(), host_classes: 1, roots: List::default() }));
        let workload = log.append(Builder::workload());
        let session = log.append(issued());
        let mut story = Self { log, workload, session };
        story.act(exec("/usr/bin/python3.11"), Class::Process);
        story.act(open(b"/home/ada/secret \"key\".pem"), Class::File);
        story.act(connect(), Class::Network);
        story
    }

    /// A kernel event in the session, of the workload.
    fn act(&mut self, body: Body<'_>, class: Class) -> EntryIndex {
        let kernel = Some(self.log.number(0, class));
        let draft = self.draft(body, kernel);
        self.log.append_draft(&draft, |_| {})
    }

    fn draft<'a>(&mut self, body: Body<'a>, kernel: Option<KernelNumber>) -> Draft<'a> {
        Draft {
            kernel,
            process: Some(ProcessCookie(4_194_404)),
            workload: Some(self.workload),
            session: Some(self.session),
            ..self.log.draft(body)
        }
    }

    /// An act with a verdict by this set of policies.
    fn verdict(&mut self, set: EntryIndex) {
        let kernel = Some(self.log.number(0, Class::File));
        let verdict = Verdict {
            decision: Decision::Deny,
            enforced: Enforcement::None,
            set,
            by: vec![Text::from("no-keys")].into(),
            errors: List::default(),
        };
        let draft = Draft { verdict: Some(verdict), session: None, ..self.draft(open(b"/x"), kernel) };
        self.log.append_draft(&draft, |_| {});
    }

    /// An entry of so many folded acts of a class that says it is of another number of them.
    fn fold(&mut self, class: Class, numbers: u64, count: u64) {
        let first = self.log.number(0, class).seq;
        for _ in 1..numbers {
            self.log.number(0, class);
        }
        let folded = FileFolded {
            directory: Some("/usr/lib".into()),
            ranges: vec![NumberRange { cpu: 0, class, first, last: first + numbers - 1 }].into(),
            count,
            names: Digest([8; 32]),
            from: BootTime(1),
            to: BootTime(2),
        };
        self.log.append(Body::FileFolded(folded));
    }

    fn heartbeat(&mut self) -> EntryIndex {
        let heartbeat = self.log.heartbeat(&[self.session]);
        self.log.append(Body::Heartbeat(heartbeat))
    }

    fn revoked(&self) -> Revoked<'static> {
        let state = self.log.session(self.session);
        let acts = [(agent_evidence::record::Kind::Exec, 1), (agent_evidence::record::Kind::Exit, 1)];
        let more = [(agent_evidence::record::Kind::Connect, 1), (agent_evidence::record::Kind::Open, 1)];
        Revoked {
            id: "s-1".into(),
            cause: RevokeCause::Exit,
            code: Some(0),
            signal: None,
            residual: None,
            acts: acts
                .into_iter()
                .chain(more)
                .map(|(kind, count)| KindCount { kind, count })
                .collect::<Vec<_>>()
                .into(),
            entries: state.number.0 + 1,
            hash: state.hash,
        }
    }

    fn revoke(&mut self, change: impl FnOnce(&mut Revoked<'_>)) -> EntryIndex {
        let mut revoked = self.revoked();
        change(&mut revoked);
        let draft = Draft { process: None, ..self.draft(Body::Revoked(revoked), None) };
        self.log.append_draft(&draft, |_| {})
    }

    fn disarm(&mut self) -> EntryIndex {
        let disarmed = self.log.disarmed();
        self.log.append(Body::Disarmed(disarmed))
    }

    /// The rest: 10 heartbeat, 11 exit, 12 revoked, 13 disarmed.
    fn end(mut self) -> Builder {
        self.heartbeat();
        self.act(exit(), Class::Process);
        self.revoke(|_| {});
        self.disarm();
        self.log
    }

    /// The rest with something put in after entry 9.
    fn with(put: impl FnOnce(&mut Self)) -> Result<Builder, NoteError> {
        let mut story = Self::begin()?;
        put(&mut story);
        Ok(story.end())
    }
}

impl Case {
    /// What the verifier says of it.
    pub(crate) fn report(&self, trust: Option<&Trust>) -> Result<Report, VerifyError> {
        let options = Options { strict: self.strict, challenge: self.challenge };
        match &self.bundle {
            Some(bundle) => verify_bundle(bundle.as_slice(), trust, options),
            None => verify(&mut self.files.clone(), trust, options),
        }
    }
}

/// Collects the cases.
struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        name: &str,
        what: &'static str,
        files: Files,
        trust: Option<Trust>,
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        let text = trust.map(|trust| trust.to_toml()).transpose()?;
        let exit = if !findings.is_empty() {
            1
        } else if text.is_some() {
            0
        } else {
            2
        };
        self.0.push(Case {
            name: name.to_owned(),
            what,
            files,
            bundle: None,
            trust: text,
            strict: false,
            challenge: None,
            exit,
            findings: findings.to_vec(),
        });
        Ok(())
    }

    /// A log as it stands, with a trust file that knows it as it stands.
    fn log(
        &mut self,
        name: &str,
        what: &'static str,
        log: &Builder,
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        self.add(name, what, log.files()?, Some(log.trust()?), findings)
    }

    /// The standard log with its files changed afterwards.
    fn damaged(
        &mut self,
        name: &str,
        what: &'static str,
        log: &Builder,
        damage: impl FnOnce(&mut Files),
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        let mut files = log.files()?;
        damage(&mut files);
        self.add(name, what, files, Some(log.trust()?), findings)
    }
}

/// Why the cases could not be made: a mistake in this file.
#[derive(Debug)]
pub(crate) struct BuildError(#[expect(dead_code, reason = "shown by Debug when a test fails")] String);

impl<E: std::error::Error> From<E> for BuildError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn replace_once(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let position = bytes.windows(from.len()).position(|window| window == from);
    if let Some(room) = position.and_then(|position| bytes.get_mut(position..position + to.len())) {
        room.copy_from_slice(to);
    }
}

fn file<'f>(files: &'f mut Files, path: &str) -> &'f mut Vec<u8> {
    files.0.entry(path.to_owned()).or_default()
}

/// Every case.
pub(crate) fn cases() -> Result<Vec<Case>, BuildError> {
    let mut cases = Cases(Vec::new());
    in_order(&mut cases)?;
    segments::packed_segments(&mut cases)?;
    pruned::pruned_logs(&mut cases)?;
    not_checkable(&mut cases)?;
    checkpoints(&mut cases)?;
    files_changed(&mut cases)?;
    entries_malformed(&mut cases)?;
    changes::changes_of_files(&mut cases)?;
    entries_misplaced(&mut cases)?;
    sessions(&mut cases)?;
    numbers(&mut cases)?;
    epochs(&mut cases)?;
    references(&mut cases)?;
    trust(&mut cases)?;
    bundles::bundles(&mut cases)?;
    attacks::attacks(&mut cases)?;
    blobs::blobs(&mut cases)?;
    attested::attested(&mut cases)?;
    booted::host_state(&mut cases)?;
    Ok(cases.0)
}

/// 300 entries with everything that breaks no rule: two tiles, epochs, a counted loss, a late number.
fn long_log() -> Result<Builder, NoteError> {
    let mut story = Story::begin()?;
    story.log.next_epoch(3, Succession::Continued)?;
    let lost = story.log.number(0, Class::File);
    let late = story.log.number(0, Class::File);
    story.log.append(gap(GapCause::RingFull, Class::File, lost.seq, lost.seq, 1));
    story.act(open(b"/tmp/\xff\n"), Class::File);
    let draft = story.draft(open("/tmp/später".as_bytes()), Some(late));
    story.log.append_draft(&draft, |_| {});
    while story.log.entries.len() < 280 {
        story.log.event(open(b"/usr/lib/x86_64-linux-gnu/libc.so.6"), Class::File, None);
    }
    let unknown = Unknown { cgroup: CgroupId(5), path: None, reason: "gone before it could be read".into() };
    let of = story.log.append(Body::Unknown(unknown));
    let workload = story.log.append(Builder::workload());
    story.log.append(Body::Identified(Identified { of, workload }));
    story.log.next_epoch(4, Succession::Orphan)?;
    story.heartbeat();
    story.act(exit(), Class::Process);
    story.revoke(|revoked| {
        if let List::Owned(acts) = &mut revoked.acts
            && let Some(opens) = acts.last_mut()
        {
            opens.count = 3;
        }
    });
    story.disarm();
    Ok(story.log)
}

fn in_order(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Story::begin()?.end();
    cases.log("in_order", "nothing: a whole log with its trust file", &log, &[])?;
    cases.add("in_order_no_trust", "nothing, but nobody says whose log it is", log.files()?, None, &[])?;
    cases.log("in_order_long", "nothing: two tiles, three epochs, a counted loss, a late number", &long_log()?, &[])?;
    let mut open_end = Story::begin()?;
    open_end.heartbeat();
    cases.log("in_order_open_end", "nothing: the agent was still running", &open_end.log, &[])?;
    let mut upgrade = Story::begin()?;
    upgrade.log.number(0, Class::File);
    let mut disarmed = upgrade.log.disarmed();
    disarmed.cause = DisarmCause::Upgrade;
    if let List::Owned(rows) = &mut disarmed.counters {
        for row in rows {
            row.settled = row.settled.min(1);
        }
    }
    upgrade.log.append(Body::Disarmed(disarmed));
    cases.log("in_order_upgrade", "nothing: a newer agent is to take over what the rings hold", &upgrade.log, &[])?;
    let mut cut = Story::begin()?;
    cut.log.number(0, Class::File);
    let mut heartbeat = cut.log.heartbeat(&[]);
    if let List::Owned(rows) = &mut heartbeat.counters {
        for row in rows {
            row.settled = row.settled.min(1);
        }
    }
    cut.log.append(Body::Heartbeat(heartbeat));
    cut.log.next_epoch(3, Succession::Orphan)?;
    let size = TreeSize(cut.log.entries.len() as u64);
    let recovered = Recovered { cause: RecoveryCause::Crash, size, replayed: 2, torn_bytes: 17 };
    cut.log.append(Body::Recovered(recovered));
    cut.log.seqs.clear();
    cut.log.capture = Id128([0xcb; 16]);
    if let Body::Armed(armed) = Builder::armed() {
        cut.log.append(Body::Armed(Armed { capture_id: cut.log.capture, ..armed }));
    }
    cut.act(exit(), Class::Process);
    cut.disarm();
    cases.log("in_order_power_cut", "nothing: the power failed, and a second run began", &cut.log, &[])?;
    let mut grown = log.files()?;
    let later = long_log()?.files()?;
    // Only the full tile and bundle are kept; the checkpoint is of a time when they were partial.
    let mut early = long_log()?;
    early.entries.truncate(250);
    early.epoch_key = FixedSigner::new(&format!("{ORIGIN}/epoch"), 3)?;
    let trust = early.trust()?;
    grown.0.clear();
    for path in ["tile/0/000", "tile/entries/000"] {
        grown.0.insert(path.to_owned(), later.0.get(path).cloned().unwrap_or_default());
    }
    grown.0.insert("checkpoint".to_owned(), early.files()?.0.get("checkpoint").cloned().unwrap_or_default());
    let mut trust = trust;
    trust.heads.clear();
    cases.add(
        "in_order_grown",
        "nothing: files of a later time under an earlier checkpoint",
        grown,
        Some(trust),
        &[],
    )?;
    Ok(())
}

fn not_checkable(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Story::begin()?.end();
    let mut garbage = Files::default();
    garbage.0.insert("checkpoint".to_owned(), vec![0xff, 0, 1, 2]);
    garbage.0.insert("tile/entries/000.p/3".to_owned(), vec![b'x'; 100]);
    let mut other = Files::default();
    other.0.insert("notes.txt".to_owned(), b"not a log\n".to_vec());
    for (name, what, files) in [
        ("garbage", "a directory of garbage with the names of a log", garbage),
        ("not_a_log", "a directory of something else", other),
    ] {
        cases.add(name, what, files, Some(log.trust()?), &[])?;
        if let Some(case) = cases.0.last_mut() {
            case.exit = 2;
        }
    }
    cases.add("trust_misspelled", "the trust file has an unknown key", log.files()?, Some(log.trust()?), &[])?;
    if let Some(case) = cases.0.last_mut() {
        case.exit = 2;
        case.trust = case.trust.take().map(|text| text.replace("required", "requires"));
    }
    Ok(())
}

fn checkpoints(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Story::begin()?.end();
    let signed = log.checkpoint()?;
    let remove = |files: &mut Files| drop(files.0.remove("checkpoint"));
    cases.damaged("checkpoint_missing", "the checkpoint was removed", &log, remove, &["checkpoint_missing"])?;
    let malformed = |files: &mut Files| *file(files, "checkpoint") = b"affiant.example/vectors\n14\n".to_vec();
    cases.damaged(
        "checkpoint_malformed",
        "the checkpoint was cut short",
        &log,
        malformed,
        &["checkpoint_malformed"],
    )?;
    let huge = |files: &mut Files| {
        let text = format!("{ORIGIN}\n9007199254740992\n");
        let checkpoint = String::from_utf8_lossy(file(files, "checkpoint")).replace(&format!("{ORIGIN}\n14\n"), &text);
        *file(files, "checkpoint") = checkpoint.into_bytes();
    };
    cases.damaged("checkpoint_size", "the size in the checkpoint is 2^53", &log, huge, &["checkpoint_malformed"])?;
    let one = signed.sign(&[&log.log_key]).into_bytes();
    let only_log = |files: &mut Files| *file(files, "checkpoint") = one;
    cases.damaged("checkpoint_unsigned", "the epoch key did not sign", &log, only_log, &["checkpoint_unsigned"])?;
    let forged = |files: &mut Files| replace_once(file(files, "checkpoint"), b"\n14\n", b"\n13\n");
    let findings = ["tile_missing", "bundle_missing", "log_truncated", "checkpoint_forged"];
    cases.damaged("checkpoint_forged", "the size in the checkpoint was changed", &log, forged, &findings)?;
    let mut wrong = signed.clone();
    wrong.root = RootHash([7; 32]);
    let wrong = wrong.sign(&[&log.log_key, &log.epoch_key]).into_bytes();
    let swap = |files: &mut Files| *file(files, "checkpoint") = wrong;
    cases.damaged("root_mismatch", "the checkpoint is of another tree", &log, swap, &["root_mismatch"])?;
    let mut far = signed;
    far.size = TreeSize(1 << 50);
    let far = far.sign(&[&log.log_key, &log.epoch_key]).into_bytes();
    let swap = |files: &mut Files| *file(files, "checkpoint") = far;
    let findings = ["tile_missing", "bundle_missing"];
    cases.damaged("size_forged", "the checkpoint is of far more entries than there are", &log, swap, &findings)?;
    Ok(())
}

fn files_changed(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Story::begin()?.end();
    let long = long_log()?;
    let remove = |path: &'static str| move |files: &mut Files| drop(files.0.remove(path));
    cases.damaged(
        "tile_missing",
        "the tile of leaf hashes was removed",
        &log,
        remove("tile/0/000.p/14"),
        &["tile_missing"],
    )?;
    let flip = |path: &'static str, at: usize| move |files: &mut Files| file(files, path)[at] ^= 1;
    cases.damaged(
        "tile_differs",
        "a hash above the leaves was changed",
        &long,
        flip("tile/1/000.p/1", 3),
        &["tile_differs"],
    )?;
    let short = |files: &mut Files| file(files, "tile/0/000.p/14").truncate(100);
    cases.damaged("tile_short", "the tile of leaf hashes was cut short", &log, short, &["tile_differs"])?;
    cases.damaged(
        "bundle_missing",
        "256 entries were removed",
        &long,
        remove("tile/entries/000"),
        &["bundle_missing"],
    )?;
    let short = |files: &mut Files| {
        file(files, "tile/entries/000.p/14").pop();
    };
    cases.damaged("bundle_malformed", "the last byte was removed", &log, short, &["bundle_malformed"])?;
    let edit = |files: &mut Files| replace_once(file(files, "tile/entries/000.p/14"), b"secret", b"public");
    cases.damaged("entry_altered", "a path in entry 8 was edited", &log, edit, &["entry_altered"])?;
    let both = |files: &mut Files| {
        let mut other = Story::begin().map(Story::end).map(|mut log| {
            if let Some(entry) = log.entries.get_mut(8) {
                replace_once(entry, b"secret", b"public");
            }
            log
        });
        if let Ok(log) = &mut other
            && let Ok(edited) = log.files()
        {
            let keep = files.0.get("checkpoint").cloned().unwrap_or_default();
            *files = edited;
            files.0.insert("checkpoint".to_owned(), keep);
        }
    };
    cases.damaged(
        "entry_rewritten",
        "entry 8 was edited and the tile made to fit",
        &log,
        both,
        &["previous_mismatch", "session_hash_wrong", "session_hash_wrong", "equivocation", "root_mismatch"],
    )?;
    Ok(())
}

/// Entries that some JSON readers take, or take for something else, each hashed and signed by whoever wrote them.
fn entries_malformed(cases: &mut Cases) -> Result<(), BuildError> {
    let edits: &[(&str, &'static str, &str, &str)] = &[
        ("space", "white space", "\"kind\":\"open\"", "\"kind\": \"open\""),
        ("duplicate_key", "a key twice, with two values", "\"path\":", "\"path\":\"/etc/motd\",\"path\":"),
        ("key_order", "keys in another order", "\"oflags\":0,\"fd\":3", "\"fd\":3,\"oflags\":0"),
        ("unknown_key", "a key that the format does not have", "\"oflags\":0", "\"oflags\":0,\"note\":1"),
        ("escape", "a needless escape", "/home/ada", "/h\\u006fme/ada"),
        ("escaped_key", "an escape in a key", "\"path\":", "\"p\\u0061th\":"),
        ("escaped_slash", "an escaped slash", "/home/ada", "\\/home\\/ada"),
        ("surrogate", "half of a surrogate pair", "/home/ada", "/home/\\ud800"),
        ("control", "a raw control character", "/home/ada", "/home/\tada"),
        ("c1_control", "a control character above ASCII", "/home/ada", "/home/\u{85}ada"),
        ("leading_zero", "a number with a leading zero", "\"uid\":1000", "\"uid\":01000"),
        ("float", "a number with a fraction", "\"uid\":1000", "\"uid\":1000.0"),
        ("exponent", "a number with an exponent", "\"uid\":1000", "\"uid\":1e3"),
        ("negative_zero", "a negative zero", "\"oflags\":0", "\"oflags\":-0"),
        ("huge_number", "a number of 400 digits", "\"uid\":1000", HUGE),
        ("large_number", "a number above the field's range", "\"uid\":1000", "\"uid\":4294967296"),
        (
            "padding_bits",
            "base64 with bits set that stand for nothing",
            "\"rnd\":\"",
            "\"rnd\":\"AAAAAAAAAAAAAAAAAAAAAB==\",\"x\":\"",
        ),
        (
            "plain_as_base64",
            "text that must not be base64",
            "\"comm\":\"python3\"",
            "\"comm\":{\"b64\":\"cHl0aG9uMw==\"}",
        ),
        ("null", "a null for an absent value", "\"oflags\":0", "\"oflags\":0,\"errno\":null"),
        ("empty_marks", "an empty set, which must be absent", "\"claims\":", "\"marks\":[],\"claims\":"),
        ("trailing_line_feed", "a byte after the end", "\"comm\":\"python3\"}}}", "\"comm\":\"python3\"}}}\n"),
        ("deep", "20,000 opening brackets", "{\"v\":1", DEEP),
        ("byte_order_mark", "a byte order mark", "{\"v\":1", "\u{feff}{\"v\":1"),
        ("version", "a version that never was", "{\"v\":1", "{\"v\":0"),
        ("kind", "an unknown kind", "\"kind\":\"open\"", "\"kind\":\"openat\""),
    ];
    for (name, what, from, to) in edits {
        let mut log = Story::begin()?.end();
        if let Some(entry) = log.entries.get_mut(8) {
            let to = match *to {
                HUGE => format!("\"uid\":{}", "9".repeat(400)),
                DEEP => "[".repeat(20_000),
                _ => (*to).to_owned(),
            };
            let text = String::from_utf8_lossy(entry).replacen(from, &to, 1);
            *entry = text.into_bytes();
        }
        let trust = log.trust()?;
        let findings = ["entry_malformed", "previous_mismatch"];
        cases.add(&format!("entry_malformed_{name}"), what, log.files()?, Some(trust), &findings)?;
    }
    Ok(())
}

const HUGE: &str = "huge";
const DEEP: &str = "deep";

fn entries_misplaced(cases: &mut Cases) -> Result<(), BuildError> {
    let rebuilt = |change: &dyn Fn(&mut Vec<Vec<u8>>)| -> Result<(Files, Trust), BuildError> {
        let mut log = Story::begin()?.end();
        change(&mut log.entries);
        Ok((log.files()?, log.trust()?))
    };
    let (files, trust) = rebuilt(&|entries| entries.swap(8, 9))?;
    let findings = [
        "index_wrong",
        "previous_mismatch",
        "session_number_wrong",
        "index_wrong",
        "previous_mismatch",
        "session_number_wrong",
        "previous_mismatch",
        "session_hash_wrong",
        "session_number_wrong",
        "session_hash_wrong",
    ];
    cases.add(
        "entries_reordered",
        "entries 8 and 9 were swapped, by whoever has the keys",
        files,
        Some(trust),
        &findings,
    )?;
    let (files, trust) = rebuilt(&|entries| drop(entries.remove(8)))?;
    let removed = [
        "index_wrong",
        "previous_mismatch",
        "session_number_wrong",
        "number_hole",
        "session_hash_wrong",
        "revoked_wrong",
        "session_hash_wrong",
    ];
    cases.add("entry_removed", "entry 8 was removed, by whoever has the keys", files, Some(trust), &removed)?;
    let repeated = [
        "index_wrong",
        "previous_mismatch",
        "session_number_wrong",
        "number_repeated",
        "session_hash_wrong",
        "revoked_wrong",
        "session_hash_wrong",
    ];
    let (files, trust) = rebuilt(&|entries| entries.insert(9, entries[8].clone()))?;
    cases.add("entry_repeated", "entry 8 was written twice, by whoever has the keys", files, Some(trust), &repeated)?;

    let mut story = Story::begin()?;
    let draft = story.log.draft(Builder::workload());
    story.log.append_draft(&draft, |place| place.index = EntryIndex(11));
    cases.log("index_wrong", "entry 10 says that it is entry 11", &story.end(), &["index_wrong"])?;
    let mut story = Story::begin()?;
    let draft = story.log.draft(Builder::workload());
    story.log.append_draft(&draft, |place| place.previous.0[0] ^= 1);
    cases.log("previous_mismatch", "entry 10 names another entry before it", &story.end(), &["previous_mismatch"])?;
    let mut story = Story::begin()?;
    let draft = story.log.draft(Builder::workload());
    story.log.append_draft(&draft, |place| place.control_number = Some(agent_evidence::record::ControlNumber(5)));
    cases.log(
        "control_number_wrong",
        "entry 10 is numbered as control entry and is none",
        &story.end(),
        &["control_number_wrong", "control_number_wrong"],
    )?;
    let log = Story::with(|story| {
        let draft = Draft { workload: Some(EntryIndex(4)), ..story.log.draft(Builder::workload()) };
        story.log.append_draft(&draft, |_| {});
        story.log.append(Body::Identified(Identified { of: EntryIndex(4), workload: EntryIndex(5) }));
    })?;
    cases.log(
        "reference_wrong",
        "entries refer to entry 4, which is neither workload nor unknown",
        &log,
        &["reference_wrong", "reference_wrong"],
    )?;

    let mut log = Builder::empty()?;
    log.first_epoch();
    let log = Story::begin_in(log).end();
    cases.log("genesis_missing", "the log begins with its first epoch", &log, &["genesis_missing"])?;
    let log = Story::with(|story| {
        let genesis = story.log.genesis();
        story.log.append(genesis);
    })?;
    cases.log("genesis_repeated", "the log is begun again at entry 10", &log, &["genesis_repeated"])?;
    let mut log = Builder::empty()?;
    let Body::Genesis(genesis) = log.genesis() else { return Ok(()) };
    log.append(Body::Genesis(Genesis { origin: "affiant.example/other".into(), format: 2, ..genesis }));
    log.first_epoch();
    let log = Story::begin_in(log).end();
    cases.log(
        "genesis_wrong",
        "the genesis names another log and format",
        &log,
        &["genesis_wrong", "genesis_wrong"],
    )?;
    Ok(())
}

fn sessions(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Story::with(|story| {
        let kernel = Some(story.log.number(0, Class::File));
        let draft = Draft { session: Some(EntryIndex(5)), ..story.draft(open(b"/x"), kernel) };
        story.log.append_draft(&draft, |_| {});
    })?;
    cases.log("session_unknown", "entry 10 belongs to a session that was never issued", &log, &["session_unknown"])?;
    let mut story = Story::begin()?;
    let kernel = Some(story.log.number(0, Class::File));
    let draft = Draft { session: None, ..story.draft(open(b"/x"), kernel) };
    story.log.append_draft(&draft, |place| place.session_number = Some(agent_evidence::record::SessionNumber(4)));
    cases.log(
        "session_number_wrong",
        "entry 10 has a number in a session that it does not name",
        &story.end(),
        &["session_number_wrong"],
    )?;
    let mut story = Story::begin()?;
    story.act(exit(), Class::Process);
    story.revoke(|_| {});
    story.act(open(b"/after"), Class::File);
    story.disarm();
    cases.log("session_ended", "entry 12 belongs to a session that has ended", &story.log, &["session_ended"])?;
    let mut story = Story::begin()?;
    let mut heartbeat = story.log.heartbeat(&[story.session]);
    if let List::Owned(rows) = &mut heartbeat.sessions
        && let Some(row) = rows.first_mut()
    {
        row.hash.0[31] ^= 1;
    }
    story.log.append(Body::Heartbeat(heartbeat));
    cases.log(
        "session_hash_wrong",
        "a heartbeat states another running hash",
        &story.end(),
        &["session_hash_wrong"],
    )?;
    let revoked =
        |name: &str, what, change: &dyn Fn(&mut Revoked<'_>), findings: &[&'static str], cases: &mut Cases| {
            let mut story = Story::begin()?;
            story.act(exit(), Class::Process);
            story.revoke(change);
            story.disarm();
            cases.log(name, what, &story.log, findings)
        };
    revoked(
        "revoked_wrong_id",
        "the session ends under another id",
        &|r| r.id = "s-2".into(),
        &["revoked_wrong"],
        cases,
    )?;
    revoked("revoked_wrong_count", "the end counts one entry less", &|r| r.entries -= 1, &["revoked_wrong"], cases)?;
    let acts = |r: &mut Revoked<'_>| {
        if let List::Owned(acts) = &mut r.acts {
            acts.pop();
        }
    };
    revoked("revoked_wrong_acts", "the end conceals the opens", &acts, &["revoked_wrong"], cases)?;
    revoked(
        "revoked_wrong_hash",
        "the end states another running hash",
        &|r| r.hash.0[0] ^= 1,
        &["session_hash_wrong"],
        cases,
    )?;
    Ok(())
}

fn numbers(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Story::with(|story| {
        let draft = story.draft(open(b"/x"), None);
        let draft = Draft { session: None, ..draft };
        story.log.append_draft(&draft, |_| {});
    })?;
    cases.log("kernel_number_wrong", "an open without kernel number", &log, &["kernel_number_wrong"])?;
    let log = Story::with(|story| {
        let kernel = Some(story.log.number(0, Class::Cgroup));
        let draft = Draft { session: None, ..story.draft(open(b"/x"), kernel) };
        story.log.append_draft(&draft, |_| {});
        story.log.append(gap(GapCause::RingFull, Class::Cgroup, 0, 0, 1));
    })?;
    cases.log("kernel_number_class", "an open numbered as cgroup event", &log, &["kernel_number_wrong"])?;
    let log = Story::with(|story| {
        let draft = story.draft(open(b"/x"), Some(KernelNumber { cpu: 0, class: Class::File, seq: 0 }));
        let draft = Draft { session: None, ..draft };
        story.log.append_draft(&draft, |_| {});
    })?;
    cases.log("number_repeated", "the number of entry 8 is used again", &log, &["number_repeated"])?;
    let log = Story::with(|story| {
        story.log.append(gap(GapCause::RingFull, Class::File, 0, 3, 4));
    })?;
    cases.log("number_repeated_gap", "a recorded event is declared lost too", &log, &["number_repeated"])?;
    let log = Story::with(|story| {
        story.log.number(1, Class::Process);
    })?;
    cases.log("number_hole", "an exec is neither in the log nor declared lost", &log, &["number_hole"])?;
    let mut story = Story::begin()?;
    story.log.number(0, Class::File);
    let mut disarmed = story.log.disarmed();
    if let List::Owned(rows) = &mut disarmed.counters {
        for row in rows {
            row.settled = row.settled.min(1);
        }
    }
    story.log.append(Body::Disarmed(disarmed));
    cases.log(
        "number_hole_at_end",
        "an open was numbered, and the run ended without it",
        &story.log,
        &["number_hole"],
    )?;
    let mut story = Story::begin()?;
    story.heartbeat();
    let mut heartbeat = story.log.heartbeat(&[]);
    if let List::Owned(rows) = &mut heartbeat.counters
        && let Some(row) = rows.first_mut()
    {
        row.next = 0;
        row.settled = 0;
    }
    story.log.append(Body::Heartbeat(heartbeat));
    cases.log("counter_wrong", "a counter of the kernel side went back", &story.end(), &["counter_wrong"])?;
    let log = Story::with(|story| {
        let lost = story.log.number(0, Class::File).seq;
        story.log.append(gap(GapCause::RingFull, Class::File, lost, lost, 2));
    })?;
    cases.log("gap_count_wrong", "a gap counts two events and names one", &log, &["gap_count_wrong"])?;
    let log = Story::with(|story| {
        let lost = story.log.number(0, Class::File).seq;
        story.log.append(gap(GapCause::Unexplained, Class::File, lost, lost, 1));
    })?;
    cases.log(
        "loss_unexplained",
        "an event was lost that the kernel side did not count",
        &log,
        &["loss_unexplained"],
    )?;
    let log = Story::with(|story| {
        let lost = story.log.number(0, Class::File).seq;
        story.log.append(gap(GapCause::RingFull, Class::File, lost, lost, 1));
    })?;
    cases.log("loss_accounted_not_strict", "a counted loss, without the strict rule", &log, &[])?;
    cases.log("loss_accounted", "a counted loss under the strict rule", &log, &["loss_accounted"])?;
    if let Some(case) = cases.0.last_mut() {
        case.strict = true;
    }
    let mut story = Story::begin()?;
    story.disarm();
    story.act(open(b"/late"), Class::File);
    cases.log("event_outside_run", "an open after the run ended", &story.log, &["event_outside_run"])?;
    let mut story = Story::begin()?;
    let mut heartbeat = story.log.heartbeat(&[]);
    heartbeat.hooks_ok = false;
    story.log.append(Body::Heartbeat(heartbeat));
    cases.log("hooks_not_attached", "somebody detached a hook", &story.end(), &["hooks_not_attached"])?;
    Ok(())
}

fn epochs(cases: &mut Cases) -> Result<(), BuildError> {
    let mut log = Builder::empty()?;
    let genesis = log.genesis();
    log.append(genesis);
    let log = Story::begin_in(log).end();
    cases.log("epoch_missing", "no epoch was begun", &log, &["epoch_missing"])?;
    let log = Story::with(|story| {
        let key = story.log.epoch_key.public_key();
        let epoch = story.log.epoch_statement(key, Succession::First, None);
        story.log.append(Body::Epoch(epoch));
    })?;
    cases.log("epoch_wrong", "a second first epoch", &log, &["epoch_wrong"])?;
    let mut story = Story::begin()?;
    story.log.epochs += 1;
    story.log.next_epoch(3, Succession::Continued)?;
    cases.log("epoch_number_wrong", "the number of an epoch is left out", &story.end(), &["epoch_wrong"])?;
    let log = Story::with(|story| {
        let key = story.log.epoch_key.public_key();
        let mut epoch = story.log.epoch_statement(key, Succession::Orphan, None);
        epoch.sig_log = Signature([3; 64]);
        story.log.append(Body::Epoch(epoch));
    })?;
    cases.log("epoch_forged", "the log key did not sign the epoch", &log, &["epoch_forged"])?;
    let log = Story::with(|story| {
        let key = story.log.epoch_key.public_key();
        let epoch = story.log.epoch_statement(key, Succession::Continued, Some(&story.log.log_key));
        story.log.append(Body::Epoch(epoch));
    })?;
    cases.log("epoch_forged_previous", "another key signed for the previous epoch", &log, &["epoch_forged"])?;
    Ok(())
}

/// Verdicts, folded acts, holds and nested sessions: what refers to other entries, and numbers in ranges.
fn references(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Story::with(|story| {
        let set = Blob { sha256: Digest([6; 32]), size: 120 };
        let policy = Policy { language: "cedar".into(), set, count: 2, enforcing: false };
        let set = story.log.append(Body::Policy(policy));
        story.verdict(set);
        story.fold(Class::File, 3, 3);
        let hold = |on| Hold {
            session: story.session,
            on,
            reason: "case 7".into(),
            by: Requester { process: None, tgid: 7, uid: 0, gid: 0 },
        };
        let (on, off) = (hold(true), hold(false));
        story.log.append(Body::Hold(on));
        story.log.append(Body::Hold(off));
        story.log.append(Body::Secret(SecretUse { of: EntryIndex(8), sort: SecretSort::Ssh, rule: "*.pem".into() }));
    })?;
    cases.log("in_order_verdict", "a verdict, folded acts, a hold and a secret", &log, &[])?;
    let log = Story::with(|story| story.verdict(EntryIndex(5)))?;
    cases.log("reference_wrong_verdict", "a verdict by a set of policies that is none", &log, &["reference_wrong"])?;
    let log = Story::with(|story| {
        let of = EntryIndex(10);
        story.log.append(Body::Secret(SecretUse { of, sort: SecretSort::Env, rule: ".env".into() }));
    })?;
    cases.log("reference_wrong_later", "an entry about itself", &log, &["reference_wrong"])?;
    let log = Story::with(|story| story.fold(Class::File, 3, 2))?;
    cases.log("gap_count_wrong_folded", "folded acts are miscounted", &log, &["gap_count_wrong"])?;
    let log = Story::with(|story| {
        story.fold(Class::Network, 1, 1);
        story.log.append(gap(GapCause::DiskFull, Class::Network, 1, 1, 1));
    })?;
    cases.log(
        "kernel_number_folded",
        "connects are folded, which only opens may be",
        &log,
        &["kernel_number_wrong"],
    )?;
    let log = Story::with(|story| {
        let Body::Issued(issued) = issued() else { return };
        story.log.append(Body::Issued(Issued { id: "s-2".into(), parent: Some(EntryIndex(5)), ..issued }));
    })?;
    cases.log("session_unknown_parent", "a session within one that was not issued", &log, &["session_unknown"])?;
    let log = Story::with(|story| {
        let key = story.log.epoch_key.public_key();
        let previous = FixedSigner::new(&format!("{ORIGIN}{EPOCH_SUFFIX}"), 2);
        let Ok(previous) = previous else { return };
        let mut epoch = story.log.epoch_statement(key, Succession::Continued, Some(&previous));
        epoch.attest = Some(Bytes::new(&[1, 2, 3]));
        story.log.append(Body::Epoch(epoch));
    })?;
    cases.log("epoch_wrong_attestation", "an attestation without its signature", &log, &["epoch_wrong"])?;
    Ok(())
}

fn trust(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Story::begin()?.end();
    let files = log.files()?;
    let with = |change: &dyn Fn(&mut Trust)| -> Result<Trust, BuildError> {
        let mut trust = log.trust()?;
        change(&mut trust);
        Ok(trust)
    };
    let other = FixedSigner::new("affiant.example/other", 1)?;
    let key = agent_evidence::note::NoteSigner::verifier(&other);
    let trust = with(&|trust| {
        trust.origin = key.name().clone();
        trust.log_key = key.clone();
    })?;
    let findings = ["checkpoint_unsigned", "origin_untrusted", "log_key_untrusted"];
    cases.add("origin_untrusted", "the trust file is for another log", files.clone(), Some(trust), &findings)?;
    let other = FixedSigner::new(ORIGIN, 9)?;
    let key = agent_evidence::note::NoteSigner::verifier(&other);
    let trust = with(&|trust| trust.log_key = key.clone())?;
    let findings = ["checkpoint_unsigned", "log_key_untrusted"];
    cases.add("log_key_untrusted", "the trust file names another key", files.clone(), Some(trust), &findings)?;
    let mut anew = Builder::empty()?;
    let Body::Genesis(genesis) = anew.genesis() else { return Ok(()) };
    anew.append(Body::Genesis(Genesis { kernel: "6.19.0".into(), ..genesis }));
    anew.first_epoch();
    let anew = Story::begin_in(anew).end();
    let mut trust = log.trust()?;
    trust.heads = vec![Head { size: TreeSize(14), root: log.checkpoint()?.root }];
    let findings = ["equivocation", "genesis_untrusted"];
    cases.add(
        "genesis_untrusted",
        "the log was begun anew under the same keys",
        anew.files()?,
        Some(trust),
        &findings,
    )?;
    let trust = with(&|trust| trust.first_epoch_key.0[0] ^= 1)?;
    cases.add(
        "first_epoch_untrusted",
        "the trust file names another first epoch",
        files.clone(),
        Some(trust),
        &["first_epoch_untrusted"],
    )?;
    let mut shorter = Story::begin()?.end();
    shorter.entries.truncate(11);
    cases.add(
        "log_truncated",
        "the last three entries were removed, by whoever has the keys",
        shorter.files()?,
        Some(log.trust()?),
        &["log_truncated"],
    )?;
    let trust = with(&|trust| trust.heads = vec![Head { size: TreeSize(9), root: RootHash([1; 32]) }])?;
    cases.add(
        "head_mismatch",
        "the trust file remembers another beginning",
        files.clone(),
        Some(trust),
        &["head_mismatch"],
    )?;
    let trust = with(&|trust| trust.heads = vec![Head { size: TreeSize(14), root: RootHash([1; 32]) }])?;
    cases.add(
        "equivocation",
        "the trust file remembers another tree of the same size",
        files.clone(),
        Some(trust),
        &["equivocation"],
    )?;
    let trust = with(&|trust| trust.minimum_tier = KeyTier::T1)?;
    cases.add(
        "tier_too_low",
        "the trust file requires a key in a TPM",
        files.clone(),
        Some(trust),
        &["tier_too_low"],
    )?;
    let trust = with(&|trust| trust.required.push(Claim::NonEquivocation))?;
    cases.add("claim_not_proved", "the trust file requires witnesses", files, Some(trust), &["claim_not_proved"])?;
    witnesses(cases, &log)
}

/// When the witnesses of the vectors cosigned: 2026-01-01T01:00:00Z, in seconds.
const COSIGNED: u64 = 1_767_229_200;

/// Cases of what trusted witnesses saw.
fn witnesses(cases: &mut Cases, log: &Builder) -> Result<(), BuildError> {
    let witness = |number: u8| FixedSigner::new(&format!("witness.example/w{number}"), 40 + number);
    let mut policy = String::from("# two of three\n");
    for number in 1..=3 {
        policy.push_str(&format!("witness w{number} {}\n", witness(number)?.witness_key()));
    }
    policy.push_str("group ours 2 w1 w2 w3\nquorum ours\n");
    let mut trust = log.trust()?;
    trust.believe(&policy)?;
    let mut add = |name: &str, what: &'static str, cosigned: &[(String, Vec<u8>)], findings: &[&'static str]| {
        let mut files = log.files()?;
        files.0.extend(cosigned.iter().cloned());
        cases.add(name, what, files, Some(trust.clone()), findings)
    };
    let mut earlier = Story::begin()?.end();
    earlier.entries.truncate(9);
    let (first, second) = (earlier.cosigned(&witness(1)?, COSIGNED)?, log.cosigned(&witness(2)?, COSIGNED + 60)?);
    add(
        "witnessed",
        "two of three witnesses cosigned, one of them an earlier size",
        &[first.clone(), second.clone()],
        &[],
    )?;
    add(
        "witnessed_too_few",
        "one witness of the two that are needed cosigned",
        std::slice::from_ref(&second),
        &["claim_not_proved"],
    )?;
    let renamed = (second.0.clone(), log.cosigned(&witness(3)?, COSIGNED)?.1);
    add(
        "witnessed_misplaced",
        "the cosignature of one witness stands where another's belongs",
        &[first.clone(), renamed],
        &["claim_not_proved"],
    )?;
    let garbage = (second.0.clone(), b"not a checkpoint\n".to_vec());
    add("witnessed_garbage", "a cosigned checkpoint is not one", &[first.clone(), garbage], &["claim_not_proved"])?;
    let mut forged = second.clone();
    // The last digits before the padding and the line feed.
    if let Some(byte) = forged.1.iter_mut().rev().nth(8) {
        *byte = if *byte == b'A' { b'B' } else { b'A' };
    }
    add("cosignature_forged", "a cosignature does not hold", &[first.clone(), forged], &["cosignature_forged"])?;
    let mut fork = Story::begin()?.end();
    fork.entries.truncate(11);
    fork.append(exec("/usr/bin/true"));
    add(
        "split_view",
        "a witness cosigned another history of the same log",
        &[first, second, fork.cosigned(&witness(3)?, COSIGNED)?],
        &["split_view"],
    )?;
    let mut longer = Story::begin()?.end();
    longer.append(Builder::workload());
    add(
        "log_truncated_witnessed",
        "a witness cosigned more entries than there are",
        &[longer.cosigned(&witness(1)?, COSIGNED)?],
        &["log_truncated"],
    )
}
