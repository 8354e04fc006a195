//! What can be wrong with a log: one variant per broken rule, with the place where it is broken.

use crate::record::{Class, ControlNumber, DecodeError, EntryIndex, EpochNumber, SessionNumber, TreeSize};

/// One claim of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// Nothing in the log was changed, removed, reordered or added after the fact.
    Integrity,
    /// The log was signed by the keys that the trust file names.
    Authenticity,
    /// The log goes back to the genesis that the trust file names, through every head it remembers.
    Continuity,
    /// No second history was shown to somebody else.
    NonEquivocation,
    /// Which software the host had booted.
    HostState,
    /// Every captured event is in the log or counted as lost.
    Coverage,
    /// When things happened, by a clock that the host does not control.
    TimeBounds,
    /// The sessions in the log are complete as attributed.
    Sessions,
}

impl Claim {
    /// Every claim, in the order of the report.
    pub const ALL: [Self; 8] = [
        Self::Integrity,
        Self::Authenticity,
        Self::Continuity,
        Self::NonEquivocation,
        Self::HostState,
        Self::Coverage,
        Self::TimeBounds,
        Self::Sessions,
    ];

    /// Its name in trust files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Integrity => "integrity",
            Self::Authenticity => "authenticity",
            Self::Continuity => "continuity",
            Self::NonEquivocation => "non_equivocation",
            Self::HostState => "host_state",
            Self::Coverage => "coverage",
            Self::TimeBounds => "time_bounds",
            Self::Sessions => "sessions",
        }
    }

    /// The claim of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|claim| claim.name() == name)
    }
}

/// Declares the findings: name for machines, claim that fails by it, sentence for people.
macro_rules! findings {
    ($( $(#[doc = $doc:literal])* $variant:ident { $( $(#[doc = $field_doc:literal])* $field:ident: $type:ty, )* } = $name:literal breaks $claim:ident $message:literal $(, $argument:expr)*; )*) => {
        /// A broken rule.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[non_exhaustive]
        pub enum Finding {
            $(
                $(#[doc = $doc])*
                #[error($message $(, $argument)*)]
                $variant { $( $(#[doc = $field_doc])* $field: $type, )* },
            )*
        }

        impl Finding {
            /// Every name, in the order of the specification.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// Its name for machines.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $( Self::$variant { .. } => $name, )* }
            }

            /// The claim that fails by it.
            #[must_use]
            pub fn claim(&self) -> Claim {
                match self { $( Self::$variant { .. } => Claim::$claim, )* }
            }
        }

        /// Every finding with its claim and meaning, for the table of FORMAT.md.
        pub const FINDINGS: &[(&str, Claim, &str)] = &[$(($name, Claim::$claim, concat!($($doc),*))),*];
    };
}

findings! {
    /// There are entries but no `checkpoint`.
    CheckpointMissing {} = "checkpoint_missing" breaks Integrity
        "the log has entries but no checkpoint";
    /// `checkpoint` is not a signed note with a checkpoint.
    CheckpointMalformed {
        /// What is wrong with it.
        reason: String,
    } = "checkpoint_malformed" breaks Integrity
        "the file `checkpoint` is not a checkpoint: {reason}";
    /// No signature on the checkpoint by a key that must sign.
    CheckpointUnsigned {
        /// The key's name.
        key: String,
    } = "checkpoint_unsigned" breaks Authenticity
        "the checkpoint has no signature by the key of {key}";
    /// A signature on the checkpoint by a key that must sign does not hold.
    CheckpointForged {
        /// The key's name.
        key: String,
    } = "checkpoint_forged" breaks Authenticity
        "the signature on the checkpoint under the key of {key} does not hold";
    /// The tree over the entries has another root hash than the checkpoint.
    RootMismatch {
        /// Size of the tree.
        size: TreeSize,
    } = "root_mismatch" breaks Integrity
        "the {} entries do not have the root hash that the checkpoint states", size.0;
    /// A tile of hashes that a tree of this size has is not there.
    TileMissing {
        /// Its name.
        path: String,
    } = "tile_missing" breaks Integrity
        "{path} is missing";
    /// A tile of hashes holds other hashes than the entries give.
    TileDiffers {
        /// Its name.
        path: String,
    } = "tile_differs" breaks Integrity
        "{path} does not hold the hashes that the entries give";
    /// A bundle of entries is not there.
    BundleMissing {
        /// Its name.
        path: String,
        /// Its first entry.
        first: EntryIndex,
    } = "bundle_missing" breaks Integrity
        "{path}, which holds the entries from {}, is missing", first.0;
    /// A bundle of entries does not divide into the number of entries it must hold.
    BundleMalformed {
        /// Its name.
        path: String,
        /// Its first entry.
        first: EntryIndex,
        /// What is wrong with it.
        reason: String,
    } = "bundle_malformed" breaks Integrity
        "{path}, which holds the entries from {}, is damaged: {reason}", first.0;
    /// A packed segment, or a block of it, is not one: what it should hold is not there.
    SegmentMalformed {
        /// Its name.
        path: String,
        /// First entry of what it should hold.
        first: EntryIndex,
        /// What is wrong with it.
        reason: String,
    } = "segment_malformed" breaks Integrity
        "{path} cannot be unpacked from entry {} on: {reason}", first.0;
    /// A file of kept entries is not one: what it should hold is not there.
    KeptMalformed {
        /// Its name.
        path: String,
        /// First entry of what it should hold.
        first: EntryIndex,
        /// What is wrong with it.
        reason: String,
    } = "kept_malformed" breaks Integrity
        "{path}, for entries from {} on, is not a file of kept entries: {reason}", first.0;
    /// Entries are not kept, and no entry before the end of the log says that they are not.
    PrunedUnrecorded {
        /// The first of them, or from where on no entry says it.
        index: EntryIndex,
    } = "pruned_unrecorded" breaks Integrity
        "from entry {} on there are entries that are not kept, and no `pruned` entry says so", index.0;
    /// Of what was pruned an entry is not there that must be kept.
    KeptOmitted {
        /// The `pruned` entry, or the `issued` entry of the session.
        index: EntryIndex,
        /// What is not there.
        what: &'static str,
    } = "kept_omitted" breaks Integrity
        "by entry {} it must be kept, and is not there: {what}", index.0;
    /// An entry is not in the one permitted form.
    EntryMalformed {
        /// Which.
        index: EntryIndex,
        /// Why not.
        reason: DecodeError,
    } = "entry_malformed" breaks Integrity
        "entry {} is not a record: {reason}", index.0;
    /// An entry has another hash than its tile holds.
    EntryAltered {
        /// Which.
        index: EntryIndex,
    } = "entry_altered" breaks Integrity
        "entry {} was altered: its bytes do not have the hash that was stored for it", index.0;
    /// An entry says that it stands elsewhere.
    IndexWrong {
        /// Where it stands.
        index: EntryIndex,
        /// Where it says it stands.
        seen: EntryIndex,
    } = "index_wrong" breaks Integrity
        "entry {} says that it is entry {}: entries were moved, removed or repeated", index.0, seen.0;
    /// An entry does not follow the entry before it.
    PreviousMismatch {
        /// Which.
        index: EntryIndex,
    } = "previous_mismatch" breaks Integrity
        "entry {} was written after another entry than the one that stands before it", index.0;
    /// Entry 0 is not a genesis.
    GenesisMissing {} = "genesis_missing" breaks Continuity
        "the log does not begin with a genesis entry";
    /// A genesis stands elsewhere than at entry 0.
    GenesisRepeated {
        /// Which.
        index: EntryIndex,
    } = "genesis_repeated" breaks Continuity
        "entry {} begins the log a second time", index.0;
    /// Genesis and checkpoint name different logs, or the genesis does not name a key of this log.
    GenesisWrong {
        /// What is wrong.
        what: &'static str,
    } = "genesis_wrong" breaks Continuity
        "the genesis entry does not fit the log: {what}";
    /// The control chain is not numbered without holes.
    ControlNumberWrong {
        /// Which entry.
        index: EntryIndex,
        /// The number it must have; none for a kind outside the chain.
        expected: Option<ControlNumber>,
        /// The number it has.
        seen: Option<ControlNumber>,
    } = "control_number_wrong" breaks Integrity
        "entry {} has {} in the control chain, expected {}", index.0, number(seen.map(|n| n.0)), number(expected.map(|n| n.0));
    /// An entry names a session that no earlier entry issued.
    SessionUnknown {
        /// Which entry.
        index: EntryIndex,
        /// The session it names.
        session: EntryIndex,
    } = "session_unknown" breaks Sessions
        "entry {} belongs to the session of entry {}, which issued none", index.0, session.0;
    /// A session's chain is not numbered without holes.
    SessionNumberWrong {
        /// Which entry.
        index: EntryIndex,
        /// The number it must have; none outside a session.
        expected: Option<SessionNumber>,
        /// The number it has.
        seen: Option<SessionNumber>,
    } = "session_number_wrong" breaks Sessions
        "entry {} has {} in its session, expected {}", index.0, number(seen.map(|n| n.0)), number(expected.map(|n| n.0));
    /// An entry belongs to a session that was revoked before.
    SessionEnded {
        /// Which entry.
        index: EntryIndex,
        /// The session's `issued` entry.
        session: EntryIndex,
    } = "session_ended" breaks Sessions
        "entry {} belongs to the session of entry {} after its end", index.0, session.0;
    /// A running hash stated for a session is not that of its entries.
    SessionHashWrong {
        /// Which entry states it.
        index: EntryIndex,
        /// The session's `issued` entry.
        session: EntryIndex,
    } = "session_hash_wrong" breaks Sessions
        "entry {} states a running hash for the session of entry {} that its entries do not have", index.0, session.0;
    /// What `revoked` says of its session is not what the session's entries say.
    RevokedWrong {
        /// Which entry.
        index: EntryIndex,
        /// What is wrong.
        what: &'static str,
    } = "revoked_wrong" breaks Sessions
        "entry {} ends a session with a wrong {what}", index.0;
    /// An entry refers to a workload or unknown act that no earlier entry describes.
    ReferenceWrong {
        /// Which entry.
        index: EntryIndex,
        /// The entry it refers to.
        to: EntryIndex,
    } = "reference_wrong" breaks Integrity
        "entry {} refers to entry {}, which is not of the kind it must be", index.0, to.0;
    /// A kernel number on an entry that is not made from a kernel event, or none on one that is, or of another class.
    KernelNumberWrong {
        /// Which entry.
        index: EntryIndex,
    } = "kernel_number_wrong" breaks Coverage
        "entry {} must carry a kernel number exactly when it is made from a kernel event, of that event's class", index.0;
    /// A kernel number was recorded, or declared lost, twice.
    NumberRepeated {
        /// Which entry repeats it.
        index: EntryIndex,
        /// The processor.
        cpu: u32,
        /// The class.
        class: Class,
        /// The number.
        seq: u64,
    } = "number_repeated" breaks Coverage
        "entry {} accounts a second time for event {seq} of class {} on processor {cpu}", index.0, class.name();
    /// Kernel numbers are neither recorded nor declared lost.
    NumberHole {
        /// The entry that says they are accounted for; the last entry, when the log ends without them.
        index: EntryIndex,
        /// The processor.
        cpu: u32,
        /// The class.
        class: Class,
        /// First missing number.
        first: u64,
        /// Last missing number.
        last: u64,
    } = "number_hole" breaks Coverage
        "events {first} to {last} of class {} on processor {cpu} are neither in the log nor declared lost, by entry {}", class.name(), index.0;
    /// A counter of the kernel side went back, or was settled beyond what was numbered.
    CounterWrong {
        /// Which entry states it.
        index: EntryIndex,
        /// The processor.
        cpu: u32,
        /// The class.
        class: Class,
    } = "counter_wrong" breaks Coverage
        "entry {} states a counter of class {} on processor {cpu} that is below an earlier one, or settled beyond its end", index.0, class.name();
    /// A gap, or an entry of folded acts, does not count what its ranges hold.
    GapCountWrong {
        /// Which entry.
        index: EntryIndex,
    } = "gap_count_wrong" breaks Coverage
        "entry {} declares another count of events than its ranges hold", index.0;
    /// Events were lost for no reason that the kernel side counted.
    LossUnexplained {
        /// Which entry declares it.
        index: EntryIndex,
        /// How many.
        count: u64,
    } = "loss_unexplained" breaks Coverage
        "entry {} declares {count} events lost that the kernel side did not count as lost", index.0;
    /// Events were lost and counted; a finding only where the strict rule is asked for.
    LossAccounted {
        /// Which entry declares it.
        index: EntryIndex,
        /// How many.
        count: u64,
    } = "loss_accounted" breaks Coverage
        "entry {} declares {count} events lost (a finding under the strict rule)", index.0;
    /// A kernel event, or a count of some, outside any run of the agent or of another capture than the run's.
    EventOutsideRun {
        /// Which entry.
        index: EntryIndex,
    } = "event_outside_run" breaks Coverage
        "entry {} is a kernel event, or counts some, while no run of the agent was armed with its capture", index.0;
    /// The hooks in the kernel were no longer those that had been armed.
    HooksNotAttached {
        /// Which entry says so.
        index: EntryIndex,
    } = "hooks_not_attached" breaks Coverage
        "entry {} says that the hooks in the kernel were no longer those that had been armed", index.0;
    /// No epoch covers the size of the checkpoint.
    EpochMissing {} = "epoch_missing" breaks Authenticity
        "the log introduces no epoch key for the size of the checkpoint";
    /// Epochs are not numbered without holes, or one does not follow the one before as it says.
    EpochWrong {
        /// Which entry.
        index: EntryIndex,
        /// What is wrong.
        what: &'static str,
    } = "epoch_wrong" breaks Continuity
        "entry {} begins an epoch with a wrong {what}", index.0;
    /// A signature under an epoch statement does not hold.
    EpochForged {
        /// Which entry.
        index: EntryIndex,
        /// Number of the epoch.
        number: EpochNumber,
        /// Whose signature.
        by: &'static str,
    } = "epoch_forged" breaks Authenticity
        "entry {} begins epoch {} with a signature of {by} that does not hold", index.0, number.0;
    /// The trust file names another log.
    OriginUntrusted {
        /// The origin in the trust file.
        trusted: String,
        /// The origin of the log.
        seen: String,
    } = "origin_untrusted" breaks Authenticity
        "this is the log {seen:?}, the trust file is for {trusted:?}";
    /// The log names another log key than the trust file.
    LogKeyUntrusted {} = "log_key_untrusted" breaks Authenticity
        "the log names another log key than the trust file";
    /// The log begins otherwise than the trust file says: it was begun anew.
    GenesisUntrusted {} = "genesis_untrusted" breaks Continuity
        "the log does not begin with the genesis entry that the trust file names: it was begun anew";
    /// The first epoch's key is not the one that the trust file names.
    FirstEpochUntrusted {} = "first_epoch_untrusted" breaks Continuity
        "the first epoch has another key than the trust file names";
    /// The log is smaller than a head that the trust file remembers or a trusted witness cosigned.
    LogTruncated {
        /// Size of the log.
        size: TreeSize,
        /// Size that is remembered.
        remembered: TreeSize,
    } = "log_truncated" breaks Continuity
        "the log has {} entries, the trust file or a trusted witness remembers {}: entries at its end were removed", size.0, remembered.0;
    /// The log does not contain the history of a head that the trust file remembers.
    HeadMismatch {
        /// Size that the trust file remembers.
        remembered: TreeSize,
    } = "head_mismatch" breaks Continuity
        "the first {} entries are not those that the trust file remembers: history was rewritten", remembered.0;
    /// Two signed heads of one size with different roots.
    Equivocation {
        /// The size.
        size: TreeSize,
    } = "equivocation" breaks NonEquivocation
        "the log signed two different histories of {} entries", size.0;
    /// A trusted witness cosigned another history of this log than the one that is here.
    SplitView {
        /// Name of the witness's key.
        witness: String,
        /// Size that it cosigned.
        size: TreeSize,
    } = "split_view" breaks NonEquivocation
        "the witness {witness} cosigned another history of {} entries: whoever holds the log's key has two", size.0;
    /// A cosignature under the name of a trusted witness's key does not hold.
    CosignatureForged {
        /// Name of the witness's key.
        witness: String,
        /// Size of the checkpoint.
        size: TreeSize,
    } = "cosignature_forged" breaks NonEquivocation
        "the cosignature of {witness} on the checkpoint of {} entries does not hold", size.0;
    /// The log key lives in a weaker place than the trust file requires.
    TierTooLow {
        /// The tier of the log.
        tier: &'static str,
        /// The tier required.
        required: &'static str,
    } = "tier_too_low" breaks Authenticity
        "the log key is of tier {tier}, the trust file requires {required}";
    /// A public area of an attestation key that is none of this format, or has another name than it is given.
    AttestationKeyWrong {
        /// Which entry.
        index: EntryIndex,
        /// What is wrong.
        reason: String,
    } = "attestation_key_wrong" breaks Authenticity
        "entry {} introduces an attestation key that is none: {reason}", index.0;
    /// The log goes on under another attestation key, which the trust file does not name.
    AttestationKeyChanged {
        /// Which entry introduces it.
        index: EntryIndex,
    } = "attestation_key_changed" breaks Authenticity
        "entry {} goes on with another attestation key, which the trust file does not name: another TPM, or one that was cleared", index.0;
    /// An attestation with no attestation key before it.
    AttestationKeyMissing {
        /// Which entry.
        index: EntryIndex,
    } = "attestation_key_missing" breaks Authenticity
        "entry {} holds an attestation, and no entry before it introduces an attestation key", index.0;
    /// An attestation, or its signature, that cannot be read or is of another sort.
    AttestationMalformed {
        /// Which entry.
        index: EntryIndex,
        /// What is wrong.
        reason: String,
    } = "attestation_malformed" breaks Authenticity
        "entry {} holds no attestation of the sort that it should: {reason}", index.0;
    /// An attestation that the attestation key did not sign.
    AttestationForged {
        /// Which entry.
        index: EntryIndex,
    } = "attestation_forged" breaks Authenticity
        "entry {} holds an attestation that the attestation key did not sign", index.0;
    /// An attestation that names another signer: a key at another place of the TPM.
    AttestationSignerWrong {
        /// Which entry.
        index: EntryIndex,
    } = "attestation_signer_wrong" breaks Authenticity
        "entry {} holds an attestation whose signer has another qualified name than the attestation key", index.0;
    /// An attestation of something else than its entry says: an old one, or one that was made for another purpose.
    AttestationDataWrong {
        /// Which entry.
        index: EntryIndex,
    } = "attestation_data_wrong" breaks Authenticity
        "entry {} holds an attestation of something else than the entry says: an old one, or one made for another purpose", index.0;
    /// An attestation that does not follow the one before it in the log.
    AttestationOrderWrong {
        /// Which entry.
        index: EntryIndex,
    } = "attestation_order_wrong" breaks Continuity
        "entry {} was attested after another attestation than the one before it in the log: some were removed, added or moved", index.0;
    /// The TPM's clock went back.
    TpmClockBack {
        /// Which entry.
        index: EntryIndex,
        /// The clock before, in milliseconds.
        before: u64,
        /// The clock now.
        seen: u64,
    } = "tpm_clock_back" breaks Continuity
        "entry {} was attested at {seen} ms of the TPM's clock, after one at {before} ms", index.0;
    /// The TPM's count of resets went back: it was cleared, replaced, or is another.
    TpmResetBack {
        /// Which entry.
        index: EntryIndex,
        /// The count before.
        before: u32,
        /// The count now.
        seen: u32,
    } = "tpm_reset_back" breaks Continuity
        "entry {} was attested after {seen} resets of the TPM, one before it after {before}: the TPM was cleared, or is another", index.0;
    /// The TPM was reset while the host went on running, as the agent says.
    TpmResetUnexplained {
        /// The first entry after the reset.
        index: EntryIndex,
        /// The count.
        reset_count: u32,
    } = "tpm_reset_unexplained" breaks Continuity
        "by entry {} the TPM was reset (count {reset_count}), and the host did not boot, as the agent says", index.0;
    /// The host booted and the TPM was not reset: the new kernel was not measured from the start.
    BootWithoutReset {
        /// The first attested entry of the boot.
        index: EntryIndex,
        /// The count.
        reset_count: u32,
    } = "boot_without_reset" breaks Continuity
        "by entry {} the host had booted another kernel without a reset of the TPM (count {reset_count}): what runs was not measured from the start", index.0;
    /// Anchors are not numbered without holes.
    AnchorNumberWrong {
        /// Which entry.
        index: EntryIndex,
        /// The number it must have.
        expected: u64,
        /// The number it has.
        seen: u64,
    } = "anchor_number_wrong" breaks Continuity
        "entry {} is anchor {seen}, expected {expected}", index.0;
    /// An anchor of a tree that the log did not have yet, of another epoch, or with a nonce of a wrong length.
    AnchorWrong {
        /// Which entry.
        index: EntryIndex,
        /// What is wrong.
        what: &'static str,
    } = "anchor_wrong" breaks Continuity
        "entry {} is an anchor with a wrong {what}", index.0;
    /// The TPM vouched for another history of the log than this one.
    AnchorMismatch {
        /// Which entry.
        index: EntryIndex,
        /// Size of the tree.
        size: TreeSize,
    } = "anchor_mismatch" breaks Continuity
        "by entry {} the TPM vouched for another history of {} entries than the log has", index.0, size.0;
    /// The registers that an anchor lists are not those that the TPM quoted.
    PcrDigestWrong {
        /// Which entry.
        index: EntryIndex,
    } = "pcr_digest_wrong" breaks HostState
        "entry {} lists other registers, or other values of them, than the TPM quoted", index.0;
    /// An entry about the NV counter says what the TPM or an entry before does not.
    NvCounterWrong {
        /// Which entry.
        index: EntryIndex,
        /// What is wrong.
        what: &'static str,
    } = "nv_counter_wrong" breaks Continuity
        "entry {} about the TPM's counter has a wrong {what}", index.0;
    /// The NV counter was stepped without an entry: entries were removed, or somebody else stepped it.
    NvCounterGap {
        /// Which entry.
        index: EntryIndex,
        /// The value it must have.
        expected: u64,
        /// The value it has.
        seen: u64,
    } = "nv_counter_gap" breaks Continuity
        "entry {} has the value {seen} of the TPM's counter, expected {expected}: entries were removed, or somebody else stepped it", index.0;
    /// The NV counter was not stepped any more, because it had been too often in a day.
    NvCounterCapped {
        /// Which entry.
        index: EntryIndex,
    } = "nv_counter_capped" breaks Continuity
        "entry {} says that the TPM's counter is not stepped any more on that day: what starts and stops is not counted", index.0;
    /// An epoch without the signature of the one before, and without a step of the NV counter.
    EpochUncounted {
        /// Which entry.
        index: EntryIndex,
    } = "epoch_uncounted" breaks Continuity
        "entry {} begins an epoch that neither the epoch before nor a step of the TPM's counter vouches for", index.0;
    /// An attestation key that the trust file does not name.
    AkUntrusted {
        /// The entry that introduces it.
        index: EntryIndex,
        /// Its name.
        name: String,
    } = "ak_untrusted" breaks Authenticity
        "entry {} introduces the attestation key {name}, which the trust file does not name", index.0;
    /// No anchor that holds carries the live challenge.
    ChallengeUnanswered {} = "challenge_unanswered" breaks Authenticity
        "no anchor whose quote holds, over a root that is the log's, carries the challenge";
    /// The live challenge was answered under an attestation key that is not believed.
    ChallengeUnbelieved {
        /// The anchor.
        index: EntryIndex,
    } = "challenge_unbelieved" breaks Authenticity
        "entry {} carries the challenge, under an attestation key that the trust file does not name and for which nobody vouches whom it believes", index.0;
    /// The NV counter is not the one that the trust file names, or did not begin where it says.
    CounterUntrusted {
        /// What differs.
        what: &'static str,
    } = "counter_untrusted" breaks Continuity
        "the TPM's counter has another {what} than the trust file says, or none was certified";
    /// The log's first attestation is not of the count of resets that the trust file says.
    ResetCountUntrusted {
        /// The count; none without an attestation.
        seen: Option<u32>,
    } = "reset_count_untrusted" breaks Continuity
        "the first attestation was made after another number of resets of the TPM than the trust file says ({})",
        seen.map_or_else(|| "there is none".to_owned(), |seen| seen.to_string());
    /// The agent made no anchor for longer than the trust file allows.
    AnchorGapTooLong {
        /// The entry that ends the longest time.
        index: EntryIndex,
        /// How long, in words.
        seen: String,
        /// How many seconds are allowed.
        allowed: u64,
    } = "anchor_gap_too_long" breaks Continuity
        "before entry {} the TPM vouched for nothing for {seen}, the trust file allows {allowed} s", index.0;
    /// An evidence bundle is not in the one permitted form.
    EvbMalformed {
        /// What is wrong with it.
        reason: String,
    } = "evb_malformed" breaks Integrity
        "the bundle is not in the one permitted form: {reason}";
    /// The entries and hashes of an evidence bundle have another root hash than its checkpoint.
    EvbProofWrong {
        /// Size of the tree.
        size: TreeSize,
    } = "evb_proof_wrong" breaks Integrity
        "the entries and hashes of the bundle do not have the root hash that the checkpoint states for {} entries", size.0;
    /// An evidence bundle leaves out an entry that its sessions need.
    EvbEntryOmitted {
        /// The entry left out, or the one at which it shows.
        index: EntryIndex,
        /// What is left out.
        what: &'static str,
    } = "evb_entry_omitted" breaks Sessions
        "entry {}: the bundle leaves out {what}", index.0;
    /// An evidence bundle leaves out an entry of the control chain in the time of its sessions.
    EvbControlOmitted {
        /// The entry at which it shows.
        index: EntryIndex,
        /// The number it would have if none was left out.
        expected: Option<ControlNumber>,
        /// The number it has.
        seen: Option<ControlNumber>,
    } = "evb_control_omitted" breaks Sessions
        "entry {}: the bundle leaves out entries of the control chain before it: {} where {} would follow", index.0,
        number(seen.map(|n| n.0)), number(expected.map(|n| n.0));
    /// An evidence bundle holds an entry that does not belong in it.
    EvbEntryForeign {
        /// Which.
        index: EntryIndex,
    } = "evb_entry_foreign" breaks Integrity
        "entry {} does not belong in the bundle: it is neither of its sessions nor needed to judge them", index.0;
    /// The agent was not heard of for longer than the trust file allows.
    GapTooLong {
        /// The entry that ends the longest time.
        index: EntryIndex,
        /// How long, in words.
        seen: String,
        /// How many seconds are allowed.
        allowed: u64,
    } = "gap_too_long" breaks Coverage
        "before entry {} the agent was not heard of for {seen}, the trust file allows {allowed} s", index.0;
    /// More events were lost than the trust file allows.
    LossTooLarge {
        /// How many.
        seen: u64,
        /// How many are allowed.
        allowed: u64,
    } = "loss_too_large" breaks Coverage
        "{seen} events were lost, the trust file allows {allowed}";
    /// The agent does not capture something that the trust file does not accept.
    NotCoveredUnaccepted {
        /// The first `armed` entry that says so.
        index: EntryIndex,
        /// What is not captured.
        what: String,
    } = "not_covered_unaccepted" breaks Coverage
        "entry {}: the agent does not capture {what:?}, which the trust file does not accept", index.0;
    /// A text that is disclosed for a committed value does not have its commitment, or there is no such value.
    CommitmentWrong {
        /// The entry.
        index: EntryIndex,
        /// The value's field.
        field: String,
    } = "commitment_wrong" breaks Integrity
        "entry {}: what is disclosed as {field} is not what the entry committed", index.0;
    /// A line of a sidecar is not in the one permitted form.
    SidecarMalformed {
        /// The sidecar.
        path: String,
        /// What is wrong.
        reason: String,
    } = "sidecar_malformed" breaks Integrity
        "{path}: {reason}";
    /// A committed value is not disclosed, and no entry says that it was erased.
    ValueAbsent {
        /// The entry.
        index: EntryIndex,
        /// The value's field.
        field: String,
    } = "value_absent" breaks Integrity
        "entry {}: the text of {field} is not there, and no entry says that it was erased", index.0;
    /// The content of `measured` entries is no log of its sort, or its parts do not follow each other.
    MeasuredMalformed {
        /// The entry of the part at which it shows.
        index: EntryIndex,
        /// Which log.
        log: &'static str,
        /// What is wrong.
        reason: String,
    } = "measured_malformed" breaks HostState
        "entry {}: what it names as {log} is not one: {reason}", index.0;
    /// A log of what was measured does not give the value of a register that was quoted.
    MeasuredMismatch {
        /// The first quote of it in that boot.
        index: EntryIndex,
        /// The register.
        register: u32,
        /// Which log.
        log: &'static str,
    } = "measured_mismatch" breaks HostState
        "the {log} of that boot does not give the value of register {register} that entry {} quotes: it was altered, cut short, or is of another boot", index.0;
    /// A quoted register has a value that the trust file does not allow.
    PcrPolicyViolated {
        /// The first such quote in that boot.
        index: EntryIndex,
        /// The register.
        register: u32,
        /// Its value, in hexadecimal.
        value: String,
    } = "pcr_policy_violated" breaks HostState
        "entry {} quotes the value {value} of register {register}, which the trust file does not allow", index.0;
    /// What stands in the place of a blob is not the content that an entry refers to.
    BlobAltered {
        /// The first entry that refers to it so.
        index: EntryIndex,
        /// The blob.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    } = "blob_altered" breaks Integrity
        "{path} {what} than entry {} says that it has", index.0;
    /// A blob that an entry refers to is not there; a finding only where the strict rule is asked for.
    BlobAbsent {
        /// The first entry that refers to it.
        index: EntryIndex,
        /// The blob.
        path: String,
    } = "blob_absent" breaks Integrity
        "{path}, to which entry {} refers, is not there: what it said cannot be judged", index.0;
    /// A claim that the trust file requires is not proved.
    ClaimNotProved {
        /// Which.
        claim: &'static str,
        /// Why not.
        reason: String,
    } = "claim_not_proved" breaks Integrity
        "the trust file requires {claim}, which is not proved: {reason}";
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "no number".to_owned(), |number| format!("number {number}"))
}

impl Finding {
    /// The entry that it is about, when it is about one.
    #[must_use]
    pub fn index(&self) -> Option<EntryIndex> {
        match self {
            Self::BundleMissing { first: index, .. }
            | Self::BundleMalformed { first: index, .. }
            | Self::SegmentMalformed { first: index, .. }
            | Self::KeptMalformed { first: index, .. }
            | Self::PrunedUnrecorded { index }
            | Self::KeptOmitted { index, .. }
            | Self::EntryMalformed { index, .. }
            | Self::EntryAltered { index }
            | Self::IndexWrong { index, .. }
            | Self::PreviousMismatch { index }
            | Self::GenesisRepeated { index }
            | Self::ControlNumberWrong { index, .. }
            | Self::SessionUnknown { index, .. }
            | Self::SessionNumberWrong { index, .. }
            | Self::SessionEnded { index, .. }
            | Self::SessionHashWrong { index, .. }
            | Self::RevokedWrong { index, .. }
            | Self::ReferenceWrong { index, .. }
            | Self::KernelNumberWrong { index }
            | Self::NumberRepeated { index, .. }
            | Self::NumberHole { index, .. }
            | Self::CounterWrong { index, .. }
            | Self::GapCountWrong { index }
            | Self::LossUnexplained { index, .. }
            | Self::LossAccounted { index, .. }
            | Self::EventOutsideRun { index }
            | Self::HooksNotAttached { index }
            | Self::GapTooLong { index, .. }
            | Self::NotCoveredUnaccepted { index, .. }
            | Self::EpochWrong { index, .. }
            | Self::EpochForged { index, .. }
            | Self::AttestationKeyWrong { index, .. }
            | Self::AttestationKeyChanged { index, .. }
            | Self::AttestationKeyMissing { index, .. }
            | Self::AttestationMalformed { index, .. }
            | Self::AttestationForged { index, .. }
            | Self::AttestationSignerWrong { index, .. }
            | Self::AttestationDataWrong { index, .. }
            | Self::AttestationOrderWrong { index, .. }
            | Self::TpmClockBack { index, .. }
            | Self::TpmResetBack { index, .. }
            | Self::TpmResetUnexplained { index, .. }
            | Self::BootWithoutReset { index, .. }
            | Self::AnchorNumberWrong { index, .. }
            | Self::AnchorWrong { index, .. }
            | Self::AnchorMismatch { index, .. }
            | Self::PcrDigestWrong { index, .. }
            | Self::NvCounterWrong { index, .. }
            | Self::NvCounterGap { index, .. }
            | Self::NvCounterCapped { index, .. }
            | Self::EpochUncounted { index, .. }
            | Self::AkUntrusted { index, .. }
            | Self::AnchorGapTooLong { index, .. }
            | Self::ChallengeUnbelieved { index }
            | Self::EvbEntryOmitted { index, .. }
            | Self::EvbControlOmitted { index, .. }
            | Self::CommitmentWrong { index, .. }
            | Self::ValueAbsent { index, .. }
            | Self::MeasuredMalformed { index, .. }
            | Self::MeasuredMismatch { index, .. }
            | Self::PcrPolicyViolated { index, .. }
            | Self::BlobAltered { index, .. }
            | Self::BlobAbsent { index, .. }
            | Self::EvbEntryForeign { index } => Some(*index),
            Self::CheckpointMissing {}
            | Self::CheckpointMalformed { .. }
            | Self::CheckpointUnsigned { .. }
            | Self::CheckpointForged { .. }
            | Self::RootMismatch { .. }
            | Self::TileMissing { .. }
            | Self::TileDiffers { .. }
            | Self::SidecarMalformed { .. }
            | Self::GenesisMissing {}
            | Self::GenesisWrong { .. }
            | Self::EpochMissing {}
            | Self::OriginUntrusted { .. }
            | Self::LogKeyUntrusted {}
            | Self::GenesisUntrusted {}
            | Self::FirstEpochUntrusted {}
            | Self::LogTruncated { .. }
            | Self::HeadMismatch { .. }
            | Self::Equivocation { .. }
            | Self::SplitView { .. }
            | Self::CosignatureForged { .. }
            | Self::TierTooLow { .. }
            | Self::CounterUntrusted { .. }
            | Self::ResetCountUntrusted { .. }
            | Self::EvbMalformed { .. }
            | Self::EvbProofWrong { .. }
            | Self::LossTooLarge { .. }
            | Self::ChallengeUnanswered {}
            | Self::ClaimNotProved { .. } => None,
        }
    }
}
