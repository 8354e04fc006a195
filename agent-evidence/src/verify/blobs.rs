//! Blobs that entries refer to: whether what stands under a digest is the content, and which of them is there.
//!
//! Owns: the references of all entries, each content once, in ascending order of digest, one in memory at a time. Whoever
//! looks into contents is handed each that is the one referred to, here and nowhere else. What they say is not judged here.
//!
//! A blob that is absent breaks no rule of the format (its entry still says which content it was), so it is a note; under the
//! strict rule, where nothing may be missing, it is a finding. What rests on an absent content must not be proved.

use std::collections::BTreeMap;

use crate::blob;
use crate::record::{Blob, Digest, EntryIndex, Record};

use super::finding::Finding;
use super::report::{Findings, Note, Notes};
use super::{Source, SourceError};

/// Most blobs that are followed: 64 bytes of memory each.
const BLOBS_MAX: usize = 1 << 18;

/// The blobs that the entries so far refer to, by digest and size, each with the first entry that does.
#[derive(Debug)]
pub(super) struct Blobs {
    awaited: BTreeMap<(Digest, u64), EntryIndex>,
    /// The first entry that refers to one too many.
    beyond: Option<EntryIndex>,
    strict: bool,
}

/// Whom to tell.
pub(super) struct Told<'a> {
    pub(super) findings: &'a mut Findings,
    pub(super) notes: &'a mut Notes,
}

impl Blobs {
    pub(super) fn new(strict: bool) -> Self {
        Self { awaited: BTreeMap::new(), beyond: None, strict }
    }

    /// Takes the references of the next entry.
    pub(super) fn entry(&mut self, record: &Record<'_>) {
        for Blob { sha256, size } in record.blobs() {
            if self.awaited.len() < BLOBS_MAX || self.awaited.contains_key(&(*sha256, *size)) {
                self.awaited.entry((*sha256, *size)).or_insert(record.index());
            } else {
                self.beyond.get_or_insert(record.index());
            }
        }
    }

    /// Reads every blob from a log, after all entries, and hands each content that is the one referred to to `visit`.
    pub(super) fn read(
        &mut self,
        source: &mut impl Source,
        told: &mut Told<'_>,
        visit: &mut dyn FnMut(Digest, &[u8]),
    ) -> Result<(), SourceError> {
        while let Some(digest) = self.next() {
            let content = source.read(&blob::path(&digest), blob::BLOB_BYTES_MAX)?;
            self.judge(digest, content.as_deref(), told, visit);
        }
        self.finish(told);
        Ok(())
    }

    /// Takes the next blob of a bundle, in ascending order; `false` when no entry refers to it. Those before it are absent.
    pub(super) fn member(
        &mut self,
        digest: Digest,
        content: &[u8],
        told: &mut Told<'_>,
        visit: &mut dyn FnMut(Digest, &[u8]),
    ) -> bool {
        while let Some(absent) = self.next().filter(|next| *next < digest) {
            self.judge(absent, None, told, visit);
        }
        let awaited = self.next() == Some(digest);
        if awaited {
            self.judge(digest, Some(content), told, visit);
        }
        // Of those that were too many to follow nothing is known.
        awaited || self.beyond.is_some()
    }

    /// What is left is absent.
    pub(super) fn finish(&mut self, told: &mut Told<'_>) {
        while let Some(absent) = self.next() {
            self.judge(absent, None, told, &mut |_, _| {});
        }
        if let Some(index) = self.beyond.take() {
            let text =
                format!("from entry {} on there are more than {BLOBS_MAX} blobs: the rest is not judged", index.0);
            told.notes.push(Note { name: "blobs_unjudged", index: Some(index), text });
        }
    }

    fn next(&self) -> Option<Digest> {
        self.awaited.first_key_value().map(|((digest, _), _)| *digest)
    }

    /// Judges what stands under a digest for every reference to it.
    fn judge(
        &mut self,
        digest: Digest,
        content: Option<&[u8]>,
        told: &mut Told<'_>,
        visit: &mut dyn FnMut(Digest, &[u8]),
    ) {
        let seen = content.map(blob::reference);
        let mut holds = false;
        while let Some(entry) = self.awaited.first_entry().filter(|entry| entry.key().0 == digest) {
            let (&(_, size), &index) = (entry.key(), entry.get());
            entry.remove();
            let path = blob::path(&digest);
            match &seen {
                Some(seen) if seen.sha256 != digest => {
                    told.findings.push(Finding::BlobAltered { index, path, what: "has another content" });
                }
                Some(seen) if seen.size != size => {
                    told.findings.push(Finding::BlobAltered { index, path, what: "has another size" });
                }
                Some(_) => holds = true,
                None if self.strict => told.findings.push(Finding::BlobAbsent { index, path }),
                None => {
                    let text = Finding::BlobAbsent { index, path }.to_string();
                    told.notes.push(Note { name: "blob_absent", index: Some(index), text });
                }
            }
        }
        if let Some(content) = content.filter(|_| holds) {
            visit(digest, content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Builder, Files};
    use crate::record::{Body, Measured, MeasuredLog, decode};

    /// Findings, number of notes, and what was handed on.
    type Seen = (Vec<String>, usize, Vec<(Digest, Vec<u8>)>);

    /// What is seen of a log whose entries refer to these blobs.
    fn seen(blobs: &[&Blob], files: &[(Digest, &[u8])], strict: bool) -> Seen {
        let mut log = Builder::new().unwrap();
        for content in blobs.iter().copied().cloned() {
            log.append(Body::Measured(Measured { log: MeasuredLog::Ima, content, from: 0, complete: true }));
        }
        let mut blobs = Blobs::new(strict);
        for entry in &log.entries {
            blobs.entry(&decode(entry).unwrap());
        }
        let mut source = Files::default();
        for (digest, content) in files {
            source.0.insert(blob::path(digest), content.to_vec());
        }
        let (mut findings, mut notes, mut visited) = (Findings::new(), Notes::default(), Vec::new());
        let mut told = Told { findings: &mut findings, notes: &mut notes };
        let visit = &mut |digest, content: &[u8]| visited.push((digest, content.to_vec()));
        blobs.read(&mut source, &mut told, visit).unwrap();
        let names = findings.kept().iter().map(|finding| format!("{} {:?}", finding.name(), finding.index())).collect();
        (names, notes.kept().len(), visited)
    }

    #[test]
    fn each_content_is_handed_on_once_however_often_it_is_referred_to() {
        let (a, b) = (blob::reference(b"a"), blob::reference(b"bb"));
        let files: &[(Digest, &[u8])] = &[(a.sha256, b"a"), (b.sha256, b"bb")];
        let (findings, notes, mut visited) = seen(&[&a, &b, &a, &a], files, true);
        assert!(findings.is_empty() && notes == 0);
        visited.sort();
        let mut expected = [(a.sha256, b"a".to_vec()), (b.sha256, b"bb".to_vec())];
        expected.sort();
        assert_eq!(visited, expected);
    }

    #[test]
    fn what_is_not_the_content_is_not_handed_on() {
        let a = blob::reference(b"a");
        let longer = Blob { size: 2, ..a.clone() };
        assert_eq!(
            seen(&[&a], &[(a.sha256, b"b")], false),
            (vec!["blob_altered Some(EntryIndex(2))".to_owned()], 0, vec![])
        );
        assert_eq!(seen(&[&longer], &[(a.sha256, b"a")], false).2, vec![]);
        // One of two references is wrong: the content is still the other's.
        let (findings, _, visited) = seen(&[&a, &longer], &[(a.sha256, b"a")], false);
        assert_eq!((findings, visited.len()), (vec!["blob_altered Some(EntryIndex(3))".to_owned()], 1));
        assert_eq!(seen(&[&a], &[], false), (vec![], 1, vec![]));
        assert_eq!(seen(&[&a], &[], true), (vec!["blob_absent Some(EntryIndex(2))".to_owned()], 0, vec![]));
    }
}
