//! What a TPM attests of the log: its keys, anchors and counter, one entry after the other.
//!
//! Owns: the chain of attestations, the TPM's clock and resets against the boots of the host, the steps of the NV counter,
//! and how far the history is anchored and counted. Whether the roots that anchors name are the log's is settled at the end
//! ([`Attested::settle`]), when any of its sizes can be looked up.
//!
//! What was verified here is the word of whoever holds the attestation key. That this is a TPM is for the trust file to
//! say.

use std::collections::{HashMap, HashSet};

use crate::attest::cert::x509::CERTIFICATE_BYTES_MAX;
use crate::attest::cert::{Beginning, Shown, TrustRoots, Vouched, who_vouches};
use crate::attest::key::{Ak, KeyError};
use crate::attest::statement::{
    AnchorStatement, CounterStatement, NO_ATTESTATION, NONCE_BYTES_MAX, NONCE_BYTES_MIN, attestation_digest,
};
use crate::attest::tpm::{self, Attest, ClockInfo, HashAlg, Name, NvPublic, PcrSelection};
use crate::checkpoint::Checkpoint;
use crate::epoch::EpochStatement;
use crate::note::KeyName;
use crate::record::{
    Anchor, Armed, AttestationKey, Body, CounterOp, Digest, EntryIndex, Epoch, KeyTier, NvCounter, Record, RootHash,
    Succession, TreeSize, WallTime,
};
use crate::trust::Trust;

use super::challenge::{Answer, Challenge, ChallengeReport};
use super::finding::Finding;
use super::report::{Findings, Note, Notes};
use super::windows::{Alive, Windows};

/// By how much the TPM's clock may go back across a reset, in milliseconds: it is written to flash every 4,096 ms
/// (TPM2_PT_CLOCK_UPDATE), and what was not written is lost with the power.
const CLOCK_BACK_MS_MAX: u64 = 4_100;
/// Most anchors and epochs that are remembered for the end, 48 bytes each: eight years of one each minute.
const ANCHORS_MAX: usize = 4_000_000;
/// Most attestation keys that are remembered.
const KEYS_MAX: usize = 1_000;
/// Most certificates that are kept for judging, 16 KiB each: chains have at most eight, and keys seldom change.
const CERTIFICATES_MAX: usize = 1_024;

/// The attestation key in force.
#[derive(Debug)]
enum Key {
    /// None was introduced yet.
    None,
    /// It was introduced with a public area that is none; what it signed is not judged.
    Unusable,
    Usable(Ak),
}

/// An anchor whose attestation was verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    index: EntryIndex,
    pub(super) size: TreeSize,
    root: RootHash,
    clock: ClockInfo,
    /// Value of the counter that was certified after it, if it was.
    counted: Option<u64>,
}

/// How far the history is anchored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchored {
    /// The anchor's entry.
    pub index: EntryIndex,
    /// Size of the tree that it vouches for.
    pub size: TreeSize,
    /// The TPM's clock when it was made.
    pub clock: ClockInfo,
}

/// How far the history is counted: an anchor was made, and after it the counter was certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Size of the tree of that anchor.
    pub size: TreeSize,
    /// The value that was certified.
    pub value: u64,
}

/// An attestation key of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySeen {
    /// The entry that introduces it.
    pub index: EntryIndex,
    /// Its name, computed from its public area.
    pub name: Name,
    /// Whether the trust file names it.
    pub named: bool,
}

/// What the log's attestations show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttestationReport {
    /// Attestation keys, in the order of the log.
    pub keys: Vec<KeySeen>,
    /// Anchors whose quotes hold.
    pub anchors: u64,
    /// The largest size that one of them vouches for, and the log has.
    pub anchored: Option<Anchored>,
    /// The same for the counter.
    pub counted: Option<Counted>,
    /// Epochs.
    pub epochs: u64,
    /// Those that an anchor ties to the attestation key.
    pub epochs_bound: u64,
    /// Name and value of the counter as it was first certified.
    pub counter: Option<(Name, u64)>,
    /// Reset count of the first attestation.
    pub reset_count: Option<u32>,
    /// The longest time within a run that had no anchor, in nanoseconds, and the entry that ended it.
    pub longest_unanchored: Option<(u64, EntryIndex)>,
}

/// Where the log key lives and who vouches for that: two questions, and the log answers neither by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The tier, computed from the trust file.
    pub tier: KeyTier,
    /// Where the log key lives, in words.
    pub lives: &'static str,
    /// Who vouches, in words.
    pub vouched: String,
}

impl Standing {
    /// A log of whose keys nothing is attested.
    pub(super) fn unattested() -> Self {
        Self {
            tier: KeyTier::T0,
            lives: "a software key in a file on the host, which whoever became root there could have used or copied",
            vouched: "nobody".to_owned(),
        }
    }
}

/// What an entry shows of who vouches for a key.
#[derive(Debug)]
struct Credentials {
    ak: Ak,
    /// By digest, and by how many of them there are.
    certificates: Vec<Digest>,
    ek_certificates: Vec<Digest>,
    /// When the entry was written, as it says.
    at: WallTime,
}

impl AttestationReport {
    /// Whether the trust file names every attestation key of the log.
    pub(super) fn is_believed(&self) -> bool {
        self.keys.iter().all(|seen| seen.named)
    }
}

#[derive(Debug)]
pub(super) struct Attested {
    origin: KeyName,
    /// Whether only a part of the log is seen: what came before may be withheld.
    partial: bool,
    /// Keys that the trust file names: a change to one of them is in order.
    trusted: Vec<Name>,
    key: Key,
    /// Digest of the latest attestation; not known where entries were withheld.
    previous: Option<[u8; 32]>,
    last_control: Option<u64>,
    stamp: Option<ClockInfo>,
    boot: Option<[u8; 32]>,
    /// Reset count in this boot, once it is known.
    reset: Option<u32>,
    /// Reset count of the boot before, which this one must not have.
    stale: Option<u32>,
    /// An attestation with another reset count than this boot's: the next `armed` must be of another boot.
    unexplained: Option<(EntryIndex, u32)>,
    next_number: Option<u64>,
    pending: Vec<Pending>,
    epochs: Vec<(u64, TreeSize)>,
    last_bound: Option<u64>,
    /// Handle of the counter.
    counter_index: Option<u32>,
    certified: Option<u64>,
    /// The entry that certified it.
    certified_at: Option<Alive>,
    intent: Option<(u64, Alive)>,
    /// Whether the counter was certified since the latest epoch began and the latest run lived.
    stepped: bool,
    anchor_ms: Option<u32>,
    /// Where the time without an anchor began, within a run, with the TPM's clock if that was an anchor.
    unanchored: Option<(Alive, Option<ClockInfo>)>,
    /// The latest sign of life of the run.
    edge: Option<Alive>,
    /// Of each key of the report, what the latest entry with certificates shows for it, or the first entry.
    credentials: Vec<Credentials>,
    wanted: HashSet<Digest>,
    /// Contents of certificates.
    contents: HashMap<Digest, Vec<u8>>,
    /// What came of the challenge that is to be answered, if one was given.
    pub(super) challenge: Option<ChallengeReport>,
    /// What answers it, once its root is settled.
    answering: Option<Answer>,
    /// The latest anchor whose registers are those that the attestation key quoted.
    pub(super) quoted: Option<EntryIndex>,
    pub(super) report: AttestationReport,
    pub(super) notes: Notes,
}

impl Attested {
    pub(super) fn new(origin: &KeyName, partial: bool, trust: Option<&Trust>, challenge: Option<Challenge>) -> Self {
        Self {
            origin: origin.clone(),
            partial,
            trusted: trust.map(|trust| trust.attestation.names().cloned().collect()).unwrap_or_default(),
            key: Key::None,
            previous: Some(NO_ATTESTATION),
            last_control: None,
            stamp: None,
            boot: None,
            reset: None,
            stale: None,
            unexplained: None,
            next_number: Some(0),
            pending: Vec::new(),
            epochs: Vec::new(),
            last_bound: None,
            counter_index: None,
            certified: None,
            certified_at: None,
            intent: None,
            stepped: false,
            anchor_ms: None,
            unanchored: None,
            edge: None,
            credentials: Vec::new(),
            wanted: HashSet::new(),
            contents: HashMap::new(),
            quoted: None,
            answering: None,
            challenge: challenge.map(|challenge| ChallengeReport { challenge, answer: None }),
            report: AttestationReport::default(),
            notes: Notes::default(),
        }
    }

    /// Applies the rules to the next entry.
    pub(super) fn entry(
        &mut self,
        index: EntryIndex,
        record: &Record<'_>,
        windows: &mut Windows,
        findings: &mut Findings,
    ) {
        if self.partial && record.body().kind().is_control() {
            let number = record.placement.control_number.map(|number| number.0);
            let follows = self.last_control.map_or(0, |last| last.saturating_add(1));
            if number != Some(follows) {
                self.forget();
            }
            self.last_control = number;
        }
        let now = Alive { index, boot: record.draft.boot, wall: record.draft.wall };
        match record.body() {
            Body::AttestationKey(key) => self.attestation_key(now, key, findings),
            Body::Anchor(anchor) => self.anchor(record.index(), anchor, now, windows, findings),
            Body::NvCounter(counter) => self.counter(counter, now, windows, findings),
            Body::Epoch(epoch) => self.epoch(index, epoch, findings),
            Body::Armed(armed) => self.armed(armed, now, windows, findings),
            Body::Heartbeat(_) => self.lives(now, findings),
            Body::Disarmed(_) => {
                self.lives(now, findings);
                self.close(windows);
            }
            _ => {}
        }
    }

    /// Entries were withheld: what they said of numbers and of the attestation before is not known.
    fn forget(&mut self) {
        self.previous = None;
        self.next_number = None;
        self.certified = None;
        self.certified_at = None;
        self.intent = None;
        self.counter_index = None;
        self.boot = None;
        self.reset = None;
        self.stale = None;
        self.unexplained = None;
        // Whether a step was withheld is not known either.
        self.stepped = true;
    }

    fn attestation_key(&mut self, now: Alive, key: &AttestationKey<'_>, findings: &mut Findings) {
        let index = now.index;
        let usable = Name::parse(key.qualified_name.as_bytes())
            .map_err(|error| format!("its qualified name is none: {error}"))
            .and_then(|name| Ak::parse(key.public.as_bytes(), name).map_err(|error| error.to_string()))
            .and_then(|ak| match ak.name().as_bytes() == key.name.as_bytes() {
                true => Ok(ak),
                false => Err("the entry gives it another name than its public area has".to_owned()),
            });
        let ak = match usable {
            Ok(ak) => ak,
            Err(reason) => {
                self.key = Key::Unusable;
                findings.push(Finding::AttestationKeyWrong { index, reason });
                return;
            }
        };
        let named = self.trusted.contains(ak.name());
        let before = self.report.keys.last().map(|seen| &seen.name);
        if before.is_some_and(|before| before != ak.name()) {
            if named {
                let text =
                    format!("entry {} goes on with another attestation key, which the trust file names", index.0);
                self.notes.push(Note { name: "attestation_key_renewed", index: Some(index), text });
                // Another TPM, or one that was cleared: it counts from elsewhere.
                (self.stamp, self.boot, self.reset, self.stale, self.unexplained) = (None, None, None, None, None);
                (self.certified, self.intent, self.counter_index) = (None, None, None);
            } else {
                findings.push(Finding::AttestationKeyChanged { index });
            }
        }
        if before.is_none_or(|before| before != ak.name()) && self.report.keys.len() < KEYS_MAX {
            self.report.keys.push(KeySeen { index, name: ak.name().clone(), named });
            let shown = self.shown(&ak, key, now.wall);
            self.credentials.push(shown);
        } else if !key.certificates.is_empty()
            && let Some(at) = self.report.keys.iter().rposition(|seen| seen.name == *ak.name())
        {
            // The same key, for which somebody vouches now.
            let shown = self.shown(&ak, key, now.wall);
            if let Some(known) = self.credentials.get_mut(at) {
                *known = shown;
            }
        }
        self.key = Key::Usable(ak);
    }

    fn shown(&mut self, ak: &Ak, key: &AttestationKey<'_>, at: WallTime) -> Credentials {
        let mut digests = |list: &[crate::record::Blob]| -> Vec<Digest> {
            let digests: Vec<_> = list.iter().map(|blob| blob.sha256).collect();
            let room = CERTIFICATES_MAX.saturating_sub(self.wanted.len());
            self.wanted.extend(digests.iter().take(room).copied());
            digests
        };
        let certificates = digests(&key.certificates);
        let ek_certificates = digests(&key.ek_certificates);
        Credentials { ak: ak.clone(), certificates, ek_certificates, at }
    }

    /// Takes the content of a blob, if it is one of a certificate.
    pub(super) fn blob(&mut self, digest: Digest, content: &[u8]) {
        if self.wanted.contains(&digest) && content.len() <= CERTIFICATE_BYTES_MAX {
            self.contents.insert(digest, content.to_vec());
        }
    }

    /// What the keys of the log are worth to the owner of the trust file; `beginning` is how the log begins, if that is known.
    pub(super) fn standing(
        &mut self,
        trust: Option<&Trust>,
        beginning: Option<&Beginning<'_>>,
        claimed: KeyTier,
    ) -> Standing {
        let known = trust.map(|trust| &trust.attestation);
        if self.report.anchored.is_none() {
            return Standing::unattested();
        }
        // Roots that cannot be read are refused with the trust file.
        let roots = known.and_then(|known| known.roots().ok()).unwrap_or_default();
        let mut lowest: Option<(KeyTier, String)> = None;
        let mut notes = Vec::new();
        for (seen, shown) in self.report.keys.iter().zip(&self.credentials) {
            let judged = if known.is_some_and(|known| known.live_activated_aks.contains(&seen.name)) {
                let by = "whoever wrote the trust file, who activated the attestation key with the TPM before him";
                (KeyTier::T3, by.to_owned())
            } else {
                match self.vouched(shown, beginning, &roots) {
                    Some(Ok(vouched)) => (vouched.tier(), vouched.to_string()),
                    other => {
                        if let Some(Err(why)) = other {
                            let text =
                                format!("nobody vouches for the attestation key of entry {}: {why}", seen.index.0);
                            notes.push(Note { name: "certificates_refused", index: Some(seen.index), text });
                        }
                        let by = if seen.named {
                            "nobody: the attestation key is pinned by this trust file, and nothing more"
                        } else {
                            "nobody: the attestation key is the log's own word"
                        };
                        (KeyTier::T0, by.to_owned())
                    }
                }
            };
            if lowest.as_ref().is_none_or(|(tier, _)| judged.0 < *tier) {
                lowest = Some(judged);
            }
        }
        self.notes.extend(notes);
        let Some((tier, vouched)) = lowest else { return Standing::unattested() };
        // Nothing outside the log shows where the seed is: a log that was begun without a TPM has it in a file for ever.
        let lives = match (claimed > KeyTier::T0, tier > KeyTier::T0) {
            (true, true) => {
                "the agent says that its seed is sealed in the TPM whose attestation key vouches for this history"
            }
            (false, true) => {
                "the agent does not say that its seed is sealed in the TPM whose attestation key vouches for this history: it may be \
                 a file on the host"
            }
            (_, false) => {
                "sealed in a TPM or a file on the host, which nothing here shows; nor that the attestation key is one of a TPM, and \
                 not of a program"
            }
        };
        Standing { tier, lives, vouched }
    }

    /// Who vouches for a key, or why nobody does. `None` where it shows no certificate, or nobody is believed.
    fn vouched(
        &self,
        shown: &Credentials,
        beginning: Option<&Beginning<'_>>,
        roots: &TrustRoots,
    ) -> Option<Result<Vouched, String>> {
        if shown.certificates.is_empty() || roots.keys.is_empty() {
            return None;
        }
        let contents = |digests: &[Digest]| -> Option<Vec<&[u8]>> {
            digests.iter().map(|digest| self.contents.get(digest).map(Vec::as_slice)).collect()
        };
        let Some(beginning) = beginning else { return Some(Err("how the log begins is not known".to_owned())) };
        let Some(certificates) = contents(&shown.certificates) else {
            return Some(Err("a certificate is absent, altered or too large".to_owned()));
        };
        // What is not there is not shown.
        let ek_certificates = contents(&shown.ek_certificates).unwrap_or_default();
        let shown_here = Shown { ak: &shown.ak, certificates: &certificates, ek_certificates: &ek_certificates };
        let outcome = who_vouches(&shown_here, beginning, roots, shown.at);
        Some(outcome.map_err(|error| super::reason(&error)))
    }

    /// Judges an attestation of any sort: its place in the chain, its signature, that it is about this statement, and the
    /// TPM's clock. `statement` is made from what the entry itself says was before.
    fn attestation(
        &mut self,
        index: EntryIndex,
        (attest, signature): (&[u8], &[u8]),
        previous: Option<[u8; 32]>,
        statement: [u8; 32],
        findings: &mut Findings,
    ) -> Option<Attest> {
        if previous.is_some() && self.previous.is_some() && previous != self.previous {
            findings.push(Finding::AttestationOrderWrong { index });
        }
        self.previous = Some(attestation_digest(attest));
        let ak = match &self.key {
            Key::Usable(ak) => ak,
            Key::Unusable => return None,
            Key::None => {
                if self.partial {
                    let text = "the entry that introduces the attestation key is not in the bundle: attestations are not judged";
                    self.notes.push_once(Note {
                        name: "attestation_unjudged",
                        index: Some(index),
                        text: text.to_owned(),
                    });
                } else {
                    findings.push(Finding::AttestationKeyMissing { index });
                }
                return None;
            }
        };
        let attest = match ak.verify(attest, signature) {
            Ok(attest) => attest,
            Err(KeyError::Signer) => {
                findings.push(Finding::AttestationSignerWrong { index });
                return None;
            }
            Err(KeyError::Forged) => {
                findings.push(Finding::AttestationForged { index });
                return None;
            }
            Err(reason) => {
                findings.push(Finding::AttestationMalformed { index, reason: reason.to_string() });
                return None;
            }
        };
        if attest.extra_data != statement {
            findings.push(Finding::AttestationDataWrong { index });
            return None;
        }
        self.clock(index, attest.clock_info, findings);
        Some(attest)
    }

    /// The TPM's clock and resets: they only go on, and it is reset exactly when the host boots.
    fn clock(&mut self, index: EntryIndex, now: ClockInfo, findings: &mut Findings) {
        if let Some(before) = self.stamp {
            if now.reset_count < before.reset_count {
                findings.push(Finding::TpmResetBack { index, before: before.reset_count, seen: now.reset_count });
            } else if now.reset_count == before.reset_count {
                let rises = match now.restart_count.cmp(&before.restart_count) {
                    std::cmp::Ordering::Less => false,
                    std::cmp::Ordering::Equal => now.clock > before.clock,
                    std::cmp::Ordering::Greater => now.clock >= before.clock,
                };
                if !rises {
                    findings.push(Finding::TpmClockBack { index, before: before.clock, seen: now.clock });
                }
            } else if now.clock.saturating_add(CLOCK_BACK_MS_MAX) < before.clock {
                findings.push(Finding::TpmClockBack { index, before: before.clock, seen: now.clock });
            }
        }
        self.stamp = Some(now);
        self.report.reset_count.get_or_insert(now.reset_count);
        let reset = now.reset_count;
        match self.reset {
            Some(known) if known == reset => {}
            Some(_) => {
                let since = self.unexplained.filter(|(_, seen)| *seen == reset).map_or(index, |(since, _)| since);
                self.unexplained = Some((since, reset));
            }
            None => {
                if self.stale.take() == Some(reset) {
                    findings.push(Finding::BootWithoutReset { index, reset_count: reset });
                }
                self.reset = Some(reset);
            }
        }
    }

    /// A sign of life of the run: a step before it was not made for an epoch after it.
    fn lives(&mut self, now: Alive, findings: &mut Findings) {
        self.edge = Some(now);
        self.stepped = false;
        self.run_goes_on(findings);
    }

    /// A run goes on after the TPM was reset: the host did not boot.
    fn run_goes_on(&mut self, findings: &mut Findings) {
        if let Some((index, reset)) = self.unexplained.take() {
            findings.push(Finding::TpmResetUnexplained { index, reset_count: reset });
            self.reset = Some(reset);
        }
    }

    fn armed(&mut self, armed: &Armed<'_>, now: Alive, windows: &mut Windows, findings: &mut Findings) {
        let boot = attestation_digest(armed.boot_id.as_bytes());
        if self.boot == Some(boot) {
            self.run_goes_on(findings);
        } else if let Some((_, reset)) = self.unexplained.take() {
            (self.reset, self.stale) = (Some(reset), None);
        } else if self.boot.is_some() {
            self.stale = self.reset.take().or(self.stale);
        }
        self.boot = Some(boot);
        self.close(windows);
        self.anchor_ms = armed.cadence.anchor_ms;
        (self.unanchored, self.edge) = (Some((now, None)), Some(now));
    }

    /// Ends the time without an anchor at the latest sign of life of the run.
    fn close(&mut self, windows: &mut Windows) {
        if let (Some((since, _)), Some(edge)) = (self.unanchored.take(), self.edge) {
            self.without_anchor(since, edge, edge.boot.0.saturating_sub(since.boot.0), windows);
        }
    }

    fn without_anchor(&mut self, since: Alive, until: Alive, length: u64, windows: &mut Windows) {
        if self.report.longest_unanchored.is_none_or(|(longest, _)| length > longest) {
            self.report.longest_unanchored = Some((length, until.index));
        }
        // As with heartbeats: three were missed, and a second.
        let limit = |anchor_ms: u32| u64::from(anchor_ms).saturating_mul(3_000_000).saturating_add(1_000_000_000);
        if self.anchor_ms.is_some_and(|anchor_ms| length > limit(anchor_ms)) {
            windows.unanchored(since, until, length);
        }
    }

    fn anchor(
        &mut self,
        own: EntryIndex,
        anchor: &Anchor<'_>,
        now: Alive,
        windows: &mut Windows,
        findings: &mut Findings,
    ) {
        let index = now.index;
        if let Some(expected) = self.next_number.filter(|expected| *expected != anchor.number) {
            findings.push(Finding::AnchorNumberWrong { index, expected, seen: anchor.number });
        }
        self.next_number = anchor.number.checked_add(1);
        let before = self.pending.last().map_or(TreeSize(0), |pending| pending.size);
        if anchor.size > TreeSize(own.0) || anchor.size < before {
            findings.push(Finding::AnchorWrong { index, what: "size" });
        }
        let covering = self.epochs.iter().rev().find(|(_, first)| *first <= anchor.size).map(|(number, _)| *number);
        if covering != Some(anchor.epoch.0) {
            findings.push(Finding::AnchorWrong { index, what: "epoch" });
        }
        let nonce = anchor.nonce.as_ref().map(crate::record::Bytes::as_bytes);
        if nonce.is_some_and(|nonce| !(NONCE_BYTES_MIN..=NONCE_BYTES_MAX).contains(&nonce.len())) {
            findings.push(Finding::AnchorWrong { index, what: "nonce" });
        }
        let checkpoint = Checkpoint { origin: self.origin.clone(), size: anchor.size, root: anchor.root };
        let statement = AnchorStatement {
            checkpoint: &checkpoint,
            epoch: anchor.epoch,
            number: anchor.number,
            previous: anchor.previous.0,
            nonce,
        };
        let attest = (anchor.attest.as_bytes(), anchor.sig.as_bytes());
        let previous = Some(anchor.previous.0);
        let Some(attest) = self.attestation(index, attest, previous, statement.digest(), findings) else { return };
        let tpm::Attested::Quote { selections, digest } = &attest.attested else {
            findings.push(Finding::AttestationMalformed { index, reason: "it is not a quote".to_owned() });
            return;
        };
        if quoted(anchor, selections, digest) {
            self.quoted = Some(index);
        } else {
            findings.push(Finding::PcrDigestWrong { index });
        }
        let clock = attest.clock_info;
        if let Some((since, at)) = self.unanchored.replace((now, Some(clock))) {
            // The TPM's clock where it can be compared: nobody on the host can set it.
            let length = match at.filter(|at| at.reset_count == clock.reset_count) {
                Some(at) => clock.clock.saturating_sub(at.clock).saturating_mul(1_000_000),
                None => now.boot.0.saturating_sub(since.boot.0),
            };
            self.without_anchor(since, now, length, windows);
        } else {
            // Not within a run.
            self.unanchored = None;
        }
        self.edge = Some(now);
        self.report.anchors += 1;
        if covering == Some(anchor.epoch.0) && self.last_bound.is_none_or(|last| last < anchor.epoch.0) {
            self.last_bound = Some(anchor.epoch.0);
            self.report.epochs_bound += 1;
        }
        self.answer(index, nonce, anchor.size, clock);
        if self.pending.len() < ANCHORS_MAX {
            self.pending.push(Pending { index, size: anchor.size, root: anchor.root, clock, counted: None });
        } else {
            let text =
                format!("there are more than {ANCHORS_MAX} anchors: those from entry {} on vouch for nothing", index.0);
            self.notes.push_once(Note { name: "anchors_unjudged", index: Some(index), text });
        }
    }

    /// An anchor whose quote holds, as the answer to the challenge if it carries that and is the first to do so.
    fn answer(&mut self, index: EntryIndex, nonce: Option<&[u8]>, size: TreeSize, clock: ClockInfo) {
        let (Some(asked), Key::Usable(ak)) = (&self.challenge, &self.key) else { return };
        if self.answering.is_none() && nonce == Some(asked.challenge.as_bytes()) {
            self.answering = Some(Answer { index, size, clock, key: ak.name().clone(), is_believed: false });
        }
    }

    /// Judges the answer to the challenge: an anchor whose root is the log's, of a key that is believed. Without a trust file
    /// nobody is, which is said and is no finding.
    pub(super) fn challenged(&mut self, tier: KeyTier, is_trusting: bool, findings: &mut Findings) {
        let Some(asked) = &mut self.challenge else { return };
        let Some(answer) = &mut asked.answer else {
            findings.push(Finding::ChallengeUnanswered {});
            return;
        };
        let is_named = self.report.keys.iter().any(|seen| seen.named && seen.name == answer.key);
        answer.is_believed = is_named || tier > KeyTier::T0;
        if is_trusting && !answer.is_believed {
            findings.push(Finding::ChallengeUnbelieved { index: answer.index });
        }
    }

    fn counter(&mut self, counter: &NvCounter<'_>, now: Alive, windows: &mut Windows, findings: &mut Findings) {
        let index = now.index;
        if *self.counter_index.get_or_insert(counter.index) != counter.index {
            findings.push(Finding::NvCounterWrong { index, what: "index" });
        }
        let certifies = matches!(counter.op, CounterOp::Step | CounterOp::Late);
        let there =
            [counter.name.is_some(), counter.previous.is_some(), counter.attest.is_some(), counter.sig.is_some()];
        if there != [certifies; 4] {
            findings.push(Finding::NvCounterWrong { index, what: "set of members" });
        }
        let value = counter.value;
        match counter.op {
            CounterOp::Intent => {
                let expected = self.certified.map(|certified| certified.saturating_add(1));
                if let Some(expected) = expected.filter(|expected| *expected != value) {
                    findings.push(Finding::NvCounterGap { index, expected, seen: value });
                }
                self.intent = Some((value, now));
            }
            CounterOp::Capped => {
                if let Some(expected) = self.certified.filter(|certified| *certified != value) {
                    findings.push(Finding::NvCounterGap { index, expected, seen: value });
                }
                findings.push(Finding::NvCounterCapped { index });
            }
            CounterOp::Step | CounterOp::Late => self.certification(counter, now, windows, findings),
        }
    }

    fn certification(&mut self, counter: &NvCounter<'_>, now: Alive, windows: &mut Windows, findings: &mut Findings) {
        let (index, value) = (now.index, counter.value);
        let intent = self.intent.take();
        // In a part of a log the intent may be among what is withheld.
        let known = self.certified.is_some() || !self.partial;
        if known && intent.map(|(intended, _)| intended) != Some(value) {
            findings.push(Finding::NvCounterWrong { index, what: "value: no intent has it" });
            if let Some(expected) = self.certified.map(|last| last.saturating_add(1)).filter(|next| *next != value) {
                findings.push(Finding::NvCounterGap { index, expected, seen: value });
            }
        }
        if counter.op == CounterOp::Late {
            let since = self.certified_at.or(intent.map(|(_, at)| at)).unwrap_or(now);
            windows.counted_late(since, now);
        }
        let (Some(attest), Some(signature), Some(name)) = (&counter.attest, &counter.sig, &counter.name) else {
            return;
        };
        let previous = counter.previous.map(|previous| previous.0);
        let statement = CounterStatement {
            origin: self.origin.as_str(),
            op: counter.op,
            index: counter.index,
            value,
            previous: previous.unwrap_or(NO_ATTESTATION),
        };
        let attest = (attest.as_bytes(), signature.as_bytes());
        let attest = self.attestation(index, attest, previous, statement.digest(), findings);
        // Whether it holds or not, what follows counts on from it.
        self.certified = Some(value);
        self.certified_at = Some(now);
        let Some(attest) = attest else { return };
        let tpm::Attested::Nv { name: certified, offset, contents } = &attest.attested else {
            let reason = "it is not of an NV index".to_owned();
            findings.push(Finding::AttestationMalformed { index, reason });
            return;
        };
        let expected = NvPublic::counter(counter.index).name();
        let mut holds = true;
        for (is_right, what) in [
            (*certified == expected && name.as_bytes() == expected.as_bytes(), "name: the index is no such counter"),
            (*offset == 0 && contents[..] == value.to_be_bytes(), "value: the TPM certified another"),
        ] {
            if !is_right {
                findings.push(Finding::NvCounterWrong { index, what });
                holds = false;
            }
        }
        if holds {
            self.stepped = true;
            self.report.counter.get_or_insert((expected, value));
            if let Some(pending) = self.pending.last_mut() {
                pending.counted = Some(value);
            }
        }
    }

    /// The value that the counter was stepped to for an epoch that begins now, if it names it.
    pub(super) fn step_for(&self, epoch: &Epoch<'_>) -> Option<u64> {
        epoch.counter.filter(|counter| self.stepped && self.certified == Some(*counter))
    }

    fn epoch(&mut self, index: EntryIndex, epoch: &Epoch<'_>, findings: &mut Findings) {
        if let (Some(attest), Some(signature)) = (&epoch.attest, &epoch.sig_attest) {
            let statement = EpochStatement::of(self.origin.as_str(), epoch).digest();
            let attest = (attest.as_bytes(), signature.as_bytes());
            let attest = self.attestation(index, attest, None, statement, findings);
            let is_fit =
                |attest: &Attest| matches!(attest.attested, tpm::Attested::Quote { .. } | tpm::Attested::Time { .. });
            if attest.as_ref().is_some_and(|attest| !is_fit(attest)) {
                let reason = "it is neither a quote nor of the time".to_owned();
                findings.push(Finding::AttestationMalformed { index, reason });
            }
        }
        if self.certified.is_some() {
            if epoch.counter.is_some() && epoch.counter != self.certified {
                findings.push(Finding::EpochWrong { index, what: "counter" });
            } else if epoch.how == Succession::Orphan && self.step_for(epoch).is_none() {
                findings.push(Finding::EpochUncounted { index });
            }
        }
        self.stepped = false;
        self.report.epochs += 1;
        if self.epochs.len() < ANCHORS_MAX {
            self.epochs.push((epoch.number.0, epoch.first_size));
        }
    }

    /// The sizes whose roots anchors name, in the order of the log.
    pub(super) fn pending(&self) -> impl ExactSizeIterator<Item = &Pending> {
        self.pending.iter()
    }

    /// Settles what anchors vouch for: `roots` are the log's at their sizes, `None` where it cannot be said.
    pub(super) fn settle(&mut self, roots: impl IntoIterator<Item = Option<RootHash>>, findings: &mut Findings) {
        for (pending, root) in std::mem::take(&mut self.pending).into_iter().zip(roots) {
            let Some(root) = root else { continue };
            if root != pending.root {
                findings.push(Finding::AnchorMismatch { index: pending.index, size: pending.size });
                continue;
            }
            let Pending { index, size, clock, counted, .. } = pending;
            if let Some(asked) = &mut self.challenge
                && let Some(answer) = self.answering.take_if(|answer| answer.index == index)
            {
                asked.answer = Some(answer);
            }
            self.report.anchored = Some(Anchored { index, size, clock });
            if let Some(value) = counted {
                self.report.counted = Some(Counted { size, value });
            }
        }
    }

    /// The log ends.
    pub(super) fn finish(&mut self, windows: &mut Windows) {
        self.close(windows);
    }

    /// Compares with what the trust file knows of the TPM.
    pub(super) fn compare(&self, trust: &Trust, findings: &mut Findings) {
        let known = &trust.attestation;
        if !known.ak_names.is_empty() {
            for seen in self.report.keys.iter().filter(|seen| !seen.named) {
                findings.push(Finding::AkUntrusted { index: seen.index, name: seen.name.to_string() });
            }
        }
        let counter = self.report.counter.as_ref();
        // A part of a log does not show how it began.
        let whole = !self.partial;
        if known.counter_name.as_ref().is_some_and(|name| counter.map(|(seen, _)| seen) != Some(name)) && whole {
            findings.push(Finding::CounterUntrusted { what: "name" });
        }
        if known.counter_value.is_some_and(|value| counter.map(|(_, seen)| *seen) != Some(value)) && whole {
            findings.push(Finding::CounterUntrusted { what: "first value" });
        }
        if known.reset_count.is_some_and(|count| self.report.reset_count != Some(count)) && whole {
            findings.push(Finding::ResetCountUntrusted { seen: self.report.reset_count });
        }
        if let (Some(allowed), Some((length, index))) =
            (known.largest_anchor_gap_seconds, self.report.longest_unanchored)
            && length > allowed.saturating_mul(1_000_000_000)
        {
            let seen = super::report::seconds(length);
            findings.push(Finding::AnchorGapTooLong { index, seen, allowed });
        }
    }
}

/// Whether the registers of an anchor are those of its quote: one bank, SHA-256, listed ascending, with these values.
fn quoted(anchor: &Anchor<'_>, selections: &[PcrSelection], digest: &[u8]) -> bool {
    let registers = || anchor.pcrs.iter().map(|pcr| pcr.index);
    let ascending = registers().zip(registers().skip(1)).all(|(before, after)| before < after);
    let values: Vec<&[u8]> = anchor.pcrs.iter().map(|pcr| pcr.value.0.as_slice()).collect();
    let in_range = registers().all(|register| register < 24);
    ascending
        && in_range
        && selections == [PcrSelection::new(HashAlg::Sha256, registers())]
        && HashAlg::Sha256.digest(&values) == digest
}
