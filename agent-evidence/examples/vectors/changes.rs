//! The cases of `tests/vectors` with changes of files, whose claims got members after version 1 was frozen.

use agent_evidence::fixture::added_specimens;
use agent_evidence::record::{ChangeClaims, FileChange, FileOp};

use super::*;

/// Holds entries with the members that were added after version 1 was frozen.
pub(crate) const ADDED_ENTRIES_FILE: &str = "entries_added.jsonl";

/// What it holds: a word of each turn of [`agent_evidence::record::FileOp`].
pub(crate) fn added_entries() -> Vec<u8> {
    lines(added_specimens(26))
}

/// A rename by two directory descriptors, by what its caller said.
fn rename() -> FileChange<'static> {
    FileChange {
        op: FileOp::Rename,
        path: None,
        to: None,
        errno: Some(0),
        ino: None,
        dev: None,
        mode: None,
        mode_before: None,
        owner: None,
        group: None,
        size: None,
        nlink: None,
        attribute: None,
        tgid: 100,
        uid: 1000,
        euid: None,
        marks: ActMarks::NONE,
        claims: ChangeClaims {
            comm: "python3".into(),
            asked: Some("draft.txt".into()),
            asked_to: Some("../final.txt".into()),
            dir_fd: Some(3),
            to_dir_fd: Some(4),
        },
    }
}

/// Changes of files, with and without each of the claims that came after the freeze.
fn every_change(story: &mut Story) {
    for (claims, op) in (0..32_u32).zip(FileOp::ALL.iter().cycle()) {
        let whole = rename();
        let keep = |bit: u32| claims & 1 << bit != 0;
        let body = Body::FileChange(FileChange {
            op: *op,
            path: keep(4).then(|| "/home/ada/draft.txt".into()),
            errno: Some(if keep(3) { 13 } else { 0 }),
            claims: ChangeClaims {
                comm: "python3".into(),
                asked: whole.claims.asked.filter(|_| keep(0)),
                asked_to: whole.claims.asked_to.filter(|_| keep(1)),
                dir_fd: whole.claims.dir_fd.filter(|_| keep(2)),
                to_dir_fd: whole.claims.to_dir_fd.filter(|_| keep(3)),
            },
            ..rename()
        });
        let kernel = Some(story.log.number(0, Class::File));
        let draft = Draft { session: None, ..story.draft(body, kernel) };
        story.log.append_draft(&draft, |_| {});
    }
}

/// All in order, and the members that came after the freeze held to the same rules as the others.
pub(super) fn changes_of_files(cases: &mut Cases) -> Result<(), BuildError> {
    let changed = Story::with(every_change)?;
    cases.log("in_order_changes", "nothing: changes of files with what their callers said", &changed, &[])?;
    let edits: &[(&str, &'static str, &str, &str)] = &[
        (
            "order",
            "claims in another order",
            "\"asked\":\"draft.txt\",\"asked_to\":\"../final.txt\"",
            "\"asked_to\":\"../final.txt\",\"asked\":\"draft.txt\"",
        ),
        (
            "place",
            "a claim before `comm`",
            "\"comm\":\"python3\",\"asked\":\"draft.txt\"",
            "\"asked\":\"draft.txt\",\"comm\":\"python3\"",
        ),
        ("range", "a descriptor above the field's range", "\"to_dir_fd\":4", "\"to_dir_fd\":4294967296"),
        ("outside", "a claim beside `claims`", "\"tgid\":100", "\"asked\":\"draft.txt\",\"tgid\":100"),
    ];
    for (name, what, from, to) in edits {
        let mut log = Story::with(|story| {
            let kernel = Some(story.log.number(0, Class::File));
            let draft = Draft { session: None, ..story.draft(Body::FileChange(rename()), kernel) };
            story.log.append_draft(&draft, |_| {});
        })?;
        let entry = log.entries.iter_mut().find(|entry| String::from_utf8_lossy(entry).contains("file_change"));
        if let Some(entry) = entry {
            *entry = String::from_utf8_lossy(entry).replacen(from, to, 1).into_bytes();
        }
        let trust = log.trust()?;
        let findings = ["entry_malformed", "previous_mismatch"];
        cases.add(&format!("change_claims_{name}"), what, log.files()?, Some(trust), &findings)?;
    }
    Ok(())
}
