//! Records: one entry of the log as Rust values, and the one encoding of them.
//!
//! An entry is one JSON object in a strict profile: fixed key order per kind, no white space, non-negative
//! integers, one escape form. The stored bytes are the hashed bytes, so [`decode`] accepts exactly what
//! [`Draft::encode`] writes and refuses everything else.
//!
//! Trust: an entry's bytes may come from an adversary. What [`decode`] returns is well-formed, not true; whether
//! it belongs to a log is for `verify` to say.

#![forbid(unsafe_code)]

mod act;
mod attest;
mod commit;
mod context;
mod control;
mod file;
mod identity;
mod ids;
mod list;
mod network;
mod privilege;
mod read;
mod schema;
mod store;
mod text;
mod value;
mod write;

pub use act::{
    ActMarks, Cgroup, CgroupOp, CommClaims, Device, Exec, ExecBefore, ExecClaims, ExecFailed, Exit, Fork, Script,
};
pub use attest::{
    Anchor, AnchorCause, AttestationKey, Blob, CounterOp, Measured, MeasuredLog, NvCounter, Outside, Pcr, Voucher,
    WitnessAnswer, WitnessOutcome,
};
pub use commit::{CommitRules, DISCLOSURE_BYTES_MAX, Disclosure, DisclosureError, RuleError};
pub use context::{
    Asked, Context, ContextClaims, ContextSource, Credential, CredentialOp, CredentialType, Decision, DecisionClaims,
    Enforcement, SecretSort, SecretUse, Verdict,
};
pub use control::{
    Armed, Cadence, Canary, Counter, DisarmCause, Disarmed, Epoch, Gap, GapCause, Genesis, Heartbeat, Hook, Identified,
    KeyTier, LossShare, NotCovered, NumberRange, Predecessor, Recovered, RecoveryCause, Scope, ScopeRoot, SecureBoot,
    SessionState, Succession, SuccessionCause, Unknown,
};
pub use file::{
    ChangeClaims, FileChange, FileClose, FileFolded, FileFormat, FileMap, FileOp, FileReceived, HashState, Hashed,
    Open, OpenClaims,
};
pub use identity::{
    Issued, IssuedClaims, KindCount, Label, Process, Requester, RevokeCause, Revoked, SessionSort, Workload,
    WorkloadKind,
};
pub use ids::{
    BootTime, Capabilities, CgroupId, ChainHash, Class, ControlNumber, Digest, EntryIndex, EpochNumber, Id128,
    KernelNumber, LeafHash, Nanoseconds, ProcessCookie, PublicKey, RootHash, SessionNumber, Signature, SocketCookie,
    TreeSize, WallTime,
};
pub use list::List;
pub use network::{
    Accept, Connect, ConnectDone, ConnectUnix, ConnectVsock, Flow, Listen, NameSource, ResolvedName, Send, SocketMade,
    Transport,
};
pub use privilege::{
    AccessHow, BpfCall, CredentialSet, CredsChanged, IoUring, KernelCode, KernelLoad, KeyUse, MountChanged, MountOp,
    NamespaceChanged, NamespaceOp, ProcessAccess, SignalSent,
};
pub use read::DecodeError;
pub use schema::{FormSchema, KindSchema, Member};
pub use store::{Condition, Erased, Exported, Hold, Policy, Pruned, Storage, StorageState, Subject};
pub use text::{Bytes, Text, shown};
pub use value::{Commitment, Value, ValueList};

use commit::{Committer, Found};
use read::{Decode, Reader};
use schema::{Described, bodies};
use write::{Encode, Limits, ValueVisitor, Writer};

/// Longest entry in bytes: a bundle of the tiles directory gives the length of an entry in 16 bits.
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// The version that [`Draft::encode`] writes in `v`.
pub const RECORD_VERSION: u32 = 1;

bodies! {
    /// Begins a log.
    Genesis(Genesis<'a>) = "genesis" control true,
    /// Begins an epoch of signing keys.
    Epoch(Epoch<'a>) = "epoch" control true,
    /// Begins a run of the agent: what captures what.
    Armed(Armed<'a>) = "armed" control true,
    /// Says that the agent lives, and where its counters and sessions stand.
    Heartbeat(Heartbeat<'a>) = "heartbeat" control true,
    /// Ends a run of the agent in order.
    Disarmed(Disarmed<'a>) = "disarmed" control true,
    /// Events that happened and are not in the log.
    Gap(Gap<'a>) = "gap" control true,
    /// The log was opened, and what had to be done for it.
    Recovered(Recovered) = "recovered" control true,
    /// What is captured from here on.
    Scope(Scope<'a>) = "scope" control true,
    /// A set of policies is in force from here on.
    Policy(Policy<'a>) = "policy" control true,
    /// The TPM's attestation key and who vouches for it.
    AttestationKey(AttestationKey<'a>) = "attestation_key" control true,
    /// A TPM quote over a checkpoint of this log.
    Anchor(Anchor<'a>) = "anchor" control true,
    /// The TPM's NV counter.
    NvCounter(NvCounter<'a>) = "counter" control true,
    /// A part of a log of what was booted or loaded.
    Measured(Measured) = "measured" control true,
    /// A value from outside that nobody could know before.
    Outside(Outside<'a>) = "outside" control true,
    /// A witness's answer to a checkpoint of this log.
    Witness(WitnessAnswer<'a>) = "witness" control true,
    /// Entries are not kept any more.
    Pruned(Pruned<'a>) = "pruned" control true,
    /// A committed value was erased.
    Erased(Erased<'a>) = "erased" control true,
    /// A session's entries are exempt from pruning and erasure, or no longer.
    Hold(Hold<'a>) = "hold" control true,
    /// Whether the store has room changed.
    Storage(Storage) = "storage" control true,
    /// Which entries a sink was given.
    Exported(Exported<'a>) = "exported" control true,
    /// Something about the agent changed that bears on the evidence.
    Condition(Condition<'a>) = "condition" control true,
    /// An act whose workload could not be told.
    Unknown(Unknown<'a>) = "unknown" control true,
    /// A cgroup that was unknown has been recognized.
    Identified(Identified) = "identified" control true,
    /// Describes a workload.
    Workload(Workload<'a>) = "workload" control false,
    /// Describes a process that was alive before capture began.
    Process(Process<'a>) = "process" control false,
    /// Opens a session.
    Issued(Issued<'a>) = "issued" control false,
    /// Ends a session.
    Revoked(Revoked<'a>) = "revoked" control false,
    /// A credential was issued, renewed, refused or revoked.
    Credential(Credential<'a>) = "credential" control false,
    /// An application told of its work.
    Context(Context<'a>) = "context" control false,
    /// A decision was asked for before an act.
    Decision(Asked<'a>) = "decision" control false,
    /// An act used a secret.
    Secret(SecretUse<'a>) = "secret" control false,
    /// The content of a file was hashed.
    Hashed(Hashed<'a>) = "hashed" control false,
    /// Opens for reading of system files, folded: only counted.
    FileFolded(FileFolded<'a>) = "file_folded" control false,
    /// A process was created.
    Fork(Fork<'a>) = "fork" control false,
    /// A process replaced its program.
    Exec(Exec<'a>) = "exec" control false,
    /// An exec failed.
    ExecFailed(ExecFailed<'a>) = "exec_failed" control false,
    /// A process ended.
    Exit(Exit<'a>) = "exit" control false,
    /// A socket was connected, or tried to.
    Connect(Connect<'a>) = "connect" control false,
    /// A connection that was in progress is decided.
    ConnectDone(ConnectDone<'a>) = "connect_done" control false,
    /// A connection or bound socket ended, with its totals.
    Flow(Flow<'a>) = "flow" control false,
    /// Data was sent without a connection.
    Send(Send<'a>) = "send" control false,
    /// A socket began to listen.
    Listen(Listen<'a>) = "listen" control false,
    /// A connection was accepted.
    Accept(Accept<'a>) = "accept" control false,
    /// A socket of the local host was connected, or tried to.
    ConnectUnix(ConnectUnix<'a>) = "connect_unix" control false,
    /// A socket between host and virtual machine was connected, or tried to.
    ConnectVsock(ConnectVsock<'a>) = "connect_vsock" control false,
    /// A raw or packet socket, or one of another family, was created.
    Socket(SocketMade<'a>) = "socket" control false,
    /// A file was opened, or an open failed.
    Open(Open<'a>) = "open" control false,
    /// Names, permissions, owner, length or attributes of a file changed.
    FileChange(FileChange<'a>) = "file_change" control false,
    /// A file was closed for good, with its totals.
    FileClose(FileClose<'a>) = "file_close" control false,
    /// A file was mapped as executable or writable shared memory.
    FileMap(FileMap<'a>) = "file_map" control false,
    /// A descriptor was received over a socket.
    FileReceived(FileReceived<'a>) = "file_received" control false,
    /// A cgroup was created or removed, or a process was moved.
    Cgroup(Cgroup<'a>) = "cgroup" control false,
    /// A process's credentials changed without an exec.
    Creds(CredsChanged<'a>) = "creds" control false,
    /// A process reached into another, or tried to.
    ProcessAccess(ProcessAccess<'a>) = "process_access" control false,
    /// A signal was sent across scopes, or to the agent.
    Signal(SignalSent<'a>) = "signal" control false,
    /// A mount or root directory changed.
    Mount(MountChanged<'a>) = "mount" control false,
    /// Namespaces were made or entered.
    Namespace(NamespaceChanged<'a>) = "namespace" control false,
    /// `bpf(2)` was called.
    Bpf(BpfCall<'a>) = "bpf" control false,
    /// Code was loaded into the kernel, or removed.
    KernelLoad(KernelLoad<'a>) = "kernel_load" control false,
    /// A kernel key or keyring was used.
    Key(KeyUse<'a>) = "key" control false,
    /// An io_uring instance was made or changed.
    IoUring(IoUring<'a>) = "io_uring" control false,
}

/// Every object, row, vocabulary and set that kinds refer to, in the order of the specification.
pub const FORMS: &[FormSchema] = &[
    Verdict::SCHEMA,
    Blob::SCHEMA,
    Predecessor::SCHEMA,
    Hook::SCHEMA,
    NotCovered::SCHEMA,
    Cadence::SCHEMA,
    Counter::SCHEMA,
    Canary::SCHEMA,
    SessionState::SCHEMA,
    NumberRange::SCHEMA,
    LossShare::SCHEMA,
    ScopeRoot::SCHEMA,
    Pcr::SCHEMA,
    Requester::SCHEMA,
    IssuedClaims::SCHEMA,
    ContextClaims::SCHEMA,
    DecisionClaims::SCHEMA,
    CommClaims::SCHEMA,
    ExecClaims::SCHEMA,
    ExecBefore::SCHEMA,
    Script::SCHEMA,
    OpenClaims::SCHEMA,
    ChangeClaims::SCHEMA,
    ResolvedName::SCHEMA,
    CredentialSet::SCHEMA,
    Device::SCHEMA,
    KeyTier::SCHEMA,
    Succession::SCHEMA,
    SuccessionCause::SCHEMA,
    GapCause::SCHEMA,
    RecoveryCause::SCHEMA,
    DisarmCause::SCHEMA,
    SecureBoot::SCHEMA,
    Voucher::SCHEMA,
    AnchorCause::SCHEMA,
    CounterOp::SCHEMA,
    MeasuredLog::SCHEMA,
    WitnessOutcome::SCHEMA,
    StorageState::SCHEMA,
    Subject::SCHEMA,
    WorkloadKind::SCHEMA,
    SessionSort::SCHEMA,
    RevokeCause::SCHEMA,
    CredentialOp::SCHEMA,
    CredentialType::SCHEMA,
    ContextSource::SCHEMA,
    Decision::SCHEMA,
    Enforcement::SCHEMA,
    SecretSort::SCHEMA,
    Transport::SCHEMA,
    NameSource::SCHEMA,
    FileOp::SCHEMA,
    HashState::SCHEMA,
    FileFormat::SCHEMA,
    CgroupOp::SCHEMA,
    AccessHow::SCHEMA,
    MountOp::SCHEMA,
    NamespaceOp::SCHEMA,
    KernelCode::SCHEMA,
    ActMarks::SCHEMA,
];

impl Kind {
    /// The class of kernel numbers that entries of this kind carry; none for kinds that are not made from one kernel
    /// event.
    #[must_use]
    pub fn class(self) -> Option<Class> {
        Some(match self {
            Self::Fork | Self::Exec | Self::ExecFailed | Self::Exit => Class::Process,
            Self::Cgroup => Class::Cgroup,
            Self::Connect
            | Self::ConnectDone
            | Self::Flow
            | Self::Send
            | Self::Listen
            | Self::Accept
            | Self::ConnectUnix
            | Self::ConnectVsock
            | Self::Socket => Class::Network,
            Self::Open | Self::FileChange | Self::FileClose | Self::FileMap | Self::FileReceived => Class::File,
            Self::Creds
            | Self::ProcessAccess
            | Self::Signal
            | Self::Mount
            | Self::Namespace
            | Self::Bpf
            | Self::KernelLoad
            | Self::Key
            | Self::IoUring => Class::Privilege,
            _ => return None,
        })
    }

    /// Whether an entry of this kind is made from one kernel event and carries its number.
    #[must_use]
    pub fn is_kernel_event(self) -> bool {
        self.class().is_some()
    }
}

/// What the agent hands to the log: everything of an entry but its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft<'a> {
    /// When, by the host's clock.
    pub wall: WallTime,
    /// When, since boot. For a kernel event, the kernel's own time of the act.
    pub boot: BootTime,
    /// The kernel number, on records made from a kernel event only.
    pub kernel: Option<KernelNumber>,
    /// The process that acted.
    pub process: Option<ProcessCookie>,
    /// Index of the `workload` entry that describes whose act it was.
    pub workload: Option<EntryIndex>,
    /// Index of the `issued` entry of the session whose act it was. Ignored for [`Body::Issued`], whose session
    /// is itself.
    pub session: Option<EntryIndex>,
    /// What a policy decided of it; absent when none was evaluated.
    pub verdict: Option<Verdict<'a>>,
    /// What is said.
    pub body: Body<'a>,
}

/// The place that the log gives an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Its position in the log.
    pub index: EntryIndex,
    /// Its position in its session's chain; present exactly when the entry belongs to a session.
    pub session_number: Option<SessionNumber>,
    /// Its position in the control chain; present exactly for kinds of the control chain.
    pub control_number: Option<ControlNumber>,
    /// Leaf hash of the entry before; 32 zero bytes for the first.
    pub previous: LeafHash,
    /// Fresh random bytes, so that the hash of a withheld entry discloses nothing of it.
    pub random: [u8; 16],
}

/// One entry as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place.
    pub placement: Placement,
    /// What the agent said.
    pub draft: Draft<'a>,
    /// Keys whose values were shortened to make the entry fit [`ENTRY_BYTES_MAX`].
    pub cut: Vec<Text<'a>>,
    /// How many of its values are commitments: [`Record::commitments`] names them.
    pub committed: u32,
}

impl Draft<'_> {
    /// Appends the entry's canonical bytes to `out`, at most [`ENTRY_BYTES_MAX`] of them, and does not allocate
    /// unless `out` must grow. A draft that would be longer is written with its longest texts and lists
    /// shortened, and the last member `cut` names them.
    pub fn encode(&self, at: &Placement, out: &mut Vec<u8>) {
        let start = out.len();
        if write_entry(self, at, &[], Limits::NONE, None, out) {
            return;
        }
        for limits in Limits::STEPS {
            out.truncate(start);
            if write_entry(self, at, &[], limits, None, out) {
                return;
            }
        }
    }

    /// Like [`Draft::encode`], with the values that `rules` name as commitments; the texts that stand behind these, for the
    /// sidecar. What was clear in a shortened list and does not stand in the entry is in no sidecar either.
    pub fn encode_committed(
        &self,
        at: &Placement,
        rules: &CommitRules,
        salts: &mut dyn FnMut() -> [u8; 16],
        out: &mut Vec<u8>,
    ) -> Vec<Disclosure<'static>> {
        let start = out.len();
        let mut committer = Committer::new(rules, salts);
        if write_entry(self, at, &[], Limits::NONE, Some(&mut committer), out) {
            return committer.disclosures;
        }
        for limits in Limits::STEPS {
            out.truncate(start);
            committer.disclosures.clear();
            if write_entry(self, at, &[], limits, Some(&mut committer), out) {
                break;
            }
        }
        committer.disclosures
    }
}

impl Record<'_> {
    /// What it says.
    #[must_use]
    pub fn body(&self) -> &Body<'_> {
        &self.draft.body
    }

    /// Its position in the log.
    #[must_use]
    pub fn index(&self) -> EntryIndex {
        self.placement.index
    }

    /// Appends the entry's bytes to `out`: for a record that [`decode`] returned, the bytes it was read from.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_entry(&self.draft, &self.placement, &self.cut, Limits::NONE, None, out);
    }

    /// Its committed values: field and commitment, in the order in which they stand in the entry.
    #[must_use]
    pub fn commitments(&self) -> Vec<(String, Commitment)> {
        let mut found = Found::default();
        write_entry(&self.draft, &self.placement, &self.cut, Limits::NONE, Some(&mut found), &mut Vec::new());
        found.0
    }

    /// What it refers to in blobs, in the order in which it stands in the entry.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        let (one, first, second): (_, &[Blob], &[Blob]) = match self.body() {
            Body::Policy(policy) => (Some(&policy.set), &[], &[]),
            Body::Measured(measured) => (Some(&measured.content), &[], &[]),
            Body::AttestationKey(key) => (None, &key.certificates, &key.ek_certificates),
            _ => (None, &[], &[]),
        };
        one.into_iter().chain(first).chain(second)
    }
}

/// Writes one entry and says whether it fits.
fn write_entry(
    draft: &Draft<'_>,
    at: &Placement,
    cut: &[Text<'_>],
    limits: Limits,
    visitor: Option<&mut dyn ValueVisitor>,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let session = match draft.body {
        Body::Issued(_) => Some(at.index),
        _ => draft.session,
    };
    let mut writer = Writer::new(out, limits);
    writer.raw(b"{\"v\":1");
    writer.member("i", ",\"i\":", &at.index);
    writer.member("kind", ",\"kind\":", &draft.body.kind());
    writer.member("wall", ",\"wall\":", &draft.wall);
    writer.member("boot", ",\"boot\":", &draft.boot);
    writer.member("q", ",\"q\":", &draft.kernel);
    writer.member("p", ",\"p\":", &draft.process);
    writer.member("w", ",\"w\":", &draft.workload);
    writer.member("s", ",\"s\":", &session);
    writer.member("n", ",\"n\":", &at.session_number);
    writer.member("c", ",\"c\":", &at.control_number);
    writer.member("prev", ",\"prev\":", &at.previous);
    writer.raw(b",\"rnd\":");
    writer.base64(&at.random);
    writer.member("verdict", ",\"verdict\":", &draft.verdict);
    writer.raw(b",\"body\":");
    if let Some(visitor) = visitor {
        writer.visited_by(draft.body.kind().as_str(), visitor);
    }
    draft.body.encode(&mut writer);
    writer.unvisited();
    let shortened = std::mem::take(&mut writer.cut);
    if !shortened.is_empty() || !cut.is_empty() {
        writer.raw(b",\"cut\":");
        writer.items(cut.iter().map(Text::borrow).chain(shortened.into_iter().map(Text::from)));
    }
    writer.byte(b'}');
    out.len() - start <= ENTRY_BYTES_MAX
}

/// Reads one entry. `scratch` is a buffer to be used again for the next one.
///
/// # Errors
/// When the bytes are anything but the one encoding of a record.
pub fn decode_with<'a>(bytes: &'a [u8], scratch: &mut Vec<u8>) -> Result<Record<'a>, DecodeError> {
    if bytes.len() > ENTRY_BYTES_MAX {
        return Err(DecodeError::TooLong { len: bytes.len(), max: ENTRY_BYTES_MAX });
    }
    let mut reader = Reader::new(bytes);
    // One place from here to the caller: a record is large, and moving it costs as much as reading a member.
    let mut decoded = read_entry(&mut reader);
    if let Ok(record) = &decoded
        && let Err(error) = reader.end().and_then(|()| canonical(record, bytes, scratch))
    {
        decoded = Err(error);
    }
    decoded
}

/// The reader refuses nearly everything by itself; this makes "one encoding" hold whatever it lets pass.
fn canonical(record: &Record<'_>, bytes: &[u8], scratch: &mut Vec<u8>) -> Result<(), DecodeError> {
    scratch.clear();
    record.encode(scratch);
    if scratch.as_slice() == bytes {
        return Ok(());
    }
    let same = scratch.iter().zip(bytes).take_while(|(written, read)| written == read).count();
    Err(DecodeError::NotCanonical { offset: same })
}

/// Reads one entry.
///
/// # Errors
/// When the bytes are anything but the one encoding of a record.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    decode_with(bytes, &mut Vec::with_capacity(bytes.len()))
}

fn read_entry<'a>(bytes: &mut Reader<'a>) -> Result<Record<'a>, DecodeError> {
    bytes.expect("{")?;
    let version: u32 = bytes.member("v", ",\"v\":")?;
    if version != RECORD_VERSION {
        return Err(DecodeError::Version { seen: version });
    }
    let index = bytes.member("i", ",\"i\":")?;
    let kind: Kind = bytes.member("kind", ",\"kind\":")?;
    let wall = bytes.member("wall", ",\"wall\":")?;
    let boot = bytes.member("boot", ",\"boot\":")?;
    let kernel = bytes.member("q", ",\"q\":")?;
    let process = bytes.member("p", ",\"p\":")?;
    let workload = bytes.member("w", ",\"w\":")?;
    let session = bytes.member("s", ",\"s\":")?;
    let session_number = bytes.member("n", ",\"n\":")?;
    let control_number = bytes.member("c", ",\"c\":")?;
    let previous = bytes.member("prev", ",\"prev\":")?;
    let random = bytes.member::<Random>("rnd", ",\"rnd\":")?.0;
    let verdict = bytes.member("verdict", ",\"verdict\":")?;
    bytes.expect(",\"body\":")?;
    let body = kind.decode_body(bytes)?;
    let cut = if bytes.skip(b",\"cut\":") { bytes.items()? } else { Vec::new() };
    bytes.expect("}")?;
    Ok(Record {
        placement: Placement { index, session_number, control_number, previous, random },
        draft: Draft { wall, boot, kernel, process, workload, session, verdict, body },
        cut,
        committed: bytes.committed(),
    })
}

/// The random bytes of an entry.
struct Random([u8; 16]);

impl<'a> Decode<'a> for Random {
    const FORM: &'static str = "base64 of 16 bytes";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        bytes.base64(Self::FORM).map(Self)
    }
}

#[cfg(test)]
mod tests;
