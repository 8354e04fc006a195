//! Kinds of the control chain: what the agent says about the log, its keys and its own capture.

use super::ids::{
    BootTime, CgroupId, ChainHash, Class, Digest, EntryIndex, EpochNumber, Id128, PublicKey, RootHash, SessionNumber,
    Signature, TreeSize,
};
use super::list::List;
use super::schema::{object, row, words};
use super::text::{Bytes, Text};
use super::value::Value;

words! {
    /// Where the log key lives.
    KeyTier as "key tier" {
        /// A software key in a file on the host: whoever became root can sign anything.
        T0 = "T0",
        /// Sealed in a TPM whose attestation key a site's own authority vouches for.
        T1 = "T1",
        /// Sealed in a TPM whose attestation key a cloud provider certified.
        T2 = "T2",
        /// Sealed in a TPM whose attestation key the vendor's identity key certified.
        T3 = "T3",
    }
}

words! {
    /// How an epoch follows the one before.
    Succession as "succession" {
        /// The first epoch of the log.
        First = "first",
        /// The previous epoch's key signed this one.
        Continued = "continued",
        /// The previous epoch's key was lost (a crash): only the log key vouches for this one.
        Orphan = "orphan",
    }
}

words! {
    /// Why kernel numbers are missing.
    GapCause as "gap cause" {
        /// The ring had no room: the kernel side counted as many failed reservations.
        RingFull = "ring_full",
        /// A message arrived that could not be read.
        Decode = "decode",
        /// Neither arrived nor counted as lost.
        Unexplained = "unexplained",
        /// Happened while nobody was there to read, and cannot be recovered.
        NotObserved = "not_observed",
        /// Read, and not written, because the store had no room: as `storage` says.
        DiskFull = "disk_full",
    }
}

words! {
    /// How the previous run of the log's writer had ended.
    RecoveryCause as "recovery cause" {
        /// It closed the log.
        Clean = "clean",
        /// It did not.
        Crash = "crash",
    }
}

words! {
    /// Why a run of the agent ended.
    DisarmCause as "disarm cause" {
        /// Somebody asked for it (SIGTERM, SIGINT).
        Operator = "operator",
        /// A newer agent takes over; capture goes on in the kernel.
        Upgrade = "upgrade",
        /// The host is going down.
        HostStop = "host_stop",
        /// The agent met a fault that it could still record.
        Fault = "fault",
    }
}

words! {
    /// Whether the firmware checked what it booted, as far as the agent can see.
    SecureBoot as "secure boot" {
        /// On.
        On = "on",
        /// Off.
        Off = "off",
        /// The host does not say.
        Unknown = "unknown",
    }
}

words! {
    /// Why a log continues another.
    SuccessionCause as "succession cause" {
        /// Somebody asked for it: a machine set up anew, a log grown too long.
        Operator = "operator",
        /// The old one's head and store disagreed, and it was frozen.
        Fault = "fault",
        /// The host was enrolled anew.
        Enrolment = "enrolment",
    }
}

object! {
    /// The log that this one continues.
    Predecessor<'a> as "predecessor" {
        /// Its origin.
        origin: Text<'a> = "origin",
        /// Its last size.
        size: TreeSize = "size",
        /// Its root hash at that size.
        root: RootHash = "root",
        /// Why it is continued here.
        cause: SuccessionCause = "cause",
    }
}

object! {
    /// Begins a log; always entry 0.
    Genesis<'a> as "genesis" {
        /// Version of this specification: 1.
        format: u32 = "format",
        /// Origin of the log: the first line of its checkpoints.
        origin: Text<'a> = "origin",
        /// The log key as a C2SP verifier key.
        log_key: Text<'a> = "log_key",
        /// Where the log key lives.
        key_tier: KeyTier = "key_tier",
        /// The kernel's boot id.
        boot_id: Text<'a> = "boot_id",
        /// Kernel release, as `uname -r`.
        kernel: Text<'a> = "kernel",
        /// SHA-256 of `/etc/machine-id`.
        machine: Option<Digest> = "machine",
        /// The log that this one continues.
        predecessor: Option<Predecessor<'a>> = "predecessor",
    }
}

object! {
    /// Begins an epoch: from tree size `first_size` on, checkpoints are signed with this key too.
    Epoch<'a> as "epoch" {
        /// Its number: 0 for the first, then one more each time.
        number: EpochNumber = "number",
        /// Its Ed25519 public key.
        public_key: PublicKey = "public_key",
        /// The tree size from which it signs: the size of the tree that ends with this entry.
        first_size: TreeSize = "first_size",
        /// How it follows the one before.
        how: Succession = "how",
        /// Value of the NV counter, where there is one.
        counter: Option<u64> = "counter",
        /// The log key's signature of the epoch statement.
        sig_log: Signature = "sig_log",
        /// The previous epoch key's signature of the epoch statement; only when `how` is `continued`.
        sig_previous: Option<Signature> = "sig_previous",
        /// A TPM's quote (TPMS_ATTEST) whose qualifying data is the epoch statement.
        attest: Option<Bytes<'a>> = "attest",
        /// The attestation key's signature of `attest` (TPMT_SIGNATURE).
        sig_attest: Option<Bytes<'a>> = "sig_attest",
    }
}

impl Epoch<'_> {
    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Epoch<'static> {
        let Self { number, public_key, first_size, how, counter, sig_log, sig_previous, attest, sig_attest } = self;
        let (attest, sig_attest) = (attest.map(Bytes::into_owned), sig_attest.map(Bytes::into_owned));
        Epoch { number, public_key, first_size, how, counter, sig_log, sig_previous, attest, sig_attest }
    }
}

object! {
    /// One attached kernel program.
    Hook<'a> as "hook" {
        /// The kind of entry it serves.
        event: Text<'a> = "event",
        /// Where it is attached.
        hook: Text<'a> = "hook",
        /// Its name in the kernel.
        program: Text<'a> = "program",
        /// Its tag in the kernel: a digest of its instructions, in hexadecimal.
        tag: Text<'a> = "tag",
        /// Its id in the kernel.
        id: u32 = "id",
        /// The id of its link, where it has one.
        link: Option<u32> = "link",
    }
}

object! {
    /// A class of acts that this host does not capture.
    NotCovered<'a> as "not covered" {
        /// What.
        what: Text<'a> = "what",
        /// Why.
        why: Text<'a> = "why",
    }
}

object! {
    /// Declared intervals, in milliseconds.
    Cadence as "cadence" {
        /// Longest time from an event's arrival to its entry being durable.
        commit_ms: u32 = "commit_ms",
        /// Longest time from an entry to a checkpoint that covers it.
        seal_ms: u32 = "seal_ms",
        /// Time between heartbeats.
        heartbeat_ms: u32 = "heartbeat_ms",
        /// Time between anchors, where there is a TPM.
        anchor_ms: Option<u32> = "anchor_ms",
        /// Time between steps of the NV counter, where there is one.
        counter_ms: Option<u32> = "counter_ms",
    }
}

object! {
    /// Begins a run of the agent: what captures what, from here on.
    Armed<'a> as "armed" {
        /// Random identifier of this run of the daemon.
        run: Id128 = "run",
        /// The kernel's boot id.
        boot_id: Text<'a> = "boot_id",
        /// Identifier of the space of kernel numbers (of the counters in the kernel).
        capture_id: Id128 = "capture_id",
        /// Whether the counters and rings of an earlier run were taken over.
        resumed: bool = "resumed",
        /// Version of the agent.
        agent_version: Text<'a> = "agent_version",
        /// SHA-256 of the agent's executable.
        agent_digest: Digest = "agent_digest",
        /// SHA-256 of the eBPF object.
        object_digest: Digest = "object_digest",
        /// SHA-256 of the structure offsets handed to the eBPF object.
        offsets_digest: Digest = "offsets_digest",
        /// SHA-256 of the effective configuration.
        config_digest: Digest = "config_digest",
        /// SHA-256 of the set of policies in force, where there is one.
        policy_digest: Option<Digest> = "policy_digest",
        /// Kernel release, as `uname -r`.
        kernel: Text<'a> = "kernel",
        /// Kernel build, as `uname -v`.
        kernel_build: Option<Text<'a>> = "kernel_build",
        /// Kernel lockdown mode: `none`, `integrity`, `confidentiality` or `unknown`.
        lockdown: Text<'a> = "lockdown",
        /// Secure Boot.
        secure_boot: SecureBoot = "secure_boot",
        /// Hook tier: `lsm`, `fentry` or `tracepoint`.
        hook_tier: Text<'a> = "hook_tier",
        /// Where the log key lives.
        key_tier: KeyTier = "key_tier",
        /// Declared intervals.
        cadence: Cadence = "cadence",
        /// Attached programs.
        hooks: List<'a, Hook<'a>> = "hooks",
        /// What is not captured, and why.
        not_covered: List<'a, NotCovered<'a>> = "not_covered",
        /// The scope in force, in words.
        scope: Text<'a> = "scope",
    }
}

row! {
    /// One counter of the kernel side at one moment.
    Counter as "counter" {
        cpu: u32 = "The processor.",
        class: Class = "The class of events.",
        next: u64 = "The number the next event will get: how many were numbered so far.",
        dropped: u64 = "How many could not be handed over so far.",
        settled: u64 = "Every number below this one is in an entry, or in a `gap`, before this entry.",
    }
}

row! {
    /// An act that the agent did itself, to see it arrive.
    Canary as "canary" {
        class: Class = "The class of events that it was sent through.",
        seen: bool = "Whether it arrived.",
    }
}

row! {
    /// Where the chain of one session stands.
    SessionState as "session state" {
        session: EntryIndex = "Index of the `issued` entry.",
        number: SessionNumber = "Number of its latest entry.",
        hash: ChainHash = "Running hash after that entry.",
    }
}

object! {
    /// Says that the agent lives, and where its counters and sessions stand. Rows that do not fit one entry stand
    /// in several.
    Heartbeat<'a> as "heartbeat" {
        /// The space of kernel numbers that `counters` are of.
        capture_id: Id128 = "capture_id",
        /// The kernel side's counters.
        counters: List<'a, Counter> = "counters",
        /// Every open session.
        sessions: List<'a, SessionState> = "sessions",
        /// Whether every hook was found attached with the tag that `armed` gives.
        hooks_ok: bool = "hooks_ok",
        /// SHA-256 over the hooks' program tags as read again.
        hooks_digest: Digest = "hooks_digest",
        /// Canary acts since the heartbeat before.
        canaries: List<'a, Canary> = "canaries",
    }
}

object! {
    /// Ends a run of the agent in order.
    Disarmed<'a> as "disarmed" {
        /// Why.
        cause: DisarmCause = "cause",
        /// The space of kernel numbers that `counters` are of.
        capture_id: Id128 = "capture_id",
        /// The kernel side's counters.
        counters: List<'a, Counter> = "counters",
        /// Sessions still open.
        sessions: List<'a, SessionState> = "sessions",
    }
}

row! {
    /// A run of kernel numbers, both ends included.
    NumberRange as "number range" {
        cpu: u32 = "The processor.",
        class: Class = "The class of events.",
        first: u64 = "First number.",
        last: u64 = "Last number.",
    }
}

row! {
    /// How many of the missing events were of one scope.
    LossShare as "loss share" {
        scope: CgroupId = "The cgroup at the scope's root; 0 for the host outside every scope.",
        count: u64 = "How many.",
    }
}

object! {
    /// Events that happened and are not in the log. When all of them are of one session or workload, the common
    /// members `s` and `w` name it.
    Gap<'a> as "gap" {
        /// Why.
        cause: GapCause = "cause",
        /// The space of kernel numbers that `ranges` are of.
        capture_id: Id128 = "capture_id",
        /// The missing numbers.
        ranges: List<'a, NumberRange> = "ranges",
        /// How many events: the sum of the ranges.
        count: u64 = "count",
        /// Whose events they were, by the kernel side's own count per scope. May name fewer than `count`, when a loss
        /// was counted a moment after the counters were read; never more than the kernel side counted.
        shares: List<'a, LossShare> = "shares",
        /// Earliest moment of the loss, as far as known.
        from: Option<BootTime> = "from",
        /// Latest moment of the loss, as far as known.
        to: Option<BootTime> = "to",
    }
}

object! {
    /// The log was opened, and what had to be done for it.
    Recovered as "recovered" {
        /// How the previous run had ended.
        cause: RecoveryCause = "cause",
        /// Size of the tree that was found.
        size: TreeSize = "size",
        /// Entries taken from the write-ahead log.
        replayed: u64 = "replayed",
        /// Bytes of an unfinished entry that were discarded; they had never been shown to anyone.
        torn_bytes: u64 = "torn_bytes",
    }
}

object! {
    /// A cgroup whose descendants are captured.
    ScopeRoot<'a> as "scope root" {
        /// Its id, when it exists.
        cgroup: Option<CgroupId> = "cgroup",
        /// Its path, or the pattern that selects it.
        path: Text<'a> = "path",
        /// What is captured: a sum of 1 for process, 2 for cgroup, 4 for network, 8 for file, 16 for privilege.
        classes: u32 = "classes",
    }
}

object! {
    /// What is captured from here on.
    Scope<'a> as "scope" {
        /// In words.
        text: Text<'a> = "text",
        /// For the host outside every root: a sum as in `scope root`.
        host_classes: u32 = "host_classes",
        /// The roots.
        roots: List<'a, ScopeRoot<'a>> = "roots",
    }
}

object! {
    /// An act whose workload could not be told.
    Unknown<'a> as "unknown" {
        /// The cgroup.
        cgroup: CgroupId = "cgroup",
        /// Its path, when it could be read.
        path: Option<Value<'a>> = "path",
        /// Why it could not be told.
        reason: Text<'a> = "reason",
    }
}

object! {
    /// A cgroup that was unknown has been recognized.
    Identified as "identified" {
        /// The `unknown` entry.
        of: EntryIndex = "of",
        /// The `workload` entry.
        workload: EntryIndex = "workload",
    }
}
