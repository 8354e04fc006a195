//! Kinds that say who: workloads, processes and sessions.

use super::Kind;
use super::act::CommClaims;
use super::ids::{BootTime, CgroupId, ChainHash, EntryIndex, Nanoseconds, ProcessCookie};
use super::list::List;
use super::read::{Decode, DecodeError, Reader};
use super::schema::{object, words};
use super::text::Text;
use super::value::Value;
use super::write::{Encode, Step, Writer};

words! {
    /// What sort of thing a workload is.
    WorkloadKind as "workload kind" {
        /// A container of a Kubernetes pod.
        Kubernetes = "kubernetes",
        /// Another container.
        Container = "container",
        /// A systemd unit.
        Systemd = "systemd",
        /// A session opened with the agent.
        Session = "session",
        /// The rest of the host.
        Host = "host",
        /// Not told.
        Unknown = "unknown",
    }
}

words! {
    /// Why a session ended.
    RevokeCause as "revoke cause" {
        /// Its command ended, and no descendant was left.
        Exit = "exit",
        /// Its time was up.
        Expiry = "expiry",
        /// Somebody revoked it.
        Operator = "operator",
        /// The host is going down, or went down before the session ended.
        HostStop = "host_stop",
    }
}

/// A name and its value: `["name","value"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label<'a> {
    /// Name.
    pub name: Text<'a>,
    /// Value.
    pub value: Value<'a>,
}

impl Encode for Label<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        out.byte(b'[');
        out.part(Step::Position(0), &self.name);
        out.byte(b',');
        out.part(Step::Position(1), &self.value);
        out.byte(b']');
    }
}

impl<'a> Decode<'a> for Label<'a> {
    const FORM: &'static str = "[text,value]";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        bytes.expect("[")?;
        let name = Text::decode(bytes)?;
        bytes.expect(",")?;
        let value = Value::decode(bytes)?;
        bytes.expect("]")?;
        Ok(Self { name, value })
    }
}

/// How many entries of one kind: `["kind","count"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindCount {
    /// The kind.
    pub kind: Kind,
    /// How many.
    pub count: u64,
}

impl Encode for KindCount {
    fn encode(&self, out: &mut Writer<'_>) {
        out.byte(b'[');
        self.kind.encode(out);
        out.byte(b',');
        self.count.encode(out);
        out.byte(b']');
    }
}

impl<'a> Decode<'a> for KindCount {
    const FORM: &'static str = "[kind,u64 string]";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        bytes.expect("[")?;
        let kind = Kind::decode(bytes)?;
        bytes.expect(",")?;
        let count = u64::decode(bytes)?;
        bytes.expect("]")?;
        Ok(Self { kind, count })
    }
}

object! {
    /// A workload, described once and referred to by the index of this entry.
    Workload<'a> as "workload" {
        /// What sort of thing it is.
        sort: WorkloadKind = "sort",
        /// Its identity, as a SPIFFE ID.
        id: Text<'a> = "id",
        /// Its cgroup.
        cgroup: CgroupId = "cgroup",
        /// Path of the cgroup below the cgroup2 root.
        path: Text<'a> = "path",
        /// How the identity was established.
        how: Text<'a> = "how",
        /// What is known of it.
        labels: List<'a, Label<'a>> = "labels",
    }
}

object! {
    /// A process that was alive before capture began; its cookie is in the common member `p`.
    Process<'a> as "process" {
        /// Its tgid.
        tgid: u32 = "tgid",
        /// When it started.
        start: BootTime = "start",
        /// Its parent.
        parent: Option<ProcessCookie> = "parent",
        /// Its cgroup.
        cgroup: CgroupId = "cgroup",
        /// Path of its executable, when it could be read.
        path: Option<Value<'a>> = "path",
        /// Real user id.
        uid: u32 = "uid",
        /// Real group id.
        gid: u32 = "gid",
        /// Effective user id.
        euid: u32 = "euid",
        /// Effective group id.
        egid: u32 = "egid",
        /// How it was found: `iter` (the kernel's task iterator) or `proc` (`/proc`, which a process can race).
        how: Text<'a> = "how",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// Who asked for a session.
    Requester as "requester" {
        /// The process that asked: the peer of the socket by the kernel, where its start had been observed.
        process: Option<ProcessCookie> = "process",
        /// Its tgid.
        tgid: u32 = "tgid",
        /// Its user id.
        uid: u32 = "uid",
        /// Its group id.
        gid: u32 = "gid",
    }
}

object! {
    /// What the requester says of a session.
    IssuedClaims<'a> as "issued claims" {
        /// What it is for.
        task: Option<Value<'a>> = "task",
        /// Labels.
        labels: List<'a, Label<'a>> = "labels",
    }
}

words! {
    /// What a session is the life of.
    SessionSort as "session sort" {
        /// A command, run through the agent.
        Run = "run",
        /// A container or pod.
        Container = "container",
        /// A systemd unit.
        Unit = "unit",
    }
}

object! {
    /// Opens a session. Number 0 of its chain; `s` of this and all its entries is the index of this one.
    Issued<'a> as "issued" {
        /// The session's id.
        id: Text<'a> = "id",
        /// What it is the life of.
        sort: SessionSort = "sort",
        /// The identity it was given, as a SPIFFE ID.
        identity: Text<'a> = "identity",
        /// By which rule of the configuration it was given.
        rule: Option<Text<'a>> = "rule",
        /// Index of the `issued` entry of the session in which it was opened.
        parent: Option<EntryIndex> = "parent",
        /// Its cgroup.
        cgroup: CgroupId = "cgroup",
        /// User id its command runs as, where it is one command.
        uid: Option<u32> = "uid",
        /// Group id its command runs as, where it is one command.
        gid: Option<u32> = "gid",
        /// Longest time it may last, from this entry's boot time; absent when it has no limit.
        ttl: Option<Nanoseconds> = "ttl",
        /// Who asked; absent when nobody did.
        by: Option<Requester> = "by",
        /// What the requester says.
        claims: IssuedClaims<'a> = "claims",
    }
}

object! {
    /// Ends a session: the last entry of its chain.
    Revoked<'a> as "revoked" {
        /// The session's id.
        id: Text<'a> = "id",
        /// Why.
        cause: RevokeCause = "cause",
        /// Exit code of its command, when that ended by itself.
        code: Option<u32> = "code",
        /// The signal that ended its command.
        signal: Option<u32> = "signal",
        /// How long a credential that it was given may still be accepted by others, at most.
        residual: Option<Nanoseconds> = "residual",
        /// Entries of the session made from kernel events, by kind; kinds without any are not listed.
        acts: List<'a, KindCount> = "acts",
        /// Entries of the session before this one.
        entries: u64 = "entries",
        /// Running hash of the session before this entry.
        hash: ChainHash = "hash",
    }
}
