//! Cosignatures of witnesses (C2SP tlog-cosignature): Ed25519 (type 0x04), signed and verified; ML-DSA-44 (type 0x06),
//! verified only, behind the feature `ml-dsa`.
//!
//! A cosignature says that its witness saw, at a time that it states, no larger history of the log than this
//! checkpoint, and that this one continues every history that it saw before. Whether the witness is believed is the
//! trust file's to say; nothing here does.
//!
//! Pure: the time is an argument, and whoever signs holds the key.

#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::note::{KeyName, Note, NoteError, SignatureLine, verify_ed25519};
use crate::record::{PublicKey, Signature};

/// Signature type of an Ed25519 cosignature.
const ED25519: u8 = 0x04;
/// Signature type of an ML-DSA-44 cosignature.
const ML_DSA_44: u8 = 0x06;
/// Bytes of an ML-DSA-44 public key (FIPS 204, table 2).
pub const ML_DSA_44_KEY_BYTES: usize = 1312;
/// Bytes of an ML-DSA-44 signature (FIPS 204, table 2).
pub const ML_DSA_44_SIGNATURE_BYTES: usize = 2420;
/// Latest time that a cosignature may state, in seconds (C2SP tlog-cosignature).
pub const TIMESTAMP_MAX: u64 = i64::MAX as u64;
/// Longest verifier key that is read: a name and an ML-DSA-44 key in base64.
pub const VKEY_BYTES_MAX: usize = 2_560;

/// Why a witness's key or cosignature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CosignatureError {
    /// Not a verifier key of a witness.
    #[error("{0:?} is not a witness's verifier key (name+key id+key) of type 0x04 (Ed25519) or 0x06 (ML-DSA-44)")]
    Key(String),
    /// The name in it is none.
    #[error(transparent)]
    Name(#[from] NoteError),
    /// A cosignature under the witness's name and key id does not hold.
    #[error("the cosignature by {name} does not hold")]
    Forged {
        /// The witness's key name.
        name: String,
    },
    /// This build does not know the algorithm.
    #[error("the key of {name} is of ML-DSA-44, which this build cannot verify: build it with the feature `ml-dsa`")]
    Algorithm {
        /// The witness's key name.
        name: String,
    },
    /// A time that cannot be stated.
    #[error("{0} seconds is no time of a cosignature: at most 2^63 - 1")]
    Time(u64),
}

/// The public key of a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Algorithm {
    Ed25519(PublicKey),
    MlDsa44(Box<[u8]>),
}

/// A key that verifies cosignatures, with its name: a vkey of type 0x04 or 0x06.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: KeyName,
    algorithm: Algorithm,
}

impl WitnessKey {
    /// An Ed25519 key under a name.
    #[must_use]
    pub fn ed25519(name: KeyName, key: PublicKey) -> Self {
        Self { name, algorithm: Algorithm::Ed25519(key) }
    }

    /// Reads `name+hex8(key id)+base64(type || key)`; the only form accepted is the one that is written.
    ///
    /// # Errors
    /// [`CosignatureError::Key`], also when the key id is not the key's own, or [`CosignatureError::Name`].
    pub fn parse(text: &str) -> Result<Self, CosignatureError> {
        let refused = || CosignatureError::Key(text.chars().take(128).collect());
        if text.len() > VKEY_BYTES_MAX {
            return Err(refused());
        }
        // Base64 may itself contain '+', so at most three parts.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused());
        };
        let bytes = STANDARD.decode(key).map_err(|_malformed| refused())?;
        let algorithm = match bytes.split_first().ok_or_else(refused)? {
            (&ED25519, key) => Algorithm::Ed25519(PublicKey(<[u8; 32]>::try_from(key).map_err(|_length| refused())?)),
            (&ML_DSA_44, key) if key.len() == ML_DSA_44_KEY_BYTES => Algorithm::MlDsa44(key.into()),
            _ => return Err(refused()),
        };
        let parsed = Self { name: KeyName::new(name)?, algorithm };
        if parsed.to_string() == text { Ok(parsed) } else { Err(refused()) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The key itself, without name and type: two witnesses with one key are one witness.
    #[must_use]
    pub fn key_bytes(&self) -> &[u8] {
        match &self.algorithm {
            Algorithm::Ed25519(key) => &key.0,
            Algorithm::MlDsa44(key) => key,
        }
    }

    fn kind(&self) -> u8 {
        match &self.algorithm {
            Algorithm::Ed25519(_) => ED25519,
            Algorithm::MlDsa44(_) => ML_DSA_44,
        }
    }

    /// `SHA-256(name || 0x0A || type || key)[..4]`.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(self.name.as_str().as_bytes())
            .chain_update([b'\n', self.kind()])
            .chain_update(self.key_bytes())
            .finalize()
            .into();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// The cosignature of this key on a checkpoint: `None` when no line carries its name and id. Of several, the one
    /// with the latest time.
    ///
    /// # Errors
    /// [`CosignatureError::Forged`] when a line does and its signature does not hold;
    /// [`CosignatureError::Algorithm`] when this build cannot tell.
    pub fn cosigned(&self, note: &Note) -> Result<Option<Cosignature>, CosignatureError> {
        let id = self.id();
        let mut latest: Option<Cosignature> = None;
        for line in note.signatures.iter().filter(|line| line.name == self.name && line.id == id) {
            let cosignature = self.verify(&note.text, line)?;
            if latest.is_none_or(|known| known.timestamp < cosignature.timestamp) {
                latest = Some(cosignature);
            }
        }
        Ok(latest)
    }

    /// Verifies one line of this key over the text of a checkpoint.
    fn verify(&self, text: &str, line: &SignatureLine) -> Result<Cosignature, CosignatureError> {
        let forged = || CosignatureError::Forged { name: self.name.as_str().to_owned() };
        let (timestamp, signature) = line.signature.split_first_chunk::<8>().ok_or_else(forged)?;
        let timestamp = u64::from_be_bytes(*timestamp);
        if timestamp > TIMESTAMP_MAX {
            return Err(forged());
        }
        let holds = match &self.algorithm {
            Algorithm::Ed25519(key) => <[u8; 64]>::try_from(signature)
                .is_ok_and(|signature| verify_ed25519(*key, &message(timestamp, text), &Signature(signature))),
            Algorithm::MlDsa44(key) => ml_dsa_44::verifies(&self.name, key, timestamp, text, signature)?,
        };
        if holds { Ok(Cosignature { timestamp }) } else { Err(forged()) }
    }
}

impl std::fmt::Display for WitnessKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut key = vec![self.kind()];
        key.extend_from_slice(self.key_bytes());
        write!(out, "{}+{:08x}+{}", self.name.as_str(), u32::from_be_bytes(self.id()), STANDARD.encode(key))
    }
}

/// A cosignature that was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cosignature {
    /// When it was made by the witness's clock, in seconds since 1970. 0 (ML-DSA-44 only) states no time.
    pub timestamp: u64,
}

/// What an Ed25519 cosignature signs: a header, the time, and the text of the checkpoint with its final line feed.
#[must_use]
pub fn message(timestamp: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {timestamp}\n{text}").into_bytes()
}

/// Cosigns the text of a checkpoint with an Ed25519 key; `timestamp` in seconds since 1970.
///
/// # Errors
/// [`CosignatureError::Time`]; [`CosignatureError::Algorithm`] for a key of another algorithm.
pub fn cosign(
    key: &WitnessKey,
    timestamp: u64,
    text: &str,
    sign: impl FnOnce(&[u8]) -> Signature,
) -> Result<SignatureLine, CosignatureError> {
    if timestamp > TIMESTAMP_MAX {
        return Err(CosignatureError::Time(timestamp));
    }
    if !matches!(key.algorithm, Algorithm::Ed25519(_)) {
        return Err(CosignatureError::Algorithm { name: key.name.as_str().to_owned() });
    }
    let mut signature = timestamp.to_be_bytes().to_vec();
    signature.extend_from_slice(&sign(&message(timestamp, text)).0);
    Ok(SignatureLine { name: key.name.clone(), id: key.id(), signature })
}

#[cfg(feature = "ml-dsa")]
mod ml_dsa_44 {
    //! ML-DSA-44 over the structure `cosigned_message`, with start 0: a checkpoint, not a subtree.

    use ml_dsa::{EncodedSignature, EncodedVerifyingKey, MlDsa44, Signature, VerifyingKey};

    use super::CosignatureError;
    use crate::checkpoint::Checkpoint;
    use crate::note::KeyName;

    /// `cosigned_message` of C2SP tlog-cosignature; names have at most 255 bytes each ([`KeyName`]).
    pub(super) fn message(name: &KeyName, timestamp: u64, text: &str) -> Option<Vec<u8>> {
        // Extension lines are not signed by this type, so the first three lines are all there is to say.
        let own = text.match_indices('\n').nth(2).map_or(text.len(), |(at, _)| at + 1);
        let checkpoint = Checkpoint::parse_text(text.get(..own)?).ok()?;
        let origin = checkpoint.origin.as_str().as_bytes();
        let mut message = b"subtree/v1\n\0".to_vec();
        message.push(u8::try_from(name.as_str().len()).ok()?);
        message.extend_from_slice(name.as_str().as_bytes());
        message.extend_from_slice(&timestamp.to_be_bytes());
        message.push(u8::try_from(origin.len()).ok()?);
        message.extend_from_slice(origin);
        message.extend_from_slice(&0_u64.to_be_bytes()); // start
        message.extend_from_slice(&checkpoint.size.0.to_be_bytes()); // end
        message.extend_from_slice(&checkpoint.root.0);
        Some(message)
    }

    pub(super) fn verifies(
        name: &KeyName,
        key: &[u8],
        timestamp: u64,
        text: &str,
        signature: &[u8],
    ) -> Result<bool, CosignatureError> {
        let (Ok(key), Ok(signature)) =
            (EncodedVerifyingKey::<MlDsa44>::try_from(key), EncodedSignature::<MlDsa44>::try_from(signature))
        else {
            return Ok(false);
        };
        let (Some(signature), Some(message)) =
            (Signature::<MlDsa44>::decode(&signature), message(name, timestamp, text))
        else {
            return Ok(false);
        };
        // FIPS 204, algorithm 3, with the empty context.
        Ok(VerifyingKey::<MlDsa44>::decode(&key).verify_with_context(&message, &[], &signature))
    }
}

#[cfg(not(feature = "ml-dsa"))]
mod ml_dsa_44 {
    //! Without the feature: known, and not verified.

    use super::CosignatureError;
    use crate::note::KeyName;

    pub(super) fn verifies(
        name: &KeyName,
        _key: &[u8],
        _timestamp: u64,
        _text: &str,
        _signature: &[u8],
    ) -> Result<bool, CosignatureError> {
        Err(CosignatureError::Algorithm { name: name.as_str().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    /// The example of the tlog-cosignature specification; its keys are not published.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

    fn seed(byte: u8) -> SigningKey {
        SigningKey::from_bytes(&[byte; 32])
    }

    fn witness(byte: u8) -> WitnessKey {
        let key = PublicKey(seed(byte).verifying_key().to_bytes());
        WitnessKey::ed25519(KeyName::new("witness.example.com/w1").unwrap(), key)
    }

    fn cosigned(byte: u8, timestamp: u64) -> Note {
        let mut note = Note::parse(EXAMPLE.as_bytes()).unwrap();
        note.signatures.truncate(1);
        let sign = |message: &[u8]| Signature(seed(byte).sign(message).to_bytes());
        note.signatures.push(cosign(&witness(byte), timestamp, &note.text, sign).unwrap());
        Note::parse(note.to_text().as_bytes()).unwrap()
    }

    #[test]
    fn the_example_of_the_specification_has_the_layout_and_time_that_it_says() {
        let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
        let line = note.signatures.get(1).unwrap();
        assert_eq!(line.signature.len(), 8 + 64);
        assert_eq!(u64::from_be_bytes(*line.signature.first_chunk::<8>().unwrap()), 1_679_315_147);
        let message = message(1_679_315_147, &note.text);
        assert!(message.starts_with(b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\nCsUY"));
        assert!(message.ends_with(b"q2I=\n"));
        assert_eq!(note.to_text(), EXAMPLE);
    }

    #[test]
    fn what_a_witness_cosigned_verifies_and_nothing_else_does() {
        let note = cosigned(1, 1_700_000_000);
        assert_eq!(witness(1).cosigned(&note), Ok(Some(Cosignature { timestamp: 1_700_000_000 })));
        // The same name and another key: not this witness's line.
        assert_eq!(witness(2).cosigned(&note), Ok(None));
        let forged = CosignatureError::Forged { name: "witness.example.com/w1".to_owned() };
        let mut other_time = note.clone();
        other_time.signatures[1].signature[7] ^= 1;
        assert_eq!(witness(1).cosigned(&other_time), Err(forged.clone()));
        let mut other_text = note.clone();
        other_text.text = other_text.text.replace("20852163", "20852164");
        assert_eq!(witness(1).cosigned(&other_text), Err(forged.clone()));
        let mut short = note.clone();
        short.signatures[1].signature.truncate(7);
        assert_eq!(witness(1).cosigned(&short), Err(forged.clone()));
        let mut late = note;
        late.signatures[1].signature[0] = 0x80;
        assert_eq!(witness(1).cosigned(&late), Err(forged), "a time beyond 2^63 - 1");
        assert_eq!(
            cosign(&witness(1), TIMESTAMP_MAX + 1, "x\n", |_| Signature([0; 64])),
            Err(CosignatureError::Time(TIMESTAMP_MAX + 1))
        );
    }

    #[test]
    fn of_several_cosignatures_the_latest_counts_and_each_must_hold() {
        let mut note = cosigned(1, 10);
        note.signatures.extend(cosigned(1, 30).signatures.into_iter().skip(1));
        note.signatures.extend(cosigned(1, 20).signatures.into_iter().skip(1));
        assert_eq!(witness(1).cosigned(&note), Ok(Some(Cosignature { timestamp: 30 })));
        note.signatures[3].signature[20] ^= 1;
        assert!(matches!(witness(1).cosigned(&note), Err(CosignatureError::Forged { .. })));
    }

    #[test]
    fn a_log_key_is_no_witness_key() {
        let good = witness(1).to_string();
        assert_eq!(WitnessKey::parse(&good), Ok(witness(1)));
        let log =
            crate::note::VerifierKey::new(witness(1).name().clone(), PublicKey(seed(1).verifying_key().to_bytes()));
        for bad in
            [log.to_string(), good.replacen('+', "+0", 1), good.replace("w1", "w2"), "a+b".to_owned(), good + " "]
        {
            assert!(matches!(WitnessKey::parse(&bad), Err(CosignatureError::Key(_))), "{bad}");
        }
    }

    #[cfg(not(feature = "ml-dsa"))]
    #[test]
    fn without_the_feature_a_post_quantum_cosignature_is_neither_good_nor_forged() {
        let key = WitnessKey {
            name: KeyName::new("pq.example").unwrap(),
            algorithm: Algorithm::MlDsa44(vec![1; ML_DSA_44_KEY_BYTES].into()),
        };
        assert_eq!(WitnessKey::parse(&key.to_string()), Ok(key.clone()));
        let mut note = cosigned(1, 10);
        note.signatures.push(SignatureLine { name: key.name.clone(), id: key.id(), signature: vec![0; 2428] });
        assert!(matches!(key.cosigned(&note), Err(CosignatureError::Algorithm { .. })));
    }

    #[cfg(feature = "ml-dsa")]
    #[test]
    fn an_ml_dsa_cosignature_verifies_and_commits_to_the_name() {
        use ml_dsa::{MlDsa44, SigningKey, signature::Keypair as _};
        let pair = SigningKey::<MlDsa44>::from_seed(&[9; 32].into());
        let key = |name: &str| WitnessKey {
            name: KeyName::new(name).unwrap(),
            algorithm: Algorithm::MlDsa44(pair.verifying_key().encode().to_vec().into()),
        };
        let witness = key("pq.example");
        assert_eq!(WitnessKey::parse(&witness.to_string()), Ok(witness.clone()));
        let mut note = cosigned(1, 10);
        let message = ml_dsa_44::message(witness.name(), 77, &note.text).unwrap();
        assert_eq!(message.len(), 12 + 1 + 10 + 8 + 1 + 27 + 8 + 8 + 32);
        let signature = pair.expanded_key().sign_deterministic(&message, &[]).unwrap();
        let mut blob = 77_u64.to_be_bytes().to_vec();
        blob.extend_from_slice(&signature.encode());
        assert_eq!(blob.len(), 8 + ML_DSA_44_SIGNATURE_BYTES);
        note.signatures.push(SignatureLine { name: witness.name.clone(), id: witness.id(), signature: blob.clone() });
        assert_eq!(witness.cosigned(&note), Ok(Some(Cosignature { timestamp: 77 })));
        // The same signature under another name: the name is signed.
        let other = key("pq.example/2");
        note.signatures.push(SignatureLine { name: other.name.clone(), id: other.id(), signature: blob });
        assert!(matches!(other.cosigned(&note), Err(CosignatureError::Forged { .. })));
        note.text = note.text.replace("20852163", "20852164");
        assert!(matches!(witness.cosigned(&note), Err(CosignatureError::Forged { .. })));
    }
}
