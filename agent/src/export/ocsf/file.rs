//! File System Activity (1001) for changes, closes, mappings and received descriptors.
//!
//! Owns which activity each is. What a caller asked for stands in the claims, never in `file`.

use agent_evidence::record::{self, ActMarks, Device, FileChange, FileClose, FileMap, FileOp, FileReceived};
use serde_json::{Value, json};

use super::{Activity, Event, activity, file_uid};

impl Event<'_, '_> {
    pub(super) fn file_change(&mut self, change: &FileChange<'_>) {
        self.file_activity(&change_activity(change.op));
        let file = self.file_of("file", change.path.as_ref(), change.mode, change.ino.zip(change.dev));
        self.put("file", file);
        if let Some(to) = &change.to {
            let result = self.file_of("file_result", Some(to), None, None);
            self.put("file_result", result);
        }
        self.status(change.errno);
        self.actor(change.tgid, change.uid, change.euid);
        self.affiant.insert("operation".into(), change.op.as_str().into());
        let after = [
            ("mode", change.mode.map(u64::from)),
            ("mode_before", change.mode_before.map(u64::from)),
            ("owner", change.owner.map(u64::from)),
            ("group", change.group.map(u64::from)),
            ("size", change.size),
            ("links", change.nlink.map(u64::from)),
        ];
        for (name, value) in after {
            if let Some(value) = value {
                self.affiant.insert(name.into(), value.into());
            }
        }
        if let Some(attribute) = &change.attribute {
            let attribute = self.text("attribute", attribute.as_bytes());
            self.affiant.insert("attribute".into(), attribute.into());
        }
        self.marks(change.marks);
        let claims = &change.claims;
        self.claim("comm", &claims.comm);
        for (name, value) in [("asked", &claims.asked), ("asked_to", &claims.asked_to)] {
            if let Some(text) = value.as_ref().and_then(record::Value::clear) {
                self.claim(name, text);
            }
        }
        for (name, value) in [("dir_fd", claims.dir_fd), ("to_dir_fd", claims.to_dir_fd)] {
            if let Some(value) = value {
                self.claims.insert(name.into(), value.into());
            }
        }
    }

    pub(super) fn file_close(&mut self, close: &FileClose<'_>) {
        self.file_activity(&activity(99, "Close"));
        self.known_file(close.path.as_ref(), close.ino, close.dev, close.marks);
        self.status(Some(0));
        self.actor(close.tgid, close.uid, close.euid);
        // Where totals were not counted, none are shown: zero would be one.
        if !close.marks.contains(ActMarks::TOTALS_PARTIAL) || close.read > 0 || close.written > 0 {
            self.affiant.insert("bytes_read".into(), close.read.into());
            self.affiant.insert("bytes_written".into(), close.written.into());
        }
        self.marks(close.marks);
        self.claim("comm", &close.claims.comm);
    }

    pub(super) fn file_map(&mut self, map: &FileMap<'_>) {
        self.file_activity(&activity(99, "Map"));
        self.known_file(map.path.as_ref(), map.ino, map.dev, map.marks);
        self.status(Some(0));
        self.actor(map.tgid, map.uid, map.euid);
        self.affiant.insert(
            "mapping".into(),
            json!({ "protection": map.prot, "names": protection_names(map.prot), "flags": map.flags }),
        );
        self.marks(map.marks);
        self.claim("comm", &map.claims.comm);
    }

    pub(super) fn file_received(&mut self, received: &FileReceived<'_>) {
        self.file_activity(&activity(99, "Receive"));
        self.known_file(received.path.as_ref(), received.ino, received.dev, received.marks);
        self.status(Some(0));
        self.actor(received.tgid, received.uid, received.euid);
        if let Some(sender) = received.sender {
            let sender = self.process_uid(sender.0);
            self.affiant.insert("sender".into(), sender.into());
        }
        self.marks(received.marks);
        self.claim("comm", &received.claims.comm);
    }

    fn file_activity(&mut self, activity: &Activity) {
        self.class((1, "System Activity"), (1001, "File System Activity"), activity);
    }

    fn known_file(&mut self, path: Option<&record::Value<'_>>, ino: u64, dev: Device, marks: ActMarks) {
        let identity = (!marks.contains(ActMarks::UNRESOLVED)).then_some((ino, dev));
        let file = self.file_of("file", path, None, identity);
        self.put("file", file);
    }

    fn file_of(
        &mut self,
        field: &str,
        path: Option<&record::Value<'_>>,
        mode: Option<u32>,
        identity: Option<(u64, Device)>,
    ) -> Value {
        let mut file = match path.and_then(record::Value::clear) {
            Some(path) => self.file(field, path.as_bytes(), mode),
            // OCSF requires a name. What the caller asked for is its claim and stays there.
            None => json!({ "name": "(not resolved)", "type_id": 0, "type": "Unknown" }),
        };
        if let (Some(file), Some((ino, dev))) = (file.as_object_mut(), identity) {
            file.insert("uid".into(), file_uid(dev.major, dev.minor, ino).into());
        }
        file
    }
}

fn change_activity(op: FileOp) -> Activity {
    match op {
        FileOp::Create | FileOp::Mkdir | FileOp::Symlink | FileOp::Link => activity(1, "Create"),
        FileOp::Truncate => activity(3, "Update"),
        FileOp::Unlink | FileOp::Rmdir => activity(4, "Delete"),
        FileOp::Rename | FileOp::Exchange => activity(5, "Rename"),
        FileOp::SetXattr | FileOp::RemoveXattr => activity(6, "Set Attributes"),
        FileOp::Chmod | FileOp::Chown => activity(7, "Set Security"),
    }
}

/// Names of `PROT_*` flags (include/uapi/asm-generic/mman-common.h).
fn protection_names(prot: u32) -> Vec<&'static str> {
    [(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")]
        .into_iter()
        .filter(|(bit, _)| prot & bit != 0)
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test may fail by panicking")]

    use agent_evidence::record::{Body, ChangeClaims, CommClaims, ProcessCookie};

    use super::super::tests::{SHELL, Writer};
    use super::*;

    const DISK: Device = Device { major: 8, minor: 1 };

    fn change(op: FileOp, path: Option<&'static str>, errno: Option<u32>) -> FileChange<'static> {
        FileChange {
            op,
            path: path.map(Into::into),
            to: None,
            errno,
            ino: path.map(|_| 42),
            dev: path.map(|_| DISK),
            mode: path.map(|_| 0o100_640),
            mode_before: None,
            owner: None,
            group: None,
            size: None,
            nlink: path.map(|_| 1),
            attribute: None,
            tgid: 4242,
            uid: 1000,
            euid: None,
            marks: ActMarks::NONE,
            claims: ChangeClaims {
                comm: "sh".into(),
                asked: path.is_none().then(|| "draft".into()),
                asked_to: path.is_none().then(|| "final".into()),
                dir_fd: path.is_none().then_some(3),
                to_dir_fd: path.is_none().then_some(4),
            },
        }
    }

    fn close(marks: ActMarks, path: Option<&'static str>) -> Body<'static> {
        Body::FileClose(FileClose {
            path: path.map(Into::into),
            ino: 42,
            dev: DISK,
            read: 0,
            written: 0,
            opened: None,
            tgid: 4242,
            uid: 1000,
            euid: Some(0),
            marks,
            claims: CommClaims { comm: "sh".into() },
        })
    }

    fn map(prot: u32) -> Body<'static> {
        Body::FileMap(FileMap {
            path: Some("/usr/lib/libc.so.6".into()),
            ino: 42,
            dev: DISK,
            prot,
            flags: 2,
            tgid: 4242,
            uid: 1000,
            euid: None,
            marks: ActMarks::NONE,
            claims: CommClaims { comm: "sh".into() },
        })
    }

    fn received() -> Body<'static> {
        Body::FileReceived(FileReceived {
            path: Some("/data/key".into()),
            ino: 42,
            dev: DISK,
            sender: Some(ProcessCookie(9)),
            tgid: 4242,
            uid: 1000,
            euid: None,
            marks: ActMarks::NONE,
            claims: CommClaims { comm: "sh".into() },
        })
    }

    /// A record of each kind and operation, well and ill.
    pub(in super::super) fn every_kind() -> Vec<Body<'static>> {
        let mut bodies: Vec<Body<'static>> = FileOp::ALL
            .iter()
            .flat_map(|op| {
                [change(*op, Some("/data/draft"), Some(0)), change(*op, None, Some(13)), change(*op, None, None)]
            })
            .map(Body::FileChange)
            .collect();
        bodies.extend([
            close(ActMarks::TOTALS_PARTIAL, Some("/data/out")),
            close(ActMarks::UNRESOLVED, None),
            map(5),
            received(),
        ]);
        bodies
    }

    fn event(body: Body<'_>) -> Value {
        let mut log = Writer::default();
        log.push(Some(SHELL), body);
        log.events().pop().unwrap().unwrap()
    }

    #[test]
    fn a_change_by_name_keeps_what_was_asked_for_among_the_claims() {
        let event = event(Body::FileChange(change(FileOp::Rename, None, Some(13))));
        assert_eq!((&event["type_uid"], &event["status_code"]), (&json!(100_105), &json!("EACCES")));
        assert_eq!(event["file"]["name"], "(not resolved)");
        let affiant = &event["unmapped"]["affiant"];
        let claims = json!({ "comm": "sh", "asked": "draft", "asked_to": "final", "dir_fd": 3, "to_dir_fd": 4 });
        assert_eq!((&affiant["operation"], &affiant["claims"]), (&json!("rename"), &claims));
        assert!(event.get("file_result").is_none());
    }

    #[test]
    fn a_change_by_descriptor_has_the_file_and_how_it_is_now() {
        let event = event(Body::FileChange(change(FileOp::Chmod, Some("/data/draft"), Some(0))));
        assert_eq!((&event["activity_name"], &event["status"]), (&json!("Set Security"), &json!("Success")));
        assert_eq!((&event["file"]["path"], &event["file"]["uid"]), (&json!("/data/draft"), &json!("8:1:42")));
        assert_eq!(event["unmapped"]["affiant"]["mode"], 0o100_640);
    }

    #[test]
    fn totals_that_were_not_counted_are_not_shown_as_zero() {
        let closed = event(close(ActMarks::TOTALS_PARTIAL, Some("/data/out")));
        assert_eq!((&closed["activity_id"], &closed["activity_name"]), (&json!(99), &json!("Close")));
        assert!(closed["unmapped"]["affiant"].get("bytes_written").is_none());
        let counted = event(close(ActMarks::NONE, Some("/data/out")));
        assert_eq!(counted["unmapped"]["affiant"]["bytes_written"], 0);
    }

    #[test]
    fn a_file_that_was_not_resolved_has_no_identity() {
        let closed = event(close(ActMarks::UNRESOLVED, None));
        assert_eq!((&closed["file"]["name"], closed["file"].get("uid")), (&json!("(not resolved)"), None));
    }

    #[test]
    fn a_mapping_names_its_protection() {
        let mapped = event(map(5));
        assert_eq!(mapped["unmapped"]["affiant"]["mapping"]["names"], json!(["PROT_READ", "PROT_EXEC"]));
    }
}
