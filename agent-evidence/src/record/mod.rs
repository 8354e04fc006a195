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
mod control;
mod identity;
mod ids;
mod list;
mod read;
mod schema;
mod text;
mod write;

pub use act::{
    ActMarks, Cgroup, CgroupOp, CommClaims, Connect, ConnectDone, Device, Exec, ExecClaims, Exit, Fork, Open,
    OpenClaims, Transport,
};
pub use control::{
    Armed, Cadence, Counter, DisarmCause, Disarmed, Epoch, Gap, GapCause, Genesis, Heartbeat, Hook, Identified,
    KeyTier, LossShare, NotCovered, NumberRange, Predecessor, Recovered, RecoveryCause, Scope, ScopeRoot, SecureBoot,
    SessionState, Succession, Unknown,
};
pub use identity::{
    Issued, IssuedClaims, KindCount, Label, Process, Requester, RevokeCause, Revoked, Workload, WorkloadKind,
};
pub use ids::{
    BootTime, Capabilities, CgroupId, ChainHash, Class, ControlNumber, Digest, EntryIndex, EpochNumber, Id128,
    KernelNumber, LeafHash, Nanoseconds, ProcessCookie, PublicKey, RootHash, SessionNumber, Signature, SocketCookie,
    TreeSize, WallTime,
};
pub use list::List;
pub use read::DecodeError;
pub use schema::{FormSchema, KindSchema, Member};
pub use text::{Text, TextList, shown};

use read::{Decode, Reader};
use schema::{Described, bodies};
use write::{Encode, Limits, Writer};

/// Longest entry in bytes: a bundle of the tiles directory gives the length of an entry in 16 bits.
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// The version that [`Draft::encode`] writes in `v`.
pub const RECORD_VERSION: u32 = 1;

bodies! {
    /// Begins a log.
    Genesis(Genesis<'a>) = "genesis" control true,
    /// Begins an epoch of signing keys.
    Epoch(Epoch) = "epoch" control true,
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
    /// A process was created.
    Fork(Fork<'a>) = "fork" control false,
    /// A process replaced its program.
    Exec(Exec<'a>) = "exec" control false,
    /// A process ended.
    Exit(Exit<'a>) = "exit" control false,
    /// A socket was connected, or tried to.
    Connect(Connect<'a>) = "connect" control false,
    /// A connection that was in progress is decided.
    ConnectDone(ConnectDone<'a>) = "connect_done" control false,
    /// A file was opened, or an open failed.
    Open(Open<'a>) = "open" control false,
    /// A cgroup was created or removed, or a process was moved.
    Cgroup(Cgroup<'a>) = "cgroup" control false,
}

/// Every object, row, vocabulary and set that kinds refer to, in the order of the specification.
pub const FORMS: &[FormSchema] = &[
    Predecessor::SCHEMA,
    Hook::SCHEMA,
    NotCovered::SCHEMA,
    Cadence::SCHEMA,
    Counter::SCHEMA,
    SessionState::SCHEMA,
    NumberRange::SCHEMA,
    LossShare::SCHEMA,
    ScopeRoot::SCHEMA,
    Requester::SCHEMA,
    IssuedClaims::SCHEMA,
    CommClaims::SCHEMA,
    ExecClaims::SCHEMA,
    OpenClaims::SCHEMA,
    Device::SCHEMA,
    KeyTier::SCHEMA,
    Succession::SCHEMA,
    GapCause::SCHEMA,
    RecoveryCause::SCHEMA,
    DisarmCause::SCHEMA,
    SecureBoot::SCHEMA,
    WorkloadKind::SCHEMA,
    RevokeCause::SCHEMA,
    Transport::SCHEMA,
    CgroupOp::SCHEMA,
    ActMarks::SCHEMA,
];

impl Kind {
    /// Whether an entry of this kind is made from one kernel event and carries its number.
    #[must_use]
    pub fn is_kernel_event(self) -> bool {
        matches!(
            self,
            Self::Fork | Self::Exec | Self::Exit | Self::Connect | Self::ConnectDone | Self::Open | Self::Cgroup
        )
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
}

impl Draft<'_> {
    /// Appends the entry's canonical bytes to `out`, at most [`ENTRY_BYTES_MAX`] of them, and does not allocate
    /// unless `out` must grow. A draft that would be longer is written with its longest texts and lists
    /// shortened, and the last member `cut` names them.
    pub fn encode(&self, at: &Placement, out: &mut Vec<u8>) {
        let start = out.len();
        if write_entry(self, at, &[], Limits::NONE, out) {
            return;
        }
        for limits in Limits::STEPS {
            out.truncate(start);
            if write_entry(self, at, &[], limits, out) {
                return;
            }
        }
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
        write_entry(&self.draft, &self.placement, &self.cut, Limits::NONE, out);
    }
}

/// Writes one entry and says whether it fits.
fn write_entry(draft: &Draft<'_>, at: &Placement, cut: &[Text<'_>], limits: Limits, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let session = match draft.body {
        Body::Issued(_) => Some(at.index),
        _ => draft.session,
    };
    let mut writer = Writer::new(out, limits);
    writer.raw(b"{\"v\":1");
    writer.member("i", "\"i\":", &at.index);
    writer.member("kind", "\"kind\":", &draft.body.kind());
    writer.member("wall", "\"wall\":", &draft.wall);
    writer.member("boot", "\"boot\":", &draft.boot);
    writer.member("q", "\"q\":", &draft.kernel);
    writer.member("p", "\"p\":", &draft.process);
    writer.member("w", "\"w\":", &draft.workload);
    writer.member("s", "\"s\":", &session);
    writer.member("n", "\"n\":", &at.session_number);
    writer.member("c", "\"c\":", &at.control_number);
    writer.member("prev", "\"prev\":", &at.previous);
    writer.raw(b",\"rnd\":");
    writer.base64(&at.random);
    writer.raw(b",\"body\":");
    draft.body.encode(&mut writer);
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
    let record = read_entry(&mut reader)?;
    reader.end()?;
    // The reader refuses nearly everything by itself; this makes "one encoding" hold whatever it lets pass.
    scratch.clear();
    record.encode(scratch);
    if scratch.as_slice() == bytes {
        return Ok(record);
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
    bytes.expect(",\"body\":")?;
    let body = kind.decode_body(bytes)?;
    let cut = if bytes.skip(b",\"cut\":") { bytes.items()? } else { Vec::new() };
    bytes.expect("}")?;
    Ok(Record {
        placement: Placement { index, session_number, control_number, previous, random },
        draft: Draft { wall, boot, kernel, process, workload, session, body },
        cut,
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
