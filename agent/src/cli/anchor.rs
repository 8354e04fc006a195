//! `affiant anchor`: a fresh quote of the TPM over the newest checkpoint, and the same for the TPM's own tools.
//!
//! What is printed and written is the daemon's entry, no more: whoever wants to know whether it holds gives it to a verifier.
#![forbid(unsafe_code)]

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use agent_evidence::attest::tpm::{Parameters, Public};
use agent_evidence::record::{Body, decode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::exit::{self, Exit};
use super::output::{Lines as _, Output};
use crate::session::client::{Client, ClientError};
use crate::session::protocol::{Anchored, Reply, Request};

/// What stands before the 65 bytes of a point in the SubjectPublicKeyInfo of a P-256 key (RFC 5480, section 2).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Bytes of a line of PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;

/// Asks for an anchor, prints it, and writes it for the TPM's tools if a directory is named.
///
/// # Errors
/// No daemon, not root, no TPM that works, or the directory cannot be used.
pub fn anchor(
    socket: &Path,
    nonce: Option<String>,
    export: Option<&Path>,
    json: bool,
    out: &mut Output,
) -> Result<u8, Exit> {
    let anchored = match Client::connect(socket)?.ask(&Request::Anchor { nonce })? {
        Reply::Anchored(anchored) => anchored,
        _ => return Err(ClientError::Mismatch.into()),
    };
    if let Some(directory) = export {
        write_for_tools(&anchored, directory)?;
    }
    if json {
        let entry: serde_json::Value = serde_json::from_str(&anchored.entry)
            .map_err(|error| Exit::new(exit::DATA, format!("the daemon's entry is not JSON: {error}")))?;
        out.json(&serde_json::json!({ "index": anchored.index, "entry": entry, "qualifying": anchored.qualifying }))?;
        return Ok(0);
    }
    out.line(&format!("anchored by entry {}", anchored.index))?;
    out.line(&anchored.entry)?;
    if let Some(directory) = export {
        out.line(&format!(
            "to check it: cd {} && tpm2_checkquote -u ak.pem -m quote.msg -s quote.sig -f quote.pcrs -g sha256 -q {}",
            directory.display(),
            anchored.qualifying
        ))?;
    }
    Ok(0)
}

/// Writes what `tpm2_checkquote` reads: the key, the attestation, its signature, and the registers.
fn write_for_tools(anchored: &Anchored, directory: &Path) -> Result<(), Exit> {
    let unusable = |what: &str| Exit::new(exit::DATA, format!("the daemon's anchor cannot be exported: {what}"));
    let record = decode(anchored.entry.as_bytes()).map_err(|error| unusable(&error.to_string()))?;
    let Body::Anchor(anchor) = record.body() else { return Err(unusable("its entry is not an anchor")) };
    let public = STANDARD.decode(&anchored.attestation_key).map_err(|error| unusable(&error.to_string()))?;
    let pem = pem(&public).ok_or_else(|| unusable("its attestation key is not on P-256"))?;
    let pcrs: Vec<(u32, [u8; 32])> = anchor.pcrs.iter().map(|pcr| (pcr.index, pcr.value.0)).collect();
    let failed = |path: &Path, error: io::Error| {
        let code = if error.kind() == io::ErrorKind::PermissionDenied { exit::REFUSED } else { exit::UNAVAILABLE };
        Exit::new(code, format!("cannot write {}: {error}", path.display()))
    };
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(directory, error)),
        _ => {}
    }
    for (name, bytes) in [
        ("ak.pem", pem.as_bytes()),
        ("quote.msg", anchor.attest.as_bytes()),
        ("quote.sig", anchor.sig.as_bytes()),
        ("quote.pcrs", &registers(&pcrs)),
        ("anchor.json", anchored.entry.as_bytes()),
    ] {
        let path = directory.join(name);
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&path);
        opened.and_then(|mut file| file.write_all(bytes)).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// Registers of the SHA-256 bank, ascending, as the TPM's tools serialize them (tpm2-tools 4 and 5, `--pcrs_format
/// serialized`): C structures in memory order, little-endian on this machine as on theirs. A TPML_PCR_SELECTION of 16 banks,
/// the number of lists, and lists of eight digests with room for 64 bytes each.
#[must_use]
pub fn registers(pcrs: &[(u32, [u8; 32])]) -> Vec<u8> {
    const BANKS: usize = 16;
    const PER_LIST: usize = 8;
    const DIGEST_ROOM: usize = 64;
    let mut bits = [0_u8; 4];
    for (number, _) in pcrs {
        if let Some(byte) = usize::try_from(number / 8).ok().and_then(|place| bits.get_mut(place)) {
            *byte |= 1 << (number % 8);
        }
    }
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    // TPM_ALG_SHA256, three bytes of selection.
    bytes.extend_from_slice(&0x000b_u16.to_le_bytes());
    bytes.push(3);
    bytes.extend_from_slice(&bits);
    // One byte of padding, and the banks that are not there.
    bytes.resize(4 + BANKS * 8, 0);
    let lists = pcrs.chunks(PER_LIST);
    bytes.extend_from_slice(&u32::try_from(lists.len()).unwrap_or(u32::MAX).to_le_bytes());
    for list in lists {
        bytes.extend_from_slice(&u32::try_from(list.len()).unwrap_or(u32::MAX).to_le_bytes());
        let end = bytes.len() + PER_LIST * (2 + DIGEST_ROOM);
        for (_, value) in list {
            bytes.extend_from_slice(&32_u16.to_le_bytes());
            bytes.extend_from_slice(value);
            bytes.resize(bytes.len() + DIGEST_ROOM - value.len(), 0);
        }
        bytes.resize(end, 0);
    }
    bytes
}

/// A TPMT_PUBLIC of a P-256 key as PEM; `None` for any other.
#[must_use]
pub fn pem(public: &[u8]) -> Option<String> {
    let public = Public::parse(public).ok()?;
    let Parameters::Ecc { x, y, .. } = public.parameters else { return None };
    let mut der = P256_SPKI.to_vec();
    der.push(4);
    for coordinate in [x, y] {
        // A TPM may leave out leading zeros.
        der.extend(std::iter::repeat_n(0, 32_usize.checked_sub(coordinate.len())?));
        der.extend_from_slice(&coordinate);
    }
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(PEM_LINE.min(rest.len()));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PUBLIC KEY-----\n");
    Some(pem)
}
