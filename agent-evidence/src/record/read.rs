//! Reading values: a cursor over the bytes of one entry that accepts the one permitted JSON text and nothing else.
//!
//! The bytes are untrusted: the writer may be the adversary. The cursor follows the schema, so nesting is
//! bounded by the schema and not by the input; there is no recursion over input and nothing panics.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ids::{
    BootTime, Capabilities, CgroupId, ChainHash, Class, ControlNumber, Digest, EntryIndex, EpochNumber, Id128,
    KernelNumber, LeafHash, Nanoseconds, ProcessCookie, PublicKey, RootHash, SessionNumber, Signature, SocketCookie,
    TreeSize, WallTime,
};
use super::list::List;
use super::text::{Bytes, Text, plain};
use super::write::PLAIN;

/// Why bytes are not an entry. Offsets count bytes from the start of the entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than any entry.
    #[error("entry of {len} bytes, at most {max} are allowed")]
    TooLong {
        /// How long it is.
        len: usize,
        /// How long it may be.
        max: usize,
    },
    /// The bytes end inside the entry.
    #[error("entry ends at byte {offset}, expected {expected}")]
    Ends {
        /// Where it ends.
        offset: usize,
        /// What the grammar wants there.
        expected: &'static str,
    },
    /// A byte that the grammar does not allow there.
    #[error("byte 0x{seen:02x} at {offset}, expected {expected}")]
    Unexpected {
        /// Where.
        offset: usize,
        /// The byte found.
        seen: u8,
        /// What the grammar wants there.
        expected: &'static str,
    },
    /// The next member is not the one that the schema has there: a key is missing, unknown, repeated or out of order.
    #[error("member at byte {offset} is not {expected:?}: a key is missing, unknown, repeated or out of order")]
    Key {
        /// Where the member was looked for.
        offset: usize,
        /// The key that must stand there.
        expected: &'static str,
    },
    /// A number with a leading zero or too large for its field.
    #[error("number at byte {offset} has a leading zero or is above {max}")]
    Number {
        /// Where it starts.
        offset: usize,
        /// The largest value of the field.
        max: u64,
    },
    /// A string with a control character, a needless or unknown escape, or bytes that are not UTF-8.
    #[error("string at byte {offset} is not in the one permitted form: {rule}")]
    Text {
        /// Where it starts.
        offset: usize,
        /// The rule broken.
        rule: &'static str,
    },
    /// A word that the format does not have at this place.
    #[error("{seen:?} at byte {offset} is not {expected}")]
    Word {
        /// Where it starts.
        offset: usize,
        /// The word found.
        seen: String,
        /// What it should be one of.
        expected: &'static str,
    },
    /// Base64 or hexadecimal of the wrong length or form.
    #[error("bytes at {offset} are not {expected}")]
    Bytes {
        /// Where they start.
        offset: usize,
        /// The form that the field has.
        expected: &'static str,
    },
    /// Bytes after the end of the entry.
    #[error("{count} bytes after the end of the entry at byte {offset}")]
    Trailing {
        /// Where the entry ends.
        offset: usize,
        /// How many follow.
        count: usize,
    },
    /// A version this reader does not know.
    #[error("record version {seen}, this reader knows version 1")]
    Version {
        /// The version found.
        seen: u32,
    },
    /// The entry reads, but writing it again gives other bytes.
    #[error("entry is not in canonical form: it differs from its own encoding at byte {offset}")]
    NotCanonical {
        /// The first byte that differs.
        offset: usize,
    },
}

/// The cursor.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub(super) offset: usize,
    committed: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, committed: 0 }
    }

    /// A commitment was read.
    pub(super) fn count_commitment(&mut self) {
        self.committed = self.committed.saturating_add(1);
    }

    /// How many commitments were read so far.
    pub(super) fn committed(&self) -> u32 {
        self.committed
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.offset).copied()
    }

    fn unexpected(&self, expected: &'static str) -> DecodeError {
        match self.peek() {
            Some(seen) => DecodeError::Unexpected { offset: self.offset, seen, expected },
            None => DecodeError::Ends { offset: self.offset, expected },
        }
    }

    /// Steps over these bytes if they are next. Inlined, so that the comparison is with a constant.
    #[inline(always)]
    pub(super) fn skip(&mut self, literal: &[u8]) -> bool {
        let found = self.rest().starts_with(literal);
        if found {
            self.offset += literal.len();
        }
        found
    }

    #[inline]
    pub(super) fn expect(&mut self, literal: &'static str) -> Result<(), DecodeError> {
        if self.skip(literal.as_bytes()) { Ok(()) } else { Err(self.unexpected(literal)) }
    }

    /// Reads the member with this key, or gives its absent value if the key is not next. `with_comma` is the key
    /// with its quotes and colon and a comma before.
    #[inline(always)]
    pub(super) fn member<T: Decode<'a>>(
        &mut self,
        key: &'static str,
        with_comma: &'static str,
    ) -> Result<T, DecodeError> {
        let literal = with_comma.as_bytes();
        // The first member of an object has no comma before it. Two calls, so that each compares with a constant.
        let found = if self.is_first() { self.skip(literal.get(1..).unwrap_or_default()) } else { self.skip(literal) };
        if found {
            return T::decode(self);
        }
        T::absent().ok_or(DecodeError::Key { offset: self.offset, expected: key })
    }

    /// Whether an object has just begun.
    #[inline]
    fn is_first(&self) -> bool {
        self.offset.checked_sub(1).and_then(|before| self.bytes.get(before)) == Some(&b'{')
    }

    pub(super) fn items<T: Decode<'a>>(&mut self) -> Result<Vec<T>, DecodeError> {
        self.expect("[")?;
        let mut items = Vec::new();
        if self.skip(b"]") {
            return Ok(items);
        }
        loop {
            items.push(T::decode(self)?);
            if self.skip(b"]") {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    /// A number without leading zeros, at most `max`.
    pub(super) fn number(&mut self, max: u64) -> Result<u64, DecodeError> {
        /// Any number of so many digits is below 2^64.
        const DIGITS_SAFE: usize = 19;
        let start = self.offset;
        let too_large = || DecodeError::Number { offset: start, max };
        let rest = self.rest();
        let count = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, _) = rest.split_at_checked(count).unwrap_or_default();
        let [first, more @ ..] = digits else { return Err(self.unexpected("a digit")) };
        let (safe, beyond) = digits.split_at_checked(DIGITS_SAFE).unwrap_or((digits, &[]));
        let mut number = safe.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        for digit in beyond {
            number = number
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(u64::from(digit - b'0')))
                .ok_or_else(too_large)?;
        }
        if number > max || (*first == b'0' && !more.is_empty()) {
            return Err(too_large());
        }
        self.offset += count;
        Ok(number)
    }

    pub(super) fn quoted_number(&mut self) -> Result<u64, DecodeError> {
        self.expect("\"")?;
        let number = self.number(u64::MAX)?;
        self.expect("\"")?;
        Ok(number)
    }

    /// A string without escapes or control characters; what is between the quotes.
    pub(super) fn bare_string(&mut self) -> Result<(usize, &'a [u8]), DecodeError> {
        self.expect("\"")?;
        let start = self.offset;
        let rest = self.rest();
        let len = rest.iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(rest.len());
        self.offset += len;
        self.expect("\"")?;
        Ok((start, rest.get(..len).unwrap_or_default()))
    }

    /// A word of the format's vocabulary, as `parse` knows it.
    pub(super) fn word<T>(
        &mut self,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let (offset, bytes) = self.bare_string()?;
        // A bare string is ASCII, and no word is empty.
        let seen = std::str::from_utf8(bytes).unwrap_or_default();
        parse(seen).ok_or_else(|| DecodeError::Word { offset, seen: seen.chars().take(64).collect(), expected })
    }

    pub(super) fn base64<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], DecodeError> {
        // A string of the right length is not looked through first: the engine refuses whatever is not of its alphabet, with
        // it other padding and set padding bits. It wants room for what padding may stand for: 66 bytes for the longest
        // field, a signature of 64.
        let mut room = [0_u8; 66];
        if let [b'"', rest @ ..] = self.rest()
            && let Some((encoded, [b'"', ..])) = rest.split_at_checked(N.div_ceil(3) * 4)
            && STANDARD.decode_slice(encoded, &mut room) == Ok(N)
            && let Some(bytes) = room.first_chunk::<N>()
        {
            self.offset += encoded.len() + 2;
            return Ok(*bytes);
        }
        let (offset, _) = self.bare_string()?;
        Err(DecodeError::Bytes { offset, expected })
    }

    pub(super) fn hex<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], DecodeError> {
        let (offset, digits) = self.bare_string()?;
        let wrong = DecodeError::Bytes { offset, expected };
        let mut bytes = [0; N];
        if digits.len() != N * 2 {
            return Err(wrong);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(wrong),
                };
                *byte = (*byte << 4) | value;
            }
        }
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<Text<'a>, DecodeError> {
        if self.skip(b"{\"b64\":") {
            let (offset, encoded) = self.bare_string()?;
            let rule = "base64 with padding";
            let bytes = STANDARD.decode(encoded).or(Err(DecodeError::Bytes { offset, expected: rule }))?;
            if plain(&bytes).is_some() {
                return Err(DecodeError::Text { offset, rule: "plain text must not be written as base64" });
            }
            self.expect("}")?;
            return Ok(Text::owned(bytes));
        }
        self.expect("\"")?;
        let start = self.offset;
        let rest = self.rest();
        let count = rest.iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(rest.len());
        if let Some((text, [b'"', ..])) = rest.split_at_checked(count) {
            self.offset += count + 1;
            return Ok(Text::new(text));
        }
        let mut ascii = true;
        let mut escapes = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    if !matches!(self.bytes.get(self.offset + 1), Some(b'"' | b'\\')) {
                        return Err(DecodeError::Text { offset: start, rule: "only \\\" and \\\\ are escapes" });
                    }
                    escapes += 1;
                    self.offset += 2;
                }
                Some(byte) => {
                    ascii &= (0x20..0x7f).contains(&byte);
                    self.offset += 1;
                }
                None => return Err(self.unexpected("the end of the string")),
            }
        }
        let raw = self.bytes.get(start..self.offset).unwrap_or_default();
        self.offset += 1;
        if !ascii && plain(raw).is_none() {
            let rule = "UTF-8 without control characters, or base64";
            return Err(DecodeError::Text { offset: start, rule });
        }
        if escapes == 0 {
            return Ok(Text::new(raw));
        }
        let mut bytes = Vec::with_capacity(raw.len());
        let mut rest = raw.iter();
        while let Some(byte) = rest.next() {
            // Each backslash stands before the byte it protects, as checked above.
            bytes.push(if *byte == b'\\' { *rest.next().unwrap_or(byte) } else { *byte });
        }
        Ok(Text::owned(bytes))
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        match self.bytes.len().saturating_sub(self.offset) {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { offset: self.offset, count }),
        }
    }
}

/// A value that can be read from its one JSON form.
pub(super) trait Decode<'a>: Sized {
    /// Its name in the tables of FORMAT.md.
    const FORM: &'static str;

    /// The value for a member left out, if it may be.
    fn absent() -> Option<Self> {
        None
    }

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError>;
}

impl<'a, T: Decode<'a>> Decode<'a> for Option<T> {
    const FORM: &'static str = T::FORM;

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        T::decode(bytes).map(Some)
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for List<'a, T> {
    const FORM: &'static str = T::FORM;

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        bytes.items().map(List::Owned)
    }
}

impl<'a> Decode<'a> for Text<'a> {
    const FORM: &'static str = "text";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        bytes.text()
    }
}

impl<'a> Decode<'a> for Bytes<'a> {
    const FORM: &'static str = "base64";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (offset, encoded) = bytes.bare_string()?;
        let wrong = DecodeError::Bytes { offset, expected: "base64 with padding" };
        STANDARD.decode(encoded).map(Self::owned).or(Err(wrong))
    }
}

impl<'a> Decode<'a> for bool {
    const FORM: &'static str = "true or false";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if bytes.skip(b"true") { Ok(true) } else { bytes.expect("false").map(|()| false) }
    }
}

impl<'a> Decode<'a> for u16 {
    const FORM: &'static str = "u16";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let offset = bytes.offset;
        let max = u64::from(Self::MAX);
        let number = bytes.number(max)?;
        Self::try_from(number).or(Err(DecodeError::Number { offset, max }))
    }
}

impl<'a> Decode<'a> for u32 {
    const FORM: &'static str = "u32";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let offset = bytes.offset;
        let max = u64::from(Self::MAX);
        let number = bytes.number(max)?;
        Self::try_from(number).or(Err(DecodeError::Number { offset, max }))
    }
}

impl<'a> Decode<'a> for u64 {
    const FORM: &'static str = "u64 string";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        bytes.quoted_number()
    }
}

impl<'a> Decode<'a> for Class {
    const FORM: &'static str = "class";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let offset = bytes.offset;
        let number = u32::decode(bytes)?;
        Self::from_number(number).ok_or(DecodeError::Number { offset, max: 4 })
    }
}

impl<'a> Decode<'a> for KernelNumber {
    const FORM: &'static str = "[u32,class,u64 string]";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        bytes.expect("[")?;
        let cpu = u32::decode(bytes)?;
        bytes.expect(",")?;
        let class = Class::decode(bytes)?;
        bytes.expect(",")?;
        let seq = u64::decode(bytes)?;
        bytes.expect("]")?;
        Ok(Self { cpu, class, seq })
    }
}

impl<'a> Decode<'a> for SocketAddr {
    const FORM: &'static str = "address";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        // Several spellings parse; comparing with the encoding afterwards leaves one.
        bytes.word("an address and port", |word| {
            word.parse().ok().filter(|address| match address {
                Self::V4(_) => true,
                Self::V6(address) => address.scope_id() == 0,
            })
        })
    }
}

/// Implements `Decode` for newtypes that share a form.
macro_rules! decode_as {
    ($form:ident $label:literal: $($name:ident)*) => {$(
        impl<'a> Decode<'a> for $name {
            const FORM: &'static str = $label;

            fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
                decode_as!(@$form bytes $label).map(Self)
            }
        }
    )*};
    (@number $bytes:ident $label:literal) => { $bytes.number(EntryIndex::MAX.0) };
    (@quoted $bytes:ident $label:literal) => { $bytes.quoted_number() };
    (@base64 $bytes:ident $label:literal) => { $bytes.base64($label) };
    (@hex $bytes:ident $label:literal) => { $bytes.hex($label) };
    (@hex_be $bytes:ident $label:literal) => { $bytes.hex($label).map(u64::from_be_bytes) };
}

decode_as!(number "u53": EntryIndex TreeSize SessionNumber ControlNumber EpochNumber);
decode_as!(quoted "u64 string": WallTime BootTime Nanoseconds ProcessCookie CgroupId SocketCookie);
decode_as!(base64 "base64 of 32 bytes": LeafHash RootHash ChainHash PublicKey);
decode_as!(base64 "base64 of 64 bytes": Signature);
decode_as!(hex "hex of 32 bytes": Digest);
decode_as!(hex "hex of 16 bytes": Id128);
decode_as!(hex_be "hex of 8 bytes": Capabilities);
