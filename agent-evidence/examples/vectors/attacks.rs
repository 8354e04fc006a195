//! The cases of `tests/vectors` that are attacks by whoever has some of the keys, or the state directory: what the verifier
//! must find, or at least list as a window. Limits of trust files, and logs of a newer version, are here too.

use agent_evidence::note::NoteSigner;

use super::*;

/// A log whose run was cut off, with a second run after it.
fn continued_after(mut log: Builder, seed: u8) -> Result<Builder, BuildError> {
    log.next_epoch(seed, Succession::Orphan)?;
    let size = TreeSize(log.entries.len() as u64);
    log.append(Body::Recovered(Recovered { cause: RecoveryCause::Crash, size, replayed: 0, torn_bytes: 0 }));
    log.seqs.clear();
    log.capture = Id128([0xcb; 16]);
    if let Body::Armed(armed) = Builder::armed() {
        log.append(Body::Armed(Armed {
            capture_id: log.capture,
            boot_id: "00000000-0000-4000-8000-000000000002".into(),
            ..armed
        }));
    }
    log.event(exit(), Class::Process, None);
    let disarmed = log.disarmed();
    log.append(Body::Disarmed(disarmed));
    Ok(log)
}

/// The state directory as it was after 10 entries: what somebody copied then, or cut the log to.
fn early() -> Result<Builder, BuildError> {
    let mut story = Story::begin()?;
    story.heartbeat();
    Ok(story.log)
}

pub(super) fn attacks(cases: &mut Cases) -> Result<(), BuildError> {
    let whole = Story::begin()?.end();
    let known = whole.trust()?;

    let cut = continued_after(early()?, 7)?;
    let mut unknowing = known.clone();
    unknowing.heads = vec![Head { size: TreeSize(11), root: early()?.checkpoint()?.root }];
    cases.add(
        "attack_cut_as_crash",
        "the end of the log was removed and the agent started again as after a crash; nobody remembers what was removed",
        cut.files()?,
        Some(unknowing),
        &[],
    )?;
    cases.add(
        "attack_cut_as_crash_remembered",
        "the same, and the trust file remembers a head from before",
        cut.files()?,
        Some(known.clone()),
        &["head_mismatch"],
    )?;
    cases.add(
        "attack_cut_open_end",
        "the end of the log was removed within a run, by whoever has the keys; nobody remembers it",
        early()?.files()?,
        Some(early()?.trust()?),
        &[],
    )?;
    let mut rolled = early()?;
    rolled.append(Builder::workload());
    let disarmed = rolled.disarmed();
    rolled.append(Body::Disarmed(disarmed));
    cases.add(
        "attack_rolled_back",
        "the state directory with its keys was put back to an earlier time and went on from there",
        rolled.files()?,
        Some(known.clone()),
        &["log_truncated"],
    )?;
    let inserted = {
        let mut log = Story::begin()?.end();
        let draft = log.draft(Builder::workload());
        let mut other = Story::begin()?.log;
        other.append_draft(&draft, |_| {});
        if let Some(entry) = other.entries.pop() {
            log.entries.insert(10, entry);
        }
        log
    };
    cases.log(
        "attack_entry_inserted",
        "an entry was put in as entry 10, by whoever has the keys",
        &inserted,
        &["index_wrong", "previous_mismatch"],
    )?;
    keys(cases)?;
    names(cases)?;
    limits(cases)?;
    versions(cases)
}

/// Keys that are not those that must sign.
fn keys(cases: &mut Cases) -> Result<(), BuildError> {
    // Entry 8 is rewritten, with everything after it, by whoever had the log key and the key of epoch 0 only.
    let history = |path: &'static [u8]| -> Result<Builder, BuildError> {
        let mut story = Story::begin()?;
        story.act(open(path), Class::File);
        story.log.next_epoch(3, Succession::Continued)?;
        story.heartbeat();
        Ok(story.log)
    };
    let honest = history(b"/etc/shadow")?;
    let forged = history(b"/etc/motd")?;
    let old_key = FixedSigner::new(&format!("{ORIGIN}/epoch"), 2)?;
    let sign = |log: &Builder, signers: &[&dyn NoteSigner]| -> Result<Files, BuildError> {
        let mut files = log.files()?;
        *file(&mut files, "checkpoint") = log.checkpoint()?.sign(signers).into_bytes();
        Ok(files)
    };
    let mut early_trust = honest.trust()?;
    early_trust.heads.clear();
    cases.add(
        "attack_stolen_epoch_key",
        "an entry of epoch 0 was rewritten, and the head signed with the stolen key of epoch 0, which is over",
        sign(&forged, &[&forged.log_key, &old_key])?,
        Some(early_trust.clone()),
        &["checkpoint_unsigned"],
    )?;
    cases.add(
        "attack_epoch_key_alone",
        "the log was rewritten by whoever has the epoch key and not the log key",
        sign(&forged, &[&forged.epoch_key])?,
        Some(early_trust.clone()),
        &["checkpoint_unsigned"],
    )?;
    let mut short = history(b"/etc/shadow")?;
    short.entries.truncate(11);
    cases.add(
        "attack_epoch_key_early",
        "the log was cut to a size of epoch 0, and signed with the key of epoch 1",
        sign(&short, &[&short.log_key, &short.epoch_key])?,
        Some(early_trust),
        &["checkpoint_unsigned"],
    )?;
    let log = Story::begin()?.end();
    let stranger = FixedSigner::new("stranger.example/log", 9)?;
    let namesake = FixedSigner::new(ORIGIN, 9)?;
    cases.add(
        "in_order_unknown_signatures",
        "nothing: keys that nobody knows signed beside those that must, one of them under the name of the log",
        sign(&log, &[&stranger, &namesake, &log.log_key, &log.epoch_key])?,
        Some(log.trust()?),
        &[],
    )?;
    cases.add(
        "attack_unknown_signature",
        "only a key that nobody knows signed, under the name of the log",
        sign(&log, &[&namesake, &log.epoch_key])?,
        Some(log.trust()?),
        &["checkpoint_unsigned"],
    )?;
    let twice = log.checkpoint()?.sign(&[&log.log_key, &log.epoch_key]);
    let flipped = twice.lines().nth(4).map(flip_signature).unwrap_or_default();
    let mut files = log.files()?;
    *file(&mut files, "checkpoint") = format!("{twice}{flipped}\n").into_bytes();
    cases.add(
        "attack_signature_beside",
        "a second signature of the log key, which does not hold, stands beside the first",
        files,
        Some(log.trust()?),
        &["checkpoint_forged"],
    )?;
    Ok(())
}

/// The signature line with another signature of the same key: one digit within the signature is changed.
fn flip_signature(line: &str) -> String {
    let mut flipped: Vec<char> = line.chars().collect();
    let at = flipped.len().saturating_sub(10);
    if let Some(digit) = flipped.get_mut(at) {
        *digit = if *digit == 'A' { 'B' } else { 'A' };
    }
    flipped.into_iter().collect()
}

fn names(cases: &mut Cases) -> Result<(), BuildError> {
    let log = Story::begin()?.end();
    let other = "affiant.example/renamed";
    let mut checkpoint = log.checkpoint()?;
    checkpoint.origin = agent_evidence::note::KeyName::new(other)?;
    let (key, epoch) = (FixedSigner::new(other, 1)?, FixedSigner::new(&format!("{other}/epoch"), 2)?);
    let mut files = log.files()?;
    *file(&mut files, "checkpoint") = checkpoint.sign(&[&key, &epoch]).into_bytes();
    cases.add(
        "attack_origin_renamed",
        "the log was shown under another name, signed with the same keys under that name",
        files,
        Some(log.trust()?),
        &["genesis_wrong", "genesis_wrong", "checkpoint_unsigned", "origin_untrusted"],
    )
}

fn limits(cases: &mut Cases) -> Result<(), BuildError> {
    let log = continued_after(early()?, 7)?;
    let with = |change: &dyn Fn(&mut Limits)| -> Result<Trust, BuildError> {
        let mut trust = log.trust()?;
        change(&mut trust.limits);
        Ok(trust)
    };
    let trust = with(&|limits| {
        limits.largest_gap_seconds = Some(1);
        limits.largest_loss_events = Some(0);
        limits.accepted_not_covered = Some(vec!["io_uring opens".to_owned()]);
    })?;
    cases.add("in_order_limits", "nothing: the log keeps within the limits", log.files()?, Some(trust), &[])?;
    let trust = with(&|limits| limits.largest_gap_seconds = Some(0))?;
    let what = "the agent was not heard of for longer than allowed";
    cases.add("gap_too_long", what, log.files()?, Some(trust), &["gap_too_long"])?;
    let trust = with(&|limits| limits.accepted_not_covered = Some(Vec::new()))?;
    let what = "the agent does not capture what the trust file requires";
    cases.add("not_covered_unaccepted", what, log.files()?, Some(trust), &["not_covered_unaccepted"])?;
    let lossy = Story::with(|story| {
        let lost = story.log.number(0, Class::File).seq;
        story.log.append(gap(GapCause::RingFull, Class::File, lost, lost, 1));
    })?;
    let mut trust = lossy.trust()?;
    trust.limits.largest_loss_events = Some(0);
    cases.add("loss_too_large", "more was lost than allowed", lossy.files()?, Some(trust), &["loss_too_large"])
}

fn versions(cases: &mut Cases) -> Result<(), BuildError> {
    let newer = |entry: &mut Vec<u8>| {
        *entry = String::from_utf8_lossy(entry).replacen("{\"v\":1", "{\"v\":2", 1).into_bytes();
    };
    let mut log = Story::begin()?.end();
    log.entries.iter_mut().skip(8).for_each(newer);
    cases.log("version_newer", "the log goes on in a newer version of the format", &log, &[])?;
    if let Some(case) = cases.0.last_mut() {
        case.exit = 2;
    }
    let log = Story::begin()?.end();
    let edit = |files: &mut Files| {
        replace_once(file(files, "tile/entries/000.p/14"), b"{\"v\":1,\"i\":8", b"{\"v\":2,\"i\":8")
    };
    cases.damaged(
        "version_altered",
        "an entry was edited to look like one of a newer version",
        &log,
        edit,
        &["entry_altered", "entry_malformed"],
    )
}
