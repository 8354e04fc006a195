//! Reader over a mapped BPF ring buffer that gives space back only when told to.
//!
//! The kernel writes records behind `producer_pos` and refuses to write over anything at or after `consumer_pos`,
//! which is ours to move. aya's reader moves it item by item; ours moves it in [`RingReader::release`], which the
//! caller calls when what was read is durable. Until then the bytes stay where they are and can be read without
//! copying; a killed reader loses nothing, and the next one reads them again.
//!
//! The memory is the kernel's: producer position and data are mapped read-only. Their content is still checked, so
//! that a corrupt length gives an error and not an access outside the mapping.
//!
//! Source: `kernel/bpf/ringbuf.c` of 6.18; layout: one page consumer position, one page producer position, the data
//! twice in a row so that no record is split.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Set in a record's length while the kernel still writes it.
const BUSY: u32 = 1 << 31;
/// Set in a record's length when it is to be skipped.
const DISCARD: u32 = 1 << 30;
/// Bytes before each record's data: length, then a page offset of no interest here.
const RECORD_HEADER: u64 = 8;

/// Why a ring cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The size is not one that the kernel gives rings.
    #[error("ring of {bytes} bytes: expected a power of two of at least a page ({page})")]
    Size {
        /// What the map says.
        bytes: usize,
        /// The page size.
        page: usize,
    },
    /// mmap(2) refused.
    #[error("cannot map the {part} of the ring")]
    Map {
        /// Which part.
        part: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The positions or a length cannot be what a kernel writes. Nothing after this point can be trusted.
    #[error("corrupt ring at position {position}: length {len:#x} with {available} bytes written")]
    Corrupt {
        /// Where.
        position: u64,
        /// The length field as it stood.
        len: u32,
        /// Bytes between there and the producer position.
        available: u64,
    },
    /// A position to release that was never read, or was released before.
    #[error("cannot release up to {position}: released {released}, read {read}")]
    Release {
        /// What was asked.
        position: u64,
        /// Where the consumer position stands.
        released: u64,
        /// Where the reader stands.
        read: u64,
    },
}

/// One mapped range, unmapped when dropped.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory shared with the kernel; all access goes through atomics or committed records.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(
        fd: BorrowedFd<'_>,
        bytes: usize,
        offset: usize,
        writable: bool,
        part: &'static str,
    ) -> Result<Self, RingError> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let map_error = |source| RingError::Map { part, source };
        let offset = libc::off_t::try_from(offset).map_err(|error| map_error(io::Error::other(error)))?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(map_error(io::Error::last_os_error()));
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| map_error(io::Error::other("mapped at address 0")))?;
        Ok(Self { start, bytes })
    }

    /// The 8-byte position at the start of the mapping.
    fn position(&self) -> &AtomicU64 {
        // SAFETY: mapped, page-aligned, at least a page long, and only accessed atomically on both sides.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap gave.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Reads one ring. At most one reader per ring may exist; the daemon's lock file sees to that.
pub struct RingReader {
    fd: OwnedFd,
    consumer: Mapping,
    producer: Mapping,
    page: u64,
    bytes: u64,
    /// Next position to read.
    next: u64,
    /// What the consumer position was last set to.
    released: u64,
}

impl RingReader {
    /// Maps the ring behind `fd`, which holds `bytes` of data, and stands where the last reader released up to.
    ///
    /// # Errors
    /// When the size is impossible or mmap(2) fails.
    pub fn new(fd: OwnedFd, bytes: usize) -> Result<Self, RingError> {
        // SAFETY: no arguments of ours are written.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        if !bytes.is_power_of_two() || bytes < page || bytes > 1 << 30 {
            return Err(RingError::Size { bytes, page });
        }
        let consumer = Mapping::new(fd.as_fd(), page, 0, true, "consumer position")?;
        let producer = Mapping::new(fd.as_fd(), page + 2 * bytes, page, false, "producer position and data")?;
        let released = consumer.position().load(Ordering::Acquire);
        let mut reader =
            Self { fd, consumer, producer, page: page as u64, bytes: bytes as u64, next: released, released };
        reader.available()?;
        Ok(reader)
    }

    /// The next message, or `None` when there is none yet (or the next is still being written). The bytes stay valid
    /// and unchanged until released. Does not move the kernel's consumer position.
    ///
    /// # Errors
    /// [`RingError::Corrupt`], after which this ring gives nothing more.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, RingError> {
        loop {
            let available = self.available()?;
            if available < RECORD_HEADER {
                return Ok(None);
            }
            let offset = self.page + (self.next & (self.bytes - 1));
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            // SAFETY: `offset` is within page + bytes, and the data is mapped twice, so 8 bytes follow; positions
            // are multiples of 8, so it is aligned. Acquire pairs with the kernel's xchg of the length at commit:
            // a length without BUSY means that the record's bytes are written.
            let len =
                unsafe { AtomicU32::from_ptr(self.producer.start.as_ptr().add(offset).cast()) }.load(Ordering::Acquire);
            if len & BUSY != 0 {
                return Ok(None);
            }
            let size = u64::from(len & !(BUSY | DISCARD));
            let whole = (size + RECORD_HEADER).next_multiple_of(8);
            if whole > available || whole > self.bytes {
                return Err(RingError::Corrupt { position: self.next, len, available });
            }
            self.next += whole;
            if len & DISCARD != 0 {
                continue;
            }
            let size = usize::try_from(size).unwrap_or(0);
            // SAFETY: the record lies within the doubled data (checked above: offset < page + bytes and
            // whole <= bytes), is committed, and the kernel does not write to it before it is released, which needs
            // `&mut self` and so ends this borrow.
            return Ok(Some(unsafe { std::slice::from_raw_parts(self.producer.start.as_ptr().add(offset + 8), size) }));
        }
    }

    /// Position after the last message read: what to give to [`Self::release`] once that message is durable.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Position up to which space was given back.
    #[must_use]
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Gives the space up to `position` back to the kernel. Call it only when what was read is durable.
    ///
    /// # Errors
    /// [`RingError::Release`] when `position` was not reached by reading, or lies before the last release.
    pub fn release(&mut self, position: u64) -> Result<(), RingError> {
        if position < self.released || position > self.next {
            return Err(RingError::Release { position, released: self.released, read: self.next });
        }
        self.released = position;
        // Release pairs with the kernel's acquire load of the consumer position before it reuses the space.
        self.consumer.position().store(position, Ordering::Release);
        Ok(())
    }

    /// Goes back to the last released position, to read again what was not made durable.
    pub fn rewind(&mut self) {
        self.next = self.released;
    }

    /// Bytes written and not yet read by this reader.
    ///
    /// # Errors
    /// [`RingError::Corrupt`] when the positions are impossible.
    pub fn unread_bytes(&mut self) -> Result<u64, RingError> {
        self.available()
    }

    /// Bytes written and not yet released: how full the ring is, as the kernel sees it.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        self.producer.position().load(Ordering::Acquire).wrapping_sub(self.released)
    }

    /// Bytes that the ring holds.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.bytes
    }

    fn available(&mut self) -> Result<u64, RingError> {
        // Acquire pairs with the kernel's release store: what lies before the position is initialised.
        let produced = self.producer.position().load(Ordering::Acquire);
        let available = produced.wrapping_sub(self.next);
        let unreleased = produced.wrapping_sub(self.released);
        if unreleased > self.bytes || available > unreleased || !self.next.is_multiple_of(8) {
            return Err(RingError::Corrupt { position: self.next, len: 0, available });
        }
        Ok(available)
    }
}

impl AsFd for RingReader {
    /// For poll: readable as long as anything is unreleased, so wait edge-triggered, and also look every
    /// [`crate::probe::POLL_INTERVAL_MS`], because the programs wake the reader only when a quarter is full.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    const PAGE: usize = 4096;
    const BYTES: usize = 4096;

    /// A file laid out like a ring, so that every content can be tried. The data's second copy is written by hand.
    struct Fake {
        file: File,
    }

    impl Fake {
        fn new() -> Self {
            let fd = std::process::id();
            let path = std::env::temp_dir().join(format!("affiant-ring-{fd}-{:?}", std::thread::current().id()));
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            file.set_len((2 * PAGE + 2 * BYTES) as u64).unwrap();
            Self { file }
        }

        fn produced(&self, position: u64) {
            self.file.write_all_at(&position.to_ne_bytes(), PAGE as u64).unwrap();
        }

        fn consumed(&self) -> u64 {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, 0).unwrap();
            u64::from_ne_bytes(bytes)
        }

        fn record(&self, position: usize, len_field: u32, data: &[u8]) {
            for copy in [0, BYTES] {
                let at = (2 * PAGE + copy + position % BYTES) as u64;
                self.file.write_all_at(&len_field.to_ne_bytes(), at).unwrap();
                if !data.is_empty() && at + 8 + data.len() as u64 <= (2 * PAGE + 2 * BYTES) as u64 {
                    self.file.write_all_at(data, at + 8).unwrap();
                }
            }
        }

        fn reader(&self) -> RingReader {
            RingReader::new(self.file.try_clone().unwrap().into(), BYTES).unwrap()
        }
    }

    #[test]
    fn reads_committed_records_and_moves_the_consumer_only_on_release() {
        let fake = Fake::new();
        fake.record(0, 3, b"abc");
        fake.record(16, 5 | DISCARD, b"xxxxx");
        fake.record(32, 8, b"12345678");
        fake.produced(48);
        let mut reader = fake.reader();
        assert_eq!(reader.next_message().unwrap(), Some(b"abc".as_slice()));
        let first = reader.position();
        assert_eq!(reader.next_message().unwrap(), Some(b"12345678".as_slice()));
        assert_eq!(reader.next_message().unwrap(), None);
        assert_eq!(fake.consumed(), 0);
        reader.release(first).unwrap();
        assert_eq!(fake.consumed(), 16);
        assert_eq!(reader.backlog_bytes(), 32);
        reader.rewind();
        assert_eq!(reader.next_message().unwrap(), Some(b"12345678".as_slice()));
    }

    #[test]
    fn waits_for_a_busy_record_even_if_later_ones_are_committed() {
        let fake = Fake::new();
        fake.record(0, 3 | BUSY, b"abc");
        fake.record(16, 3, b"def");
        fake.produced(32);
        let mut reader = fake.reader();
        assert_eq!(reader.next_message().unwrap(), None);
        fake.record(0, 3, b"abc");
        assert_eq!(reader.next_message().unwrap(), Some(b"abc".as_slice()));
    }

    #[test]
    fn reads_a_record_that_wraps_through_the_second_copy() {
        let fake = Fake::new();
        fake.file.write_all_at(&4088u64.to_ne_bytes(), 0).unwrap();
        let at = (2 * PAGE + 4088) as u64;
        fake.file.write_all_at(&6u32.to_ne_bytes(), at).unwrap();
        fake.file.write_all_at(b"wrap!!", at + 8).unwrap();
        fake.produced(4088 + 16);
        let mut reader = fake.reader();
        assert_eq!(reader.next_message().unwrap(), Some(b"wrap!!".as_slice()));
    }

    #[test]
    fn a_length_beyond_what_was_written_is_an_error_and_stays_one() {
        let fake = Fake::new();
        fake.record(0, 4000, b"");
        fake.produced(16);
        let mut reader = fake.reader();
        for _ in 0..2 {
            assert!(matches!(reader.next_message(), Err(RingError::Corrupt { position: 0, len: 4000, available: 16 })));
        }
    }

    #[test]
    fn every_length_field_gives_a_message_nothing_or_an_error() {
        let fake = Fake::new();
        for bits in 0..32 {
            for low in [0u32, 1, 7, 8, 9] {
                fake.record(0, (1u32 << bits) | low, b"");
                fake.produced(64);
                let mut reader = fake.reader();
                for _ in 0..16 {
                    match reader.next_message() {
                        Ok(Some(message)) => assert!(message.len() <= 64),
                        Ok(None) | Err(RingError::Corrupt { .. }) => break,
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
    }

    #[test]
    fn impossible_positions_are_refused() {
        let fake = Fake::new();
        fake.produced(u64::MAX - 7);
        let opened = RingReader::new(fake.file.try_clone().unwrap().into(), BYTES);
        assert!(matches!(opened.err(), Some(RingError::Corrupt { .. })));
    }

    #[test]
    fn releasing_what_was_not_read_is_refused() {
        let fake = Fake::new();
        fake.record(0, 3, b"abc");
        fake.produced(16);
        let mut reader = fake.reader();
        assert!(matches!(reader.release(16), Err(RingError::Release { position: 16, released: 0, read: 0 })));
        reader.next_message().unwrap();
        reader.release(16).unwrap();
        assert!(matches!(reader.release(0), Err(RingError::Release { position: 0, released: 16, read: 16 })));
    }

    #[test]
    fn a_size_that_is_no_power_of_two_is_refused() {
        let fake = Fake::new();
        let opened = RingReader::new(fake.file.try_clone().unwrap().into(), 5000);
        assert!(matches!(opened.err(), Some(RingError::Size { bytes: 5000, .. })));
    }
}
