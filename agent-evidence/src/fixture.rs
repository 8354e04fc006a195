//! Small logs made from fixed seeds, for tests, vectors and benchmarks. Real keys and real hashes; only the
//! randomness is missing, so that the same calls give the same bytes.

pub mod tpm;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};

use crate::blob;
use crate::bundle::{self, Disclosed, Manifest, Selected, Selection};
use crate::chain;
use crate::checkpoint::{Checkpoint, EPOCH_SUFFIX};
use crate::cosignature::{self, WitnessKey};
use crate::epoch::EpochStatement;
use crate::note::{KeyName, NoteError, NoteSigner, VerifierKey};
use crate::record::{
    self, Armed, Blob, Body, BootTime, Cadence, CgroupId, ChainHash, Class, ControlNumber, Counter, Digest,
    DisarmCause, Disarmed, Draft, EntryIndex, Epoch, EpochNumber, Genesis, Heartbeat, Id128, KernelNumber, KeyTier,
    Kind, LeafHash, List, NotCovered, Placement, ProcessCookie, PublicKey, SecureBoot, SessionNumber, SessionState,
    Signature, Succession, Text, TreeSize, WallTime, Workload, WorkloadKind,
};
use crate::tiles::{self, TileKind, TilePath};
use crate::tree::{NodeHash, Subtrees, TILE_WIDTH, TileView, Tree, TreeError, fold_tile, leaf_hash};
use crate::trust::{AttestationTrust, Head, Limits, Trust};
use crate::verify::{Claim, Source, SourceError};
use crate::witness::stored_path;

/// Origin of the logs made here.
pub const ORIGIN: &str = "affiant.example/vectors";

/// The capture that the logs' kernel numbers are of.
pub const CAPTURE: Id128 = Id128([0xca; 16]);

/// Wall time of the first entry: 2026-01-01T00:00:00Z.
const START_NS: u64 = 1_767_225_600_000_000_000;

/// A signing key under a name.
pub struct FixedSigner {
    name: KeyName,
    key: SigningKey,
}

impl FixedSigner {
    /// The signer of this name whose seed is 32 times `seed`.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn new(name: &str, seed: u8) -> Result<Self, NoteError> {
        Ok(Self { name: KeyName::new(name)?, key: SigningKey::from_bytes(&[seed; 32]) })
    }

    /// The key that verifies what it cosigns.
    #[must_use]
    pub fn witness_key(&self) -> WitnessKey {
        WitnessKey::ed25519(self.name.clone(), self.public_key())
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }
}

impl NoteSigner for FixedSigner {
    fn verifier(&self) -> VerifierKey {
        VerifierKey::new(self.name.clone(), self.public_key())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.key.sign(message).to_bytes())
    }
}

/// Files of a log by name: a [`Source`] in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

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

/// Writes a log entry by entry, as an honest log would, and lets a test misplace single entries.
pub struct Builder {
    /// The log key.
    pub log_key: FixedSigner,
    /// The key of the current epoch.
    pub epoch_key: FixedSigner,
    /// Public key of the first epoch.
    pub first_epoch_key: PublicKey,
    /// Number of the next epoch.
    pub epochs: u64,
    /// Entries so far.
    pub entries: Vec<Vec<u8>>,
    previous: LeafHash,
    control: u64,
    sessions: HashMap<EntryIndex, (u64, ChainHash)>,
    /// Next kernel number of each counter.
    pub seqs: HashMap<(u32, Class), u64>,
    /// Lines that disclose committed values, with the entries they are of.
    pub values: Vec<(EntryIndex, Vec<u8>)>,
    /// Contents that entries refer to.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// The capture that counters are stated of.
    pub capture: Id128,
    time: u64,
}

impl Builder {
    /// A log with `genesis` and its first epoch.
    ///
    /// # Errors
    /// [`NoteError`], which the names used here do not cause.
    pub fn new() -> Result<Self, NoteError> {
        let mut log = Self::empty()?;
        let genesis = log.genesis();
        log.append(genesis);
        log.first_epoch();
        Ok(log)
    }

    /// A log without entries.
    ///
    /// # Errors
    /// [`NoteError`], which the names used here do not cause.
    pub fn empty() -> Result<Self, NoteError> {
        let epoch_key = FixedSigner::new(&format!("{ORIGIN}{EPOCH_SUFFIX}"), 2)?;
        Ok(Self {
            log_key: FixedSigner::new(ORIGIN, 1)?,
            first_epoch_key: epoch_key.public_key(),
            epoch_key,
            epochs: 0,
            entries: Vec::new(),
            previous: LeafHash([0; 32]),
            control: 0,
            sessions: HashMap::new(),
            seqs: HashMap::new(),
            values: Vec::new(),
            blobs: BTreeMap::new(),
            capture: CAPTURE,
            time: 0,
        })
    }

    /// The `genesis` body of these logs.
    #[must_use]
    pub fn genesis(&self) -> Body<'static> {
        Body::Genesis(Genesis {
            format: 1,
            origin: ORIGIN.into(),
            log_key: Text::from(self.log_key.verifier().to_string()),
            key_tier: KeyTier::T0,
            boot_id: "00000000-0000-4000-8000-000000000001".into(),
            kernel: "6.18.0".into(),
            machine: None,
            predecessor: None,
        })
    }

    /// Appends the first epoch, with the key that signs checkpoints.
    pub fn first_epoch(&mut self) -> EntryIndex {
        let epoch = self.epoch_statement(self.epoch_key.public_key(), Succession::First, None);
        self.epochs += 1;
        self.append(Body::Epoch(epoch))
    }

    /// Begins the next epoch under a new key.
    ///
    /// # Errors
    /// [`NoteError`], which the names used here do not cause.
    pub fn next_epoch(&mut self, seed: u8, how: Succession) -> Result<EntryIndex, NoteError> {
        let next = FixedSigner::new(&format!("{ORIGIN}{EPOCH_SUFFIX}"), seed)?;
        let previous = (how == Succession::Continued).then_some(&self.epoch_key);
        let epoch = self.epoch_statement(next.public_key(), how, previous);
        self.epoch_key = next;
        self.epochs += 1;
        Ok(self.append(Body::Epoch(epoch)))
    }

    /// An epoch entry for the next index, signed.
    #[must_use]
    pub fn epoch_statement(&self, key: PublicKey, how: Succession, previous: Option<&FixedSigner>) -> Epoch<'static> {
        let mut epoch = Epoch {
            number: EpochNumber(self.epochs),
            public_key: key,
            first_size: TreeSize(self.entries.len() as u64 + 1),
            how,
            counter: None,
            sig_log: Signature([0; 64]),
            sig_previous: None,
            attest: None,
            sig_attest: None,
        };
        let digest = EpochStatement::of(ORIGIN, &epoch).digest();
        epoch.sig_log = self.log_key.sign(&digest);
        epoch.sig_previous = previous.map(|key| key.sign(&digest));
        epoch
    }

    /// The `armed` body of these logs.
    #[must_use]
    pub fn armed() -> Body<'static> {
        Body::Armed(Armed {
            run: Id128([0xa1; 16]),
            boot_id: "00000000-0000-4000-8000-000000000001".into(),
            capture_id: CAPTURE,
            resumed: false,
            agent_version: "0.1.0".into(),
            agent_digest: Digest([1; 32]),
            object_digest: Digest([2; 32]),
            offsets_digest: Digest([3; 32]),
            config_digest: Digest([4; 32]),
            policy_digest: None,
            kernel: "6.18.0".into(),
            kernel_build: None,
            lockdown: "integrity".into(),
            secure_boot: SecureBoot::Unknown,
            hook_tier: "tracepoint".into(),
            key_tier: KeyTier::T0,
            cadence: Cadence { commit_ms: 50, seal_ms: 1000, heartbeat_ms: 10_000, anchor_ms: None, counter_ms: None },
            hooks: List::default(),
            not_covered: vec![NotCovered { what: "io_uring opens".into(), why: "no hook".into() }].into(),
            scope: "sessions".into(),
        })
    }

    /// A `workload` body.
    #[must_use]
    pub fn workload() -> Body<'static> {
        Body::Workload(Workload {
            sort: WorkloadKind::Host,
            id: "spiffe://affiant.example/host".into(),
            cgroup: CgroupId(1),
            path: "/".into(),
            how: "root cgroup".into(),
            labels: List::default(),
        })
    }

    /// The counters as the kernel side would state them now.
    #[must_use]
    pub fn counters(&self) -> Vec<Counter> {
        let mut rows: Vec<_> = self
            .seqs
            .iter()
            .map(|((cpu, class), next)| Counter { cpu: *cpu, class: *class, next: *next, dropped: 0, settled: *next })
            .collect();
        rows.sort_by_key(|row| (row.cpu, row.class));
        rows
    }

    /// Where a session's chain stands.
    #[must_use]
    pub fn session(&self, session: EntryIndex) -> SessionState {
        let (next, hash) = self.sessions.get(&session).copied().unwrap_or((1, ChainHash([0; 32])));
        SessionState { session, number: SessionNumber(next - 1), hash }
    }

    /// A heartbeat that says the truth.
    #[must_use]
    pub fn heartbeat(&self, sessions: &[EntryIndex]) -> Heartbeat<'static> {
        Heartbeat {
            capture_id: self.capture,
            counters: self.counters().into(),
            sessions: sessions.iter().map(|session| self.session(*session)).collect::<Vec<_>>().into(),
            hooks_ok: true,
            hooks_digest: Digest([5; 32]),
            canaries: List::default(),
        }
    }

    /// A `disarmed` that says the truth.
    #[must_use]
    pub fn disarmed(&self) -> Disarmed<'static> {
        Disarmed {
            cause: DisarmCause::Operator,
            capture_id: self.capture,
            counters: self.counters().into(),
            sessions: List::default(),
        }
    }

    /// The next kernel number of this counter.
    pub fn number(&mut self, cpu: u32, class: Class) -> KernelNumber {
        let next = self.seqs.entry((cpu, class)).or_default();
        *next += 1;
        KernelNumber { cpu, class, seq: *next - 1 }
    }

    /// Lets so many milliseconds pass.
    pub fn wait(&mut self, milliseconds: u64) {
        self.time += milliseconds * 1_000_000;
    }

    /// The next epoch, if it were introduced now, with this value of the counter and signed anew.
    ///
    /// # Errors
    /// [`NoteError`], which the names used here do not cause.
    pub fn counted_epoch(
        &mut self,
        seed: u8,
        how: Succession,
        counter: Option<u64>,
    ) -> Result<Epoch<'static>, NoteError> {
        let next = FixedSigner::new(&format!("{ORIGIN}{EPOCH_SUFFIX}"), seed)?;
        let mut epoch = self.epoch_statement(next.public_key(), how, None);
        epoch.counter = counter;
        let digest = EpochStatement::of(ORIGIN, &epoch).digest();
        epoch.sig_log = self.log_key.sign(&digest);
        epoch.sig_previous = (how == Succession::Continued).then(|| self.epoch_key.sign(&digest));
        self.epoch_key = next;
        self.epochs += 1;
        Ok(epoch)
    }

    /// A draft of this body at the next tick of the clock.
    pub fn draft<'a>(&mut self, body: Body<'a>) -> Draft<'a> {
        self.time += 1_000_000;
        Draft {
            wall: WallTime(START_NS + self.time),
            boot: BootTime(self.time),
            kernel: None,
            process: None,
            workload: None,
            session: None,
            verdict: None,
            body,
        }
    }

    /// Keeps a content beside the log, for an entry to refer to.
    pub fn blob(&mut self, content: &[u8]) -> Blob {
        let blob = blob::reference(content);
        self.blobs.insert(blob.sha256, content.to_vec());
        blob
    }

    /// Appends a body outside sessions.
    pub fn append(&mut self, body: Body<'_>) -> EntryIndex {
        let draft = self.draft(body);
        self.append_draft(&draft, |_| {})
    }

    /// Appends a kernel event, in a session or not.
    pub fn event(&mut self, body: Body<'_>, class: Class, session: Option<EntryIndex>) -> EntryIndex {
        let kernel = Some(self.number(0, class));
        let draft = Draft { kernel, process: Some(ProcessCookie(4_194_404)), session, ..self.draft(body) };
        self.append_draft(&draft, |_| {})
    }

    /// Appends a draft, at the place an honest log would give it unless `misplace` changes that.
    pub fn append_draft(&mut self, draft: &Draft<'_>, misplace: impl FnOnce(&mut Placement)) -> EntryIndex {
        let index = EntryIndex(self.entries.len() as u64);
        let session = if matches!(draft.body, Body::Issued(_)) { Some(index) } else { draft.session };
        let next = session.map(|session| self.sessions.get(&session).map_or(0, |(next, _)| *next));
        let random: [u8; 32] = Sha256::digest(index.0.to_be_bytes()).into();
        let control = draft.body.kind().is_control();
        let mut placement = Placement {
            index,
            session_number: next.map(SessionNumber),
            control_number: control.then_some(ControlNumber(self.control)),
            previous: self.previous,
            random: *random.first_chunk().unwrap_or(&[0; 16]),
        };
        self.control += u64::from(control);
        misplace(&mut placement);
        let mut bytes = Vec::new();
        draft.encode(&placement, &mut bytes);
        let leaf = self.append_bytes(bytes);
        if let Some(session) = session {
            let hash = match self.sessions.get(&session) {
                Some((_, hash)) => chain::step(*hash, leaf),
                None => chain::session_start(leaf),
            };
            self.sessions.insert(session, (next.unwrap_or(0) + 1, hash));
        }
        index
    }

    /// Appends bytes as an entry.
    pub fn append_bytes(&mut self, bytes: Vec<u8>) -> LeafHash {
        self.previous = leaf_hash(&bytes);
        self.entries.push(bytes);
        self.previous
    }

    /// The tree over the entries so far.
    #[must_use]
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for entry in &self.entries {
            tree.append(leaf_hash(entry), |_| {});
        }
        tree
    }

    /// The checkpoint over the entries so far, unsigned.
    ///
    /// # Errors
    /// [`NoteError`], which the names used here do not cause.
    pub fn checkpoint(&self) -> Result<Checkpoint, NoteError> {
        let tree = self.tree();
        Ok(Checkpoint { origin: KeyName::new(ORIGIN)?, size: tree.size(), root: tree.root() })
    }

    /// Every file of the log.
    ///
    /// # Errors
    /// [`NoteError`], which the names used here do not cause.
    pub fn files(&self) -> Result<Files, NoteError> {
        let mut files = BTreeMap::new();
        let mut tree = Tree::new();
        let mut store = |tile: TileView<'_>| {
            let width = u16::try_from(tile.hashes.len()).unwrap_or(u16::MAX);
            let path = TilePath { kind: TileKind::Hashes { level: tile.level }, number: tile.number, width };
            files.insert(path.path(), flat(tile.hashes));
        };
        for entry in &self.entries {
            tree.append(leaf_hash(entry), &mut store);
        }
        for tile in tree.partial_tiles() {
            store(tile);
        }
        for (number, chunk) in self.entries.chunks(TILE_WIDTH).enumerate() {
            let mut bundle = Vec::new();
            for entry in chunk {
                tiles::push_entry(&mut bundle, entry);
            }
            let width = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
            files.insert(TilePath { kind: TileKind::Entries, number: number as u64, width }.path(), bundle);
        }
        for (index, line) in &self.values {
            files.entry(tiles::sidecar_path(index.0 / TILE_WIDTH as u64)).or_default().extend_from_slice(line);
        }
        for (digest, content) in &self.blobs {
            files.insert(blob::path(digest), content.clone());
        }
        let note = self.checkpoint()?.sign(&[&self.log_key, &self.epoch_key]);
        files.insert("checkpoint".to_owned(), note.into_bytes());
        Ok(Files(files))
    }

    /// The entries that a bundle of the sessions with these ids holds.
    ///
    /// # Errors
    /// An entry that cannot be read, or an id without a session.
    pub fn selected(&self, ids: &[&str]) -> Result<Selected, String> {
        let mut selection = Selection::new(ids.iter().map(|id| id.as_bytes().to_vec()));
        for entry in &self.entries {
            selection.entry(&record::decode(entry).map_err(|error| error.to_string())?, entry.len());
        }
        selection.finish().map_err(|id| format!("no session {}", String::from_utf8_lossy(&id)))
    }

    /// A bundle of these entries that shows the roots at these sizes.
    ///
    /// # Errors
    /// What writing it answers.
    pub fn bundle(&self, manifest: &Manifest, disclosed: &[Disclosed]) -> Result<Vec<u8>, io::Error> {
        let failed = |error: &dyn std::error::Error| io::Error::other(error.to_string());
        let checkpoint = self.checkpoint().map_err(|error| failed(&error))?;
        let note = checkpoint.sign(&[&self.log_key, &self.epoch_key]);
        let leaves = Leaves(self.entries.iter().map(|entry| leaf_hash(entry).0).collect());
        let mut out = Vec::new();
        bundle::write_proof(&mut out, manifest, (note.as_bytes(), checkpoint.size), disclosed, &leaves)
            .map_err(|Failed(error)| error)?;
        bundle::write_entries(&mut out, disclosed, |index, line| {
            let at = usize::try_from(index.0).unwrap_or(usize::MAX);
            line.extend_from_slice(self.entries.get(at).map(Vec::as_slice).unwrap_or_default());
            Ok::<_, io::Error>(())
        })?;
        let holds = |index: &EntryIndex| disclosed.binary_search_by_key(index, |entry| entry.index).is_ok();
        let lines: Vec<u8> =
            self.values.iter().filter(|(index, _)| holds(index)).flat_map(|(_, line)| line).copied().collect();
        bundle::write_sidecar(&mut out, lines.len() as u64, |write| write(&lines))?;
        let mut referred = BTreeSet::new();
        for entry in self.entries.iter().enumerate().filter(|(at, _)| holds(&EntryIndex(*at as u64))).map(|at| at.1) {
            let record = record::decode(entry).map_err(|error| failed(&error))?;
            referred.extend(record.blobs().map(|blob| blob.sha256));
        }
        for (digest, content) in self.blobs.iter().filter(|(digest, _)| referred.contains(digest)) {
            bundle::write_blob(&mut out, digest, content)?;
        }
        bundle::write_end(&mut out)?;
        Ok(out)
    }

    /// The bundle of the sessions with these ids.
    ///
    /// # Errors
    /// As [`Builder::selected`] and [`Builder::bundle`].
    pub fn bundle_of(&self, ids: &[&str], heads: &[TreeSize]) -> Result<Vec<u8>, io::Error> {
        let Selected { sessions, disclosed, .. } = self.selected(ids).map_err(io::Error::other)?;
        self.bundle(&Manifest { sessions, heads: heads.to_vec() }, &disclosed)
    }

    /// What a verifier would know who had seen the log as it is now.
    ///
    /// # Errors
    /// [`NoteError`], which the names used here do not cause.
    pub fn trust(&self) -> Result<Trust, NoteError> {
        let checkpoint = self.checkpoint()?;
        Ok(Trust {
            origin: checkpoint.origin,
            log_key: self.log_key.verifier(),
            genesis: self.entries.first().map_or(LeafHash([0; 32]), |entry| leaf_hash(entry)),
            first_epoch_key: self.first_epoch_key,
            minimum_tier: KeyTier::T0,
            required: vec![Claim::Integrity, Claim::Authenticity, Claim::Continuity, Claim::Coverage, Claim::Sessions],
            witnesses: None,
            limits: Limits::default(),
            registers: Vec::new(),
            attestation: AttestationTrust::default(),
            heads: vec![Head { size: checkpoint.size, root: checkpoint.root }],
        })
    }

    /// The checkpoint over the entries so far, signed by the log and cosigned by a witness, and where it is kept.
    ///
    /// # Errors
    /// [`NoteError`], which the names used here do not cause.
    pub fn cosigned(&self, witness: &FixedSigner, timestamp: u64) -> Result<(String, Vec<u8>), NoteError> {
        let note = self.checkpoint()?.sign(&[&self.log_key, &self.epoch_key]);
        let mut note = crate::note::Note::parse(note.as_bytes())?;
        let line = cosignature::cosign(&witness.witness_key(), timestamp, &note.text, |message| witness.sign(message));
        note.signatures.extend(line);
        Ok((stored_path(&witness.name), note.to_text().into_bytes()))
    }
}

/// Why a bundle could not be written.
struct Failed(io::Error);

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl From<TreeError> for Failed {
    fn from(error: TreeError) -> Self {
        Self(io::Error::other(error))
    }
}

/// The leaves of a small tree.
struct Leaves(Vec<NodeHash>);

impl Subtrees for Leaves {
    fn subtree(&self, height: u32, number: u64) -> Result<NodeHash, TreeError> {
        let missing = || TreeError::TileMissing { level: height, tile: number };
        let first = usize::try_from(number << height).map_err(|_too_large| missing())?;
        self.0.get(first..first + (1 << height)).and_then(fold_tile).ok_or_else(missing)
    }
}

fn flat(hashes: &[NodeHash]) -> Vec<u8> {
    hashes.concat()
}

/// Entries of every kind, made from the tables alone: with and without each member that may be absent,
/// and with 40 turns each word of each vocabulary. They show that tables, writer and readers agree; they do not form a log.
#[must_use]
pub fn specimens(turns: usize) -> Vec<(Kind, Vec<u8>)> {
    specimens_of(Kind::ALL, turns, false)
}

/// [`specimens`] of the kinds that got members after version 1 was frozen ([`ADDED`]), with these members. Apart from
/// the others, whose bytes are those of the freeze.
#[must_use]
pub fn added_specimens(turns: usize) -> Vec<(Kind, Vec<u8>)> {
    specimens_of(&[Kind::FileChange], turns, true)
}

/// Form and key of each member that was added after version 1 was frozen (FORMAT.md, section 15).
pub const ADDED: [(&str, &str); 4] = [
    ("change claims", "asked"),
    ("change claims", "asked_to"),
    ("change claims", "dir_fd"),
    ("change claims", "to_dir_fd"),
];

fn specimens_of(kinds: &[Kind], turns: usize, added: bool) -> Vec<(Kind, Vec<u8>)> {
    let mut all = Vec::new();
    for kind in kinds {
        for turn in 0..turns {
            let mut specimen = Specimen { turn, whole: turn.is_multiple_of(2), added, out: String::new() };
            specimen.entry(*kind);
            all.push((*kind, specimen.out.into_bytes()));
        }
    }
    all.dedup();
    all
}

struct Specimen {
    turn: usize,
    /// Whether members that may be absent are there.
    whole: bool,
    /// Whether members that were added later are there: in turns that are whole all, in others every second.
    added: bool,
    out: String,
}

impl Specimen {
    fn entry(&mut self, kind: Kind) {
        self.out.push_str(&format!(
            "{{\"v\":1,\"i\":{},\"kind\":\"{}\",\"wall\":\"1\",\"boot\":\"2\"",
            70,
            kind.as_str()
        ));
        let common = [
            ("q", "[u32,class,u64 string]", kind.is_kernel_event()),
            ("p", "u64 string", self.whole),
            ("w", "u53", self.whole),
            ("s", "u53", self.whole || kind == Kind::Issued),
            ("n", "u53", self.whole || kind == Kind::Issued),
            ("c", "u53", kind.is_control()),
            ("prev", "base64 of 32 bytes", true),
            ("rnd", "base64 of 16 bytes", true),
            ("verdict", "verdict", self.whole),
        ];
        for (key, form, there) in common {
            if !there {
                continue;
            }
            self.out.push_str(&format!(",\"{key}\":"));
            // A session's number is its own index.
            if key == "s" && kind == Kind::Issued { self.out.push_str("70") } else { self.value(form) }
        }
        self.out.push_str(",\"body\":");
        if let Some(schema) = record::KINDS.iter().find(|schema| schema.kind == kind.as_str()) {
            self.object("", schema.members);
        }
        if self.turn.is_multiple_of(5) {
            self.out.push_str(",\"cut\":[\"path\"]");
        }
        self.out.push('}');
    }

    fn object(&mut self, form: &str, members: &[record::Member]) {
        self.out.push('{');
        let mut first = true;
        for (position, member) in members.iter().enumerate() {
            let left_out = if ADDED.contains(&(form, member.key)) {
                !self.added || !self.whole && (self.turn / 2 + position).is_multiple_of(2)
            } else {
                member.optional && !self.whole
            };
            if left_out {
                continue;
            }
            if !std::mem::take(&mut first) {
                self.out.push(',');
            }
            self.out.push_str(&format!("\"{}\":", member.key));
            if member.list { self.list(member.form) } else { self.value(member.form) }
        }
        self.out.push('}');
    }

    fn list(&mut self, form: &str) {
        self.out.push('[');
        for position in 0..self.turn % 3 {
            if position > 0 {
                self.out.push(',');
            }
            self.value(form);
        }
        self.out.push(']');
    }

    fn value(&mut self, form: &str) {
        let texts = [r#""""#, r#""a \"b\" \\ é""#, r#"{"b64":"/wo="}"#];
        let pick = |choices: &[&str]| choices.get(self.turn % choices.len()).copied().unwrap_or_default().to_owned();
        let base64 = |len: usize| format!("\"{}\"", STANDARD.encode(vec![7; len]));
        let plain = match form {
            "u32" => pick(&["0", "4294967295"]),
            "u53" => pick(&["0", "9007199254740991"]),
            "u64 string" => pick(&[r#""0""#, r#""18446744073709551615""#]),
            "class" => pick(&["0", "1", "2", "3", "4"]),
            "true or false" => pick(&["true", "false"]),
            "address" => pick(&[r#""10.0.0.1:443""#, r#""[2001:db8::1]:0""#, r#""[::ffff:1.2.3.4]:80""#]),
            "text" => pick(&texts),
            "value" => pick(&[texts[0], r#"{"c":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}"#, texts[1], texts[2]]),
            "base64" => base64(self.turn),
            "hex of 8 bytes" => format!("\"{}\"", "0a".repeat(8)),
            "hex of 16 bytes" => format!("\"{}\"", "0a".repeat(16)),
            "hex of 32 bytes" => format!("\"{}\"", "0a".repeat(32)),
            "base64 of 16 bytes" => base64(16),
            "base64 of 32 bytes" => base64(32),
            "base64 of 64 bytes" => base64(64),
            "kind" => format!("\"{}\"", Kind::ALL.get(self.turn).map_or("genesis", |kind| kind.as_str())),
            "list of value" => return self.list("value"),
            "[text,value]" => return self.row(&["text", "value"]),
            "[kind,u64 string]" => return self.row(&["kind", "u64 string"]),
            "[u32,class,u64 string]" => return self.row(&["u32", "class", "u64 string"]),
            _ => return self.described(form),
        };
        self.out.push_str(&plain);
    }

    fn row(&mut self, forms: &[&str]) {
        self.out.push('[');
        for (position, form) in forms.iter().enumerate() {
            if position > 0 {
                self.out.push(',');
            }
            self.value(form);
        }
        self.out.push(']');
    }

    fn described(&mut self, form: &str) {
        let Some(schema) = record::FORMS.iter().find(|schema| schema.form == form) else {
            // Shows up as an entry that nobody can read.
            return self.out.push_str(&format!("(no table for {form})"));
        };
        match schema.shape {
            "object" => self.object(schema.form, schema.members),
            "row" => self.row(&schema.members.iter().map(|member| member.form).collect::<Vec<_>>()),
            shape => {
                let at = self.turn % schema.members.len();
                let word = |at: usize| schema.members.get(at).map_or("", |member| member.key);
                let text = match shape {
                    "words" => format!("\"{}\"", word(at)),
                    _ if at == 0 => format!("[\"{}\"]", word(0)),
                    _ => format!("[\"{}\",\"{}\"]", word(at - 1), word(at)),
                };
                self.out.push_str(&text);
            }
        }
    }
}
