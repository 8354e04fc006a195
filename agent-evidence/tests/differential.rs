//! Our notes, checkpoints, tiles and proofs against independent crates (`signed_note`, `tlog_tiles`): what one side
//! makes, the other must read and believe, and what one refuses of the altered, the other must refuse.
//!
//! Trees and sizes are random; the seed is printed, and `AFFIANT_SEED` repeats it.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a whole file of tests: what fails must be seen, and a failed run repeated from the environment"
)]

use agent_evidence::checkpoint::Checkpoint;
use agent_evidence::note::{KeyName, Note, NoteSigner, VerifierKey};
use agent_evidence::record::{EntryIndex, LeafHash, PublicKey, RootHash, Signature, TreeSize};
use agent_evidence::tiles::{TileKind, TilePath};
use agent_evidence::tree::{
    NodeHash, Subtrees, Tree, TreeError, consistency_proof, fold_tile, inclusion_proof, leaf_hash, verify_consistency,
    verify_inclusion,
};
use ed25519_dalek::{Signer as _, SigningKey};
use signed_note::{StandardVerifier, VerifierList};
use tlog_tiles::{
    Hash, HashReader, Tile, check_record, check_tree, prove_record, prove_tree, stored_hash_index, stored_hashes,
    tree_hash,
};

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = match std::env::var("AFFIANT_SEED") {
            Ok(seed) => seed.parse().expect("AFFIANT_SEED is a number"),
            Err(_) => u64::from(std::process::id()) << 32 | u64::from(line!()),
        };
        println!("AFFIANT_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The other crate's store of hashes, in its own order.
#[derive(Default)]
struct Stored(Vec<Hash>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

/// Our view of the leaves.
struct Leaves(Vec<NodeHash>);

impl Subtrees for Leaves {
    fn subtree(&self, height: u32, number: u64) -> Result<NodeHash, TreeError> {
        let first = usize::try_from(number << height).unwrap();
        let leaves = self.0.get(first..first + (1 << height));
        leaves.and_then(fold_tile).ok_or(TreeError::TileMissing { level: height, tile: number })
    }
}

fn theirs(proof: &[NodeHash]) -> Vec<Hash> {
    proof.iter().map(|hash| Hash(*hash)).collect()
}

fn ours(proof: &[Hash]) -> Vec<NodeHash> {
    proof.iter().map(|hash| hash.0).collect()
}

/// The same random entries on both sides, and our root after each.
fn grown(random: &mut Random, size: u64) -> (Stored, Leaves, Vec<RootHash>) {
    let (mut stored, mut leaves, mut tree) = (Stored::default(), Leaves(Vec::new()), Tree::new());
    let mut roots = vec![tree.root()];
    for index in 0..size {
        let entry: Vec<u8> = (0..random.below(40)).flat_map(|_| random.next().to_le_bytes()).collect();
        let more = stored_hashes(index, &entry, &stored).unwrap();
        stored.0.extend(more);
        let leaf = leaf_hash(&entry);
        assert_eq!(stored.0[usize::try_from(stored_hash_index(0, index)).unwrap()].0, leaf.0);
        leaves.0.push(leaf.0);
        tree.append(leaf, |_| ());
        roots.push(tree.root());
    }
    (stored, leaves, roots)
}

#[test]
fn roots_and_proofs_of_random_trees_are_the_same() {
    let mut random = Random::new();
    let size = 300 + random.below(700);
    let (stored, leaves, roots) = grown(&mut random, size);
    for at in 0..=size {
        assert_eq!(tree_hash(at, &stored).unwrap().0, roots[usize::try_from(at).unwrap()].0, "root at {at}");
    }
    for _ in 0..2_000 {
        let new = 1 + random.below(size);
        let root = roots[usize::try_from(new).unwrap()];
        let index = random.below(new);
        let proof = inclusion_proof(&leaves, EntryIndex(index), TreeSize(new)).unwrap();
        assert_eq!(proof, ours(&prove_record(new, index, &stored).unwrap()), "entry {index} of {new}");
        let leaf = leaves.0[usize::try_from(index).unwrap()];
        check_record(&theirs(&proof), new, Hash(root.0), index, Hash(leaf)).unwrap();

        let old = 1 + random.below(new);
        let old_root = roots[usize::try_from(old).unwrap()];
        let consistent = consistency_proof(&leaves, TreeSize(old), TreeSize(new)).unwrap();
        assert_eq!(consistent, ours(&prove_tree(new, old, &stored).unwrap()), "{old} to {new}");
        check_tree(&theirs(&consistent), new, Hash(root.0), old, Hash(old_root.0)).unwrap();
    }
}

#[test]
fn both_sides_judge_altered_proofs_alike() {
    let mut random = Random::new();
    let size = 200;
    let (_, leaves, roots) = grown(&mut random, size);
    let mut refused = 0;
    for _ in 0..4_000 {
        let new = 1 + random.below(size);
        let (index, old) = (random.below(new), 1 + random.below(new));
        let (root, old_root) = (roots[usize::try_from(new).unwrap()], roots[usize::try_from(old).unwrap()]);
        let leaf = leaves.0[usize::try_from(index).unwrap()];
        let mut inclusion = inclusion_proof(&leaves, EntryIndex(index), TreeSize(new)).unwrap();
        let mut consistency = consistency_proof(&leaves, TreeSize(old), TreeSize(new)).unwrap();
        let (mut claimed_index, mut claimed_old) = (index, old);
        match random.below(5) {
            0 => {}
            1 => {
                for proof in [&mut inclusion, &mut consistency] {
                    let count = proof.len() as u64;
                    if count > 0 {
                        let at = usize::try_from(random.below(count)).unwrap();
                        proof[at][usize::try_from(random.below(32)).unwrap()] ^= 1 << random.below(8);
                    }
                }
            }
            2 => {
                _ = inclusion.pop();
                _ = consistency.pop();
            }
            3 => {
                inclusion.push([7; 32]);
                consistency.push([7; 32]);
            }
            _ => (claimed_index, claimed_old) = (random.below(new + 2), 1 + random.below(new + 2)),
        }
        let mine = verify_inclusion(LeafHash(leaf), EntryIndex(claimed_index), TreeSize(new), &inclusion, root).is_ok();
        let other = check_record(&theirs(&inclusion), new, Hash(root.0), claimed_index, Hash(leaf)).is_ok();
        assert_eq!(mine, other, "entry {claimed_index} of {new}, made for {index}");
        let mine = verify_consistency((TreeSize(claimed_old), old_root), (TreeSize(new), root), &consistency).is_ok();
        let other = check_tree(&theirs(&consistency), new, Hash(root.0), claimed_old, Hash(old_root.0)).is_ok();
        assert_eq!(mine, other, "{claimed_old} to {new}, made for {old}");
        refused += u32::from(!mine);
    }
    assert!(refused > 500, "only {refused} refusals: the alterations do not alter");
}

#[test]
fn tile_paths_are_the_same_but_for_the_height_that_c2sp_leaves_out() {
    let mut random = Random::new();
    for _ in 0..5_000 {
        let shift = random.below(40);
        let (level, number, width) =
            (u8::try_from(random.below(8)).unwrap(), random.next() >> 20 >> shift, 1 + random.below(256));
        let is_data = random.below(2) == 0;
        let level = if is_data { 0 } else { level };
        let other = Tile::new(8, level, number, u32::try_from(width).unwrap(), is_data).path();
        let other = other.replacen("tile/8/data/", "tile/entries/", 1).replacen("tile/8/", "tile/", 1);
        let kind = if is_data { TileKind::Entries } else { TileKind::Hashes { level: u32::from(level) } };
        let mine = TilePath { kind, number, width: u16::try_from(width).unwrap() };
        assert_eq!(mine.path(), other);
        assert_eq!(TilePath::parse(&other), Ok(mine));
    }
}

#[test]
fn a_tree_of_any_size_has_the_same_tiles() {
    let mut random = Random::new();
    for _ in 0..200 {
        let shift = random.below(40);
        let size = random.next() >> 24 >> shift;
        // All tiles of a large tree are too many to list; those that the last 1,000 entries add are enough.
        for tile in Tile::new_tiles(8, size.saturating_sub(1_000), size) {
            let width = agent_evidence::tiles::width_in(TreeSize(size), u32::from(tile.level()), tile.level_index());
            assert_eq!(u32::from(width), tile.width(), "{} of {size}", tile.path());
        }
    }
}

struct Key(SigningKey, KeyName);

impl NoteSigner for Key {
    fn verifier(&self) -> VerifierKey {
        VerifierKey::new(self.1.clone(), PublicKey(self.0.verifying_key().to_bytes()))
    }
    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

#[test]
fn what_we_sign_the_other_side_believes_and_alterations_neither() {
    let mut random = Random::new();
    let mut agreed_bad = 0;
    for round in 0..300_u32 {
        let seed: [u8; 32] = std::array::from_fn(|_| random.next().to_le_bytes()[0]);
        let key = Key(SigningKey::from_bytes(&seed), KeyName::new(&format!("log.example/{round}")).unwrap());
        let checkpoint = Checkpoint {
            origin: key.1.clone(),
            size: TreeSize(random.below(1 << 50)),
            root: RootHash(std::array::from_fn(|_| random.next().to_le_bytes()[0])),
        };
        let mut note = checkpoint.sign(&[&key]).into_bytes();
        if round % 3 != 0 {
            let at = usize::try_from(random.below(note.len() as u64)).unwrap();
            note[at] ^= 1 << random.below(8);
        }
        let verifier = StandardVerifier::new(&key.verifier().to_string()).expect("they read our verifier key");
        let other = signed_note::Note::from_bytes(&note)
            .is_ok_and(|note| note.verify(&VerifierList::new(vec![Box::new(verifier)])).is_ok());
        let mine = Note::parse(&note).is_ok_and(|note| note.signed_by(&key.verifier()) == Ok(true));
        assert_eq!(mine, other, "{:?}", String::from_utf8_lossy(&note));
        agreed_bad += u32::from(!mine);
        if mine {
            let read = Checkpoint::parse(&note).unwrap().0;
            let text = read.text();
            let other = tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).expect("they read our checkpoint");
            assert_eq!(
                (other.origin(), other.size(), other.hash().0),
                (read.origin.as_str(), read.size.0, read.root.0)
            );
            assert_eq!(other.to_bytes(), text.as_bytes());
        }
    }
    assert!(agreed_bad > 150, "only {agreed_bad} refused");
}

#[test]
fn what_they_sign_we_believe() {
    let mut random = Random::new();
    for round in 0..50_u32 {
        let seed: [u8; 32] = std::array::from_fn(|_| random.next().to_le_bytes()[0]);
        let name = format!("log.example/{round}");
        // Their private key is `PRIVATE+KEY+name+hash+base64(1 || seed)`; its hash is that of the public key.
        let public = PublicKey(SigningKey::from_bytes(&seed).verifying_key().to_bytes());
        let vkey = VerifierKey::new(KeyName::new(&name).unwrap(), public);
        let mut private = vec![1_u8];
        private.extend_from_slice(&seed);
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &private);
        let skey = format!("PRIVATE+KEY+{name}+{:08x}+{encoded}", u32::from_be_bytes(vkey.id()));
        let signer = signed_note::StandardSigner::new(&skey).expect("their form of a private key");
        let text = format!("{name}\n{}\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", random.below(1 << 50));
        let mut note = signed_note::Note::new(text.as_bytes(), &[]).unwrap();
        note.add_sigs(&[&signer]).unwrap();
        let (_, read) = Checkpoint::parse(&note.to_bytes()).unwrap();
        assert_eq!(read.signed_by(&vkey), Ok(true));
        assert_eq!(read.to_text().as_bytes(), note.to_bytes());
    }
}
