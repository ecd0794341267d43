//! What tells apart: digests of secrets and ids, and incarnations.

use sha2::{Digest as _, Sha256};

/// The first 16 bytes of a SHA-256: enough to tell sessions, message ids and contents apart, and too little to tell
/// what was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of `parts`; each counts with its length, so that moving a border between two gives another digest.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        Self(digest)
    }
}

/// Which stream of a participant: rises with each join and resume of the service, never repeats, so that whatever is
/// left over from an older stream can be told from the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(pub u64);
