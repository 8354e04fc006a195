//! The trust file: what a verifier knows of a log from elsewhere, and what it requires of it.
//!
//! Trusted: it is the only input that is. Keep it where whoever could change the log cannot change it too. It is
//! TOML, written by [`Trust::to_toml`] and read strictly: unknown keys are refused, so that a misspelled
//! requirement is not taken for none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::attest::cert::path::RootClass;
use crate::attest::cert::{TrustRoots, TrustRootsError};
use crate::attest::pcr::{PolicyError as RegisterPolicyError, RegisterPolicy};
use crate::attest::tpm::Name;
use crate::note::{KeyName, NoteError, VerifierKey};
use crate::policy::{Policy, PolicyError};
use crate::record::{Digest, EntryIndex, KeyTier, LeafHash, PublicKey, RootHash, TreeSize};
use crate::verify::{Claim, Observed};

/// Longest trust file read, in bytes: 10,000 remembered heads take about 1 MiB.
pub const TRUST_BYTES_MAX: usize = 4 << 20;

/// Version of the file's form.
const VERSION: u32 = 1;

/// Why a text is not a trust file, or a head cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Larger than is read.
    #[error("the trust file has {len} bytes, at most {TRUST_BYTES_MAX} are read")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not TOML, or with unknown, missing or repeated keys.
    #[error("the trust file is not of the expected form: {reason}")]
    Form {
        /// What the TOML reader says.
        reason: String,
    },
    /// A version that this program does not know.
    #[error("the trust file has version {seen}, this program knows {VERSION}")]
    Version {
        /// The version found.
        seen: u32,
    },
    /// An origin or log key that cannot be one.
    #[error("the trust file has a bad {key}")]
    Key {
        /// Which key of the file.
        key: &'static str,
        /// What is wrong with it.
        #[source]
        source: NoteError,
    },
    /// A policy of witnesses that is none.
    #[error("`witness_policy` in the trust file is not a policy")]
    Policy(#[source] PolicyError),
    /// A policy over a register that is none.
    #[error("`pcr` in the trust file is not a policy over a register")]
    Register(#[source] RegisterPolicyError),
    /// Two policies over one register.
    #[error("the trust file has two `pcr` tables for register {index}")]
    RegisterRepeated {
        /// The register.
        index: u32,
    },
    /// A policy for other logs.
    #[error("`witness_policy` in the trust file names a log with another key than `log_key`")]
    PolicyLog,
    /// The log key has another name than the origin.
    #[error("the log key in the trust file is not named as the origin")]
    KeyName,
    /// A hash or key that is not the base64 of 32 bytes, or a size that is too large.
    #[error("`{key}` in the trust file is not {expected}")]
    Value {
        /// Which key of the file.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// An authority that cannot be believed.
    #[error("`{key}` in the trust file cannot be used")]
    Roots {
        /// Which key of the file.
        key: &'static str,
        /// Why not.
        #[source]
        source: Box<TrustRootsError>,
    },
    /// Two different roots for one size.
    #[error(
        "the trust file remembers the root hash {} at size {size}, the log has {}: the log signed two histories",
        STANDARD.encode(trusted.0), STANDARD.encode(seen.0)
    )]
    HeadConflict {
        /// The size.
        size: u64,
        /// The root hash in the trust file.
        trusted: RootHash,
        /// The other.
        seen: RootHash,
    },
    /// The head was observed in another log.
    #[error("the head is of the log {seen:?}, the trust file is for {trusted:?}")]
    OtherLog {
        /// The origin in the trust file.
        trusted: String,
        /// The origin of the head.
        seen: String,
    },
}

/// A head that was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Tree size.
    pub size: TreeSize,
    /// Root hash.
    pub root: RootHash,
}

/// The witnesses that are believed about a log, and which of them together are enough: a C2SP tlog-policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessPolicy {
    text: String,
    policy: Policy,
}

impl WitnessPolicy {
    /// Reads a policy for the log of this key.
    ///
    /// # Errors
    /// [`TrustError::Policy`], or [`TrustError::PolicyLog`] when it is for other logs.
    pub fn parse(text: &str, log_key: &VerifierKey) -> Result<Self, TrustError> {
        let policy = Policy::parse(text.as_bytes()).map_err(TrustError::Policy)?;
        if policy.logs().iter().any(|log| log.key != *log_key) {
            return Err(TrustError::PolicyLog);
        }
        Ok(Self { text: text.to_owned(), policy })
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// How much may be missing of what a log covers. What is absent is not limited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Longest time between two entries that the agent was not heard of, in seconds.
    pub largest_gap_seconds: Option<u64>,
    /// Most events declared lost.
    pub largest_loss_events: Option<u64>,
    /// What the agent may say that it does not capture; anything else it says is too much.
    pub accepted_not_covered: Option<Vec<String>>,
}

/// What is known of the TPM that attests a log, and who is believed about it. What is absent is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttestationTrust {
    /// Names of the attestation keys that the log may have. They were pinned by hand: nobody vouches that they live in a TPM.
    pub ak_names: Vec<Name>,
    /// Names of those that whoever wrote the file activated with the TPM before him: he vouches for them himself.
    pub live_activated_aks: Vec<Name>,
    /// Certificates of authorities of the site; here and below texts with one in PEM each, kept word for word.
    pub site_roots: Vec<String>,
    /// Of authorities that do not depend on the operator.
    pub independent_roots: Vec<String>,
    /// Of cloud providers.
    pub cloud_roots: Vec<String>,
    /// Of vendors of machines.
    pub vendor_roots: Vec<String>,
    /// Of vendors of TPMs, who certify endorsement keys.
    pub ek_roots: Vec<String>,
    /// Name of the NV counter.
    pub counter_name: Option<Name>,
    /// The value at which it was first certified in the log.
    pub counter_value: Option<u64>,
    /// How many times the TPM had been reset by the first attestation of the log.
    pub reset_count: Option<u32>,
    /// Longest time within a run of the agent without an anchor, in seconds.
    pub largest_anchor_gap_seconds: Option<u64>,
}

impl AttestationTrust {
    /// The authorities that are believed, each as what it is.
    ///
    /// # Errors
    /// [`TrustError::Roots`], which no trust file that was read causes.
    pub fn roots(&self) -> Result<TrustRoots, TrustError> {
        let mut roots = TrustRoots::default();
        for (key, class, list) in [
            ("site_roots", RootClass::Site, &self.site_roots),
            ("independent_roots", RootClass::Independent, &self.independent_roots),
            ("cloud_roots", RootClass::Cloud, &self.cloud_roots),
            ("vendor_roots", RootClass::Vendor, &self.vendor_roots),
            ("ek_roots", RootClass::Endorsement, &self.ek_roots),
        ] {
            roots.add_pem(class, list).map_err(|source| TrustError::Roots { key, source: Box::new(source) })?;
        }
        Ok(roots)
    }

    /// Every attestation key that is named, by whatever right.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.ak_names.iter().chain(&self.live_activated_aks)
    }
}

/// What is known of a log, and required of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Name of the log.
    pub origin: KeyName,
    /// Its key; named as the origin.
    pub log_key: VerifierKey,
    /// Leaf hash of its entry 0.
    pub genesis: LeafHash,
    /// Public key of its first epoch.
    pub first_epoch_key: PublicKey,
    /// Where its log key must live at least.
    pub minimum_tier: KeyTier,
    /// Claims that must be proved.
    pub required: Vec<Claim>,
    /// The witnesses, if any are believed.
    pub witnesses: Option<WitnessPolicy>,
    /// How much may be missing.
    pub limits: Limits,
    /// Which values quoted registers may have, by register. Empty: nobody knows which are right.
    pub registers: Vec<RegisterPolicy>,
    /// The TPM that attests it.
    pub attestation: AttestationTrust,
    /// Heads seen before, smallest first.
    pub heads: Vec<Head>,
}

/// The file as TOML has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    origin: String,
    log_key: String,
    genesis: String,
    first_epoch_key: String,
    minimum_tier: String,
    required: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    witness_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    largest_gap_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    largest_loss_events: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted_not_covered: Option<Vec<String>>,
    #[serde(default, rename = "pcr", skip_serializing_if = "Vec::is_empty")]
    registers: Vec<FileRegister>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ak_names: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    live_activated_aks: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    site_roots: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    independent_roots: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cloud_roots: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    vendor_roots: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ek_roots: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counter_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counter_value: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset_count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    largest_anchor_gap_seconds: Option<u64>,
    #[serde(default, rename = "head", skip_serializing_if = "Vec::is_empty")]
    heads: Vec<FileHead>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRegister {
    index: u32,
    values: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileHead {
    size: u64,
    root: String,
}

impl Trust {
    /// What `trust init` pins: the log as it was observed, its attestation keys and its counter where it has them, and the claims
    /// that such a log can prove at all.
    #[must_use]
    pub fn pin(observed: &Observed) -> Self {
        let attested = &observed.attestation;
        // TOML has no integers above 2^63 - 1: a counter beyond is pinned by its name alone.
        let value = attested.counter.as_ref().map(|(_, value)| *value).filter(|value| i64::try_from(*value).is_ok());
        Self {
            attestation: AttestationTrust {
                ak_names: attested.keys.iter().map(|seen| seen.name.clone()).collect(),
                counter_name: attested.counter.as_ref().map(|(name, _)| name.clone()),
                counter_value: value,
                reset_count: attested.reset_count,
                ..AttestationTrust::default()
            },
            origin: observed.log_key.name().clone(),
            log_key: observed.log_key.clone(),
            genesis: observed.genesis,
            first_epoch_key: observed.first_epoch_key,
            minimum_tier: observed.tier,
            required: vec![Claim::Integrity, Claim::Authenticity, Claim::Continuity, Claim::Coverage, Claim::Sessions],
            witnesses: None,
            limits: Limits::default(),
            registers: Vec::new(),
            heads: vec![observed.head],
        }
    }

    /// Believes the witnesses of a policy, and requires the claim that they can prove unless no quorum is asked for.
    ///
    /// # Errors
    /// As [`WitnessPolicy::parse`].
    pub fn believe(&mut self, policy: &str) -> Result<(), TrustError> {
        let witnesses = WitnessPolicy::parse(policy, &self.log_key)?;
        if witnesses.policy().needs_witnesses() && !self.required.contains(&Claim::NonEquivocation) {
            self.required.push(Claim::NonEquivocation);
        }
        self.witnesses = Some(witnesses);
        Ok(())
    }

    /// Remembers a head. One that is remembered already changes nothing.
    ///
    /// # Errors
    /// [`TrustError::HeadConflict`] when another root is remembered for its size; [`TrustError::OtherLog`] when
    /// it was observed in another log.
    pub fn add_head(&mut self, origin: &str, head: Head) -> Result<(), TrustError> {
        if origin != self.origin.as_str() {
            return Err(TrustError::OtherLog { trusted: self.origin.as_str().to_owned(), seen: origin.to_owned() });
        }
        match self.heads.binary_search_by_key(&head.size, |known| known.size) {
            Ok(position) => match self.heads.get(position) {
                Some(known) if *known != head => {
                    Err(TrustError::HeadConflict { size: head.size.0, trusted: known.root, seen: head.root })
                }
                _ => Ok(()),
            },
            Err(position) => {
                self.heads.insert(position, head);
                Ok(())
            }
        }
    }

    /// Reads a trust file.
    ///
    /// # Errors
    /// [`TrustError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        if text.len() > TRUST_BYTES_MAX {
            return Err(TrustError::TooLong { len: text.len() });
        }
        let file: File = toml::from_str(text).map_err(|error| TrustError::Form { reason: error.to_string() })?;
        if file.version != VERSION {
            return Err(TrustError::Version { seen: file.version });
        }
        let origin = KeyName::new(&file.origin).map_err(|source| TrustError::Key { key: "origin", source })?;
        let log_key = VerifierKey::parse(&file.log_key).map_err(|source| TrustError::Key { key: "log_key", source })?;
        if *log_key.name() != origin {
            return Err(TrustError::KeyName);
        }
        let tier = KeyTier::parse(&file.minimum_tier)
            .ok_or(TrustError::Value { key: "minimum_tier", expected: "T0, T1, T2 or T3" })?;
        let witnesses = file.witness_policy.as_deref().map(|text| WitnessPolicy::parse(text, &log_key)).transpose()?;
        let required: Option<Vec<Claim>> = file.required.iter().map(|name| Claim::parse(name)).collect();
        let mut trust = Self {
            origin,
            log_key,
            genesis: LeafHash(hash(&file.genesis, "genesis")?),
            first_epoch_key: PublicKey(hash(&file.first_epoch_key, "first_epoch_key")?),
            minimum_tier: tier,
            required: required.ok_or(TrustError::Value { key: "required", expected: "a list of names of claims" })?,
            witnesses,
            limits: Limits {
                largest_gap_seconds: file.largest_gap_seconds,
                largest_loss_events: file.largest_loss_events,
                accepted_not_covered: file.accepted_not_covered,
            },
            registers: registers(file.registers)?,
            attestation: AttestationTrust {
                ak_names: names(&file.ak_names, "ak_names")?,
                live_activated_aks: names(&file.live_activated_aks, "live_activated_aks")?,
                site_roots: file.site_roots,
                independent_roots: file.independent_roots,
                cloud_roots: file.cloud_roots,
                vendor_roots: file.vendor_roots,
                ek_roots: file.ek_roots,
                counter_name: file.counter_name.as_deref().map(|text| name(text, "counter_name")).transpose()?,
                counter_value: file.counter_value,
                reset_count: file.reset_count,
                largest_anchor_gap_seconds: file.largest_anchor_gap_seconds,
            },
            heads: Vec::new(),
        };
        trust.attestation.roots()?;
        for head in file.heads {
            if head.size > EntryIndex::MAX.0 {
                return Err(TrustError::Value { key: "size", expected: "a tree size" });
            }
            let head = Head { size: TreeSize(head.size), root: RootHash(hash(&head.root, "root")?) };
            trust.add_head(&file.origin, head)?;
        }
        Ok(trust)
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`TrustError::Form`] when it cannot be written as TOML, which no value of this type causes.
    pub fn to_toml(&self) -> Result<String, TrustError> {
        let file = File {
            version: VERSION,
            origin: self.origin.as_str().to_owned(),
            log_key: self.log_key.to_string(),
            genesis: STANDARD.encode(self.genesis.0),
            first_epoch_key: STANDARD.encode(self.first_epoch_key.0),
            minimum_tier: self.minimum_tier.as_str().to_owned(),
            required: self.required.iter().map(|claim| claim.name().to_owned()).collect(),
            witness_policy: self.witnesses.as_ref().map(|witnesses| witnesses.text.clone()),
            largest_gap_seconds: self.limits.largest_gap_seconds,
            largest_loss_events: self.limits.largest_loss_events,
            accepted_not_covered: self.limits.accepted_not_covered.clone(),
            registers: self
                .registers
                .iter()
                .map(|register| FileRegister {
                    index: register.index,
                    values: register.values.iter().map(|value| value.hex()).collect(),
                })
                .collect(),
            ak_names: self.attestation.ak_names.iter().map(ToString::to_string).collect(),
            live_activated_aks: self.attestation.live_activated_aks.iter().map(ToString::to_string).collect(),
            site_roots: self.attestation.site_roots.clone(),
            independent_roots: self.attestation.independent_roots.clone(),
            cloud_roots: self.attestation.cloud_roots.clone(),
            vendor_roots: self.attestation.vendor_roots.clone(),
            ek_roots: self.attestation.ek_roots.clone(),
            counter_name: self.attestation.counter_name.as_ref().map(ToString::to_string),
            counter_value: self.attestation.counter_value,
            reset_count: self.attestation.reset_count,
            largest_anchor_gap_seconds: self.attestation.largest_anchor_gap_seconds,
            heads: self
                .heads
                .iter()
                .map(|head| FileHead { size: head.size.0, root: STANDARD.encode(head.root.0) })
                .collect(),
        };
        let body = toml::to_string(&file).map_err(|error| TrustError::Form { reason: error.to_string() })?;
        Ok(format!(
            "# What a verifier knows of this log from elsewhere. Keep it where whoever could change the log cannot.\n{body}"
        ))
    }
}

/// The policies over registers, in the order of these.
fn registers(tables: Vec<FileRegister>) -> Result<Vec<RegisterPolicy>, TrustError> {
    let mut all: Vec<RegisterPolicy> = Vec::new();
    for FileRegister { index, values } in tables {
        let values: Option<Vec<Digest>> = values.iter().map(|value| Digest::from_hex(value)).collect();
        let values = values
            .ok_or(TrustError::Value { key: "values", expected: "a list of 64 lower-case hexadecimal digits each" })?;
        all.push(RegisterPolicy::new(index, values).map_err(TrustError::Register)?);
    }
    all.sort_by_key(|policy| policy.index);
    let repeated = all.windows(2).find_map(|pair| match pair {
        [one, other] if one.index == other.index => Some(one.index),
        _ => None,
    });
    match repeated {
        Some(index) => Err(TrustError::RegisterRepeated { index }),
        None => Ok(all),
    }
}

fn hash(encoded: &str, key: &'static str) -> Result<[u8; 32], TrustError> {
    let bytes = STANDARD.decode(encoded).ok();
    bytes
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .ok_or(TrustError::Value { key, expected: "the base64 of 32 bytes" })
}

/// A name of a TPM's object in lower-case hexadecimal digits.
fn name(text: &str, key: &'static str) -> Result<Name, TrustError> {
    let wrong = TrustError::Value { key, expected: "a name of a TPM's object in lower-case hexadecimal digits" };
    if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(wrong);
    }
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    let bytes: Option<Vec<u8>> = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    bytes.and_then(|bytes| Name::parse(&bytes).ok()).ok_or(wrong)
}

fn names(texts: &[String], key: &'static str) -> Result<Vec<Name>, TrustError> {
    texts.iter().map(|text| name(text, key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosignature::WitnessKey;

    fn tpm_name(byte: u8) -> Name {
        Name::parse(&[&[0, 0x0b][..], &[byte; 32]].concat()).unwrap()
    }

    fn trust() -> Trust {
        let name = KeyName::new("affiant.example/host").unwrap();
        Trust {
            log_key: VerifierKey::new(name.clone(), PublicKey([1; 32])),
            origin: name,
            genesis: LeafHash([2; 32]),
            first_epoch_key: PublicKey([3; 32]),
            minimum_tier: KeyTier::T0,
            required: vec![Claim::Integrity, Claim::Coverage],
            witnesses: None,
            limits: Limits {
                largest_gap_seconds: Some(60),
                largest_loss_events: Some(0),
                accepted_not_covered: Some(vec!["io_uring opens".to_owned()]),
            },
            registers: vec![RegisterPolicy::new(7, vec![Digest([0xab; 32]), Digest([0xcd; 32])]).unwrap()],
            attestation: AttestationTrust {
                ak_names: vec![tpm_name(1)],
                live_activated_aks: vec![tpm_name(2)],
                site_roots: vec![include_str!("../../tests/attest/p384_root.pem").to_owned()],
                counter_name: Some(tpm_name(3)),
                counter_value: Some(7),
                reset_count: Some(8),
                largest_anchor_gap_seconds: Some(180),
                ..AttestationTrust::default()
            },
            heads: vec![Head { size: TreeSize(5), root: RootHash([4; 32]) }],
        }
    }

    #[test]
    fn a_trust_file_reads_back_as_it_was_written() {
        assert_eq!(Trust::parse(&trust().to_toml().unwrap()), Ok(trust()));
        let unlimited =
            Trust { limits: Limits::default(), attestation: AttestationTrust::default(), heads: Vec::new(), ..trust() };
        assert_eq!(Trust::parse(&unlimited.to_toml().unwrap()), Ok(unlimited));
    }

    #[test]
    fn a_policy_of_witnesses_is_kept_word_for_word_and_must_be_for_this_log() {
        let key = WitnessKey::ed25519(KeyName::new("witness.example").unwrap(), PublicKey([7; 32]));
        let policy = format!("# ours\nlog {}\nwitness w {key} https://w.example/\nquorum w\n", trust().log_key);
        let mut believing = trust();
        believing.believe(&policy).unwrap();
        assert_eq!(believing.required, [Claim::Integrity, Claim::Coverage, Claim::NonEquivocation]);
        assert_eq!(Trust::parse(&believing.to_toml().unwrap()), Ok(believing.clone()));
        assert_eq!(believing.witnesses.unwrap().text(), policy);
        let other = VerifierKey::new(KeyName::new("affiant.example/host").unwrap(), PublicKey([9; 32]));
        assert_eq!(trust().believe(&format!("log {other}\nquorum none\n")), Err(TrustError::PolicyLog));
        assert!(matches!(trust().believe("quorum w\n"), Err(TrustError::Policy(_))));
        let mut none = trust();
        none.believe("quorum none\n").unwrap();
        assert_eq!(none.required, [Claim::Integrity, Claim::Coverage]);
    }

    #[test]
    fn heads_are_kept_in_order_and_a_second_history_is_refused() {
        let mut trust = trust();
        let head = |size, byte| Head { size: TreeSize(size), root: RootHash([byte; 32]) };
        trust.add_head("affiant.example/host", head(2, 1)).unwrap();
        trust.add_head("affiant.example/host", head(5, 4)).unwrap();
        assert_eq!(trust.heads, [head(2, 1), head(5, 4)]);
        let conflict = TrustError::HeadConflict { size: 2, trusted: RootHash([1; 32]), seen: RootHash([9; 32]) };
        assert_eq!(trust.add_head("affiant.example/host", head(2, 9)), Err(conflict));
        let other = TrustError::OtherLog { trusted: "affiant.example/host".into(), seen: "other".into() };
        assert_eq!(trust.add_head("other", head(9, 9)), Err(other));
    }

    #[test]
    fn every_misspelling_is_refused() {
        let good = trust().to_toml().unwrap();
        let refused = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            Trust::parse(&good.replacen(from, to, 1)).expect_err(to)
        };
        assert!(matches!(refused("required", "requires"), TrustError::Form { .. }));
        assert!(matches!(refused("size = 5", "size = -5"), TrustError::Form { .. }));
        assert!(matches!(refused("size = 5", "size = 5\nsize = 5"), TrustError::Form { .. }));
        assert!(matches!(refused("largest_gap_seconds = 60", "largest_gap_seconds = -1"), TrustError::Form { .. }));
        assert!(matches!(refused("largest_loss_events", "largest_loss"), TrustError::Form { .. }));
        assert!(matches!(refused("index = 7", "index = -7"), TrustError::Form { .. }));
        assert!(matches!(refused("index = 7", "register = 7"), TrustError::Form { .. }));
        assert_eq!(refused("index = 7", "index = 24"), TrustError::Register(RegisterPolicyError::Index { seen: 24 }));
        let values = TrustError::Value { key: "values", expected: "a list of 64 lower-case hexadecimal digits each" };
        assert_eq!(refused("abab", "ABAB"), values);
        assert_eq!(refused("abab", "ab"), values);
        let again = format!("{good}\n[[pcr]]\nindex = 7\nvalues = [\"{}\"]\n", "00".repeat(32));
        assert_eq!(Trust::parse(&again), Err(TrustError::RegisterRepeated { index: 7 }));
        let none = format!("{good}\n[[pcr]]\nindex = 6\nvalues = []\n");
        assert_eq!(Trust::parse(&none), Err(TrustError::Register(RegisterPolicyError::Values { index: 6, seen: 0 })));
        assert_eq!(refused("version = 1", "version = 2"), TrustError::Version { seen: 2 });
        assert_eq!(
            refused("\"T0\"", "\"T9\""),
            TrustError::Value { key: "minimum_tier", expected: "T0, T1, T2 or T3" }
        );
        let claims = TrustError::Value { key: "required", expected: "a list of names of claims" };
        assert_eq!(refused("\"coverage\"", "\"cover\""), claims);
        assert_eq!(
            refused("genesis = \"", "genesis = \"A"),
            TrustError::Value { key: "genesis", expected: "the base64 of 32 bytes" }
        );
        let name =
            |key| TrustError::Value { key, expected: "a name of a TPM's object in lower-case hexadecimal digits" };
        assert_eq!(refused("ak_names = [\"000b", "ak_names = [\"000B"), name("ak_names"));
        assert_eq!(refused("ak_names = [\"000b", "ak_names = [\"0004"), name("ak_names"));
        assert_eq!(refused("counter_name = \"000b", "counter_name = \"000b0"), name("counter_name"));
        assert!(matches!(
            refused("BEGIN CERTIFICATE", "BEGIN CERTIFICAT"),
            TrustError::Roots { key: "site_roots", .. }
        ));
        assert!(matches!(refused("reset_count = 8", "reset_count = -8"), TrustError::Form { .. }));
        assert_eq!(refused("origin = \"affiant", "origin = \"effiant"), TrustError::KeyName);
        assert!(matches!(refused("log_key = \"", "log_key = \"x"), TrustError::Key { key: "log_key", .. }));
    }
}
