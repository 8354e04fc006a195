//! Response codes of the TPM and of the library between, decoded for operators.
//!
//! Owns the meaning of the 32 bits (TPM 2.0 part 2, section 6.6; TSS 2.0 overview, section 3.3): which layer speaks, which
//! error, about which parameter. Pure.
#![forbid(unsafe_code)]

use std::fmt;

use super::Trouble;

/// Bits that name the layer: 0 is the TPM itself.
const LAYER_SHIFT: u32 = 16;
/// Format one: an error about a handle, session or parameter, whose number is in the code.
const FORMAT_ONE: u32 = 0x080;
/// Format one's parameter flag.
const PARAMETER: u32 = 0x040;

/// What the TPM, or the library on the way to it, answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

impl ResponseCode {
    /// The layer that speaks.
    #[must_use]
    pub fn layer(self) -> &'static str {
        match (self.0 >> LAYER_SHIFT) & 0xff {
            0 => "TPM",
            6 => "feature API",
            7 => "library",
            8 => "system API",
            9 => "marshalling",
            10 => "connection",
            11 => "resource manager",
            12 => "resource manager's TPM",
            _ => "unknown layer",
        }
    }

    /// Whether the TPM itself, or a resource manager for it, speaks.
    #[must_use]
    pub fn is_from_tpm(self) -> bool {
        matches!((self.0 >> LAYER_SHIFT) & 0xff, 0 | 12)
    }

    /// The error alone, without what it is about.
    #[must_use]
    pub fn base(self) -> u32 {
        let code = self.0 & 0xfff;
        if self.is_from_tpm() && code & FORMAT_ONE != 0 { code & 0x0bf } else { code }
    }

    /// The name of the TPM's error, without the prefix `TPM_RC_`; none for what is not listed here.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        if !self.is_from_tpm() {
            return None;
        }
        Some(match self.base() {
            0x100 => "INITIALIZE",
            0x101 => "FAILURE",
            0x120 => "DISABLED",
            0x121 => "EXCLUSIVE",
            0x124 => "AUTH_TYPE",
            0x125 => "AUTH_MISSING",
            0x12f => "AUTH_UNAVAILABLE",
            0x143 => "COMMAND_CODE",
            0x148 => "NV_LOCKED",
            0x149 => "NV_AUTHORIZATION",
            0x14a => "NV_UNINITIALIZED",
            0x14b => "NV_SPACE",
            0x14c => "NV_DEFINED",
            0x150 => "BAD_CONTEXT",
            0x153 => "NEEDS_TEST",
            0x081 => "ASYMMETRIC",
            0x082 => "ATTRIBUTES",
            0x084 => "VALUE",
            0x085 => "HIERARCHY",
            0x08b => "HANDLE",
            0x08e => "AUTH_FAIL",
            0x095 => "SIZE",
            0x09d => "POLICY_FAIL",
            0x09f => "INTEGRITY",
            0x0a2 => "BAD_AUTH",
            0x901 => "CONTEXT_GAP",
            0x902 => "OBJECT_MEMORY",
            0x903 => "SESSION_MEMORY",
            0x904 => "MEMORY",
            0x905 => "SESSION_HANDLES",
            0x906 => "OBJECT_HANDLES",
            0x908 => "YIELDED",
            0x909 => "CANCELED",
            0x90a => "TESTING",
            0x910 => "REFERENCE_H0",
            0x920 => "NV_RATE",
            0x921 => "LOCKOUT",
            0x922 => "RETRY",
            0x923 => "NV_UNAVAILABLE",
            _ => return None,
        })
    }

    /// Whether the same command may work a moment later.
    #[must_use]
    pub fn is_passing(self) -> bool {
        self.is_from_tpm() && matches!(self.base(), 0x908 | 0x909 | 0x90a | 0x920 | 0x922 | 0x923)
    }

    /// Whether a blob is of another parent, or of this one before it was cleared.
    #[must_use]
    pub fn is_integrity(self) -> bool {
        self.is_from_tpm() && self.base() == 0x09f
    }

    /// Whether a handle names nothing.
    #[must_use]
    pub fn is_handle(self) -> bool {
        self.is_from_tpm() && self.base() == 0x08b
    }

    /// Which trouble this is.
    #[must_use]
    pub fn trouble(self) -> Trouble {
        if !self.is_from_tpm() {
            // A connection that broke is a TPM that went away; the library's own complaints are refusals.
            return if (self.0 >> LAYER_SHIFT) & 0xff == 10 { Trouble::Absent } else { Trouble::Refused };
        }
        match self.base() {
            0x100 | 0x101 | 0x153 => Trouble::Failing,
            0x921 => Trouble::LockedOut,
            0x120 | 0x085 | 0x08e | 0x09d | 0x0a2 | 0x12f | 0x149 => Trouble::AuthNeeded,
            0x14b => Trouble::NvFull,
            _ => Trouble::Refused,
        }
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "TPM_RC_{name}")?,
            None => write!(f, "an error of the {}", self.layer())?,
        }
        let code = self.0 & 0xfff;
        if self.is_from_tpm() && code & FORMAT_ONE != 0 {
            let number = (code >> 8) & 0xf;
            match (code & PARAMETER != 0, number) {
                (true, number) => write!(f, ", parameter {number}")?,
                (false, number) if number < 8 => write!(f, ", handle {number}")?,
                (false, number) => write!(f, ", session {}", number - 8)?,
            }
        }
        write!(f, " ({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_decoded_with_what_they_are_about() {
        for (code, text, trouble) in [
            (0x1df, "TPM_RC_INTEGRITY, parameter 1 (0x1df)", Trouble::Refused),
            (0x18b, "TPM_RC_HANDLE, handle 1 (0x18b)", Trouble::Refused),
            (0x9a2, "TPM_RC_BAD_AUTH, session 1 (0x9a2)", Trouble::AuthNeeded),
            (0x98e, "TPM_RC_AUTH_FAIL, session 1 (0x98e)", Trouble::AuthNeeded),
            (0x14b, "TPM_RC_NV_SPACE (0x14b)", Trouble::NvFull),
            (0x921, "TPM_RC_LOCKOUT (0x921)", Trouble::LockedOut),
            (0x101, "TPM_RC_FAILURE (0x101)", Trouble::Failing),
            (0xa000a, "an error of the connection (0xa000a)", Trouble::Absent),
            (0x7000d, "an error of the library (0x7000d)", Trouble::Refused),
        ] {
            let decoded = ResponseCode(code);
            assert_eq!((decoded.to_string().as_str(), decoded.trouble()), (text, trouble));
        }
        assert!(ResponseCode(0x922).is_passing() && ResponseCode(0x90a).is_passing());
        assert!(!ResponseCode(0xa0922).is_passing() && !ResponseCode(0x921).is_passing());
        assert!(ResponseCode(0x1df).is_integrity() && ResponseCode(0x2df).is_integrity());
    }
}
