//! Key blobs of the TPM as they lie on the disk: nothing panics, and what is read is written the same way.

#![no_main]

// The agent's library links aya and the TPM library; this module of it needs nothing.
#[path = "../../../agent/src/tpm/blob.rs"]
#[expect(dead_code, reason = "only the reader and the writer are used")]
mod blob;

use blob::Blob;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(blob) = Blob::parse(bytes) {
        assert_eq!(blob.to_bytes().as_deref(), Ok(bytes));
    }
});
