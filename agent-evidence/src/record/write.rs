//! Writing values: the half of the encoding that turns Rust values into the one permitted JSON text.
//!
//! Nothing here allocates unless an entry has to be cut to fit. What is written for which kind, and in which
//! order, stands in `schema.rs` and the files of kinds; how one value looks stands here.

use std::io::Write as _;
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
use super::value::{Commitment, Value};

/// How much of each text and list is written. Only an entry that would be too long is written with limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of one text, before escaping.
    pub(super) text_bytes_max: usize,
    /// Items of one list.
    pub(super) list_items_max: usize,
}

impl Limits {
    /// Everything is written.
    pub(super) const NONE: Self = Self { text_bytes_max: usize::MAX, list_items_max: usize::MAX };

    /// Tried in order until an entry fits. The last one fits for every kind, which a test asserts.
    pub(super) const STEPS: [Self; 6] = [
        Self { text_bytes_max: 16_384, list_items_max: 1_024 },
        Self { text_bytes_max: 4_096, list_items_max: 512 },
        Self { text_bytes_max: 1_024, list_items_max: 256 },
        Self { text_bytes_max: 512, list_items_max: 128 },
        Self { text_bytes_max: 256, list_items_max: 64 },
        Self { text_bytes_max: 64, list_items_max: 16 },
    ];
}

/// Appends canonical JSON to a buffer.
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    limits: Limits,
    /// Whether the value being written was shortened.
    shortened: bool,
    /// Keys whose values were shortened, in order of writing, each once.
    pub(super) cut: Vec<&'static str>,
    /// Who is shown each value and may commit it.
    values: Option<Values<'o>>,
}

/// Who is shown each value of a body, and where in the body the writer is.
struct Values<'o> {
    visitor: &'o mut dyn ValueVisitor,
    /// The kind, then keys and positions, joined by dots.
    field: String,
}

/// Is shown each value of a body while it is written.
pub(super) trait ValueVisitor {
    /// A text that is about to be written as the value of `field`; what is to stand there instead of it, if anything.
    fn clear(&mut self, field: &str, text: &[u8]) -> Option<Commitment>;

    /// A commitment that is written as the value of `field`.
    fn committed(&mut self, field: &str, commitment: Commitment);
}

impl<'o> Writer<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>, limits: Limits) -> Self {
        Self { out, limits, shortened: false, cut: Vec::new(), values: None }
    }

    /// Shows `visitor` the values of what is written from here on, the body of an entry of this kind.
    pub(super) fn visited_by(&mut self, kind: &str, visitor: &'o mut dyn ValueVisitor) {
        self.values = Some(Values { visitor, field: kind.to_owned() });
    }

    /// Ends [`Writer::visited_by`].
    pub(super) fn unvisited(&mut self) {
        self.values = None;
    }

    /// Writes one part of a value, a member's or one at a position of a list or row.
    #[inline]
    pub(super) fn part<T: Encode>(&mut self, step: Step, value: &T) {
        let Some(values) = &mut self.values else { return value.encode(self) };
        let len = values.field.len();
        values.field.push('.');
        match step {
            Step::Key(key) => values.field.push_str(key),
            Step::Position(position) => values.field.push_str(&position.to_string()),
        }
        value.encode(self);
        if let Some(values) = &mut self.values {
            values.field.truncate(len);
        }
    }

    pub(super) fn value(&mut self, value: &Value<'_>) {
        let commitment = match (value, &mut self.values) {
            (Value::Clear(text), None) => return self.text(text.as_bytes()),
            (Value::Clear(text), Some(values)) => match values.visitor.clear(&values.field, text.as_bytes()) {
                Some(commitment) => commitment,
                None => return self.text(text.as_bytes()),
            },
            (Value::Committed(commitment), None) => *commitment,
            (Value::Committed(commitment), Some(values)) => {
                values.visitor.committed(&values.field, *commitment);
                *commitment
            }
        };
        self.raw(b"{\"c\":");
        self.base64(&commitment.0);
        self.byte(b'}');
    }

    #[inline(always)]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    pub(super) fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    /// Writes one member of an object. `with_comma` is the key with its quotes and colon and a comma before.
    #[inline(always)]
    pub(super) fn member<T: Encode>(&mut self, key: &'static str, with_comma: &'static str, value: &T) {
        if value.is_absent() {
            return;
        }
        let literal = with_comma.as_bytes();
        // Two calls, so that each copies a constant.
        if self.is_first() {
            self.raw(literal.get(1..).unwrap_or_default());
        } else {
            self.raw(literal);
        }
        self.part(Step::Key(key), value);
        if self.shortened {
            self.note_cut(key);
        }
    }

    /// The value of this member was shortened.
    #[cold]
    fn note_cut(&mut self, key: &'static str) {
        self.shortened = false;
        if !self.cut.contains(&key) {
            self.cut.push(key);
        }
    }

    /// Whether an object or array has just begun. A complete value never ends in an opening bracket, so the last byte tells.
    #[inline]
    fn is_first(&self) -> bool {
        matches!(self.out.last(), Some(b'{' | b'['))
    }

    /// Writes the comma that separates this item from the one before, if there is one.
    #[inline]
    pub(super) fn comma(&mut self) {
        if !self.is_first() {
            self.out.push(b',');
        }
    }

    pub(super) fn items<T: Encode>(&mut self, items: impl Iterator<Item = T>) {
        self.byte(b'[');
        for (position, item) in items.enumerate() {
            if position >= self.limits.list_items_max {
                self.shortened = true;
                break;
            }
            self.comma();
            self.part(Step::Position(position), &item);
        }
        self.byte(b']');
    }

    pub(super) fn number(&mut self, mut number: u64) {
        if let Ok(digit @ 0..10) = u8::try_from(number) {
            return self.byte(b'0' + digit);
        }
        // Two digits at a time from the end; 20 digits hold u64::MAX.
        let mut digits = [0_u8; 20];
        let mut start = digits.len();
        loop {
            let pair = PAIRS[usize::try_from(number % 100).unwrap_or(0)];
            number /= 100;
            start -= 2;
            digits[start..start + 2].copy_from_slice(&pair);
            if number == 0 {
                break;
            }
        }
        if digits[start] == b'0' && start + 1 < digits.len() {
            start += 1;
        }
        self.out.extend_from_slice(&digits[start..]);
    }

    pub(super) fn quoted_number(&mut self, number: u64) {
        self.byte(b'"');
        self.number(number);
        self.byte(b'"');
    }

    pub(super) fn base64(&mut self, bytes: &[u8]) {
        self.byte(b'"');
        let start = self.out.len();
        self.out.resize(start + bytes.len().div_ceil(3) * 4, 0);
        // The room was made to measure on the line above, so this cannot fail.
        if STANDARD.encode_slice(bytes, &mut self.out[start..]).is_err() {
            self.out.truncate(start);
        }
        self.byte(b'"');
    }

    pub(super) fn hex(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.byte(b'"');
        for byte in bytes {
            self.byte(DIGITS[usize::from(byte >> 4)]);
            self.byte(DIGITS[usize::from(byte & 15)]);
        }
        self.byte(b'"');
    }

    /// A string of the format's own vocabulary: needs no escape.
    pub(super) fn word(&mut self, word: &str) {
        self.byte(b'"');
        self.raw(word.as_bytes());
        self.byte(b'"');
    }

    /// Base64 of as many bytes as the limits allow.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let kept = bytes.get(..self.limits.text_bytes_max).unwrap_or(bytes);
        self.shortened |= kept.len() < bytes.len();
        self.base64(kept);
    }

    pub(super) fn text(&mut self, bytes: &[u8]) {
        let bytes = match bytes.get(..self.limits.text_bytes_max) {
            Some(prefix) if prefix.len() < bytes.len() => {
                self.shortened = true;
                whole_characters(bytes, prefix)
            }
            _ => bytes,
        };
        if bytes.iter().all(|byte| PLAIN[usize::from(*byte)]) {
            self.byte(b'"');
            self.raw(bytes);
            self.byte(b'"');
        } else if plain(bytes).is_some() {
            self.byte(b'"');
            for byte in bytes {
                if matches!(byte, b'"' | b'\\') {
                    self.byte(b'\\');
                }
                self.byte(*byte);
            }
            self.byte(b'"');
        } else {
            self.raw(b"{\"b64\":");
            self.base64(bytes);
            self.byte(b'}');
        }
    }
}

/// One step from a body to a value in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// To a member.
    Key(&'static str),
    /// To an item of a list, or a place of a row, counted from 0.
    Position(usize),
}

/// Of a shortened text that is UTF-8, the part that ends with a whole character, so that it stays text.
fn whole_characters<'a>(bytes: &'a [u8], prefix: &'a [u8]) -> &'a [u8] {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let mut end = prefix.len();
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            &bytes[..end]
        }
        Err(_) => prefix,
    }
}

/// Bytes that stand for themselves in a string.
pub(super) const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        table[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    table
};

/// "00" to "99".
const PAIRS: [[u8; 2]; 100] = {
    let mut table = [[b'0'; 2]; 100];
    let mut number = 0_u8;
    while number < 100 {
        table[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    table
};

/// A value with exactly one JSON form.
pub(super) trait Encode {
    /// Whether its member is left out of the object.
    #[inline]
    fn is_absent(&self) -> bool {
        false
    }

    fn encode(&self, out: &mut Writer<'_>);
}

impl<T: Encode> Encode for Option<T> {
    #[inline]
    fn is_absent(&self) -> bool {
        self.is_none()
    }

    fn encode(&self, out: &mut Writer<'_>) {
        if let Some(value) = self {
            value.encode(out);
        }
    }
}

impl<T: Encode> Encode for &T {
    fn encode(&self, out: &mut Writer<'_>) {
        (*self).encode(out);
    }
}

impl<T: Encode> Encode for List<'_, T> {
    fn encode(&self, out: &mut Writer<'_>) {
        out.items(self.iter());
    }
}

impl Encode for Text<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        out.text(self.as_bytes());
    }
}

impl Encode for Bytes<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        out.bytes(self.as_bytes());
    }
}

impl Encode for bool {
    fn encode(&self, out: &mut Writer<'_>) {
        out.raw(if *self { b"true" } else { b"false" });
    }
}

impl Encode for u16 {
    fn encode(&self, out: &mut Writer<'_>) {
        out.number(u64::from(*self));
    }
}

impl Encode for u32 {
    fn encode(&self, out: &mut Writer<'_>) {
        out.number(u64::from(*self));
    }
}

impl Encode for u64 {
    fn encode(&self, out: &mut Writer<'_>) {
        out.quoted_number(*self);
    }
}

impl Encode for Class {
    fn encode(&self, out: &mut Writer<'_>) {
        out.number(u64::from(self.number()));
    }
}

impl Encode for KernelNumber {
    fn encode(&self, out: &mut Writer<'_>) {
        out.byte(b'[');
        self.cpu.encode(out);
        out.byte(b',');
        self.class.encode(out);
        out.byte(b',');
        self.seq.encode(out);
        out.byte(b']');
    }
}

impl Encode for SocketAddr {
    fn encode(&self, out: &mut Writer<'_>) {
        out.byte(b'"');
        match self {
            Self::V4(address) => {
                for (position, octet) in address.ip().octets().into_iter().enumerate() {
                    if position > 0 {
                        out.byte(b'.');
                    }
                    out.number(u64::from(octet));
                }
            }
            // RFC 5952, IPv4-mapped addresses with a dotted end: what the standard library prints. Scope and
            // flow label are not part of the form. Writing to a vector does not fail.
            Self::V6(address) => drop(write!(out.out, "[{}]", address.ip())),
        }
        out.byte(b':');
        out.number(u64::from(self.port()));
        out.byte(b'"');
    }
}

/// Implements `Encode` for newtypes that share a form.
macro_rules! encode_as {
    ($form:ident: $($name:ident)*) => {$(
        impl Encode for $name {
            fn encode(&self, out: &mut Writer<'_>) {
                encode_as!(@$form out, self.0);
            }
        }
    )*};
    (@number $out:ident, $value:expr) => { $out.number($value) };
    (@quoted $out:ident, $value:expr) => { $out.quoted_number($value) };
    (@base64 $out:ident, $value:expr) => { $out.base64(&$value) };
    (@hex $out:ident, $value:expr) => { $out.hex(&$value) };
    (@hex_be $out:ident, $value:expr) => { $out.hex(&$value.to_be_bytes()) };
}

encode_as!(number: EntryIndex TreeSize SessionNumber ControlNumber EpochNumber);
encode_as!(quoted: WallTime BootTime Nanoseconds ProcessCookie CgroupId SocketCookie);
encode_as!(base64: LeafHash RootHash ChainHash PublicKey Signature);
encode_as!(hex: Digest Id128);
encode_as!(hex_be: Capabilities);
