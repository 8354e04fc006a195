//! Running hashes of the numbered chains beside the log: one per session, and the control chain.
//!
//! They let a session be handed over alone, with nothing of its neighbors, and still be shown to be whole.

use sha2::{Digest as _, Sha256};

use crate::record::{ChainHash, LeafHash};

/// What a session's chain starts with.
pub const SESSION_TAG: &[u8] = b"affiant/session/v1";

/// What the control chain starts with.
pub const CONTROL_TAG: &[u8] = b"affiant/control/v1";

/// Running hash after a session's `issued` entry: `SHA-256("affiant/session/v1" || leaf hash)`.
#[must_use]
pub fn session_start(issued: LeafHash) -> ChainHash {
    start(SESSION_TAG, issued)
}

/// Running hash after the `genesis` entry: `SHA-256("affiant/control/v1" || leaf hash)`.
#[must_use]
pub fn control_start(genesis: LeafHash) -> ChainHash {
    start(CONTROL_TAG, genesis)
}

/// Running hash after one more entry of a chain: `SHA-256(hash before || leaf hash)`.
#[must_use]
pub fn step(before: ChainHash, leaf: LeafHash) -> ChainHash {
    ChainHash(Sha256::new().chain_update(before.0).chain_update(leaf.0).finalize().into())
}

fn start(tag: &[u8], leaf: LeafHash) -> ChainHash {
    ChainHash(Sha256::new().chain_update(tag).chain_update(leaf.0).finalize().into())
}
