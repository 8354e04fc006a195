//! Whole logs: whatever the entries say and whatever is missing, verification ends with a report or an error, and never
//! with a clean verdict, for nobody signed.

#![no_main]

use std::collections::HashMap;

use agent_evidence::checkpoint::Checkpoint;
use agent_evidence::note::{KeyName, NoteSigner, VerifierKey};
use agent_evidence::record::{PublicKey, Signature, TreeSize};
use agent_evidence::tiles::{TileKind, TilePath, push_entry};
use agent_evidence::tree::{Tree, leaf_hash};
use agent_evidence::verify::{Options, Source, SourceError, Verdict, verify};
use libfuzzer_sys::fuzz_target;

struct Files(HashMap<String, Vec<u8>>);

impl Source for Files {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        match self.0.get(path) {
            Some(bytes) if bytes.len() > bytes_max => {
                Err(SourceError { path: path.to_owned(), reason: "too long".to_owned() })
            }
            found => Ok(found.cloned()),
        }
    }
}

/// A key that nobody holds.
struct Nobody;

impl NoteSigner for Nobody {
    fn verifier(&self) -> VerifierKey {
        VerifierKey::new(KeyName::new("affiant.example/host").expect("a name"), PublicKey([3; 32]))
    }

    fn sign(&self, _: &[u8]) -> Signature {
        Signature([0; 64])
    }
}

fuzz_target!(|input: &[u8]| {
    // The last two bytes say which file is missing and by how much the size is wrong, mostly not at all.
    let Some((bytes, &[drop, grow])) = input.split_last_chunk::<2>() else { return };
    let grow = grow.cast_signed();
    // One entry per line: no permitted entry has a line feed.
    let entries: Vec<&[u8]> =
        bytes.split(|byte| *byte == b'\n').take(250).filter(|entry| entry.len() < 65_536).collect();
    let mut tree = Tree::new();
    let mut bundle = Vec::new();
    for entry in &entries {
        tree.append(leaf_hash(entry), |_| ());
        push_entry(&mut bundle, entry);
    }
    let width = u16::try_from(entries.len()).unwrap_or(0);
    let mut files = HashMap::new();
    files.insert(TilePath { kind: TileKind::Entries, number: 0, width }.path(), bundle);
    for tile in tree.partial_tiles() {
        let path = TilePath { kind: TileKind::Hashes { level: tile.level }, number: tile.number, width };
        files.insert(path.path(), tile.hashes.concat());
    }
    let size = TreeSize(tree.size().0.wrapping_add_signed(i64::from(grow / 64)));
    let origin = KeyName::new("affiant.example/host").expect("a name");
    let checkpoint = Checkpoint { origin, size, root: tree.root() };
    files.insert("checkpoint".to_owned(), checkpoint.sign(&[&Nobody]).into_bytes());
    if drop < 16 {
        let mut names: Vec<String> = files.keys().cloned().collect();
        names.sort();
        if let Some(name) = names.get(usize::from(drop) % names.len()) {
            files.remove(name);
        }
    }
    if let Ok(report) = verify(&mut Files(files), None, Options { strict: drop % 2 == 0, ..Options::default() }) {
        assert_ne!(report.verdict, Verdict::Proved);
        assert!(report.verified.is_none());
        let _texts = (report.to_string(), report.to_json());
    }
});
