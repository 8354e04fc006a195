//! Messages saved to a file and read back, byte for byte: for replay tests and benchmarks without root.
//!
//! Not evidence and not kept: the file is in this host's byte order. Layout: the 15 bytes of `MAGIC` with the wire
//! version as the 16th, then for each message its length (u32, native order) and its bytes.
#![forbid(unsafe_code)]

use agent_common::WIRE_VERSION;
use std::io::{self, Read, Write};

/// Begins a capture file; the wire version follows as the 16th byte.
const MAGIC: &[u8; 15] = b"affiant-capture";

/// Longest message that is read back; the kernel side's longest is 8,000 bytes.
const MESSAGE_BYTES_MAX: u32 = 1 << 16;

/// Why a capture file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Reading or writing failed.
    #[error("capture file, message {message}")]
    Io {
        /// Which message, from 0.
        message: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a capture file of this wire version.
    #[error("not a capture file of wire version {WIRE_VERSION}: begins with {found:?}")]
    Magic {
        /// What stood there.
        found: [u8; 16],
    },
    /// A length that no message has.
    #[error("message {message} of {len} bytes, at most {MESSAGE_BYTES_MAX} are allowed")]
    Length {
        /// Which message, from 0.
        message: u64,
        /// What stood there.
        len: u32,
    },
}

/// Saves messages.
pub struct CaptureWriter<W> {
    out: W,
    count: u64,
}

impl<W: Write> CaptureWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mut out: W) -> Result<Self, CaptureError> {
        let begin = out.write_all(MAGIC).and_then(|()| out.write_all(&[WIRE_VERSION]));
        begin.map_err(|source| CaptureError::Io { message: 0, source })?;
        Ok(Self { out, count: 0 })
    }

    /// Appends one message.
    ///
    /// # Errors
    /// When it is too long or cannot be written.
    pub fn push(&mut self, message: &[u8]) -> Result<(), CaptureError> {
        let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        if len > MESSAGE_BYTES_MAX {
            return Err(CaptureError::Length { message: self.count, len });
        }
        let written = self.out.write_all(&len.to_ne_bytes()).and_then(|()| self.out.write_all(message));
        written.map_err(|source| CaptureError::Io { message: self.count, source })?;
        self.count += 1;
        Ok(())
    }

    /// Flushes, and gives the file back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<W, CaptureError> {
        self.out.flush().map_err(|source| CaptureError::Io { message: self.count, source })?;
        Ok(self.out)
    }
}

/// Reads messages back.
pub struct CaptureReader<R> {
    input: R,
    buffer: Vec<u8>,
    count: u64,
}

impl<R: Read> CaptureReader<R> {
    /// Opens a file.
    ///
    /// # Errors
    /// When it is not one of this wire version.
    pub fn new(mut input: R) -> Result<Self, CaptureError> {
        let mut found = [0; 16];
        input.read_exact(&mut found).map_err(|source| CaptureError::Io { message: 0, source })?;
        let expected = [MAGIC.as_slice(), &[WIRE_VERSION]].concat();
        if found.as_slice() != expected {
            return Err(CaptureError::Magic { found });
        }
        Ok(Self { input, buffer: Vec::new(), count: 0 })
    }

    /// The next message, or `None` at the end of the file.
    ///
    /// # Errors
    /// When the file ends inside a message, or a length is impossible.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, CaptureError> {
        let message = self.count;
        let failed = |source| CaptureError::Io { message, source };
        let mut len = [0; 4];
        // One byte first: a file that ends here has ended well.
        match self.input.read(&mut len[..1]).map_err(failed)? {
            0 => return Ok(None),
            _ => self.input.read_exact(&mut len[1..]).map_err(failed)?,
        }
        let len = u32::from_ne_bytes(len);
        if len > MESSAGE_BYTES_MAX {
            return Err(CaptureError::Length { message, len });
        }
        self.buffer.resize(len as usize, 0);
        self.input.read_exact(&mut self.buffer).map_err(failed)?;
        self.count += 1;
        Ok(Some(&self.buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_byte_for_byte() {
        let mut writer = CaptureWriter::new(Vec::new()).unwrap();
        for message in [b"one".as_slice(), b"", b"three"] {
            writer.push(message).unwrap();
        }
        let file = writer.finish().unwrap();
        let mut reader = CaptureReader::new(file.as_slice()).unwrap();
        for message in [b"one".as_slice(), b"", b"three"] {
            assert_eq!(reader.next_message().unwrap(), Some(message));
        }
        assert_eq!(reader.next_message().unwrap(), None);
    }

    #[test]
    fn a_file_of_another_kind_or_an_impossible_length_is_refused() {
        let opened = CaptureReader::new(b"0123456789abcdef".as_slice());
        assert!(matches!(opened.err(), Some(CaptureError::Magic { .. })));
        let file = [MAGIC.as_slice(), &[WIRE_VERSION], &u32::MAX.to_ne_bytes()].concat();
        let mut reader = CaptureReader::new(file.as_slice()).unwrap();
        assert!(matches!(reader.next_message(), Err(CaptureError::Length { message: 0, len: u32::MAX })));
        let file = [MAGIC.as_slice(), &[WIRE_VERSION], &5u32.to_ne_bytes(), b"ab"].concat();
        let mut reader = CaptureReader::new(file.as_slice()).unwrap();
        assert!(matches!(reader.next_message(), Err(CaptureError::Io { message: 0, .. })));
    }
}
