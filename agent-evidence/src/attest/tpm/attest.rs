//! What a TPM says of itself (Part 2, 10.12 `TPMS_ATTEST`). Without a signature that was verified it is anybody's word.

use super::{HashAlg, Name, Reader, TpmError, put_buffer};

/// `TPM_GENERATED_VALUE` (6.2): with what everything begins that a TPM makes and signs, and nothing that a restricted key
/// signs for others.
pub const MAGIC: u32 = 0xff54_4347;
/// Most bytes of qualifying data (10.4.3 `TPM2B_DATA`: an algorithm and a digest).
const EXTRA_BYTES_MAX: usize = 66;
/// Most banks in a selection of registers (`HASH_COUNT`, with room).
const SELECTIONS_MAX: u32 = 16;
/// Most bytes of an NV index that are certified at once (`TPM2B_MAX_NV_BUFFER`).
const NV_BYTES_MAX: usize = 2048;

/// `TPMS_CLOCK_INFO` (10.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds that the TPM was powered since it was last cleared. After power was lost uncleanly it may be up to 4.1 s
    /// behind what it had said.
    pub clock: u64,
    /// How many times the TPM was reset since it was last cleared.
    pub reset_count: u32,
    /// How many times it was restarted or resumed since the last reset.
    pub restart_count: u32,
    /// Whether no higher value of the clock was ever reported.
    pub safe: bool,
}

/// Registers of one bank (10.6.2 `TPMS_PCR_SELECTION`), of 24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcrSelection {
    /// `TPM_ALG_ID` of the bank.
    pub hash: u16,
    /// One bit for each register, the lowest of the first byte for register 0.
    pub bitmap: [u8; 3],
}

impl PcrSelection {
    /// The bank and the registers with these numbers; numbers above 23 are left out.
    #[must_use]
    pub fn new(hash: HashAlg, registers: impl IntoIterator<Item = u32>) -> Self {
        let mut bitmap = [0_u8; 3];
        for register in registers {
            if let Some(byte) = usize::try_from(register / 8).ok().and_then(|at| bitmap.get_mut(at)) {
                *byte |= 1 << (register % 8);
            }
        }
        Self { hash: hash.id(), bitmap }
    }

    /// The numbers of its registers, ascending.
    pub fn registers(self) -> impl Iterator<Item = u32> {
        let [low, middle, high] = self.bitmap;
        let bits = u32::from_le_bytes([low, middle, high, 0]);
        (0..24).filter(move |register| bits >> register & 1 == 1)
    }
}

/// What is attested (10.12 `TPMU_ATTEST`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attested {
    /// `TPMS_QUOTE_INFO`: values of registers.
    Quote {
        /// Which.
        selections: Vec<PcrSelection>,
        /// Digest over their values, in the order of the selections and then of their numbers.
        digest: Vec<u8>,
    },
    /// `TPMS_NV_CERTIFY_INFO`: the content of an NV index.
    Nv {
        /// Its name.
        name: Name,
        /// Where the content begins.
        offset: u16,
        /// The content.
        contents: Vec<u8>,
    },
    /// `TPMS_CERTIFY_INFO`: an object that is loaded in this TPM.
    Certify {
        /// Its name.
        name: Name,
        /// Its qualified name.
        qualified_name: Name,
    },
    /// `TPMS_CREATION_INFO`: how an object was created.
    Creation {
        /// Its name.
        name: Name,
        /// Digest over the `TPMS_CREATION_DATA`.
        creation_hash: Vec<u8>,
    },
    /// `TPMS_TIME_ATTEST_INFO`: the TPM's time.
    Time {
        /// Milliseconds since the last reset.
        time: u64,
        /// The clock once more.
        clock_info: ClockInfo,
        /// Version of the firmware, as its vendor numbers them.
        firmware_version: u64,
    },
}

impl Attested {
    /// Its `TPM_ST` (6.9).
    #[must_use]
    pub fn kind(&self) -> u16 {
        match self {
            Self::Nv { .. } => 0x8014,
            Self::Certify { .. } => 0x8017,
            Self::Quote { .. } => 0x8018,
            Self::Time { .. } => 0x8019,
            Self::Creation { .. } => 0x801a,
        }
    }
}

/// An attestation (10.12 `TPMS_ATTEST`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// Qualified name of the key that is to sign it.
    pub qualified_signer: Name,
    /// Qualifying data: what whoever asked wants to be in it.
    pub extra_data: Vec<u8>,
    /// The clock.
    pub clock_info: ClockInfo,
    /// Version of the firmware, as its vendor numbers them.
    pub firmware_version: u64,
    /// The rest.
    pub attested: Attested,
}

impl Attest {
    /// Reads an attestation, with nothing before or after it.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes)?;
        let magic = reader.u32("magic")?;
        if magic != MAGIC {
            return Err(TpmError::Magic { seen: magic });
        }
        let kind = reader.u16("the type")?;
        let qualified_signer = reader.name("qualifiedSigner")?;
        let extra_data = reader.buffer("extraData", 0, EXTRA_BYTES_MAX)?.to_vec();
        let clock_info = clock_info(&mut reader)?;
        let firmware_version = reader.u64("firmwareVersion")?;
        let attested = match kind {
            0x8014 => Attested::Nv {
                name: reader.name("indexName")?,
                offset: reader.u16("offset")?,
                contents: reader.buffer("nvContents", 0, NV_BYTES_MAX)?.to_vec(),
            },
            0x8017 => Attested::Certify { name: reader.name("name")?, qualified_name: reader.name("qualifiedName")? },
            0x8018 => Attested::Quote {
                selections: selections(&mut reader)?,
                digest: reader.buffer("pcrDigest", 32, super::DIGEST_BYTES_MAX)?.to_vec(),
            },
            0x8019 => Attested::Time {
                time: reader.u64("time")?,
                clock_info: self::clock_info(&mut reader)?,
                firmware_version: reader.u64("firmwareVersion")?,
            },
            0x801a => Attested::Creation {
                name: reader.name("objectName")?,
                creation_hash: reader.buffer("creationHash", 32, super::DIGEST_BYTES_MAX)?.to_vec(),
            },
            seen => return Err(TpmError::AttestType { seen }),
        };
        reader.end()?;
        Ok(Self { qualified_signer, extra_data, clock_info, firmware_version, attested })
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_be_bytes().to_vec();
        out.extend_from_slice(&self.attested.kind().to_be_bytes());
        put_buffer(&mut out, self.qualified_signer.as_bytes());
        put_buffer(&mut out, &self.extra_data);
        put_clock_info(&mut out, self.clock_info);
        out.extend_from_slice(&self.firmware_version.to_be_bytes());
        match &self.attested {
            Attested::Nv { name, offset, contents } => {
                put_buffer(&mut out, name.as_bytes());
                out.extend_from_slice(&offset.to_be_bytes());
                put_buffer(&mut out, contents);
            }
            Attested::Certify { name, qualified_name } => {
                put_buffer(&mut out, name.as_bytes());
                put_buffer(&mut out, qualified_name.as_bytes());
            }
            Attested::Quote { selections, digest } => {
                out.extend_from_slice(&u32::try_from(selections.len()).unwrap_or(u32::MAX).to_be_bytes());
                for PcrSelection { hash, bitmap } in selections {
                    out.extend_from_slice(&hash.to_be_bytes());
                    out.push(3);
                    out.extend_from_slice(bitmap);
                }
                put_buffer(&mut out, digest);
            }
            Attested::Time { time, clock_info, firmware_version } => {
                out.extend_from_slice(&time.to_be_bytes());
                put_clock_info(&mut out, *clock_info);
                out.extend_from_slice(&firmware_version.to_be_bytes());
            }
            Attested::Creation { name, creation_hash } => {
                put_buffer(&mut out, name.as_bytes());
                put_buffer(&mut out, creation_hash);
            }
        }
        out
    }
}

fn clock_info(reader: &mut Reader<'_>) -> Result<ClockInfo, TpmError> {
    Ok(ClockInfo {
        clock: reader.u64("clock")?,
        reset_count: reader.u32("resetCount")?,
        restart_count: reader.u32("restartCount")?,
        safe: match reader.u8("safe")? {
            0 => false,
            1 => true,
            seen => return Err(TpmError::YesNo { what: "safe", seen }),
        },
    })
}

fn put_clock_info(out: &mut Vec<u8>, clock: ClockInfo) {
    out.extend_from_slice(&clock.clock.to_be_bytes());
    out.extend_from_slice(&clock.reset_count.to_be_bytes());
    out.extend_from_slice(&clock.restart_count.to_be_bytes());
    out.push(u8::from(clock.safe));
}

/// `TPML_PCR_SELECTION` (10.9.7), of banks with 24 registers as the PC Client profile has them.
fn selections(reader: &mut Reader<'_>) -> Result<Vec<PcrSelection>, TpmError> {
    let count = reader.u32("the number of selections")?;
    if count > SELECTIONS_MAX {
        return Err(TpmError::Selections { seen: count, max: SELECTIONS_MAX });
    }
    (0..count)
        .map(|_| {
            let hash = reader.u16("the bank of a selection")?;
            let seen = usize::from(reader.u8("sizeofSelect")?);
            if seen != 3 {
                return Err(TpmError::Size { what: "sizeofSelect", seen, min: 3, max: 3 });
            }
            Ok(PcrSelection { hash, bitmap: reader.array("a selection of registers")? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::testdata;

    const ALL: [&[u8]; 7] = [
        testdata::QUOTE_ATTEST,
        testdata::NV_ATTEST,
        testdata::CERTIFY_ATTEST,
        testdata::CREATION_ATTEST,
        testdata::TIME_ATTEST,
        testdata::OWNER_QUOTE_ATTEST,
        testdata::RSA_QUOTE_ATTEST,
    ];

    #[test]
    fn what_a_tpm_attested_is_read_and_written_back() {
        for bytes in ALL {
            assert_eq!(Attest::parse(bytes).unwrap().to_bytes(), bytes);
        }
        let nv = Attest::parse(testdata::NV_ATTEST).unwrap();
        assert_eq!(nv.extra_data, b"qualifying data of 32 bytes (V1)");
        let Attested::Nv { name, offset: 0, contents } = nv.attested else { panic!("not of NV") };
        assert_eq!(name.as_bytes(), testdata::COUNTER_NAME);
        assert_eq!(contents, 1_u64.to_be_bytes());
    }

    #[test]
    fn a_quote_is_over_the_registers_that_the_tpm_read_beside_it() {
        let quote = Attest::parse(testdata::QUOTE_ATTEST).unwrap();
        let Attested::Quote { selections, digest } = quote.attested else { panic!("not a quote") };
        let registers = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14];
        assert_eq!(selections, [PcrSelection::new(HashAlg::Sha256, registers)]);
        assert!(selections[0].registers().eq(registers));
        assert_eq!(HashAlg::Sha256.digest(&[testdata::QUOTE_PCRS]), digest);
    }

    #[test]
    fn every_shorter_or_longer_attestation_is_refused() {
        for bytes in ALL {
            for length in 0..bytes.len() {
                assert!(matches!(Attest::parse(&bytes[..length]), Err(TpmError::Short { .. })), "{length}");
            }
            let longer = [bytes, &[0]].concat();
            assert_eq!(Attest::parse(&longer), Err(TpmError::Trailing { at: bytes.len(), bytes: 1 }));
        }
    }

    #[test]
    fn each_rule_has_its_refusal() {
        let with = |at: usize, byte: u8| {
            let mut bytes = testdata::QUOTE_ATTEST.to_vec();
            bytes[at] = byte;
            Attest::parse(&bytes)
        };
        assert_eq!(with(0, 0), Err(TpmError::Magic { seen: 0x0054_4347 }));
        assert_eq!(with(5, 0x15), Err(TpmError::AttestType { seen: 0x8015 }));
        assert_eq!(with(7, 20), Err(TpmError::Size { what: "qualifiedSigner", seen: 20, min: 34, max: 66 }));
        assert_eq!(with(9, 4), Err(TpmError::Algorithm { what: "the algorithm of a name", seen: 4 }));
        assert_eq!(with(43, 67), Err(TpmError::Size { what: "extraData", seen: 67, min: 0, max: 66 }));
        assert_eq!(with(92, 2), Err(TpmError::YesNo { what: "safe", seen: 2 }));
        assert_eq!(with(104, 17), Err(TpmError::Selections { seen: 17, max: 16 }));
        assert_eq!(with(107, 4), Err(TpmError::Size { what: "sizeofSelect", seen: 4, min: 3, max: 3 }));
    }
}
