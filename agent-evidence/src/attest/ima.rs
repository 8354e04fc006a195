//! The kernel's integrity measurement list (IMA): what was run and opened, as the kernel measured it, and the register that this
//! gives.
//!
//! Form: `binary_runtime_measurements` of securityfs in little-endian order (Documentation/security/IMA-templates.rst of the
//! kernel, security/integrity/ima/ima_fs.c): register, SHA-1 template digest, template name, template data. The SHA-256
//! bank is extended with the SHA-256 digest of the same template data (kernel 5.8 and later); an entry that reports a violation has
//! a template digest of zeros in the list, and every bank is extended with ones.
//!
//! The list is not trusted. What is believed of it is what the TPM confirms: the template data, in its order. The SHA-1 digests in
//! it are not looked at, but for the zeros that mark a violation; a lie about those gives another register.

use sha2::{Digest as _, Sha256};

use crate::record::Digest;

use super::little::Little;
use super::pcr::extend;

/// The register that the kernel extends.
pub const REGISTER: u32 = 10;

/// Longest list of one boot that is read, in bytes.
pub const LIST_BYTES_MAX: u64 = 64 << 20;

/// Longest template data, in bytes: a signature or a buffer that was measured, with a name.
pub const DATA_BYTES_MAX: usize = 1 << 20;

/// Longest name of a template, in bytes: one that is a list of its fields.
const NAME_BYTES_MAX: usize = 255;

/// The template whose data is not length-prefixed.
const OLD_TEMPLATE: &[u8] = b"ima";

/// Longest name of a file in the old template; the hash is over so many bytes and one more.
const OLD_NAME_BYTES_MAX: usize = 255;

/// Why bytes are not an entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImaError {
    /// Another register than the one that is replayed.
    #[error("an entry of the measurement list is of register {seen}, only {REGISTER} is replayed")]
    Register {
        /// The register.
        seen: u32,
    },
    /// No name of a template.
    #[error("an entry of the measurement list has a template's name of {len} bytes, expected 1 to {NAME_BYTES_MAX}")]
    Name {
        /// Its length.
        len: usize,
    },
    /// More data than any template has.
    #[error("an entry of the measurement list has {len} bytes of data, at most {DATA_BYTES_MAX} are read")]
    Data {
        /// Its length.
        len: usize,
    },
    /// Data that does not divide into fields.
    #[error("the data of an entry of the measurement list does not divide into fields")]
    Fields,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name of the template.
    pub template: &'a [u8],
    /// Its data, as it lies in the list.
    pub data: &'a [u8],
    /// Whether it reports that a file changed while it was measured.
    pub is_violation: bool,
}

impl<'a> Entry<'a> {
    /// The entry at the beginning of these bytes and how long it is; nothing when they end within it.
    ///
    /// # Errors
    /// [`ImaError`] when no entry begins so, whatever follows.
    pub fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, ImaError> {
        let mut list = Little::new(bytes);
        let Some(register) = list.u32() else { return Ok(None) };
        if register != REGISTER {
            return Err(ImaError::Register { seen: register });
        }
        let Some(digest) = list.array::<20>() else { return Ok(None) };
        let Some(len) = list.u32() else { return Ok(None) };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !(1..=NAME_BYTES_MAX).contains(&len) {
            return Err(ImaError::Name { len });
        }
        let Some(template) = list.bytes(len) else { return Ok(None) };
        let data = if template == OLD_TEMPLATE { old_data(&mut list)? } else { data(&mut list)? };
        let is_violation = digest == [0; 20];
        Ok(data.map(|data| (Self { template, data, is_violation }, list.at())))
    }

    /// What the SHA-256 bank was extended with.
    #[must_use]
    pub fn digest(&self) -> Digest {
        if self.is_violation {
            return Digest([0xff; 32]);
        }
        let mut hash = Sha256::new();
        match (self.template, self.data.split_at_checked(24)) {
            // Digest, length, name: hashed as the digest and a name filled up with zeros.
            (OLD_TEMPLATE, Some((fixed, name))) => {
                let mut filled = [0; OLD_NAME_BYTES_MAX + 1];
                filled.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
                hash.update(fixed.first_chunk::<20>().copied().unwrap_or_default());
                hash.update(filled);
            }
            _ => hash.update(self.data),
        }
        Digest(hash.finalize().into())
    }
}

/// Template data with its length before it, which divides into fields with theirs.
fn data<'a>(list: &mut Little<'a>) -> Result<Option<&'a [u8]>, ImaError> {
    let Some(len) = list.u32() else { return Ok(None) };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > DATA_BYTES_MAX {
        return Err(ImaError::Data { len });
    }
    let Some(data) = list.bytes(len) else { return Ok(None) };
    let mut fields = Little::new(data);
    while !fields.is_empty() {
        fields.sized().ok_or(ImaError::Fields)?;
    }
    Ok(Some(data))
}

/// A SHA-1 digest and a name with its length.
fn old_data<'a>(list: &mut Little<'a>) -> Result<Option<&'a [u8]>, ImaError> {
    let mut ahead = list.clone();
    let Some(len) = ahead.bytes(20).and_then(|_digest| ahead.u32()) else { return Ok(None) };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > OLD_NAME_BYTES_MAX {
        return Err(ImaError::Data { len });
    }
    Ok(list.bytes(24 + len))
}

/// The register after each entry of a list that comes in parts, cut anywhere.
#[derive(Debug, Clone)]
pub struct Replay {
    register: Digest,
    entries: u64,
    violations: u64,
    /// The beginning of an entry whose end is in a later part.
    begun: Vec<u8>,
    len: u64,
}

impl Replay {
    /// From the register as it is before the first entry.
    #[must_use]
    pub fn new(register: Digest) -> Self {
        Self { register, entries: 0, violations: 0, begun: Vec::new(), len: 0 }
    }

    /// Takes the next part of the list, and hands over the register after each entry that ends in it, and how many these
    /// are.
    ///
    /// # Errors
    /// [`ImaError`]; what was handed over before holds.
    pub fn part(&mut self, part: &[u8], mut each: impl FnMut(Digest, u64)) -> Result<(), ImaError> {
        self.len = self.len.saturating_add(part.len() as u64);
        self.begun.extend_from_slice(part);
        let mut read = 0;
        while let Some((entry, len)) = Entry::read(self.begun.get(read..).unwrap_or_default())? {
            self.register = extend(self.register, entry.digest());
            self.entries += 1;
            self.violations += u64::from(entry.is_violation);
            each(self.register, self.entries);
            read += len;
        }
        // Small parts of a large entry cost nothing here: nothing is moved until it ends.
        self.begun.drain(..read);
        Ok(())
    }

    /// How many bytes were taken.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether what was taken ends with an entry.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.begun.is_empty()
    }

    /// The register after every entry so far.
    #[must_use]
    pub fn register(&self) -> Digest {
        self.register
    }

    /// How many entries there were.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many of them report a violation.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::super::pcr::START;
    use super::super::pcr::tests::registers;
    use super::*;

    const PLAIN: &[u8] = include_bytes!("../../tests/measured/plain/ima");

    fn quoted(pcrs: &str) -> Digest {
        registers(pcrs).into_iter().find(|(index, _)| *index == REGISTER).unwrap().1
    }

    fn replayed(list: &[u8]) -> Vec<Digest> {
        let mut values = Vec::new();
        let mut replay = Replay::new(START);
        replay.part(list, |value, _| values.push(value)).unwrap();
        assert!(replay.is_whole());
        values
    }

    #[test]
    fn real_lists_give_the_register_of_the_tpm() {
        for (list, pcrs, early) in [
            (
                PLAIN,
                include_str!("../../tests/measured/plain/pcrs"),
                include_str!("../../tests/measured/plain/pcrs_early"),
            ),
            (
                include_bytes!("../../tests/measured/sha384/ima"),
                include_str!("../../tests/measured/sha384/pcrs"),
                include_str!("../../tests/measured/sha384/pcrs_early"),
            ),
            (
                include_bytes!("../../tests/measured/secure/ima"),
                include_str!("../../tests/measured/secure/pcrs"),
                include_str!("../../tests/measured/secure/pcrs_early"),
            ),
        ] {
            let values = replayed(list);
            assert_eq!(values.len(), 12);
            assert_eq!(values.last(), Some(&quoted(pcrs)));
            assert_eq!(values.iter().position(|value| *value == quoted(early)), Some(4), "the list was longer by then");
        }
    }

    #[test]
    fn parts_may_be_cut_anywhere() {
        let whole = replayed(PLAIN);
        for size in [1, 7, 100, 1241] {
            let mut values = Vec::new();
            let mut replay = Replay::new(START);
            for part in PLAIN.chunks(size) {
                replay.part(part, |value, _| values.push(value)).unwrap();
            }
            assert_eq!((values, replay.is_whole()), (whole.clone(), true));
            assert_eq!((replay.len(), replay.entries(), replay.violations()), (PLAIN.len() as u64, 12, 1));
            assert_eq!(Some(&replay.register()), whole.last());
        }
        let mut cut = Replay::new(START);
        cut.part(&PLAIN[..PLAIN.len() - 1], |_, _| {}).unwrap();
        assert!(!cut.is_whole() && !cut.is_empty());
        assert_eq!(cut.entries(), 11);
    }

    #[test]
    fn every_byte_that_the_kernel_hashed_counts() {
        let honest = replayed(PLAIN);
        let mut first = Entry::read(PLAIN).unwrap().unwrap();
        let mut at = 0;
        let mut counted = 0;
        loop {
            let (entry, len) = first;
            // Template data lies at the end of each entry.
            let data = at + len - entry.data.len()..at + len;
            for byte in data.clone().step_by(5) {
                let mut altered = PLAIN.to_vec();
                altered[byte] ^= 0x40;
                let mut last = START;
                let mut replay = Replay::new(START);
                let outcome = replay.part(&altered, |value, _| last = value);
                let same = outcome.is_ok() && Some(&last) == honest.last();
                // What a violation is about is not hashed by the kernel: the register only says that there was one.
                assert_eq!(same, entry.is_violation && outcome.is_ok(), "byte {byte}");
                counted += 1;
            }
            at += len;
            match Entry::read(&PLAIN[at..]).unwrap() {
                Some(next) => first = next,
                None => break,
            }
        }
        assert!(counted > 100 && at == PLAIN.len());
    }

    #[test]
    fn a_violation_that_is_denied_or_invented_shows() {
        let entries = |list: &[u8]| {
            let mut at = 0;
            let mut places = Vec::new();
            while let Some((entry, len)) = Entry::read(&list[at..]).unwrap() {
                places.push((at, entry.is_violation));
                at += len;
            }
            places
        };
        let places = entries(PLAIN);
        let (denied, _) = places.iter().find(|(_, is_violation)| *is_violation).unwrap();
        let (invented, _) = places.iter().find(|(_, is_violation)| !is_violation).unwrap();
        let mut list = PLAIN.to_vec();
        list[denied + 4] = 1;
        assert_ne!(replayed(&list), replayed(PLAIN));
        let mut list = PLAIN.to_vec();
        list[invented + 4..invented + 24].fill(0);
        assert_ne!(replayed(&list), replayed(PLAIN));
    }

    #[test]
    fn the_old_template_is_hashed_with_its_name_filled_up() {
        let mut list = 10u32.to_le_bytes().to_vec();
        list.extend([7; 20]);
        list.extend(3u32.to_le_bytes());
        list.extend(b"ima");
        list.extend([9; 20]);
        list.extend(5u32.to_le_bytes());
        list.extend(b"/init");
        let (entry, len) = Entry::read(&list).unwrap().unwrap();
        assert_eq!((entry.template, len), (b"ima".as_slice(), list.len()));
        let mut hashed = [0; 20 + 256];
        hashed[..20].fill(9);
        hashed[20..25].copy_from_slice(b"/init");
        assert_eq!(entry.digest(), Digest(Sha256::digest(hashed).into()));
        for cut in 0..list.len() {
            assert_eq!(Entry::read(&list[..cut]), Ok(None), "{cut}");
        }
        list[52] = 1;
        assert_eq!(Entry::read(&list), Err(ImaError::Data { len: 5 + 256 }));
    }

    #[test]
    fn hostile_entries_are_refused() {
        let altered = |at: usize, bytes: &[u8]| {
            let mut list = PLAIN.to_vec();
            list[at..at + bytes.len()].copy_from_slice(bytes);
            Entry::read(&list).map(|read| read.map(|(_, len)| len))
        };
        assert_eq!(altered(0, &[11]), Err(ImaError::Register { seen: 11 }));
        assert_eq!(altered(24, &[0]), Err(ImaError::Name { len: 0 }));
        assert_eq!(altered(24, &[0xff; 4]), Err(ImaError::Name { len: 0xffff_ffff }));
        assert_eq!(altered(35, &[0xff; 4]), Err(ImaError::Data { len: 0xffff_ffff }));
        assert_eq!(altered(39, &[0xff]), Err(ImaError::Fields));
        assert_eq!(Entry::read(&[]), Ok(None));
    }
}
