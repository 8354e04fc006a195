//! The host's TPM 2.0: what ties this log to one machine, one boot and one order of time.
//!
//! Owns the [`Device`] (one TPM command after the other), the key [`blob`]s and their [`keyfile`]s, the [`schedule`] of what
//! is attested when, the logs of what was [`measured`], and the [`worker`], the one thread that waits for the TPM. What is
//! attested means nothing here: digests go in, signed bytes come out, and [`crate::pipeline`] writes the entries.
//!
//! # The hierarchy
//! ```text
//! EK   ECC P-256, the default template of the TCG EK credential profile (appendix B.4, low range): made when it is needed
//!  |-- AK       ECC P-256, ECDSA with SHA-256, restricted: keys/ak.tpm
//!  `-- log key  Ed25519 seed, sealed: keys/log.tpm
//! ```
//! Both hang below the EK, not below a storage key of the owner: an attestation by a key of the owner hierarchy shows
//! obfuscated reset counts (TPM 2.0 part 1, section 36.7), and one parent means one authorization (the endorsement
//! hierarchy's, which must be empty) and one fate: TPM2_Clear makes both unloadable at once. Nothing is bound to PCRs: an
//! update of the kernel must not end the log; what was booted is quoted, not enforced.
//!
//! # What holds
//! - No object, session or context outlives an order: each order opens the device, and the kernel's resource manager
//!   drops what a killed agent left. A socket without a resource manager (swtpm) is taken as the agent's own, and what an
//!   earlier agent left in it is flushed.
//! - Every object and index is `noDA`: an unclean power cut counts as a failed try for all others, and must not lock us out.
//! - The TPM is trusted to keep its keys and to tell the truth in what it signs, no further: answers are bounded and checked.
//!   Everything that is not signed (properties, certificates) is the TPM's claim.

pub mod blob;
mod code;
#[cfg(feature = "tpm")]
mod device;
#[cfg(not(feature = "tpm"))]
#[path = "without.rs"]
mod device;
pub mod keyfile;
pub mod measured;
pub mod schedule;
pub mod worker;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use blob::BlobError;
pub use code::ResponseCode;
pub use device::Device;

/// The resource-managed device node of Linux 4.12 and later.
const DEVICE_NODE: &str = "/dev/tpmrm0";
/// Most bytes of one certificate in NV: an EK certificate has 1 to 2 KB.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// Most certificates taken from NV: the EK's and those above.
pub const CERTIFICATES_MAX: usize = 8;
/// Attributes of the counter's NV index (TPM 2.0 part 2, section 13.4): owner and auth may read and write, a counter,
/// `noDA`, not orderly. The TPM adds [`NV_WRITTEN`].
pub const COUNTER_ATTRIBUTES: u32 = 0x0206_0016;
/// TPMA_NV_WRITTEN.
pub const NV_WRITTEN: u32 = 0x2000_0000;
/// The registers that an anchor quotes, as far as the TPM has them in its SHA-256 bank: firmware and boot loader (0-7),
/// kernel and command line (9, 11, 12), the integrity measurement list (10), the machine owner's keys (14).
pub const QUOTED_PCRS: [u32; 13] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14];

/// Where the TPM is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What the TCTI loader is given, such as `device:/dev/tpmrm0`.
    tcti: String,
}

impl Place {
    /// From `tpm.device`: `auto` is the kernel's device, where there is one; `none` is no TPM; else a path or a TCTI.
    #[must_use]
    pub fn of(device: &str) -> Option<Self> {
        match device {
            "none" => None,
            "auto" => Path::new(DEVICE_NODE).exists().then(Self::usual),
            path if path.starts_with('/') => Some(Self { tcti: format!("device:{path}") }),
            tcti => Some(Self { tcti: tcti.to_owned() }),
        }
    }

    /// The kernel's device, there or not.
    #[must_use]
    pub fn usual() -> Self {
        Self { tcti: format!("device:{DEVICE_NODE}") }
    }

    /// Whether a value of `tpm.device` has one of the known shapes. Whether a TPM is there shows when it is opened.
    #[must_use]
    pub fn is_known(device: &str) -> bool {
        let tcti = ["device", "swtpm", "mssim", "tabrmd"];
        matches!(device, "auto" | "none")
            || device.starts_with('/')
            || device.split_once(':').is_some_and(|(name, _)| tcti.contains(&name))
    }

    /// What the TCTI loader is given.
    #[must_use]
    pub fn tcti(&self) -> &str {
        &self.tcti
    }

    /// Whether something below gives each connection its own handles and drops them with it.
    #[cfg(feature = "tpm")]
    fn has_resource_manager(&self) -> bool {
        self.tcti.starts_with("tabrmd") || self.tcti.strip_prefix("device:/dev/tpmrm").is_some()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tcti)
    }
}

/// Looks at a TPM without leaving anything in it: what it is, whether it has our sort of keys, whether the counter's handle
/// is free or ours.
///
/// # Errors
/// Whatever the TPM answers.
pub fn look(place: &Place, index: u32) -> Result<String, TpmError> {
    let looked = Device::look(place, index)?;
    let certificate = if looked.has_certificate { "an EK certificate" } else { "no EK certificate for ECC P-256" };
    let counter = match looked.counter {
        None => format!("NV index {index:#010x} is free"),
        Some(Ok(())) => format!("NV index {index:#010x} is the agent's counter"),
        Some(Err(error)) => error.to_string(),
    };
    Ok(format!("{place}: {}; {certificate}; {} PCRs; {counter}", looked.tpm, looked.pcrs))
}

/// What a look at a TPM shows.
#[derive(Debug)]
pub struct Looked {
    /// Manufacturer and firmware.
    pub tpm: String,
    /// Whether NV has a certificate for the EK.
    pub has_certificate: bool,
    /// How many of [`QUOTED_PCRS`] there are.
    pub pcrs: usize,
    /// Whether there is something at the counter's handle, and whether it is a counter of ours.
    pub counter: Option<Result<(), TpmError>>,
}

/// The attestation key and what stands above it. All of it is the TPM's claim until somebody vouches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Public area of the AK (TPMT_PUBLIC).
    pub ak_public: Vec<u8>,
    /// Its name: algorithm and digest.
    pub ak_name: Vec<u8>,
    /// Its qualified name.
    pub ak_qualified_name: Vec<u8>,
    /// Public area of the EK (TPMT_PUBLIC).
    pub ek_public: Vec<u8>,
    /// Its name.
    pub ek_name: Vec<u8>,
    /// Certificates of the EK in NV, its own first: DER, pads cut off.
    pub ek_certificates: Vec<Vec<u8>>,
    /// Manufacturer and firmware.
    pub tpm: String,
    /// How the AK came to be in use.
    pub ak_from: AkFrom,
}

/// How the AK came to be in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AkFrom {
    /// Loaded from its blob.
    Blob,
    /// Made: there was no blob.
    New,
    /// Made: the TPM was cleared since, and cannot load the one of the blob.
    Cleared,
    /// Made: the blob is of another TPM.
    OtherTpm,
}

/// A quote over the PCRs of [`QUOTED_PCRS`] that there are, and the values that it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The attestation (TPMS_ATTEST).
    pub attest: Vec<u8>,
    /// Its signature (TPMT_SIGNATURE).
    pub signature: Vec<u8>,
    /// Register and value, ascending: the digest over them is the one that was signed.
    pub pcrs: Vec<(u32, [u8; 32])>,
}

/// Something that the AK signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The attestation (TPMS_ATTEST).
    pub attest: Vec<u8>,
    /// Its signature (TPMT_SIGNATURE).
    pub signature: Vec<u8>,
}

/// The TPM's clock (TPM 2.0 part 2, section 10.11, TPMS_CLOCK_INFO).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds it has been powered since it was last cleared.
    pub clock: u64,
    /// Resets since then.
    pub reset_count: u32,
    /// Resumes and restarts since the last reset.
    pub restart_count: u32,
}

/// The NV counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterFacts {
    /// Handle of its index.
    pub index: u32,
    /// Its name: algorithm and digest of its public area.
    pub name: Vec<u8>,
    /// Its value.
    pub value: u64,
    /// Whether this call made it.
    pub made: bool,
}

/// The counter as a log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterKnown {
    /// Handle of its index.
    pub index: u32,
    /// Its name, as it was certified.
    pub name: Vec<u8>,
    /// Its value, as it was certified last. It may stand one above: a step that did not come to be sealed.
    pub value: u64,
}

/// Why the TPM did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// This program has no TPM support in it.
    #[error("this agent was built without TPM support (Cargo feature `tpm`)")]
    NotBuilt,
    /// `tpm.device` is not a TCTI that the library knows.
    #[error("tpm.device: {0:?} is not a path, and no TCTI of the form device:PATH, swtpm:host=H,port=P or tabrmd:...")]
    Tcti(String),
    /// It cannot be reached.
    #[error("no TPM answers at {place}: {code}")]
    Absent {
        /// Where.
        place: String,
        /// What the library said.
        code: ResponseCode,
    },
    /// It refused a command.
    #[error("the TPM refused to {step}: {code}")]
    Refused {
        /// What was to be done.
        step: &'static str,
        /// What it answered.
        code: ResponseCode,
    },
    /// The library found an answer, or a request of ours, to be out of bounds.
    #[error("the TPM library failed to {step}: {what}")]
    Library {
        /// What was to be done.
        step: &'static str,
        /// What the library said.
        what: String,
    },
    /// The sealed log key cannot be loaded by this TPM.
    #[error("this TPM cannot unseal the log key ({why}): the log it signs cannot be signed any more")]
    KeyLost {
        /// Cleared, or another TPM.
        why: &'static str,
    },
    /// A key file.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key file is not one.
    #[error("{path} is not a key of this TPM: {fault}")]
    Blob {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        fault: BlobError,
    },
    /// It was reset, or cleared, since it was opened: open it again.
    #[error("the TPM was reset since it was opened")]
    Reset,
    /// The registers changed each time between being read and being quoted.
    #[error("the PCRs changed during each of {0} quotes")]
    PcrsUnstable(u32),
    /// There is no NV index at the counter's handle.
    #[error("there is no NV index {0:#010x}: the counter was removed")]
    CounterGone(u32),
    /// The NV index is somebody else's.
    #[error(
        "NV index {index:#010x} is not the agent's counter: attributes {attributes:#010x}, {size} bytes; set tpm.nv_index to a free one"
    )]
    CounterForeign {
        /// Its handle.
        index: u32,
        /// Its attributes.
        attributes: u32,
        /// Its size in bytes.
        size: usize,
    },
    /// The counter is not where the log says.
    #[error("the counter stands at {seen}, expected {expected}: something else stepped it, or it was made anew")]
    CounterMoved {
        /// Where it should be.
        expected: u64,
        /// Where it is.
        seen: u64,
    },
    /// The system gave no random bytes.
    #[error("no random bytes for a key: {0}")]
    Random(getrandom::Error),
}

/// What is wrong with the TPM, in the words that a `condition` entry says and docs/OPERATIONS.md lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// No TPM answers.
    Absent,
    /// It has not answered for long.
    Slow,
    /// It is in failure mode, or a self-test failed.
    Failing,
    /// Its protection against guessing is in force.
    LockedOut,
    /// A hierarchy has an authorization value that the agent does not know, or is disabled.
    AuthNeeded,
    /// No room for the counter.
    NvFull,
    /// The counter's handle is somebody else's.
    CounterForeign,
    /// The counter was removed.
    CounterGone,
    /// The counter is not where the log says.
    CounterMoved,
    /// The log key cannot be unsealed by this TPM.
    KeyLost,
    /// It refused for another reason.
    Refused,
}

impl Trouble {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Slow => "slow",
            Self::Failing => "failing",
            Self::LockedOut => "locked_out",
            Self::AuthNeeded => "auth_needed",
            Self::NvFull => "nv_full",
            Self::CounterForeign => "counter_foreign",
            Self::CounterGone => "counter_gone",
            Self::CounterMoved => "counter_moved",
            Self::KeyLost => "key_lost",
            Self::Refused => "refused",
        }
    }
}

impl TpmError {
    /// Which trouble this is.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::NotBuilt | Self::Tcti(_) | Self::Absent { .. } | Self::Reset => Trouble::Absent,
            Self::Refused { code, .. } => code.trouble(),
            Self::KeyLost { .. } => Trouble::KeyLost,
            Self::CounterGone(_) => Trouble::CounterGone,
            Self::CounterForeign { .. } => Trouble::CounterForeign,
            Self::CounterMoved { .. } => Trouble::CounterMoved,
            Self::Library { .. } | Self::Io { .. } | Self::Blob { .. } | Self::PcrsUnstable(_) | Self::Random(_) => {
                Trouble::Refused
            }
        }
    }
}

/// The certificates in an NV index: DER, one after the other, and pads after the last.
#[must_use]
pub fn certificates_in(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while found.len() < CERTIFICATES_MAX
        && let Some((certificate, rest)) = split_der(bytes)
    {
        found.push(certificate.to_vec());
        bytes = rest;
    }
    found
}

/// The DER SEQUENCE (X.690, section 8.1.3) at the start, and what follows it. Certificates are longer than 127 bytes, so
/// the length has the long form.
fn split_der(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, length) = match bytes {
        [0x30, 0x81, a, ..] => (3, usize::from(*a)),
        [0x30, 0x82, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        _ => return None,
    };
    let end = header + length;
    (end <= CERTIFICATE_BYTES_MAX).then(|| bytes.split_at_checked(end)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_after_a_certificate_are_cut_off() {
        let one = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        let two = [&[0x30, 0x81, 0x90][..], &[9; 0x90]].concat();
        for pad in [&[][..], &[0xff; 300], &[0; 3]] {
            assert_eq!(certificates_in(&[&one, pad].concat()), std::slice::from_ref(&one));
            assert_eq!(certificates_in(&[&one, &two, pad].concat()), [one.clone(), two.clone()]);
        }
        for bad in [&[][..], &[0xff; 900], &[0x30, 0x82, 0xff], &[0x30, 0x82, 0x01, 0x00, 7], &[0x30, 0x82, 0xff, 0xff]]
        {
            assert!(certificates_in(bad).is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn a_place_is_a_word_a_path_or_a_tcti() {
        let tcti = |device| Place::of(device).map(|place| place.tcti().to_owned());
        assert_eq!(tcti("none"), None);
        assert_eq!(tcti("/dev/tpm0").as_deref(), Some("device:/dev/tpm0"));
        assert_eq!(tcti("swtpm:host=::1,port=1").as_deref(), Some("swtpm:host=::1,port=1"));
        for (device, known) in
            [("auto", true), ("none", true), ("/x", true), ("swtpm:port=9", true), ("tpm", false), ("cmd:sh", false)]
        {
            assert_eq!(Place::is_known(device), known, "{device}");
        }
        #[cfg(feature = "tpm")]
        let managed = |device: &str| Place::of(device).is_some_and(|place| place.has_resource_manager());
        #[cfg(feature = "tpm")]
        assert!(managed("/dev/tpmrm0") && !managed("/dev/tpm0") && !managed("swtpm:port=9"));
    }
}
