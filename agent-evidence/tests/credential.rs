//! Credentials made without a TPM, opened by a TPM: the judge of the arithmetic is libtpms, by way of tpm2-tools.

#![forbid(unsafe_code)]

use std::fs;

use agent_evidence::attest::credential::{Credential, EndorsementKey, Randomness, SECRET_BYTES};
use agent_evidence::attest::tpm::Name;
use anyhow::{Context as _, Result};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use tests::Swtpm;

/// A TPM with an endorsement key of each sort, and an attestation key below the first.
struct Host {
    tpm: Swtpm,
    ak: Name,
}

impl Host {
    fn new() -> Result<Self> {
        let tpm = Swtpm::start()?;
        let run = |name: &str, arguments: &[&str]| {
            tpm.tool(name, arguments)?;
            tpm.tool("tpm2_flushcontext", &["-t"])
        };
        for sort in ["ecc", "rsa"] {
            run("tpm2_createek", &["-G", sort, "-c", &format!("{sort}.ctx"), "-u", &format!("{sort}.tss")])?;
            run("tpm2_readpublic", &["-c", &format!("{sort}.ctx"), "-f", "tpmt", "-o", &format!("{sort}.public")])?;
        }
        run(
            "tpm2_createak",
            &["-C", "ecc.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-n", "ak.name"],
        )?;
        let ak = Name::parse(&fs::read(tpm.directory().join("ak.name"))?)?;
        Ok(Self { tpm, ak })
    }

    fn endorsement_key(&self, sort: &str) -> Result<EndorsementKey> {
        let public = fs::read(self.tpm.directory().join(format!("{sort}.public")))?;
        Ok(EndorsementKey::parse(&public)?)
    }

    /// What the TPM finds in a credential.
    fn activate(&self, sort: &str, credential: &Credential) -> Result<Vec<u8>> {
        let buffer = |bytes: &[u8]| -> Result<Vec<u8>> {
            Ok([&u16::try_from(bytes.len()).context("a TPM2B is short")?.to_be_bytes()[..], bytes].concat())
        };
        // The form of tpm2-tools: a mark, a version, then both buffers.
        let file = [
            &0xbadc_c0de_u32.to_be_bytes()[..],
            &1_u32.to_be_bytes(),
            &buffer(&credential.blob)?,
            &buffer(&credential.encrypted_seed)?,
        ];
        let place = self.tpm.directory();
        fs::write(place.join("credential"), file.concat())?;
        self.tpm.tool("tpm2_startauthsession", &["--policy-session", "-S", "session"])?;
        self.tpm.tool("tpm2_policysecret", &["-S", "session", "-c", "e"])?;
        let key = format!("{sort}.ctx");
        let answer = self.tpm.tool(
            "tpm2_activatecredential",
            &["-c", "ak.ctx", "-C", &key, "-i", "credential", "-o", "opened", "-P", "session:session"],
        );
        self.tpm.tool("tpm2_flushcontext", &["session"])?;
        self.tpm.tool("tpm2_flushcontext", &["-t"])?;
        answer?;
        Ok(fs::read(place.join("opened"))?)
    }
}

/// An ephemeral key whose first coordinate begins with a zero, as one of 256 does.
fn short_ephemeral() -> Option<[u8; 32]> {
    let starts_with_zero = |scalar: &[u8; 32]| {
        let key = p256::SecretKey::from_slice(scalar).ok();
        key.is_some_and(|key| key.public_key().to_sec1_point(false).as_bytes().get(1) == Some(&0))
    };
    (1..=u8::MAX).flat_map(|first| (1..=u8::MAX).map(move |second| [[first; 16], [second; 16]])).find_map(|halves| {
        let scalar: [u8; 32] = halves.concat().try_into().ok()?;
        starts_with_zero(&scalar).then_some(scalar)
    })
}

#[test]
fn a_tpm_opens_what_was_made_for_it_and_for_the_key_in_it() -> Result<()> {
    let host = Host::new()?;
    let secret: [u8; SECRET_BYTES] = std::array::from_fn(|at| u8::try_from(at).unwrap_or(0));
    for sort in ["ecc", "rsa"] {
        let key = host.endorsement_key(sort)?;
        let random = Randomness { first: [0x5a; 32], second: [0xa5; 32] };
        let credential = key.make(&host.ak, &secret, &random)?;
        assert_eq!(host.activate(sort, &credential)?, secret, "{sort}");

        // For another key in the same TPM, or altered on the way: the TPM finds that its integrity does not hold.
        let mut other = host.ak.as_bytes().to_vec();
        *other.last_mut().context("a name has bytes")? ^= 1;
        let foreign = key.make(&Name::parse(&other)?, &secret, &random)?;
        let mut altered = credential.clone();
        *altered.blob.last_mut().context("a credential has bytes")? ^= 1;
        for refused in [foreign, altered] {
            let error = host.activate(sort, &refused).unwrap_err().to_string();
            assert!(error.contains("integrity check failed"), "{sort}: {error}");
        }
    }
    let random = Randomness { first: short_ephemeral().context("one key in 256 is short")?, second: [0; 32] };
    let credential = host.endorsement_key("ecc")?.make(&host.ak, &secret, &random)?;
    assert_eq!(host.activate("ecc", &credential)?, secret);
    Ok(())
}

#[test]
fn another_tpm_opens_nothing() -> Result<()> {
    let (host, other) = (Host::new()?, Host::new()?);
    let random = Randomness { first: [0x5a; 32], second: [0xa5; 32] };
    for sort in ["ecc", "rsa"] {
        let credential = host.endorsement_key(sort)?.make(&other.ak, &[1; SECRET_BYTES], &random)?;
        assert!(other.activate(sort, &credential).is_err(), "{sort}");
    }
    Ok(())
}
