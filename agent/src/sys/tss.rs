//! Two TPM commands that the safe library has no calls for: TPM2_NV_Certify and TPM2_ReadClock.
//!
//! Owns a short-lived connection of its own to the TPM, through the same TCTI (TCG TSS 2.0 TCTI specification) as the
//! library's. A key comes in as a saved context (TPM2_ContextSave), so that nothing has to be created or loaded anew;
//! everything is flushed and closed before a function returns, in whatever way it returns. Nothing is decided here: the
//! bytes that the TPM signed go out as they came.

use std::ffi::CStr;
use std::ptr::null_mut;

use tss_esapi::tss2_esys::{
    ESYS_CONTEXT, ESYS_TR, ESYS_TR_NONE, ESYS_TR_PASSWORD, Esys_ContextLoad, Esys_Finalize, Esys_FlushContext,
    Esys_Free, Esys_Initialize, Esys_NV_Certify, Esys_ReadClock, Esys_TR_FromTPMPublic, TPM2B_ATTEST, TPM2B_DATA,
    TPMS_CONTEXT, TPMS_TIME_INFO, TPMT_SIG_SCHEME, TPMT_SIGNATURE, TSS2_TCTI_CONTEXT, Tss2_MU_TPMT_SIGNATURE_Marshal,
    Tss2_TctiLdr_Finalize, Tss2_TctiLdr_Initialize,
};

use crate::tpm::{Certified, Clock};

/// TPM_ALG_NULL (TPM 2.0 part 2, section 6.3).
const ALG_NULL: u16 = 0x0010;
/// Room for a marshalled TPMT_SIGNATURE: an RSA-4096 one has 518 bytes.
const SIGNATURE_BYTES_MAX: usize = 1024;

/// TPM2_NV_Certify: has the key in `ak` sign the whole of the `size` bytes of an NV index whose authorization value is
/// empty. `tcti` is a TCTI loader's configuration string.
///
/// # Errors
/// The response code of the library or the TPM (TSS 2.0 overview, section 3.3).
pub fn nv_certify(
    tcti: &CStr,
    ak: &TPMS_CONTEXT,
    index: u32,
    qualifying: &[u8; 32],
    size: u16,
) -> Result<Certified, u32> {
    let mut connection = Connection::open(tcti)?;
    let ak = connection.load(ak)?;
    let index = connection.index(index)?;
    let mut data = TPM2B_DATA { size: 32, ..Default::default() };
    for (to, from) in data.buffer.iter_mut().zip(qualifying) {
        *to = *from;
    }
    // The key's own scheme.
    let scheme = TPMT_SIG_SCHEME { scheme: ALG_NULL, ..Default::default() };
    let (mut attest, mut signature) = (Answer::<TPM2B_ATTEST>::none(), Answer::<TPMT_SIGNATURE>::none());
    // SAFETY: a live context, handles that it gave, inputs that live until it returns, and places for the two pointers
    // that it sets on success.
    let code = unsafe {
        Esys_NV_Certify(
            connection.esys,
            ak,
            index,
            index,
            ESYS_TR_PASSWORD,
            ESYS_TR_PASSWORD,
            ESYS_TR_NONE,
            &raw const data,
            &raw const scheme,
            size,
            0,
            &raw mut attest.0,
            &raw mut signature.0,
        )
    };
    ok(code)?;
    let (attest, signature) = (attest.get()?, signature.get()?);
    let mut bytes = vec![0_u8; SIGNATURE_BYTES_MAX];
    let mut length = 0;
    // SAFETY: an initialized structure, a buffer and its length, and a place for how much of it was written.
    ok(unsafe {
        Tss2_MU_TPMT_SIGNATURE_Marshal(signature, bytes.as_mut_ptr(), SIGNATURE_BYTES_MAX as u64, &raw mut length)
    })?;
    bytes.truncate(usize::try_from(length).unwrap_or(SIGNATURE_BYTES_MAX));
    let attest = attest.attestationData.get(..usize::from(attest.size)).ok_or(MALFORMED)?.to_vec();
    Ok(Certified { attest, signature: bytes })
}

/// TPM2_ReadClock.
///
/// # Errors
/// As [`nv_certify`].
pub fn read_clock(tcti: &CStr) -> Result<Clock, u32> {
    let connection = Connection::open(tcti)?;
    let mut answer = Answer::<TPMS_TIME_INFO>::none();
    // SAFETY: a live context, and a place for the pointer that it sets on success.
    ok(unsafe { Esys_ReadClock(connection.esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &raw mut answer.0) })?;
    let info = answer.get()?.clockInfo;
    Ok(Clock { clock: info.clock, reset_count: info.resetCount, restart_count: info.restartCount })
}

/// TSS2_BASE_RC_MALFORMED_RESPONSE of the ESAPI layer: what the library itself says of an answer it cannot read.
const MALFORMED: u32 = 0x0007_000d;

fn ok(code: u32) -> Result<(), u32> {
    if code == 0 { Ok(()) } else { Err(code) }
}

/// A TCTI, the library's context over it, and the object loaded through it. Closed in the reverse order when dropped.
struct Connection {
    tcti: *mut TSS2_TCTI_CONTEXT,
    esys: *mut ESYS_CONTEXT,
    /// The loaded object; [`ESYS_TR_NONE`] for none.
    loaded: ESYS_TR,
}

impl Connection {
    fn open(tcti: &CStr) -> Result<Self, u32> {
        let mut connection = Self { tcti: null_mut(), esys: null_mut(), loaded: ESYS_TR_NONE };
        // SAFETY: a NUL-terminated string, and a place for the pointer that it sets on success.
        ok(unsafe { Tss2_TctiLdr_Initialize(tcti.as_ptr(), &raw mut connection.tcti) })?;
        // SAFETY: the TCTI was initialized on the line above and outlives the context: see `drop`.
        ok(unsafe { Esys_Initialize(&raw mut connection.esys, connection.tcti, null_mut()) })?;
        Ok(connection)
    }

    fn load(&mut self, saved: &TPMS_CONTEXT) -> Result<ESYS_TR, u32> {
        // SAFETY: a live context, a saved context that lives until it returns, and a place for the handle.
        ok(unsafe { Esys_ContextLoad(self.esys, saved, &raw mut self.loaded) })?;
        Ok(self.loaded)
    }

    fn index(&mut self, index: u32) -> Result<ESYS_TR, u32> {
        let mut handle = ESYS_TR_NONE;
        // SAFETY: a live context and a place for the handle. The context frees what it keeps about an NV index.
        ok(unsafe {
            Esys_TR_FromTPMPublic(self.esys, index, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &raw mut handle)
        })?;
        Ok(handle)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.loaded != ESYS_TR_NONE {
            // SAFETY: the handle was given by this live context. A failure leaves an object that the kernel's resource
            // manager drops with the connection.
            unsafe { Esys_FlushContext(self.esys, self.loaded) };
        }
        if !self.esys.is_null() {
            // SAFETY: initialized by `open` and not finalized yet.
            unsafe { Esys_Finalize(&raw mut self.esys) };
        }
        if !self.tcti.is_null() {
            // SAFETY: initialized by `open`, and no context uses it any more.
            unsafe { Tss2_TctiLdr_Finalize(&raw mut self.tcti) };
        }
    }
}

/// A structure that the library has allocated. Freed when dropped.
struct Answer<T>(*mut T);

impl<T> Answer<T> {
    fn none() -> Self {
        Self(null_mut())
    }

    fn get(&self) -> Result<&T, u32> {
        // SAFETY: null, or a structure that the library has filled and that nobody else has.
        unsafe { self.0.as_ref() }.ok_or(MALFORMED)
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: allocated by the library for us to free, once.
            unsafe { Esys_Free(self.0.cast()) };
        }
    }
}
