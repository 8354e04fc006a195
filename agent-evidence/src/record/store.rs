//! Kinds of the control chain about policies, the store, and the agent's own condition.

use super::attest::Blob;
use super::identity::Requester;
use super::ids::{EntryIndex, TreeSize};
use super::schema::{object, words};
use super::text::Text;

words! {
    /// Whether the store has room.
    StorageState as "storage state" {
        /// It has.
        Ok = "ok",
        /// Little is left: what configuration lets go first is not captured.
        Low = "low",
        /// None is left but the reserve: only the control chain is written.
        Full = "full",
    }
}

words! {
    /// What a `condition` entry is about.
    Subject as "subject" {
        /// The TPM.
        Tpm = "tpm",
        /// The signing keys.
        Keys = "keys",
        /// The host's clock.
        Clock = "clock",
        /// The hooks in the kernel.
        Hooks = "hooks",
        /// The store.
        Store = "store",
        /// A sink.
        Sink = "sink",
        /// Where identities come from (container runtime, API server, SPIRE).
        Identity = "identity",
        /// A limit of the agent's own was reached.
        Limit = "limit",
    }
}

object! {
    /// A set of policies is in force from here on.
    Policy<'a> as "policy" {
        /// Language: `cedar`.
        language: Text<'a> = "language",
        /// The text of all policies, file after file in the order of their names.
        set: Blob = "set",
        /// How many policies.
        count: u32 = "count",
        /// Whether decisions are enforced in the kernel.
        enforcing: bool = "enforcing",
    }
}

object! {
    /// The entries before `first` are not kept any more. Written, and covered by a checkpoint, before anything is removed.
    Pruned<'a> as "pruned" {
        /// The first entry that is still kept in full.
        first: TreeSize = "first",
        /// How many of those before are kept aside for their kind: section 18.1.
        kept: u64 = "kept",
        /// By which rule.
        rule: Text<'a> = "rule",
        /// Who asked; absent when a rule of the configuration did.
        by: Option<Requester> = "by",
    }
}

object! {
    /// A committed value was erased from the sidecar.
    Erased<'a> as "erased" {
        /// The entry.
        of: EntryIndex = "of",
        /// The value's field, as in the commitment.
        field: Text<'a> = "field",
        /// Why.
        reason: Text<'a> = "reason",
        /// Who asked.
        by: Requester = "by",
    }
}

object! {
    /// A session's entries are exempt from pruning and erasure, or no longer.
    Hold<'a> as "hold" {
        /// Index of its `issued` entry.
        session: EntryIndex = "session",
        /// Whether it is exempt from here on.
        on: bool = "on",
        /// Why.
        reason: Text<'a> = "reason",
        /// Who asked.
        by: Requester = "by",
    }
}

object! {
    /// Whether the store has room changed.
    Storage as "storage" {
        /// From here on.
        state: StorageState = "state",
        /// Free bytes.
        free: u64 = "free",
        /// Bytes held in reserve for sealing.
        reserve: u64 = "reserve",
        /// What is not captured for it: a sum as in `scope root`.
        classes: u32 = "classes",
    }
}

object! {
    /// Which entries a sink was given.
    Exported<'a> as "exported" {
        /// Name of the sink.
        sink: Text<'a> = "sink",
        /// The mapping and its version.
        format: Text<'a> = "format",
        /// First entry.
        from: EntryIndex = "from",
        /// The entry after the last.
        to: EntryIndex = "to",
        /// How many were sent.
        sent: u64 = "sent",
        /// How many the sink's filter left out.
        filtered: u64 = "filtered",
    }
}

object! {
    /// Something about the agent changed that bears on the evidence.
    Condition<'a> as "condition" {
        /// What it is about.
        subject: Subject = "subject",
        /// Whether it is as it should be from here on.
        ok: bool = "ok",
        /// The state, in a word that the documentation lists.
        state: Text<'a> = "state",
        /// More of it, in words.
        detail: Option<Text<'a>> = "detail",
    }
}
