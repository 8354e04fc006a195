//! A cursor over bytes with little-endian numbers, as firmware and kernel write their logs on the machines that are supported.
//!
//! Nothing is copied, nothing is read past the end, and a failed read moves nothing.

/// The rest of a byte string, and how much of it was read.
#[derive(Debug, Clone)]
pub(super) struct Little<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Little<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        self.at += len;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes after a length of four bytes.
    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let mut ahead = self.clone();
        let len = usize::try_from(ahead.u32()?).ok()?;
        let taken = ahead.bytes(len)?;
        *self = ahead;
        Some(taken)
    }
}
