//! The cases of `tests/vectors` with a prefix that was pruned: what is kept of it stands in `kept/`.

use agent_evidence::kept::{self, Item, Kept, KeptWriter};
use agent_evidence::packed;
use agent_evidence::record::{Disclosure, Kind, Label, Pruned, Value, decode};
use agent_evidence::tree::{TILE_WIDTH, leaf_hash};

use super::*;

/// A log whose first bundle can go.
struct Long {
    log: Builder,
    /// The session that is put on hold.
    held: EntryIndex,
    /// First entry of the last statement before the second bundle.
    statement: usize,
}

/// What differs from log to log.
#[derive(Default)]
struct Change {
    /// The session `s-2` is on hold.
    hold: bool,
    /// `first` of the `pruned` entry, instead of 256; none without one.
    first: Option<Option<u64>>,
    /// By how much `kept` is wrong.
    kept: u64,
    /// The number that is on its way at the boundary never arrives.
    late: bool,
    /// After the boundary a number is left out.
    hole: bool,
    /// An entry of `s-1`, which goes, and one of `s-2` have committed values.
    values: bool,
    /// Put in before the second bundle's last entries.
    after: Option<fn(&mut Story)>,
}

/// Which entries are kept for their kind.
fn by_kind(entry: &[u8]) -> bool {
    let Ok(record) = decode(entry) else { return false };
    let kind = record.body().kind();
    kind.is_control() || matches!(kind, Kind::Issued | Kind::Revoked | Kind::Workload | Kind::Process)
}

/// The first 256 entries: sessions `s-1`, which goes on after them, `s-2`, which ended, and `s-3`, of which nothing but beginning and end
/// is told; acts of the host; two statements. Then what comes after: a number that was on its way, the `pruned` entry, the end of `s-1`.
fn long(change: &Change) -> Result<Long, BuildError> {
    let mut story = Story::begin()?;
    let workload = story.workload;
    let held = other_session(&mut story, "s-2", 3);
    if change.hold {
        let by = Requester { process: None, tgid: 9, uid: 0, gid: 0 };
        story.log.append(Body::Hold(Hold { session: held, on: true, reason: "case 7".into(), by }));
    }
    if change.values {
        committed(&mut story, "/home/ada/gone", None)?;
        committed(&mut story, "/home/ada/kept", Some(workload))?;
    }
    for _ in 0..20 {
        story.act(open(b"/home/ada/data"), Class::File);
    }
    story.heartbeat();
    other_session(&mut story, "s-3", 0);
    while story.log.entries.len() < 200 {
        story.log.event(open(b"/usr/lib/x86_64-linux-gnu/libc.so.6"), Class::File, None);
    }
    let late = story.log.number(0, Class::File);
    while story.log.entries.len() < 240 {
        story.log.event(open(b"/usr/lib/x86_64-linux-gnu/libc.so.6"), Class::File, None);
    }
    // Numbers from the late one on are not settled; those of the entries since are in entries that go.
    let mut heartbeat = story.log.heartbeat(&[story.session]);
    if let List::Owned(rows) = &mut heartbeat.counters {
        for row in rows.iter_mut().filter(|row| row.class == Class::File) {
            row.settled = late.seq;
        }
    }
    let statement = story.log.entries.len();
    story.log.append(Body::Heartbeat(heartbeat));
    while story.log.entries.len() < 258 {
        story.act(open(b"/home/ada/data"), Class::File);
    }
    if !change.late {
        let draft = story.draft(open("/tmp/später".as_bytes()), Some(late));
        story.log.append_draft(&draft, |_| {});
    }
    story.heartbeat();
    let kept = story.log.entries.iter().take(256).filter(|entry| by_kind(entry)).count() as u64;
    if let Some(first) = change.first.unwrap_or(Some(256)) {
        story.log.append(pruned(first, kept.saturating_add(change.kept)));
    }
    if change.hole {
        story.log.number(0, Class::File);
    }
    if let Some(put) = change.after {
        put(&mut story);
    }
    story.heartbeat();
    story.act(exit(), Class::Process);
    end(&mut story);
    Ok(Long { log: story.log, held, statement })
}

/// An open whose path is committed, or a workload with a committed label.
fn committed(story: &mut Story, text: &'static str, label: Option<EntryIndex>) -> Result<(), BuildError> {
    let field = if label.is_some() { "workload.labels.0.1" } else { "open.path" };
    let line = Disclosure { field: field.into(), salt: [7; 16], text: text.into() };
    let value = Value::Committed(line.commitment());
    let index = match (label, Builder::workload(), open(b"")) {
        (Some(_), Body::Workload(mut body), _) => {
            body.labels = vec![Label { name: "app".into(), value }].into();
            story.log.append(Body::Workload(body))
        }
        (_, _, Body::Open(mut body)) => {
            body.path = Some(value);
            story.act(Body::Open(body), Class::File)
        }
        _ => return Ok(()),
    };
    let mut bytes = Vec::new();
    line.encode(index, &mut bytes);
    story.log.values.push((index, bytes));
    Ok(())
}

fn pruned(first: u64, kept: u64) -> Body<'static> {
    Body::Pruned(Pruned { first: TreeSize(first), kept, rule: "keep 90 days".into(), by: None })
}

/// A session with so many opens, begun and ended.
fn other_session(story: &mut Story, id: &'static str, opens: u64) -> EntryIndex {
    let Body::Issued(body) = issued() else { return EntryIndex(0) };
    let session = story.log.append(Body::Issued(Issued { id: id.into(), ..body }));
    for _ in 0..opens {
        story.log.event(open(b"/home/ada/case"), Class::File, Some(session));
    }
    let state = story.log.session(session);
    let acts = (opens > 0).then_some(KindCount { kind: Kind::Open, count: opens });
    let revoked = Revoked {
        id: id.into(),
        acts: acts.into_iter().collect::<Vec<_>>().into(),
        entries: state.number.0 + 1,
        hash: state.hash,
        ..story.revoked()
    };
    let draft = Draft { session: Some(session), ..story.log.draft(Body::Revoked(revoked)) };
    story.log.append_draft(&draft, |_| {});
    session
}

/// The end of `s-1`, whose acts are counted, and of the run.
fn end(story: &mut Story) {
    let mut counts: Vec<KindCount> = Vec::new();
    for entry in &story.log.entries {
        let Ok(record) = decode(entry) else { continue };
        let kind = record.body().kind();
        if record.draft.session != Some(story.session) || !kind.is_kernel_event() {
            continue;
        }
        match counts.iter_mut().find(|row| row.kind == kind) {
            Some(row) => row.count += 1,
            None => counts.push(KindCount { kind, count: 1 }),
        }
    }
    story.revoke(|revoked| revoked.acts = counts.into());
    story.disarm();
}

/// Prunes the first bundles: entries stay for which `keep` says so.
fn prune(files: &mut Files, log: &Builder, bundles: usize, keep: impl Fn(usize, &[u8]) -> bool) {
    let mut writer = KeptWriter::new();
    for (number, entries) in log.entries.chunks(TILE_WIDTH).take(bundles).enumerate() {
        files.0.remove(&format!("tile/entries/{number:03}"));
        files.0.remove(&format!("tile/0/{number:03}"));
        let items = entries.iter().enumerate().map(|(place, entry)| {
            if keep(number * TILE_WIDTH + place, entry) {
                Item::Entry(entry)
            } else {
                Item::Withheld { height: 0, hash: leaf_hash(entry).0 }
            }
        });
        if writer.bundle(items).is_err() {
            return;
        }
    }
    if let Ok(file) = writer.finish(6) {
        files.0.insert(kept::path(0), file);
    }
}

impl Long {
    /// Whether an honest writer keeps an entry.
    fn keeps(&self, index: usize, entry: &[u8], held: bool) -> bool {
        let of_held = || decode(entry).is_ok_and(|record| record.draft.session == Some(self.held));
        by_kind(entry) || index >= self.statement || (held && of_held())
    }

    /// Its files with the first bundle pruned, but for entries that are left out too.
    fn pruned(&self, held: bool, omit: impl Fn(usize, &[u8]) -> bool) -> Result<Files, BuildError> {
        let mut files = self.log.files()?;
        let keep = |index: usize, entry: &[u8]| self.keeps(index, entry, held) && !omit(index, entry);
        prune(&mut files, &self.log, 1, keep);
        Ok(files)
    }

    /// The first entry of this kind.
    fn first(&self, kind: Kind) -> usize {
        let is = |entry: &Vec<u8>| decode(entry).is_ok_and(|record| record.body().kind() == kind);
        self.log.entries.iter().position(is).unwrap_or(usize::MAX)
    }
}

pub(super) fn pruned_logs(cases: &mut Cases) -> Result<(), BuildError> {
    in_order(cases)?;
    recorded(cases)?;
    omitted(cases)?;
    went_on(cases)?;
    files_malformed(cases)?;
    heads(cases)
}

fn none(_: usize, _: &[u8]) -> bool {
    false
}

fn in_order(cases: &mut Cases) -> Result<(), BuildError> {
    let log = long(&Change::default())?;
    let trust = || log.log.trust().map(Some);
    cases.add("pruned", "nothing: the first bundle is pruned", log.pruned(false, none)?, trust()?, &[])?;
    cases.add("pruned_later", "nothing: it may be pruned, and is not yet", log.log.files()?, trust()?, &[])?;
    let more = log.pruned(true, none)?;
    cases.add("pruned_more_kept", "nothing: a session is kept that need not be", more, trust()?, &[])?;
    let mut both = log.pruned(false, |index, _| index == 3)?;
    let plain = log.log.files()?;
    let bundle = plain.0.get("tile/entries/000").cloned().unwrap_or_default();
    both.0.insert(packed::path(0), packed::join(&[packed::pack(&bundle, 6)?])?);
    cases.add(
        "kept_and_packed",
        "a packed segment goes before what is kept, which leaves an entry out",
        both,
        trust()?,
        &[],
    )?;
    let mut both = log.pruned(false, |index, _| index == 3)?;
    both.0.extend(plain.0.into_iter().filter(|(path, _)| path.starts_with("tile/")));
    cases.add(
        "kept_and_plain",
        "a plain bundle goes before what is kept, which leaves an entry out",
        both,
        trust()?,
        &[],
    )?;
    let mut tile = log.pruned(false, none)?;
    tile.0.insert("tile/0/000".to_owned(), vec![0; 100]);
    cases.add("kept_and_tile", "a level-0 tile beside what is kept is ignored", tile, trust()?, &[])?;
    let held = long(&Change { hold: true, ..Change::default() })?;
    let files = held.pruned(true, none)?;
    cases.add("pruned_held", "nothing: a session on hold is kept", files, Some(held.log.trust()?), &[])?;
    let (log, files) = twice(true)?;
    cases.add("pruned_twice", "nothing: pruned again, when a hold had ended", files, Some(log.trust()?), &[])?;
    let log = long(&Change { values: true, ..Change::default() })?;
    let trust = log.log.trust()?;
    let files = log.pruned(true, none)?;
    let what = "nothing: the sidecar has a line for an entry that is gone";
    cases.add("pruned_values", what, files, Some(trust.clone()), &[])?;
    let mut files = log.pruned(true, none)?;
    replace_once(file(&mut files, "sidecar/000"), b"/home/ada/kept", b"/home/ada/else");
    let what = "the text of an entry that is kept was changed";
    cases.add("pruned_value_wrong", what, files, Some(trust), &["commitment_wrong"])
}

/// Two bundles pruned one after the other; the session `s-2` is on hold while the first goes, and then no longer, or still is.
fn twice(released: bool) -> Result<(Builder, Files), BuildError> {
    let mut story = Story::begin()?;
    let held = other_session(&mut story, "s-2", 3);
    let hold = |on| {
        let by = Requester { process: None, tgid: 9, uid: 0, gid: 0 };
        Body::Hold(Hold { session: held, on, reason: "case 7".into(), by })
    };
    story.log.append(hold(true));
    let mut statement = 0;
    for bundle in 1..=2_u64 {
        while (story.log.entries.len() as u64) < 256 * bundle - 3 {
            story.act(open(b"/home/ada/data"), Class::File);
        }
        statement = story.log.entries.len();
        story.heartbeat();
        while (story.log.entries.len() as u64) < 256 * bundle + 1 {
            story.act(open(b"/home/ada/data"), Class::File);
        }
        if bundle == 2 && released {
            story.log.append(hold(false));
        }
        let before = usize::try_from(256 * bundle).unwrap_or(0);
        let kept = story.log.entries.iter().take(before).filter(|entry| by_kind(entry)).count();
        story.log.append(pruned(256 * bundle, kept as u64));
    }
    story.heartbeat();
    end(&mut story);
    let mut files = story.log.files()?;
    prune(&mut files, &story.log, 2, |index, entry| by_kind(entry) || index >= statement);
    Ok((story.log, files))
}

fn recorded(cases: &mut Cases) -> Result<(), BuildError> {
    let unrecorded = &["pruned_unrecorded"];
    for (name, what, first, findings) in [
        ("pruned_unrecorded", "the first bundle is pruned without a word", None, unrecorded),
        ("pruned_unrecorded_first", "what says so is not at the end of a bundle", Some(255), unrecorded),
        ("pruned_unrecorded_later", "what says so is of entries after it", Some(512), unrecorded),
        ("pruned_unrecorded_less", "what says so is of no entry", Some(0), unrecorded),
    ] {
        let log = long(&Change { first: Some(first), ..Change::default() })?;
        cases.add(name, what, log.pruned(false, none)?, Some(log.log.trust()?), findings)?;
    }
    let mut beyond = long(&Change::default())?;
    while beyond.log.entries.len() < 512 {
        let heartbeat = beyond.log.heartbeat(&[]);
        beyond.log.append(Body::Gap(Gap {
            cause: GapCause::RingFull,
            capture_id: heartbeat.capture_id,
            ranges: List::default(),
            count: 0,
            shares: List::default(),
            from: None,
            to: None,
        }));
    }
    let mut files = beyond.log.files()?;
    let keep = |index: usize, entry: &[u8]| beyond.keeps(index, entry, false) && index != 257;
    prune(&mut files, &beyond.log, 2, keep);
    let findings = &["pruned_unrecorded"];
    cases.add(
        "pruned_unrecorded_beyond",
        "an entry is gone that no word is of",
        files,
        Some(beyond.log.trust()?),
        findings,
    )
}

fn omitted(cases: &mut Cases) -> Result<(), BuildError> {
    let log = long(&Change::default())?;
    let trust = || log.log.trust().map(Some);
    let omit = |kind| {
        let at = log.first(kind);
        log.pruned(false, move |index, _| index == at)
    };
    let findings = &["control_number_wrong", "kept_omitted"];
    cases.add("kept_omitted_control", "a control entry was left out", omit(Kind::Scope)?, trust()?, findings)?;
    let at = log.first(Kind::Heartbeat);
    let short = log.pruned(false, |index, _| index == at + 1 || index == at + 2)?;
    cases.add("kept_omitted", "beginning and end of a session were left out", short, trust()?, &["kept_omitted"])?;
    let findings = &["genesis_missing", "control_number_wrong", "kept_omitted"];
    cases.add("kept_omitted_genesis", "the first entry was left out", omit(Kind::Genesis)?, trust()?, findings)?;
    let place = log.pruned(false, |index, _| index == log.statement + 1)?;
    let findings = &["kept_omitted"];
    cases.add("kept_omitted_place", "an entry after the last statement was left out", place, trust()?, findings)?;
    let fewer = long(&Change { kept: 1, ..Change::default() })?;
    let files = fewer.pruned(false, none)?;
    cases.add(
        "kept_omitted_count",
        "more entries should be kept than are",
        files,
        Some(fewer.log.trust()?),
        findings,
    )?;
    let held = long(&Change { hold: true, ..Change::default() })?;
    let files = held.pruned(true, |index, _| index as u64 == held.held.0 + 2)?;
    cases.add(
        "kept_omitted_held",
        "an entry of a session on hold was left out",
        files,
        Some(held.log.trust()?),
        findings,
    )?;
    let (twice, files) = twice(false)?;
    cases.add("kept_omitted_held_still", "a session still on hold was pruned", files, Some(twice.trust()?), findings)
}

fn went_on(cases: &mut Cases) -> Result<(), BuildError> {
    let mut add = |name: &str, what, change: &Change, findings: &[&'static str]| {
        let log = long(change)?;
        cases.add(name, what, log.pruned(false, none)?, Some(log.log.trust()?), findings)
    };
    let lost = Change { late: true, ..Change::default() };
    add("pruned_number_at_edge", "nothing: a number may be of an entry that is gone", &lost, &[])?;
    let hole = Change { hole: true, ..Change::default() };
    add("pruned_number_hole", "a number after the pruned part is missing", &hole, &["number_hole"])?;
    let wrong: fn(&mut Story) = |story| {
        let mut heartbeat = story.log.heartbeat(&[story.session]);
        if let List::Owned(rows) = &mut heartbeat.sessions
            && let Some(row) = rows.first_mut()
        {
            row.number.0 += 1;
        }
        story.log.append(Body::Heartbeat(heartbeat));
    };
    let states = Change { after: Some(wrong), ..Change::default() };
    add("pruned_session_wrong", "a session that was pruned goes on otherwise", &states, &["session_hash_wrong"])?;
    let skips: fn(&mut Story) = |story| {
        let secret = SecretUse { of: EntryIndex(8), sort: SecretSort::Ssh, rule: "*.pem".into() };
        let draft = story.draft(Body::Secret(secret), None);
        story.log.append_draft(&draft, |placement| {
            if let Some(number) = &mut placement.session_number {
                number.0 += 1;
            }
        });
    };
    let numbers = Change { after: Some(skips), ..Change::default() };
    let findings = ["session_number_wrong", "session_hash_wrong", "session_number_wrong"];
    add("pruned_session_number_wrong", "a session that was pruned skips a number", &numbers, &findings)
}

fn files_malformed(cases: &mut Cases) -> Result<(), BuildError> {
    let log = long(&Change::default())?;
    let missing = &["tile_missing", "bundle_missing", "kept_malformed"];
    let items = |items: &[u8]| [kept::MAGIC, &[0, 1], &miniz_oxide::deflate::compress_to_vec_zlib(items, 6)].concat();
    let hash = |height: u8| [&[0, 0, height][..], &[7; 32]].concat();
    let whole = log.pruned(false, none)?.0.remove("kept/000").unwrap_or_default();
    for (name, what, file) in [
        ("kept_malformed", "two hashes stand where one would do", items(&hash(7).repeat(2))),
        (
            "kept_malformed_unaligned",
            "a hash stands where no subtree begins",
            items(&[&[0, 1, b'x'][..], &hash(1)].concat()),
        ),
        ("kept_malformed_height", "a hash is of more than a bundle", items(&hash(9))),
        ("kept_malformed_item", "it ends within an item", items(&hash(8)[..34])),
        ("kept_malformed_longer", "it has more than its bundles", items(&hash(8).repeat(2))),
        (
            "kept_malformed_cut",
            "the last byte was removed",
            whole.split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default(),
        ),
        ("kept_malformed_trailing", "a byte was added", [whole.clone(), vec![0]].concat()),
        ("kept_malformed_empty", "it has no bundle", [kept::MAGIC, &[0, 0]].concat()),
        ("kept_malformed_version", "it is of another version", {
            let mut file = whole.clone();
            replace_once(&mut file, b"v1", b"v2");
            file
        }),
    ] {
        let mut files = log.pruned(false, none)?;
        files.0.insert(kept::path(0), file);
        cases.add(name, what, files, Some(log.log.trust()?), missing)?;
    }
    let mut gone = log.pruned(false, none)?;
    gone.0.remove("kept/000");
    cases.add("kept_removed", "what was kept was removed", gone, Some(log.log.trust()?), &missing[..2])?;
    let mut altered = log.pruned(false, none)?;
    let file = Kept::parse(&whole)?;
    let items: Vec<(Vec<u8>, Item<'_>)> =
        file.bundle(0).into_iter().flat_map(|bundle| bundle.items()).map(|(_, item)| (Vec::new(), item)).collect();
    let mut edited: Vec<Vec<u8>> = items
        .iter()
        .map(|(_, item)| match item {
            Item::Entry(bytes) => bytes.to_vec(),
            Item::Withheld { .. } => Vec::new(),
        })
        .collect();
    for entry in &mut edited {
        replace_once(entry, b"\"host_classes\":1", b"\"host_classes\":2");
    }
    let mut writer = KeptWriter::new();
    writer.bundle(items.iter().zip(&edited).map(|((_, item), bytes)| match item {
        Item::Entry(_) => Item::Entry(bytes),
        withheld => *withheld,
    }))?;
    altered.0.insert(kept::path(0), writer.finish(6)?);
    let findings = &["previous_mismatch", "equivocation", "tile_differs", "root_mismatch"];
    cases.add("kept_altered", "an entry that is kept was edited", altered, Some(log.log.trust()?), findings)
}

/// Heads of the trust file within what is pruned.
fn heads(cases: &mut Cases) -> Result<(), BuildError> {
    let log = long(&Change::default())?;
    let mut early = long(&Change::default())?.log;
    early.entries.truncate(101);
    let head = early.checkpoint().map(|checkpoint| Head { size: checkpoint.size, root: checkpoint.root })?;
    let mut trust = log.log.trust()?;
    trust.heads.insert(0, head);
    cases.add(
        "pruned_head",
        "nothing: a head within what is pruned, and a later one",
        log.pruned(false, none)?,
        Some(trust.clone()),
        &[],
    )?;
    let mut witnessed = log.log.trust()?;
    let witness = FixedSigner::new("witness.example/1", 11)?;
    witnessed.believe(&format!("witness w1 {}\nquorum w1\n", witness.witness_key()))?;
    witnessed.required.push(Claim::NonEquivocation);
    let mut cosigned = log.pruned(false, none)?;
    let (path, note) = early.cosigned(&witness, COSIGNED)?;
    cosigned.0.insert(path, note);
    let what = "a witness cosigned nothing but a size within what is pruned";
    cases.add("pruned_witnessed", what, cosigned, Some(witnessed), &["claim_not_proved"])?;
    let mut gone = log.pruned(false, none)?;
    gone.0.remove("checkpoint");
    let what = "the checkpoint of a pruned log was removed";
    cases.add("pruned_checkpoint_missing", what, gone, Some(log.log.trust()?), &["checkpoint_missing"])?;
    trust.heads.truncate(1);
    let findings = &["claim_not_proved"];
    cases.add(
        "pruned_head_alone",
        "the only head is within what is pruned",
        log.pruned(false, none)?,
        Some(trust),
        findings,
    )
}
