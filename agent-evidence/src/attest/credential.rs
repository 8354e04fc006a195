//! TPM2_MakeCredential without a TPM: a secret that only one TPM can open, and only while a certain key is in it.
//!
//! TPM 2.0 Library, Part 1: section 24 (credential protection), annexes B.10.4 (RSA) and C.6.1 (elliptic curves),
//! section 11.4.10 (key derivation). Whoever gives the secret back has the endorsement key's TPM, and in it an object
//! of exactly the name that the credential was made for. So an authority's machine needs neither a TPM nor a
//! connection.
//!
//! Pure: randomness comes in, and must be used once.

#![forbid(unsafe_code)]

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use hmac::{Hmac, Mac as _};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use sha2::{Digest as _, Sha256};

use super::cert::rsa::{EXPONENT_MIN, RsaError, RsaKey};
use super::cert::x509::SubjectKey;
use super::tpm::public::{
    DECRYPT, FIXED_PARENT, FIXED_TPM, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN, Scheme, Symmetric,
};
use super::tpm::signature::padded;
use super::tpm::{CURVE_P256, HashAlg, Name, Parameters, Public, TpmError};

/// Bytes of the secret in a credential: what the digest of the endorsement key's name has room for.
pub const SECRET_BYTES: usize = 32;
/// Attributes that an endorsement key must have.
const ATTRIBUTES_SET: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | DECRYPT;
/// The cipher of endorsement keys of the low range (TCG EK credential profile, B.3.3 and B.3.4): AES-128 in CFB mode.
const AES_128_CFB: Symmetric = Symmetric { algorithm: 0x0006, key_bits: 128, mode: 0x0043 };
/// Bytes of its key and of its block.
const BLOCK_BYTES: usize = 16;
/// `IDENTITY` and a zero byte: the label of the seed (Part 1, B.10.4 and C.6.1).
const IDENTITY: &[u8] = b"IDENTITY\0";

/// Why a public area is not that of an endorsement key of a known sort, or no credential can be made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The public area cannot be read.
    #[error("the public area is not a TPMT_PUBLIC: {0}")]
    Public(#[source] TpmError),
    /// A key that would open a credential for anybody, or could leave its TPM.
    #[error(
        "the endorsement key's attributes are {seen:#010x}: fixedTPM, fixedParent, sensitiveDataOrigin, restricted and \
         decrypt must be set, sign clear"
    )]
    Attributes {
        /// `TPMA_OBJECT`.
        seen: u32,
    },
    /// Another sort of key.
    #[error("the endorsement key is of neither default template, P-256 or RSA 2048 (SHA-256, AES-128 in CFB)")]
    Kind,
    /// Not a point of the curve.
    #[error("the endorsement key is not a point of P-256")]
    Point,
    /// Not an RSA key.
    #[error("the endorsement key is refused")]
    Rsa(#[source] RsaError),
    /// The random bytes are no scalar of the curve, which one in 2^32 is not.
    #[error("the random bytes are no scalar of P-256: take others")]
    Scalar,
}

/// Random bytes for one credential. They decide who can open it: they must be of the system's generator and never be
/// used again.
pub struct Randomness {
    /// The seed (RSA), or the ephemeral key (curves).
    pub first: [u8; 32],
    /// The padding's seed (RSA only).
    pub second: [u8; 32],
}

/// An endorsement key that credentials can be made for. That it is one of a TPM is for its certificate to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndorsementKey {
    key: Key,
    name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    P256(p256::PublicKey),
    Rsa(RsaKey),
}

/// A secret as TPM2_ActivateCredential takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Content of TPM2B_ID_OBJECT.
    pub blob: Vec<u8>,
    /// Content of TPM2B_ENCRYPTED_SECRET.
    pub encrypted_seed: Vec<u8>,
}

impl EndorsementKey {
    /// Reads a public area (`TPMT_PUBLIC`) and checks that it is one of an endorsement key.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn parse(public: &[u8]) -> Result<Self, CredentialError> {
        let public = Public::parse(public).map_err(CredentialError::Public)?;
        let attributes = public.attributes;
        if attributes & ATTRIBUTES_SET != ATTRIBUTES_SET || attributes & SIGN != 0 {
            return Err(CredentialError::Attributes { seen: attributes });
        }
        let name = public.name();
        if public.name_alg != HashAlg::Sha256 {
            return Err(CredentialError::Kind);
        }
        let key = match &public.parameters {
            Parameters::Ecc {
                symmetric: Some(AES_128_CFB),
                scheme: Scheme::NULL,
                curve: CURVE_P256,
                kdf: Scheme::NULL,
                x,
                y,
            } => {
                let point = [&[0x04][..], &padded(x), &padded(y)].concat();
                let point = p256::PublicKey::from_sec1_bytes(&point).map_err(|_opaque| CredentialError::Point)?;
                Key::P256(point)
            }
            Parameters::Rsa { symmetric: Some(AES_128_CFB), scheme: Scheme::NULL, bits: 2048, exponent, modulus }
                if modulus.len() == 256 =>
            {
                let exponent = if *exponent == 0 { EXPONENT_MIN } else { *exponent };
                Key::Rsa(RsaKey::new(modulus, exponent).map_err(CredentialError::Rsa)?)
            }
            _ => return Err(CredentialError::Kind),
        };
        Ok(Self { key, name })
    }

    /// Its name, computed from its public area.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether this is the key that a certificate is about.
    #[must_use]
    pub fn is(&self, certified: &SubjectKey) -> bool {
        match (&self.key, certified) {
            (Key::P256(own), SubjectKey::P256(other)) => own.as_affine() == other.as_affine(),
            (Key::Rsa(own), SubjectKey::Rsa(other)) => own == other,
            _ => false,
        }
    }

    /// Makes a credential that opens in the TPM of this key while an object of this name is loaded in it.
    ///
    /// # Errors
    /// [`CredentialError::Scalar`], [`CredentialError::Rsa`].
    pub fn make(
        &self,
        object: &Name,
        secret: &[u8; SECRET_BYTES],
        random: &Randomness,
    ) -> Result<Credential, CredentialError> {
        let (seed, encrypted_seed) = match &self.key {
            Key::P256(key) => {
                let own = p256::SecretKey::from_slice(&random.first).map_err(|_opaque| CredentialError::Scalar)?;
                let shared = p256::ecdh::diffie_hellman(own.to_nonzero_scalar(), key.as_affine());
                let (own_x, own_y) = coordinates(&own.public_key());
                let (key_x, _) = coordinates(key);
                let seed = kdf_e(shared.raw_secret_bytes(), &own_x, &key_x);
                // TPMS_ECC_POINT.
                let mut point = Vec::with_capacity(68);
                for coordinate in [own_x, own_y] {
                    point.extend_from_slice(&[0, 32]);
                    point.extend_from_slice(&coordinate);
                }
                (seed, point)
            }
            Key::Rsa(key) => {
                let encrypted =
                    key.encrypt_oaep(&random.first, IDENTITY, &random.second).map_err(CredentialError::Rsa)?;
                (random.first, encrypted)
            }
        };
        let cipher_key = kdf_a(&seed, b"STORAGE\0", object.as_bytes(), 128);
        let mac_key = kdf_a(&seed, b"INTEGRITY\0", b"", 256);
        // TPM2B_DIGEST of the secret, encrypted.
        let mut identity = vec![0, 32];
        identity.extend_from_slice(secret);
        cfb_encrypt(&cipher_key, &mut identity);
        let integrity = hmac(&mac_key, &[&identity, object.as_bytes()]);
        let blob = [&[0, 32][..], &integrity, &identity].concat();
        Ok(Credential { blob, encrypted_seed })
    }
}

/// Coordinates in the full length of the field.
fn coordinates(key: &p256::PublicKey) -> ([u8; 32], [u8; 32]) {
    let point = key.to_sec1_point(false);
    let half = |range| point.as_bytes().get(range).and_then(|bytes: &[u8]| bytes.try_into().ok()).unwrap_or([0; 32]);
    (half(1..33), half(33..65))
}

/// KDFe (Part 1, 11.4.10.3) for 256 bits with SHA-256: one round.
fn kdf_e(shared: &[u8], party_u: &[u8; 32], party_v: &[u8; 32]) -> [u8; 32] {
    let hash = Sha256::new().chain_update(1_u32.to_be_bytes()).chain_update(shared).chain_update(IDENTITY);
    hash.chain_update(party_u).chain_update(party_v).finalize().into()
}

/// KDFa (Part 1, 11.4.10.2) for at most 256 bits with HMAC-SHA-256: one round, of which the caller takes what it asked
/// for.
fn kdf_a(key: &[u8; 32], label: &[u8], context: &[u8], bits: u32) -> [u8; 32] {
    hmac(key, &[&1_u32.to_be_bytes(), label, context, &bits.to_be_bytes()])
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC fills a key with zeros up to the block of its hash; a key of that length cannot be refused.
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// CFB with the block's full length as segment and an initialization vector of zeros (Part 1, 24.4): the key is used
/// once.
fn cfb_encrypt(key: &[u8; 32], bytes: &mut [u8]) {
    let mut half = [0; BLOCK_BYTES];
    half.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let cipher = Aes128::new(&half.into());
    let mut feedback = [0_u8; BLOCK_BYTES];
    for chunk in bytes.chunks_mut(BLOCK_BYTES) {
        let mut block = feedback.into();
        cipher.encrypt_block(&mut block);
        for ((byte, pad), feedback) in chunk.iter_mut().zip(block).zip(&mut feedback) {
            *byte ^= pad;
            *feedback = *byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::testdata;

    macro_rules! recorded {
        ($name:literal) => {
            include_bytes!(concat!("../../../tests/attest/", $name)).as_slice()
        };
    }

    #[test]
    fn what_a_tpm_once_opened_is_made_again() {
        let name = Name::parse(recorded!("activated.name")).unwrap();
        let secret: [u8; SECRET_BYTES] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let random = Randomness { first: [0x5a; 32], second: [0xa5; 32] };
        for (public, blob, encrypted_seed) in [
            (recorded!("activated_ecc.public"), recorded!("activated_ecc.blob"), recorded!("activated_ecc.seed")),
            (recorded!("activated_rsa.public"), recorded!("activated_rsa.blob"), recorded!("activated_rsa.seed")),
        ] {
            let made = EndorsementKey::parse(public).unwrap().make(&name, &secret, &random).unwrap();
            assert_eq!((made.blob.as_slice(), made.encrypted_seed.as_slice()), (blob, encrypted_seed));
        }
    }

    #[test]
    fn keys_that_are_no_endorsement_keys_get_no_credential() {
        for public in [testdata::EK_PUBLIC, testdata::EK_RSA_PUBLIC] {
            let refused = |bend: &dyn Fn(&mut Public)| {
                let mut public = Public::parse(public).unwrap();
                bend(&mut public);
                EndorsementKey::parse(&public.to_bytes()).map(|_| ())
            };
            assert_eq!(refused(&|_| {}), Ok(()));
            for bit in [FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN, RESTRICTED, DECRYPT, SIGN] {
                let Err(CredentialError::Attributes { seen }) = refused(&|public| public.attributes ^= bit) else {
                    panic!("{bit:#x}")
                };
                assert_eq!(seen, Public::parse(public).unwrap().attributes ^ bit);
            }
            let weaker = refused(&|public| {
                let (Parameters::Ecc { symmetric, .. } | Parameters::Rsa { symmetric, .. }) = &mut public.parameters
                else {
                    return;
                };
                *symmetric = Some(Symmetric { key_bits: 256, ..AES_128_CFB });
            });
            assert_eq!(weaker, Err(CredentialError::Kind));
        }
        let attestation = EndorsementKey::parse(testdata::AK_PUBLIC);
        assert!(matches!(attestation, Err(CredentialError::Attributes { .. })), "{attestation:?}");
        let mut bent = testdata::EK_PUBLIC.to_vec();
        *bent.last_mut().unwrap() ^= 1;
        assert_eq!(EndorsementKey::parse(&bent), Err(CredentialError::Point));
        assert!(matches!(EndorsementKey::parse(&bent[1..]), Err(CredentialError::Public(_))));
        // A storage key of the owner is restricted and decrypts too: only a certificate can say which hierarchy a key
        // is of.
        assert!(EndorsementKey::parse(testdata::SRK_PUBLIC).is_ok());
    }

    #[test]
    fn random_bytes_beyond_the_group_order_are_refused() {
        let key = EndorsementKey::parse(testdata::EK_PUBLIC).unwrap();
        let random = Randomness { first: [0xff; 32], second: [0; 32] };
        let name = Name::parse(testdata::AK_NAME).unwrap();
        assert_eq!(key.make(&name, &[0; SECRET_BYTES], &random), Err(CredentialError::Scalar));
    }
}
