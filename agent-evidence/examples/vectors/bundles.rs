//! The cases of `tests/vectors` that are evidence bundles.

use agent_evidence::bundle::{Disclosed, Manifest, Selected};
use agent_evidence::record::{Disclosure, Erased, Heartbeat, LossShare, Process, Value};

use agent_evidence::trust::Limits;

use super::*;

/// A log of two runs and two sessions: 0 genesis, 1 epoch, 2 recovered, 3 armed, 4 disarmed, 5 armed, 6 scope,
/// 7 workload, 8 process, 9 process, 10 workload, 11 issued s-2, 12 issued s-1, then what both did.
pub(super) struct Two {
    story: Story,
    other: EntryIndex,
}

impl Two {
    pub(super) fn begin() -> Result<Self, NoteError> {
        let mut log = Builder::new()?;
        let size = TreeSize(log.entries.len() as u64);
        log.append(Body::Recovered(Recovered { cause: RecoveryCause::Clean, size, replayed: 0, torn_bytes: 0 }));
        log.append(Builder::armed());
        let mut disarmed = log.disarmed();
        disarmed.cause = DisarmCause::Upgrade;
        log.append(Body::Disarmed(disarmed));
        if let Body::Armed(mut armed) = Builder::armed() {
            armed.resumed = true;
            log.append(Body::Armed(armed));
        }
        log.append(Body::Scope(Scope { text: "sessions".into(), host_classes: 1, roots: List::default() }));
        let workload = log.append(Builder::workload());
        for (tgid, cookie) in [(96, 4_194_304), (97, 8_388_608)] {
            let process = Process {
                tgid,
                start: agent_evidence::record::BootTime(1),
                parent: None,
                cgroup: CgroupId(1),
                path: Some("/usr/bin/bash".into()),
                uid: 1000,
                gid: 1000,
                euid: 1000,
                egid: 1000,
                how: "iter".into(),
                claims: CommClaims { comm: "bash".into() },
            };
            let draft = Draft { process: Some(ProcessCookie(cookie)), ..log.draft(Body::Process(process)) };
            log.append_draft(&draft, |_| {});
        }
        log.append(Builder::workload());
        let other = log.append(issued_as("s-2", 78));
        let session = log.append(issued_as("s-1", 77));
        Ok(Self { story: Story { log, workload, session }, other })
    }

    pub(super) fn log(&mut self) -> &mut Builder {
        &mut self.story.log
    }

    /// An act of the other session, without a workload.
    fn other_act(&mut self) {
        let other = self.other;
        self.log().event(open(b"/srv/other"), Class::File, Some(other));
    }

    fn heartbeat(&mut self, sessions: &[EntryIndex], change: impl FnOnce(&mut Heartbeat<'_>)) {
        let mut heartbeat = self.log().heartbeat(sessions);
        change(&mut heartbeat);
        self.log().append(Body::Heartbeat(heartbeat));
    }

    /// 13 exec, 14 (other), 15 open, 16 gap, 17 unknown, 18 heartbeat, 19 epoch, 20 (other), 21 connect, 22 exit.
    pub(super) fn acts(&mut self) -> Result<(), NoteError> {
        self.story.act(exec("/usr/bin/python3.11"), Class::Process);
        self.other_act();
        self.story.act(open(b"/home/ada/data.csv"), Class::File);
        let lost = self.log().number(0, Class::File).seq;
        self.log().number(0, Class::File);
        self.log().append(Body::Gap(Gap {
            cause: GapCause::RingFull,
            capture_id: CAPTURE,
            ranges: vec![NumberRange { cpu: 0, class: Class::File, first: lost, last: lost + 1 }].into(),
            count: 2,
            shares: vec![LossShare { scope: CgroupId(77), count: 1 }].into(),
            from: None,
            to: None,
        }));
        let unknown = Unknown { cgroup: CgroupId(5), path: None, reason: "gone before it could be read".into() };
        self.log().append(Body::Unknown(unknown));
        let both = [self.other, self.story.session];
        self.heartbeat(&both, |_| {});
        self.log().next_epoch(5, Succession::Continued)?;
        self.other_act();
        self.story.act(connect(), Class::Network);
        self.story.act(exit(), Class::Process);
        Ok(())
    }

    /// 23 revoked s-1, 24 (other), 25 heartbeat that has not settled what it counts, 26 (other), 27 heartbeat that has,
    /// 28 heartbeat, 29 revoked s-2, 30 heartbeat, 31 disarmed.
    pub(super) fn end(&mut self) {
        self.story.revoke(|_| {});
        self.other_act();
        let other = [self.other];
        self.heartbeat(&other, |heartbeat| {
            if let List::Owned(rows) = &mut heartbeat.counters
                && let Some(row) = rows.last_mut()
            {
                row.settled -= 1;
            }
        });
        self.other_act();
        self.heartbeat(&other, |_| {});
        self.heartbeat(&other, |_| {});
        let state = self.story.log.session(self.other);
        let revoked = Revoked {
            id: "s-2".into(),
            cause: RevokeCause::Exit,
            code: Some(0),
            residual: None,
            signal: None,
            acts: vec![KindCount { kind: agent_evidence::record::Kind::Open, count: 4 }].into(),
            entries: state.number.0 + 1,
            hash: state.hash,
        };
        let session = Some(self.other);
        let draft = Draft { session, ..self.log().draft(Body::Revoked(revoked)) };
        self.log().append_draft(&draft, |_| {});
        self.heartbeat(&[], |_| {});
        self.story.disarm();
    }

    pub(super) fn into_log(self) -> Builder {
        self.story.log
    }

    fn whole() -> Result<Builder, NoteError> {
        let mut two = Self::begin()?;
        two.acts()?;
        two.end();
        Ok(two.story.log)
    }
}

fn issued_as(id: &'static str, cgroup: u64) -> Body<'static> {
    match issued() {
        Body::Issued(issued) => Body::Issued(Issued { id: id.into(), cgroup: CgroupId(cgroup), ..issued }),
        other => other,
    }
}

/// What is known of a log by who saw it when it had 10 entries, and as it is now.
fn seen_at_ten(log: &Builder) -> Result<Trust, NoteError> {
    let mut trust = log.trust()?;
    let mut then = agent_evidence::tree::Tree::new();
    for entry in log.entries.iter().take(10) {
        then.append(agent_evidence::tree::leaf_hash(entry), |_| {});
    }
    trust.heads.insert(0, Head { size: then.size(), root: then.root() });
    Ok(trust)
}

const TEN: &[TreeSize] = &[TreeSize(10)];

impl Cases {
    /// A bundle, whatever is wrong with it.
    pub(super) fn evb(
        &mut self,
        name: &str,
        what: &'static str,
        bundle: Vec<u8>,
        trust: Option<Trust>,
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        self.add(name, what, Files::default(), trust, findings)?;
        if let Some(case) = self.0.last_mut() {
            case.bundle = Some(bundle);
        }
        Ok(())
    }

    /// The bundle of s-1 with another choice of entries.
    fn chosen(
        &mut self,
        name: &str,
        what: &'static str,
        choose: impl FnOnce(&mut Vec<Disclosed>),
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        let log = Two::whole()?;
        let Selected { sessions, mut disclosed, .. } = log.selected(&["s-1"]).map_err(BuildError)?;
        choose(&mut disclosed);
        let bundle = log.bundle(&Manifest { sessions, heads: TEN.to_vec() }, &disclosed)?;
        self.evb(name, what, bundle, Some(seen_at_ten(&log)?), findings)
    }

    fn without(
        &mut self,
        name: &str,
        what: &'static str,
        index: u64,
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        self.chosen(name, what, |disclosed| disclosed.retain(|entry| entry.index.0 != index), findings)
    }

    fn with(
        &mut self,
        name: &str,
        what: &'static str,
        index: u64,
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        let bytes = Two::whole()?.entries.get(usize::try_from(index)?).map_or(0, Vec::len);
        let entry = Disclosed { index: EntryIndex(index), bytes: u32::try_from(bytes)? };
        let choose = |disclosed: &mut Vec<Disclosed>| {
            disclosed.push(entry);
            disclosed.sort_unstable();
        };
        self.chosen(name, what, choose, findings)
    }

    /// The bundle of s-1 with its bytes changed.
    fn bytes(
        &mut self,
        name: &str,
        what: &'static str,
        change: impl FnOnce(&mut Vec<u8>),
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        let log = Two::whole()?;
        let mut bundle = log.bundle_of(&["s-1"], TEN)?;
        change(&mut bundle);
        self.evb(name, what, bundle, Some(seen_at_ten(&log)?), findings)
    }
}

/// Where the header of a member stands.
fn member(bundle: &[u8], name: &str) -> usize {
    let stands = |block: &&[u8]| block.starts_with(name.as_bytes()) && block.get(257..262) == Some(b"ustar");
    512 * bundle.chunks(512).take_while(|block| !stands(block)).count()
}

/// Says another size of a member, with the right sum over its header.
fn resize(bundle: &mut [u8], name: &str, size: &str) {
    let at = member(bundle, name);
    if let Some(header) = bundle.get_mut(at..at + 512) {
        header[124..135].copy_from_slice(size.as_bytes());
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Every case.
pub(super) fn bundles(cases: &mut Cases) -> Result<(), BuildError> {
    in_order(cases)?;
    left_out(cases)?;
    misplaced(cases)?;
    values(cases)?;
    malformed(cases)
}

fn in_order(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Two::whole()?;
    let trust = || seen_at_ten(&log).map(Some);
    let both = log.bundle_of(&["s-1", "s-2"], TEN)?;
    let one = log.bundle_of(&["s-1"], TEN)?;
    cases.log("bundle_log", "nothing: the log that the bundles are of", &log, &[])?;
    cases.evb("bundle", "nothing: one of two sessions", one.clone(), trust()?, &[])?;
    cases.evb("bundle_two_sessions", "nothing: both sessions", both, trust()?, &[])?;
    cases.evb("bundle_no_trust", "nothing, and no trust file", one, None, &[])?;
    let all: Vec<_> = (1..log.entries.len() as u64).map(TreeSize).collect();
    let heads = log.bundle_of(&["s-1"], &all)?;
    cases.evb("bundle_every_head", "nothing: the roots at every size are shown", heads, trust()?, &[])?;
    let silent = log.bundle_of(&["s-1"], &[])?;
    let not_proved = &["claim_not_proved"];
    cases.evb("bundle_head_not_shown", "it does not show a head that is remembered", silent, trust()?, not_proved)?;

    let one = log.bundle_of(&["s-1"], TEN)?;
    let limited = |largest_loss_events, accepted: &str| {
        seen_at_ten(&log).map(|trust| {
            let limits = Limits {
                largest_gap_seconds: Some(60),
                largest_loss_events: Some(largest_loss_events),
                accepted_not_covered: Some(vec![accepted.to_owned()]),
            };
            Some(Trust { limits, ..trust })
        })
    };
    let within = limited(2, "io_uring opens")?;
    cases.evb("bundle_limits", "nothing: the trust file's limits hold in the window", one.clone(), within, &[])?;
    let beyond = limited(1, "nothing")?;
    let findings = &["loss_too_large", "not_covered_unaccepted"];
    cases.evb("evb_limits", "the trust file's limits do not hold in the window", one, beyond, findings)?;

    let mut open_session = Two::begin()?;
    open_session.acts()?;
    let log = open_session.story.log;
    let bundle = log.bundle_of(&["s-1"], &[])?;
    cases.evb("bundle_open", "the session has not ended", bundle, Some(log.trust()?), not_proved)?;

    let mut early = Two::begin()?;
    early.acts()?;
    early.story.revoke(|_| {});
    let log = early.story.log;
    let bundle = log.bundle_of(&["s-1"], &[])?;
    cases.evb("bundle_early", "no heartbeat followed the session's end yet", bundle, Some(log.trust()?), not_proved)?;

    let mut cut = Two::begin()?;
    cut.acts()?;
    cut.story.revoke(|_| {});
    if let Body::Armed(mut armed) = Builder::armed() {
        armed.capture_id = Id128([0xcb; 16]);
        cut.log().append(Body::Armed(armed));
    }
    let log = cut.story.log;
    let bundle = log.bundle_of(&["s-1"], &[])?;
    cases.evb("bundle_power_cut", "another run followed without `disarmed`", bundle, Some(log.trust()?), &[])?;

    let mut first = Builder::new()?;
    let session = first.append(issued_as("s-1", 77));
    let state = first.session(session);
    let revoked = Revoked {
        id: "s-1".into(),
        cause: RevokeCause::Operator,
        code: None,
        residual: None,
        signal: None,
        acts: List::default(),
        entries: 1,
        hash: state.hash,
    };
    let draft = Draft { session: Some(session), ..first.draft(Body::Revoked(revoked)) };
    first.append_draft(&draft, |_| {});
    first.append(Builder::armed());
    let heartbeat = first.heartbeat(&[]);
    first.append(Body::Heartbeat(heartbeat));
    let bundle = first.bundle_of(&["s-1"], &[])?;
    cases.evb("bundle_before_armed", "a session before the first `armed`", bundle, Some(first.trust()?), &[])
}

fn left_out(cases: &mut Cases) -> Result<(), BuildError> {
    let entry = &["evb_entry_omitted"];
    let control = &["evb_control_omitted"];
    cases.without("evb_entry_omitted", "an act of the session is left out", 15, entry)?;
    cases.without("evb_entry_omitted_last", "the act before its end is left out", 22, entry)?;
    cases.without("evb_entry_omitted_workload", "its workload is left out", 7, entry)?;
    // Nothing but it names the process that asked for the session.
    let findings = ["evb_entry_omitted", "evb_entry_foreign"];
    cases.without("evb_entry_omitted_issued", "its first entry is left out", 12, &findings)?;
    let end = |disclosed: &mut Vec<Disclosed>| disclosed.retain(|entry| ![22, 23].contains(&entry.index.0));
    cases.chosen("evb_end_omitted", "its last two entries are left out", end, &["claim_not_proved"])?;
    cases.without("evb_control_omitted", "a gap is left out", 16, control)?;
    cases.without("evb_control_omitted_unknown", "an unattributed act is left out", 17, control)?;
    cases.without("evb_control_omitted_heartbeat", "a heartbeat is left out", 18, control)?;
    cases.without("evb_control_omitted_settling", "the heartbeat behind the session is left out", 25, control)?;
    let end = |disclosed: &mut Vec<Disclosed>| disclosed.retain(|entry| entry.index.0 != 27);
    cases.chosen(
        "evb_window_end_omitted",
        "the last heartbeat of the window is left out",
        end,
        &["claim_not_proved"],
    )?;
    let outside = ["event_outside_run"; 7];
    let armed = [["evb_entry_foreign", "evb_control_omitted"].as_slice(), &outside].concat();
    cases.without("evb_control_omitted_armed", "the `armed` that it runs under is left out", 5, &armed)?;
    cases.without("evb_epoch_omitted", "an epoch is left out", 19, &["evb_control_omitted", "checkpoint_unsigned"])?;
    cases.without("evb_genesis_omitted", "the genesis is left out", 0, &["genesis_missing"])
}

fn misplaced(cases: &mut Cases) -> Result<(), BuildError> {
    let foreign = &["evb_entry_foreign"];
    cases.with("evb_entry_foreign", "an act of another session is in it", 20, foreign)?;
    cases.with("evb_entry_foreign_after", "a heartbeat after the window is in it", 28, foreign)?;
    cases.with("evb_entry_foreign_before", "an `armed` before the one it runs under is in it", 3, foreign)?;
    cases.with("evb_entry_foreign_process", "a process that did not act in it is in it", 9, foreign)?;
    cases.with("evb_entry_foreign_workload", "a workload that no entry names is in it", 10, foreign)?;
    let edit = |bundle: &mut Vec<u8>| replace_once(bundle, b"/home/ada/data.csv", b"/home/ada/none.csv");
    let findings =
        &["previous_mismatch", "session_hash_wrong", "session_hash_wrong", "evb_proof_wrong", "equivocation"];
    cases.bytes("evb_proof_wrong", "an act was edited", edit, findings)?;
    let hash = |bundle: &mut Vec<u8>| {
        let at = member(bundle, "hashes") + 512;
        if let Some(byte) = bundle.get_mut(at) {
            *byte ^= 1;
        }
    };
    let findings = &["evb_proof_wrong", "head_mismatch", "equivocation"];
    cases.bytes("evb_proof_wrong_hash", "the hash of a withheld entry was changed", hash, findings)?;

    let log = Two::whole()?;
    let bundle = log.bundle_of(&["s-1"], TEN)?;
    let mut rewritten = seen_at_ten(&log)?;
    if let Some(head) = rewritten.heads.first_mut() {
        head.root = RootHash([7; 32]);
    }
    let findings = &["head_mismatch"];
    cases.evb("evb_head_mismatch", "the head at 10 entries was another", bundle.clone(), Some(rewritten), findings)?;
    let mut longer = seen_at_ten(&log)?;
    longer.heads.push(Head { size: TreeSize(40), root: RootHash([7; 32]) });
    let what = "the trust file remembers a later head";
    cases.evb("evb_head_later", what, bundle.clone(), Some(longer), &["claim_not_proved"])?;
    let mut tampered = bundle.clone();
    let at = member(&tampered, "entries");
    if let Some(text) = tampered.get_mut(1024..at) {
        replace_once(text, b"AAA", b"AAB");
        replace_once(text, b"\n32\n", b"\n33\n");
    }
    let trust = Some(seen_at_ten(&log)?);
    let findings = &["evb_malformed"];
    cases.evb("evb_checkpoint_size", "the checkpoint says one entry more", tampered, trust, findings)?;

    let mut another = Two::begin()?;
    // Its clock is one tick ahead, which changes every entry that follows.
    another.log().draft(Builder::workload());
    another.acts()?;
    another.end();
    let other_head = another.story.log.checkpoint()?;
    let mut swapped = bundle;
    let own = log.checkpoint()?.sign(&[&log.log_key, &log.epoch_key]);
    let theirs = other_head.sign(&[&another.story.log.log_key, &another.story.log.epoch_key]);
    replace_once(&mut swapped, own.as_bytes(), theirs.as_bytes());
    let findings = &["evb_proof_wrong"];
    cases.evb("evb_checkpoint_other", "the checkpoint of another history", swapped, Some(seen_at_ten(&log)?), findings)
}

/// When a value is said to be erased.
#[derive(Clone, Copy, PartialEq)]
enum Erase {
    Never,
    InWindow,
    Later,
}

/// A log whose session s-1 opened a file of which path and name are committed: entry 14.
fn with_values(erase: Erase) -> Result<Builder, NoteError> {
    let mut two = Two::begin()?;
    two.story.act(exec("/usr/bin/python3.11"), Class::Process);
    let lines = [("open.path", "/home/ada/secret.key"), ("open.claims.asked", "secret.key")]
        .map(|(field, text)| Disclosure { field: field.into(), salt: [7; 16], text: text.into() });
    let Body::Open(mut body) = open(b"") else { return Ok(two.story.log) };
    let [path, asked] = &lines;
    body.path = Some(Value::Committed(path.commitment()));
    body.claims.asked = Some(Value::Committed(asked.commitment()));
    let index = two.story.act(Body::Open(body), Class::File);
    for line in lines {
        let mut bytes = Vec::new();
        line.encode(index, &mut bytes);
        two.log().values.push((index, bytes));
    }
    two.story.act(connect(), Class::Network);
    two.story.act(exit(), Class::Process);
    two.story.revoke(|_| {});
    let erased = Body::Erased(Erased {
        of: index,
        field: "open.path".into(),
        reason: "a request for deletion".into(),
        by: Requester { process: None, tgid: 96, uid: 0, gid: 0 },
    });
    let other = [two.other];
    if erase == Erase::InWindow {
        two.log().append(erased.clone());
    }
    two.heartbeat(&other, |_| {});
    if erase == Erase::Later {
        two.log().append(erased);
    }
    two.heartbeat(&other, |_| {});
    if erase != Erase::Never {
        two.log().values.remove(0);
    }
    two.story.disarm();
    Ok(two.story.log)
}

fn values(cases: &mut Cases) -> Result<(), BuildError> {
    let mut with = |name: &str, what, erase, change: &dyn Fn(&mut Builder), findings: &[&'static str]| {
        let mut log = with_values(erase)?;
        change(&mut log);
        // The same texts stand in the sidecar of the log.
        let own = name.replace("evb_", "sidecar_").replace("bundle_", "sidecar_");
        let in_log: &[&'static str] =
            if findings == ["evb_malformed"] { &["sidecar_malformed", "value_absent"] } else { findings };
        cases.log(&own, what, &log, in_log)?;
        let bundle = log.bundle_of(&["s-1"], &[])?;
        cases.evb(name, what, bundle, Some(log.trust()?), findings)
    };
    let replace = |log: &mut Builder, from: &[u8], to: &[u8]| {
        log.values.iter_mut().for_each(|(_, line)| replace_once(line, from, to));
    };
    with("bundle_values", "nothing: committed values are disclosed", Erase::Never, &|_| {}, &[])?;
    with("bundle_value_erased", "nothing: a value was erased", Erase::InWindow, &|_| {}, &[])?;
    with("bundle_value_erased_later", "nothing: a value was erased after the window", Erase::Later, &|_| {}, &[])?;
    let remove = |log: &mut Builder| _ = log.values.pop();
    with("evb_value_absent", "a value is left out", Erase::Never, &remove, &["value_absent"])?;
    with(
        "evb_value_absent_other",
        "one value was erased and another left out",
        Erase::Later,
        &remove,
        &["value_absent"],
    )?;
    let none = |log: &mut Builder| log.values.clear();
    let both = &["value_absent", "value_absent"];
    with("evb_values_absent", "every value is left out", Erase::Never, &none, both)?;
    let text = |log: &mut Builder| replace(log, b"secret", b"public");
    let wrong = &["commitment_wrong", "commitment_wrong"];
    with("evb_commitment_wrong", "the texts of values were changed", Erase::Never, &text, wrong)?;
    let field = |log: &mut Builder| replace(log, b"open.path", b"open.name");
    let absent = &["commitment_wrong", "value_absent"];
    with("evb_commitment_wrong_field", "a value that the entry does not have", Erase::Never, &field, absent)?;
    let order = |log: &mut Builder| log.values.reverse();
    let late = &["value_absent", "commitment_wrong"];
    with("evb_commitment_wrong_order", "values in another order", Erase::Never, &order, late)?;
    let form = |log: &mut Builder| replace(log, b"\"field\":\"open.path\"", b"\"field\": \"open.pat\"");
    with("evb_malformed_value", "a line that is not in the one permitted form", Erase::Never, &form, &["evb_malformed"])
}

fn malformed(cases: &mut Cases) -> Result<(), BuildError> {
    let wrong = &["evb_malformed"];
    cases.bytes("evb_malformed_trailing", "a byte follows the end", |bundle| bundle.push(0), wrong)?;
    let cut = |bundle: &mut Vec<u8>| bundle.truncate(bundle.len() - 512);
    cases.bytes("evb_malformed_cut", "its last block is missing", cut, wrong)?;
    let twice = |bundle: &mut Vec<u8>| {
        let (at, past) = (member(bundle, "checkpoint"), member(bundle, "hashes"));
        let copy = bundle.get(at..past).map(<[u8]>::to_vec).unwrap_or_default();
        bundle.splice(past..past, copy);
    };
    cases.bytes("evb_malformed_member_twice", "`checkpoint` is there twice", twice, wrong)?;
    let order = |bundle: &mut Vec<u8>| {
        let (at, past) = (member(bundle, "checkpoint"), member(bundle, "hashes"));
        let moved: Vec<u8> = bundle.drain(at..past).collect();
        let end = member(bundle, "entries");
        bundle.splice(end..end, moved);
    };
    cases.bytes("evb_malformed_member_order", "`checkpoint` stands behind `hashes`", order, wrong)?;
    let huge = |bundle: &mut Vec<u8>| resize(bundle, "hashes", "77777777777");
    cases.bytes("evb_malformed_size", "`hashes` claims 8 GiB", huge, wrong)?;
    let long = |bundle: &mut Vec<u8>| resize(bundle, "entries", "77777777777");
    cases.bytes("evb_malformed_entries_size", "`entries` claims 8 GiB", long, wrong)?;
    let mode = |bundle: &mut Vec<u8>| {
        let at = member(bundle, "entries");
        if let Some(header) = bundle.get_mut(at..at + 512) {
            header[104..107].copy_from_slice(b"644");
        }
        let size = entries_size(bundle);
        resize(bundle, "entries", &size);
    };
    cases.bytes("evb_malformed_mode", "a member has another mode", mode, wrong)?;
    let padding = |bundle: &mut Vec<u8>| {
        let at = member(bundle, "checkpoint") - 1;
        if let Some(byte) = bundle.get_mut(at) {
            *byte = 1;
        }
    };
    cases.bytes("evb_malformed_padding", "what fills a block is not zero", padding, wrong)?;
    let space = |bundle: &mut Vec<u8>| replace_once(bundle, b"\"heads\":[10]", b"\"heads\":[9] ");
    cases.bytes("evb_malformed_manifest", "a space in the manifest", space, wrong)?;
    let zero = |bundle: &mut Vec<u8>| replace_once(bundle, b"\"heads\":[10]", b"\"heads\":[32]");
    cases.bytes("evb_malformed_head", "a head that is not below the checkpoint", zero, wrong)?;
    let version = |bundle: &mut Vec<u8>| replace_once(bundle, b"\"version\":1", b"\"version\":2");
    cases.bytes("evb_malformed_version", "another version", version, wrong)?;
    let line = |bundle: &mut Vec<u8>| replace_once(bundle, b"\"oflags\":0", b"\"oflags\": ");
    cases.bytes("evb_malformed_entry", "an entry is not in the one permitted form", line, wrong)?;
    let joined = |bundle: &mut Vec<u8>| replace_once(bundle, b"}\n{\"v\":1,\"i\":15", b"} {\"v\":1,\"i\":15");
    cases.bytes("evb_malformed_line", "two entries on one line", joined, wrong)?;
    let back = |bundle: &mut Vec<u8>| replace_once(bundle, b"{\"v\":1,\"i\":15,", b"{\"v\":1,\"i\":11,");
    cases.bytes("evb_malformed_order", "an entry says that it stands before the one before", back, wrong)?;
    cases.chosen("evb_malformed_missing_hashes", "too few hashes", |_| {}, &[])?;
    if let Some(case) = cases.0.last_mut()
        && let Some(bundle) = &mut case.bundle
    {
        let at = member(bundle, "hashes");
        let size = bundle.get(at + 124..at + 135).map(String::from_utf8_lossy).map(String::from).unwrap_or_default();
        let fewer = u64::from_str_radix(&size, 8)? - 32;
        let fill = (at + 512 + usize::try_from(fewer)?, member(bundle, "entries"));
        resize(bundle, "hashes", &format!("{fewer:011o}"));
        if let Some(rest) = bundle.get_mut(fill.0..fill.1) {
            rest.fill(0);
        }
        let block = usize::try_from(fewer)?.div_ceil(512) * 512 + at + 512;
        bundle.drain(block..fill.1);
        (case.exit, case.findings) = (1, wrong.to_vec());
    }
    let log = Two::whole()?;
    let garbage = b"not a bundle".to_vec();
    cases.evb("evb_garbage", "not a bundle at all", garbage, Some(log.trust()?), &[])?;
    if let Some(case) = cases.0.last_mut() {
        case.exit = 2;
    }
    Ok(())
}

/// The size of `entries` as its header has it.
fn entries_size(bundle: &[u8]) -> String {
    let at = member(bundle, "entries") + 124;
    bundle.get(at..at + 11).map(|digits| String::from_utf8_lossy(digits).into_owned()).unwrap_or_default()
}
