//! Kinds of the control chain that tie the log to something outside it: the TPM, the boot, witnesses, values from outside.

use super::identity::Requester;
use super::ids::{Digest, EpochNumber, RootHash, TreeSize, WallTime};
use super::list::List;
use super::schema::{object, row, words};
use super::text::{Bytes, Text};

object! {
    /// Content kept beside the log: `blob/<sha256>`.
    Blob as "blob" {
        /// SHA-256 of the content.
        sha256: Digest = "sha256",
        /// Its length in bytes.
        size: u64 = "size",
    }
}

words! {
    /// Who vouches that an attestation key lives in a TPM.
    Voucher as "voucher" {
        /// Nobody yet.
        Nobody = "nobody",
        /// An authority of the site.
        Site = "site",
        /// The cloud provider.
        Cloud = "cloud",
        /// The vendor of the machine or TPM.
        Vendor = "vendor",
    }
}

words! {
    /// Why an anchor was made.
    AnchorCause as "anchor cause" {
        /// Its time had come.
        Interval = "interval",
        /// The agent started.
        Start = "start",
        /// The agent stops.
        Stop = "stop",
        /// A session began.
        SessionStart = "session_start",
        /// A session ended.
        SessionEnd = "session_end",
        /// An act of high risk.
        Act = "act",
        /// Somebody asked, with a nonce.
        Nonce = "nonce",
    }
}

words! {
    /// A step of the NV counter.
    CounterOp as "counter op" {
        /// Written before the step.
        Intent = "intent",
        /// The counter as certified after the step.
        Step = "step",
        /// Certified at a start, after an intent whose step had no record.
        Late = "late",
        /// Not stepped: the day's cap is reached.
        Capped = "capped",
    }
}

words! {
    /// A log of what was booted or loaded.
    MeasuredLog as "measured log" {
        /// The firmware's event log.
        EventLog = "event_log",
        /// The kernel's integrity measurement list.
        Ima = "ima",
        /// The user-space log of systemd.
        Systemd = "systemd",
    }
}

words! {
    /// What a witness answered.
    WitnessOutcome as "witness outcome" {
        /// It cosigned.
        Cosigned = "cosigned",
        /// It refused.
        Refused = "refused",
        /// It knows another history of this log.
        Conflict = "conflict",
    }
}

row! {
    /// A platform configuration register as read with a quote; the quote holds only the digest over all.
    Pcr as "pcr" {
        index: u32 = "Its number.",
        value: Digest = "Its value in the SHA-256 bank.",
    }
}

object! {
    /// The TPM's attestation key and who vouches for it.
    AttestationKey<'a> as "attestation_key" {
        /// Its public area (TPMT_PUBLIC).
        public: Bytes<'a> = "public",
        /// Its name (nameAlg and digest).
        name: Bytes<'a> = "name",
        /// Its qualified name.
        qualified_name: Bytes<'a> = "qualified_name",
        /// Who vouches.
        voucher: Voucher = "voucher",
        /// Its certificate and those above, in that order.
        certificates: List<'a, Blob> = "certificates",
        /// The endorsement key's certificate and those above, in that order.
        ek_certificates: List<'a, Blob> = "ek_certificates",
        /// Manufacturer and firmware as the TPM reports them.
        tpm: Text<'a> = "tpm",
    }
}

object! {
    /// A TPM quote over a checkpoint of this log. `attest` holds TPMS_ATTEST, whose qualifying data section 8 defines.
    Anchor<'a> as "anchor" {
        /// Its number: 0 for the first, then one more each time.
        number: u64 = "number",
        /// Why it was made.
        cause: AnchorCause = "cause",
        /// The epoch at that time.
        epoch: EpochNumber = "epoch",
        /// Size of the tree of the checkpoint.
        size: TreeSize = "size",
        /// Its root hash.
        root: RootHash = "root",
        /// SHA-256 of the attestation before, of whatever sort; 32 zero bytes for the first.
        previous: Digest = "previous",
        /// The nonce that somebody handed over.
        nonce: Option<Bytes<'a>> = "nonce",
        /// The attestation (TPMS_ATTEST).
        attest: Bytes<'a> = "attest",
        /// Its signature (TPMT_SIGNATURE).
        sig: Bytes<'a> = "sig",
        /// The registers that were quoted.
        pcrs: List<'a, Pcr> = "pcrs",
    }
}

object! {
    /// The TPM's NV counter.
    NvCounter<'a> as "counter" {
        /// What happened.
        op: CounterOp = "op",
        /// Handle of the NV index.
        index: u32 = "index",
        /// Its name.
        name: Option<Bytes<'a>> = "name",
        /// Its value; for `intent`, the value it is to have.
        value: u64 = "value",
        /// SHA-256 of the attestation before, of whatever sort.
        previous: Option<Digest> = "previous",
        /// The attestation (TPMS_ATTEST).
        attest: Option<Bytes<'a>> = "attest",
        /// Its signature (TPMT_SIGNATURE).
        sig: Option<Bytes<'a>> = "sig",
    }
}

object! {
    /// A part of a log of what was booted or loaded, as the kernel gives it.
    Measured as "measured" {
        /// Which log.
        log: MeasuredLog = "log",
        /// The content.
        content: Blob = "content",
        /// Where in the log the content begins, in bytes.
        from: u64 = "from",
        /// Whether the log was read to its end of that moment.
        complete: bool = "complete",
    }
}

object! {
    /// A value from outside that nobody could know before: whatever follows it in the log is younger.
    Outside<'a> as "outside" {
        /// Where it comes from.
        source: Text<'a> = "source",
        /// The value.
        value: Bytes<'a> = "value",
        /// When it came to be, as its source says.
        time: Option<WallTime> = "time",
        /// Who handed it over.
        by: Option<Requester> = "by",
    }
}

object! {
    /// A witness's answer to a checkpoint of this log.
    WitnessAnswer<'a> as "witness" {
        /// What it answered.
        outcome: WitnessOutcome = "outcome",
        /// Name of its key.
        name: Text<'a> = "name",
        /// Size of the tree of the checkpoint.
        size: TreeSize = "size",
        /// Its root hash.
        root: RootHash = "root",
        /// When it cosigned, as it says.
        time: Option<WallTime> = "time",
        /// The cosignature: a line of a signed note.
        line: Option<Text<'a>> = "line",
        /// Why it refused, or what it knows instead.
        detail: Option<Text<'a>> = "detail",
    }
}
