//! What crosses the control socket: one JSON object per line, a request and then its reply.
//!
//! Owns the shapes and their limits. A request is a claim by whoever connected: everything in it
//! is bounded here and judged elsewhere; who asks is never in the request, it is the kernel's
//! answer about the connection ([`Peer`]). Replies come from the daemon and are trusted by clients
//! as far as the socket's directory is (root's).
#![forbid(unsafe_code)]

use std::future::Future;

use agent_evidence::attest::statement::{NONCE_BYTES_MAX, NONCE_BYTES_MIN};
use serde::{Deserialize, Serialize};

/// Longest line either way, in bytes, the newline included.
pub const LINE_SIZE_MAX: usize = 64 * 1024;
/// Longest identity, in bytes: the limit of the SPIFFE ID specification, section 2.3.
pub const IDENTITY_SIZE_MAX: usize = 2048;
/// Longest task text, in bytes.
pub const TASK_SIZE_MAX: usize = 4096;
/// Most labels on one session.
pub const LABELS_MAX: usize = 32;
/// Longest key of a label, in bytes.
pub const LABEL_KEY_SIZE_MAX: usize = 64;
/// Longest value of a label, in bytes.
pub const LABEL_VALUE_SIZE_MAX: usize = 256;
/// Longest session id or join token, in bytes.
pub const ID_SIZE_MAX: usize = 128;
/// Longest field of a value, in bytes: a kind, members and positions.
pub const FIELD_SIZE_MAX: usize = 256;
/// Longest reason for a hold or an erasure, in bytes.
pub const REASON_SIZE_MAX: usize = 1024;

/// Longest cosigned checkpoint, in bytes: with the signatures of a hundred witnesses.
pub const COSIGNED_SIZE_MAX: usize = 32 * 1024;

/// Who is at the other end of a connection, as the kernel says.
///
/// `pid` names a process only while that process lives: it can be reused afterwards. A client
/// that must be acted on keeps its connection open until the answer is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id when it connected.
    pub uid: u32,
    /// Effective group id when it connected.
    pub gid: u32,
    /// Supplementary groups, read from `/proc/<pid>/status` while it was connected.
    pub groups: Vec<u32>,
    /// Process id in the daemon's pid namespace.
    pub pid: u32,
    /// When that process started, in clock ticks since boot, as read when it connected: tells it
    /// from a later one of the same id ([`Peer::is_same_process`]).
    pub start_ticks: u64,
}

/// A wish for a session. Every field but `peer` is the asker's claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// Identity asked for; the authorization has allowed it. None never reaches the service.
    pub identity: Option<String>,
    /// What the session is for, in the asker's words.
    pub task: Option<String>,
    /// Time to live in nanoseconds of boot time; already within the configured limits.
    pub ttl_ns: Option<u64>,
    /// Labels in the asker's order; keys are unique.
    pub labels: Vec<(String, String)>,
    /// Who asked.
    pub peer: Peer,
}

/// A session that now exists and has its `issued` record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionOpened {
    /// The session's id.
    pub id: String,
    /// Secret that lets one process join; good once.
    pub join_token: String,
    /// Index of the `issued` entry.
    pub entry: u64,
}

/// How the session's command ended. Exactly one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandStatus {
    /// Exit code.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
}

/// One session as the daemon knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionInfo {
    /// The session's id.
    pub id: String,
    /// Its identity.
    pub identity: String,
    /// What it is for, in the asker's words: a claim.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<String>,
    /// Labels, in the asker's order: claims.
    #[serde(default)]
    pub labels: Vec<(String, String)>,
    /// User id that asked for it.
    pub uid: u32,
    /// Index of its `issued` entry.
    pub entry: u64,
    /// Cgroup id, when its cgroup exists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup: Option<u64>,
    /// Wall time of issuance in nanoseconds since 1970 (the host's clock).
    pub issued_wall_ns: u64,
    /// Nanoseconds until it expires; none: no limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_in_ns: Option<u64>,
    /// Where it is between issuance and revocation.
    pub state: SessionState,
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Issued; no process has joined.
    Issued,
    /// A command runs in it.
    Running,
    /// Its command has ended and descendants are left.
    Lingering,
    /// Revoked; kept for a while so that `session show` can say so.
    Revoked,
}

/// Which session and identity the kernel gives a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhoAmI {
    /// Session id; none outside sessions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<String>,
    /// The workload's identity.
    pub identity: String,
    /// Cgroup id at the moment of asking.
    pub cgroup: u64,
    /// How the identity was established.
    pub established_how: String,
}

/// What the daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Nanoseconds since the daemon armed.
    pub uptime_ns: u64,
    /// Origin of the log.
    pub origin: String,
    /// Trust tier, T0 to T3, and what it means in one sentence.
    pub trust_tier: String,
    /// Hook tier: `lsm`, `fentry` or `tracepoint`.
    pub hook_tier: String,
    /// Whether pinned maps of an earlier run were taken over.
    pub resumed: bool,
    /// Which hook serves which event class.
    pub hooks: Vec<HookStatus>,
    /// What is not covered, and why.
    pub not_covered: Vec<NotCovered>,
    /// Key epoch in force; none while the log waits for its key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<u64>,
    /// Entries made durable.
    pub entries: u64,
    /// Tree size of the newest checkpoint.
    pub sealed: u64,
    /// Bytes of the log directory; none when not measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_size: Option<u64>,
    /// Open sessions.
    pub sessions: u64,
    /// Kernel numbers per class, summed over processors.
    pub classes: Vec<ClassStatus>,
    /// The TPM; none: there is none, or it is not to be used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tpm: Option<TpmStatus>,
    /// Room on the disk of the state directory.
    #[serde(default)]
    pub storage: StorageStatus,
    /// What of the log is whole, and what goes.
    #[serde(default)]
    pub retention: RetentionStatus,
    /// One per configured sink.
    pub sinks: Vec<SinkStatus>,
}

/// The TPM, as far as the daemon uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmStatus {
    /// Where it is.
    pub device: String,
    /// `ready`, `starting`, or what is wrong, in the words of the operator's manual.
    pub state: String,
    /// More of what is wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// Manufacturer and firmware, once it was open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tpm: Option<String>,
    /// Name of the attestation key, hexadecimal, once it was open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attestation_key: Option<String>,
    /// Nanoseconds since the last anchor of this run was made; none: none yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub anchor_age_ns: Option<u64>,
    /// Anchors in the log.
    pub anchors: u64,
    /// Value of the NV counter; none: it is not used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counter: Option<u64>,
    /// Steps of the counter in the last 24 hours of the TPM's clock.
    pub steps_today: u64,
    /// Most of them.
    pub steps_per_day_max: u32,
    /// Operations in the last hour.
    pub operations_last_hour: u64,
    /// Nanoseconds in which it had an operation to do, of those that ended in the last hour.
    #[serde(default)]
    pub busy_ns_last_hour: u64,
    /// The longest that the pipeline took to hand an operation over, in nanoseconds: it never waits for one.
    #[serde(default)]
    pub order_ns_max: u64,
}

/// An anchor that a checkpoint covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchored {
    /// Index of its entry.
    pub index: u64,
    /// The entry: one line of canonical JSON.
    pub entry: String,
    /// Public area of the attestation key (TPMT_PUBLIC), base64.
    pub attestation_key: String,
    /// The 32 bytes that were quoted besides the registers, hexadecimal.
    pub qualifying: String,
}

/// What of the log is whole, and what goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionStatus {
    /// The rules of the configuration by which entries go.
    pub rules: Vec<String>,
    /// The first entry that is whole; those before it were pruned.
    pub first_entry: u64,
    /// How many of those before are kept for their kind.
    pub kept: u64,
    /// The newest `pruned` entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record: Option<u64>,
    /// Sessions that are held.
    pub held: u64,
    /// `idle`, `looking` or `removing`.
    pub state: String,
}

/// What was pruned, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneReport {
    /// The first entry that stays whole.
    pub first: u64,
    /// The first entry that was whole before.
    pub from: u64,
    /// How many entries from there on go.
    pub gone: u64,
    /// How many are kept for their kind.
    pub kept_by_kind: u64,
    /// How many more for a session that is held or open.
    pub kept_by_session: u64,
    /// How many more so that numbers can be continued.
    pub kept_by_place: u64,
    /// Sinks that have not sent all of it.
    pub unsent: Vec<String>,
    /// The `pruned` entry; none when it was only asked what would go.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record: Option<u64>,
}

/// Room on the disk of the state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageStatus {
    /// `ok`, `low` or `full`.
    pub state: String,
    /// Free bytes; none when the system does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub free_bytes: Option<u64>,
    /// Events left out for want of room since the daemon armed; the log says which.
    pub left_out: u64,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookStatus {
    /// Event class or event it serves.
    pub event: String,
    /// The kernel hook.
    pub hook: String,
}

/// Something that is not captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotCovered {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Counters of one event class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassStatus {
    /// The class: `process`, `cgroup`, `network`, `file`.
    pub class: String,
    /// Numbers given out by the kernel side.
    pub generated: u64,
    /// Events dropped, by the kernel's count.
    pub dropped: u64,
}

/// One export sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkStatus {
    /// Name of the sink: the key of its configuration.
    pub name: String,
    /// The next entry to send.
    pub next_entry: u64,
    /// Sealed entries not yet sent.
    pub lag_entries: u64,
    /// Events sent since the daemon started.
    pub sent: u64,
    /// Entries that have no event in this format, since the daemon started.
    pub filtered: u64,
    /// Entries that were pruned before they were sent, since the daemon started.
    #[serde(default)]
    pub pruned: u64,
    /// Attempts that failed, since the daemon started.
    pub failures: u64,
    /// The last failure, when the sink has not worked since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<String>,
}

/// Why the daemon did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case", deny_unknown_fields)]
pub enum SessionError {
    /// The asker may not.
    #[error("refused: {why}")]
    Refused {
        /// Which rule, and what would help.
        why: String,
    },
    /// No such session.
    #[error("no session {id}")]
    Unknown {
        /// The id asked for.
        id: String,
    },
    /// The join token is not one that waits to be used.
    #[error("the join token is unknown or was used already")]
    BadToken {},
    /// The session has ended.
    #[error("session {id} has ended")]
    Ended {
        /// The id asked for.
        id: String,
    },
    /// As many sessions are open as configuration allows.
    #[error("{open} sessions are open, the limit is {limit}; close some or raise run.sessions_max")]
    TooMany {
        /// Open sessions.
        open: u32,
        /// The limit.
        limit: u32,
    },
    /// The request breaks a rule of the protocol.
    #[error("bad request: {why}")]
    BadRequest {
        /// Which rule.
        why: String,
    },
    /// The daemon lacks something, or is stopping.
    #[error("the daemon cannot do this now: {why}")]
    Unavailable {
        /// What is missing.
        why: String,
    },
}

/// One line from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Open a session. The connection that asks is its lifeline: when it closes before `ended`,
    /// the command is taken to be gone.
    Open {
        /// Identity wanted.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        identity: Option<String>,
        /// What it is for.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        task: Option<String>,
        /// Time to live in nanoseconds.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        ttl_ns: Option<u64>,
        /// Labels.
        #[serde(default)]
        labels: Vec<(String, String)>,
    },
    /// Move the asking process into the session of this token.
    Join {
        /// From [`SessionOpened`].
        token: String,
    },
    /// The session's command has ended.
    Ended {
        /// The session.
        id: String,
        /// How it ended.
        status: CommandStatus,
    },
    /// List sessions.
    Sessions {},
    /// End a session's credential now.
    Revoke {
        /// The session.
        id: String,
    },
    /// Exempt a session's entries from pruning and erasure, or end that.
    Hold {
        /// Index of its `issued` entry: the session may have ended long ago.
        session: u64,
        /// Whether it is exempt from here on.
        on: bool,
        /// Why.
        reason: String,
    },
    /// Erase the text behind a commitment.
    Erase {
        /// Index of the entry.
        index: u64,
        /// The value's field, such as `open.path`.
        field: String,
        /// Why.
        reason: String,
    },
    /// Keep and record what a witness cosigned, which came by a file.
    ImportWitness {
        /// Verifier key of the witness.
        vkey: String,
        /// The cosigned checkpoint.
        note: String,
    },
    /// Have the TPM quote the newest checkpoint now.
    Anchor {
        /// What the quote is to contain: 16 to 32 bytes, hexadecimal.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        nonce: Option<String>,
    },
    /// Prune the entries before one.
    Prune {
        /// Index of the first entry that is to stay; rounded down to what can be.
        before: u64,
        /// Why; may be empty.
        reason: String,
        /// Only say what would go.
        dry_run: bool,
    },
    /// Which session and identity the asking process has.
    Whoami {},
    /// What the daemon says of itself.
    Status {},
}

/// One line from the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// To `open`.
    Opened(SessionOpened),
    /// To `join`, `ended`, `revoke`, `hold`, `erase` and `import_witness`.
    Done {},
    /// To `sessions`.
    Sessions(Vec<SessionInfo>),
    /// To `whoami`; none when the kernel names no workload.
    Whoami(Option<WhoAmI>),
    /// To `prune`.
    Pruned(PruneReport),
    /// To `status`.
    Status(Box<Status>),
    /// To `anchor`.
    Anchored(Box<Anchored>),
    /// To anything.
    Failed(SessionError),
}

/// What the control socket needs of the daemon: the pipeline's handle, or a stand-in in tests.
///
/// Each call is answered once the effect is durable where it has one: a session is never shown to
/// its opener before its `issued` record is. Calls may run at once; the implementer orders them.
pub trait SessionService: Clone + Send + Sync + 'static {
    /// Opens a session and its cgroup; its `issued` record is durable when this returns.
    fn open_session(&self, wish: OpenSession) -> impl Future<Output = Result<SessionOpened, SessionError>> + Send;

    /// Moves the peer's process into the session; nothing the peer does afterwards is outside it.
    fn join_session(&self, token: &str, peer: Peer) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Notes how the command ended; the session ends when its cgroup is empty.
    fn command_ended(
        &self,
        id: &str,
        peer: Peer,
        status: CommandStatus,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// The connection that opened the session closed without a word: `affiant run` was killed.
    /// The session ends when its cgroup is empty.
    fn opener_gone(&self, id: &str) -> impl Future<Output = ()> + Send;

    /// Ends the session's credential now.
    fn revoke(&self, id: &str, peer: Peer) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Records that a session's entries are exempt from pruning and erasure, or no longer; durable when this returns.
    fn hold(
        &self,
        session: u64,
        on: bool,
        reason: &str,
        peer: Peer,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Keeps what a witness cosigned, from a file, and records it; durable when this returns.
    fn import_witness(&self, vkey: &str, note: &str) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Erases the text behind a commitment: the `erased` record is sealed, and the text gone, when this returns.
    fn erase(
        &self,
        index: u64,
        field: &str,
        reason: &str,
        peer: Peer,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Prunes the entries before one: the `pruned` record is sealed when this returns, the entries go soon after.
    fn prune(
        &self,
        before: u64,
        reason: &str,
        dry_run: bool,
        peer: Peer,
    ) -> impl Future<Output = Result<PruneReport, SessionError>> + Send;

    /// Every open session, and those that ended a short while ago.
    fn sessions(&self) -> impl Future<Output = Result<Vec<SessionInfo>, SessionError>> + Send;

    /// Which workload the kernel gives a process; none when it is gone or unknown.
    fn whoami(&self, pid: u32) -> impl Future<Output = Result<Option<WhoAmI>, SessionError>> + Send;

    /// Has the TPM quote the newest checkpoint; a checkpoint covers the anchor when this returns.
    fn anchor(&self, nonce: Option<Vec<u8>>) -> impl Future<Output = Result<Anchored, SessionError>> + Send;

    /// What the daemon says of itself.
    fn status(&self) -> impl Future<Output = Result<Status, SessionError>> + Send;
}

impl Request {
    /// Parses one line, without its newline, and checks every limit.
    ///
    /// # Errors
    /// [`SessionError::BadRequest`] naming the rule that was broken.
    pub fn parse(line: &[u8]) -> Result<Self, SessionError> {
        let request: Self = serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?;
        request.check()?;
        Ok(request)
    }

    /// Checks every limit. Clients call it too, so that a mistake is found before it is sent.
    ///
    /// # Errors
    /// [`SessionError::BadRequest`] naming the rule that was broken.
    pub fn check(&self) -> Result<(), SessionError> {
        match self {
            Self::Open { identity, task, ttl_ns, labels } => {
                if let Some(identity) = identity {
                    check_identity(identity)?;
                }
                if let Some(task) = task {
                    check_size("task", task, TASK_SIZE_MAX)?;
                }
                if *ttl_ns == Some(0) {
                    return Err(bad("ttl is 0; expected at least 1 ns".to_owned()));
                }
                check_labels(labels)
            }
            Self::Join { token } => check_size("token", token, ID_SIZE_MAX),
            Self::Ended { id, status } => {
                if status.code.is_some() == status.signal.is_some() {
                    return Err(bad("status needs exactly one of code and signal".to_owned()));
                }
                check_size("id", id, ID_SIZE_MAX)
            }
            Self::Revoke { id } => check_size("id", id, ID_SIZE_MAX),
            Self::Hold { reason, .. } => check_size("reason", reason, REASON_SIZE_MAX),
            Self::Prune { reason, .. } if reason.len() > REASON_SIZE_MAX => {
                Err(bad(format!("reason has {} bytes; expected at most {REASON_SIZE_MAX}", reason.len())))
            }
            Self::Prune { .. } => Ok(()),
            Self::Erase { field, reason, .. } => {
                check_size("field", field, FIELD_SIZE_MAX)?;
                check_size("reason", reason, REASON_SIZE_MAX)
            }
            Self::ImportWitness { vkey, note } => {
                check_size("vkey", vkey, IDENTITY_SIZE_MAX)?;
                check_size("note", note, COSIGNED_SIZE_MAX)
            }
            Self::Anchor { nonce } => nonce.as_deref().map_or(Ok(()), |nonce| nonce_bytes(nonce).map(drop)),
            Self::Sessions {} | Self::Whoami {} | Self::Status {} => Ok(()),
        }
    }
}

/// The bytes of a nonce: [`NONCE_BYTES_MIN`] to [`NONCE_BYTES_MAX`], as hexadecimal digits of either case.
///
/// # Errors
/// [`SessionError::BadRequest`].
pub fn nonce_bytes(hex: &str) -> Result<Vec<u8>, SessionError> {
    let wrong = || {
        bad(format!(
            "the nonce has {} characters; expected {} to {} hexadecimal digits, two for each byte",
            hex.chars().count(),
            NONCE_BYTES_MIN * 2,
            NONCE_BYTES_MAX * 2
        ))
    };
    let digits: Vec<u32> = hex.chars().map(|c| c.to_digit(16).ok_or_else(wrong)).collect::<Result<_, _>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .filter_map(|pair| if let [high, low] = pair { u8::try_from(high << 4 | low).ok() } else { None })
        .collect();
    let is_right = digits.len() == bytes.len() * 2 && (NONCE_BYTES_MIN..=NONCE_BYTES_MAX).contains(&bytes.len());
    if is_right { Ok(bytes) } else { Err(wrong()) }
}

fn bad(why: String) -> SessionError {
    SessionError::BadRequest { why }
}

fn check_size(what: &str, seen: &str, size_max: usize) -> Result<(), SessionError> {
    if seen.is_empty() || seen.len() > size_max {
        return Err(bad(format!("{what} has {} bytes; expected 1 to {size_max}", seen.len())));
    }
    Ok(())
}

/// Checks the characters and the shape of a SPIFFE ID (SPIFFE-ID specification, section 2).
///
/// Trust domain: lower case letters, digits, `.`, `-`, `_`. Path segments: letters, digits, `.`,
/// `-`, `_`; not empty, not `.` or `..`.
fn check_identity(identity: &str) -> Result<(), SessionError> {
    check_size("identity", identity, IDENTITY_SIZE_MAX)?;
    let wrong = || {
        bad(format!(
            "identity {identity:?}; expected spiffe://trust-domain/path with letters, digits, '.', '-' and '_' \
             (a trust domain has no capitals)"
        ))
    };
    let rest = identity.strip_prefix("spiffe://").ok_or_else(wrong)?;
    let (domain, path) = rest.split_once('/').ok_or_else(wrong)?;
    let domain_good = !domain.is_empty()
        && domain
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_'));
    let path_good = path.split('/').all(|segment| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    });
    if domain_good && path_good { Ok(()) } else { Err(wrong()) }
}

fn check_labels(labels: &[(String, String)]) -> Result<(), SessionError> {
    if labels.len() > LABELS_MAX {
        return Err(bad(format!("{} labels; expected at most {LABELS_MAX}", labels.len())));
    }
    for (at, (key, value)) in labels.iter().enumerate() {
        check_size("label key", key, LABEL_KEY_SIZE_MAX)?;
        if value.len() > LABEL_VALUE_SIZE_MAX {
            return Err(bad(format!(
                "label {key:?} has a value of {} bytes; expected at most {LABEL_VALUE_SIZE_MAX}",
                value.len()
            )));
        }
        if labels.iter().take(at).any(|(earlier, _)| earlier == key) {
            return Err(bad(format!("label {key:?} is given twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(identity: &str) -> Request {
        Request::Open { identity: Some(identity.to_owned()), task: None, ttl_ns: None, labels: Vec::new() }
    }

    #[test]
    fn every_request_survives_its_line() {
        for request in [
            open("spiffe://local/user/1000/run"),
            Request::Join { token: "t".to_owned() },
            Request::Ended { id: "s".to_owned(), status: CommandStatus { code: Some(3), signal: None } },
            Request::Sessions {},
            Request::Revoke { id: "s".to_owned() },
            Request::Hold { session: 7, on: true, reason: "case 12".to_owned() },
            Request::Erase { index: 7, field: "open.path".to_owned(), reason: "asked".to_owned() },
            Request::ImportWitness { vkey: "w+1+a".to_owned(), note: "o\n1\n".to_owned() },
            Request::Anchor { nonce: None },
            Request::Anchor { nonce: Some("0aF1".repeat(8)) },
            Request::Prune { before: 512, reason: String::new(), dry_run: true },
            Request::Whoami {},
            Request::Status {},
        ] {
            let line = serde_json::to_vec(&request).unwrap();
            assert_eq!(Request::parse(&line).unwrap(), request);
        }
    }

    #[test]
    fn every_failure_survives_its_line() {
        for error in [
            SessionError::Refused { why: "x".to_owned() },
            SessionError::Unknown { id: "x".to_owned() },
            SessionError::BadToken {},
            SessionError::Ended { id: "x".to_owned() },
            SessionError::TooMany { open: 2, limit: 2 },
            SessionError::BadRequest { why: "x".to_owned() },
            SessionError::Unavailable { why: "x".to_owned() },
        ] {
            let line = serde_json::to_string(&Reply::Failed(error.clone())).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), Reply::Failed(error));
        }
    }

    #[test]
    fn a_nonce_is_16_to_32_bytes_of_hexadecimal_digits() {
        assert_eq!(nonce_bytes(&"aB".repeat(16)), Ok(vec![0xab; 16]));
        assert_eq!(nonce_bytes(&"00".repeat(32)), Ok(vec![0; 32]));
        for nonce in ["", &"a".repeat(33), &"ab".repeat(15), &"ab".repeat(33), &"0g".repeat(16), &"é".repeat(32)] {
            assert!(matches!(nonce_bytes(nonce), Err(SessionError::BadRequest { .. })), "{nonce}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let refused = Request::parse(br#"{"do":"join","token":"t","pid":7}"#);
        assert!(matches!(refused, Err(SessionError::BadRequest { .. })), "{refused:?}");
    }

    #[test]
    fn identities_that_are_not_spiffe_ids_are_refused() {
        for identity in [
            "",
            "root",
            "spiffe://",
            "spiffe://local",
            "spiffe://local/",
            "spiffe://Local/x",
            "spiffe://local/a//b",
            "spiffe://local/a/../b",
            "spiffe://local/a b",
            "spiffe://local/a\u{1b}[0m",
            "spiffe:///x",
        ] {
            let refused = open(identity).check();
            assert!(matches!(refused, Err(SessionError::BadRequest { .. })), "{identity:?}");
        }
    }

    #[test]
    fn sizes_and_counts_have_limits() {
        let many = (0..=LABELS_MAX).map(|n| (n.to_string(), String::new())).collect();
        let wishes = [
            Request::Open {
                identity: None,
                task: Some("x".repeat(TASK_SIZE_MAX + 1)),
                ttl_ns: None,
                labels: Vec::new(),
            },
            Request::Open { identity: None, task: None, ttl_ns: None, labels: many },
            Request::Open { identity: None, task: None, ttl_ns: Some(0), labels: Vec::new() },
            Request::Open {
                identity: None,
                task: None,
                ttl_ns: None,
                labels: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
            },
            Request::Join { token: "x".repeat(ID_SIZE_MAX + 1) },
            Request::Ended { id: "s".into(), status: CommandStatus { code: None, signal: None } },
        ];
        for wish in wishes {
            assert!(matches!(wish.check(), Err(SessionError::BadRequest { .. })), "{wish:?}");
        }
    }
}
