//! The sink against a log that grows, files that fail, and restarts at every point.

use std::collections::BTreeSet;
use std::fs;

use agent_evidence::record::ActMarks;
use serde_json::Value;

use super::*;
use crate::export::ocsf::tests as records;
use crate::export::sealed::testlog;

struct Place {
    directory: tempfile::TempDir,
    log: records::Writer,
    session: u64,
}

impl Place {
    /// A log with a workload, a session and one exec in it.
    fn new() -> Self {
        let mut log = records::Writer::default();
        let workload = log.push(None, records::workload());
        let session = log.push_in(None, Some(workload), None, records::issued());
        log.push_in(Some(records::SHELL), Some(0), Some(session), records::exec(b"/bin/sh", b"sh\0"));
        Self { directory: tempfile::tempdir().unwrap(), log, session }
    }

    fn open_files(&mut self, count: usize) {
        for n in 0..count {
            let path = format!("/data/{n}");
            let body = records::open(Some(path.as_bytes()), None, ActMarks::NONE);
            self.log.push_in(Some(records::SHELL), Some(0), Some(self.session), body);
        }
    }

    fn seal(&self, size: u64) {
        testlog::write(&self.directory.path().join("log"), records::ORIGIN, &self.log.entries, size);
    }

    fn seal_all(&self) {
        self.seal(self.log.entries.len() as u64);
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("events.ndjson")
    }

    fn sink(&self) -> OcsfFileSink {
        let root = self.directory.path();
        OcsfFileSink::open(root.join("log"), &root.join("cursors"), self.file()).unwrap()
    }

    fn drain(&self, sink: &mut OcsfFileSink) {
        while sink.turn().unwrap() == Turn::More {}
    }

    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.file()).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn indices(&self) -> Vec<u64> {
        self.events().iter().map(|event| event["metadata"]["sequence"].as_u64().unwrap()).collect()
    }
}

#[test]
fn every_sealed_act_is_one_event_in_order_and_nothing_unsealed_is() {
    let mut place = Place::new();
    place.open_files(5000);
    place.seal(4000);
    let mut sink = place.sink();
    place.drain(&mut sink);
    assert_eq!(place.indices(), (2..4000).collect::<Vec<_>>());
    assert_eq!((sink.status().sent, sink.status().filtered, sink.status().lag_entries), (3998, 2, 0));
    place.seal_all();
    place.drain(&mut sink);
    assert_eq!(place.indices(), (2..5003).collect::<Vec<_>>());
}

#[test]
fn a_restart_goes_on_where_the_cursor_stands_and_knows_what_came_before() {
    let mut place = Place::new();
    place.seal_all();
    place.drain(&mut place.sink());
    place.open_files(3);
    place.seal_all();
    place.drain(&mut place.sink());
    assert_eq!(place.indices(), [2, 3, 4, 5]);
    let last = place.events().pop().unwrap();
    assert_eq!(last["actor"]["process"]["path"], "/bin/sh");
    assert_eq!(last["actor"]["session"]["uid"], "s1");
    assert_eq!(last["unmapped"]["affiant"]["join"]["process"], "known");
}

#[test]
fn a_crash_between_the_file_and_the_cursor_repeats_events_and_loses_none() {
    let mut place = Place::new();
    place.seal_all();
    place.drain(&mut place.sink());
    let cursor = place.directory.path().join("cursors").join(NAME);
    let before = fs::read(&cursor).unwrap();
    place.open_files(3);
    place.seal_all();
    place.drain(&mut place.sink());
    // The cursor's write never happened.
    fs::write(&cursor, before).unwrap();
    place.drain(&mut place.sink());
    assert_eq!(place.indices(), [2, 3, 4, 5, 3, 4, 5]);
    let distinct: BTreeSet<String> = place.events().iter().map(|event| event["metadata"]["uid"].to_string()).collect();
    assert_eq!(distinct.len(), 4, "what is sent twice carries the same id");
}

#[test]
fn a_line_torn_by_a_crash_is_cut_off_and_sent_again() {
    let mut place = Place::new();
    place.seal_all();
    place.drain(&mut place.sink());
    let mut file = OpenOptions::new().append(true).open(place.file()).unwrap();
    file.write_all(b"{\"activity_id\":14,\"act").unwrap();
    place.open_files(1);
    place.seal_all();
    place.drain(&mut place.sink());
    assert_eq!(place.indices(), [2, 3]);
}

#[test]
fn a_file_that_cannot_be_written_holds_the_cursor_and_is_reported_until_it_can() {
    let mut place = Place::new();
    place.open_files(1);
    place.seal_all();
    let mut sink = place.sink();
    // A directory in its place: no user, root included, can append to it.
    fs::create_dir(place.file()).unwrap();
    for failures in 1..=2 {
        assert!(matches!(sink.turn(), Err(SinkError::File { step: "open", .. })));
        let status = sink.status();
        assert_eq!((status.failures, status.lag_entries, status.next_entry), (failures, 4, 0));
        assert!(status.fault.unwrap().contains("cannot open"));
    }
    fs::remove_dir(place.file()).unwrap();
    place.drain(&mut sink);
    assert_eq!(place.indices(), [2, 3]);
    assert_eq!(sink.status().fault, None);
}

#[test]
fn a_cursor_that_cannot_be_kept_does_not_repeat_what_is_in_the_file() {
    let mut place = Place::new();
    place.open_files(1);
    place.seal_all();
    let mut sink = place.sink();
    // Its temporary file cannot be made where a directory stands.
    let obstacle = place.directory.path().join("cursors").join(NAME).with_extension("tmp");
    fs::create_dir(&obstacle).unwrap();
    for _ in 0..2 {
        assert!(matches!(sink.turn(), Err(SinkError::Cursor(_))));
    }
    fs::remove_dir(&obstacle).unwrap();
    place.drain(&mut sink);
    assert_eq!(place.indices(), [2, 3]);
}

#[test]
fn a_full_device_takes_back_what_did_not_fit() {
    let mut place = Place::new();
    place.open_files(1);
    place.seal_all();
    std::os::unix::fs::symlink("/dev/full", place.file()).unwrap();
    let mut sink = place.sink();
    assert!(matches!(sink.turn(), Err(SinkError::File { .. })));
    assert_eq!(sink.status().next_entry, 0);
}

#[test]
fn a_file_rotated_by_rename_is_made_anew() {
    let mut place = Place::new();
    place.seal_all();
    let mut sink = place.sink();
    place.drain(&mut sink);
    let rotated = place.file().with_extension("1");
    #[expect(clippy::disallowed_methods, reason = "a rotation does not wait for the disk")]
    fs::rename(place.file(), rotated).unwrap();
    place.open_files(1);
    place.seal_all();
    place.drain(&mut sink);
    assert_eq!(place.indices(), [3]);
}

#[test]
fn a_log_shorter_than_the_cursor_is_a_fault_and_a_new_log_starts_over() {
    let mut place = Place::new();
    place.open_files(1);
    place.seal_all();
    let mut sink = place.sink();
    place.drain(&mut sink);
    place.seal(2);
    assert!(matches!(sink.turn(), Err(SinkError::Ahead { next: 4, size: 2, .. })));
    testlog::write(&place.directory.path().join("log"), "another", &place.log.entries, 4);
    place.drain(&mut sink);
    assert_eq!(place.events().last().unwrap()["metadata"]["uid"], "another#3");
}

#[test]
fn a_running_sink_sends_what_was_sealed_before_it_stops() {
    let mut place = Place::new();
    place.open_files(10);
    place.seal_all();
    let running = Running::start(place.sink()).unwrap();
    running.stop();
    assert_eq!(place.indices().len(), 11);
}
