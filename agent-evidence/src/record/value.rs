//! Values that may be withheld: clear text, or a commitment to it.
//!
//! What a record says of people's data (paths, arguments, prompts) can be written as a hash, with the text itself in a
//! sidecar beside the log. Erasing the sidecar's line then breaks no proof. Which members may be so is part of the schema;
//! which are is the agent's configuration.

use sha2::{Digest as _, Sha256};

use super::read::{Decode, DecodeError, Reader};
use super::text::Text;
use super::write::{Encode, Writer};

/// Binds a text, unseen, to an entry: `SHA-256("affiant/commitment/v1" || salt || f(field) || bytes)`, where f puts a
/// length of four bytes before. The salt keeps a short text from being found by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commitment(pub [u8; 32]);

impl Commitment {
    /// The commitment to `bytes` as the value of `field` (a path such as `open.path` or `exec.argv.1`) under `salt`.
    #[must_use]
    pub fn of(salt: &[u8; 16], field: &str, bytes: &[u8]) -> Self {
        // A field's path is made of keys and positions of the schema, far below 2^32 bytes.
        let len = u32::try_from(field.len()).unwrap_or(u32::MAX);
        let mut hash = Sha256::new();
        hash.update(b"affiant/commitment/v1");
        hash.update(salt);
        hash.update(len.to_be_bytes());
        hash.update(field.as_bytes());
        hash.update(bytes);
        Self(hash.finalize().into())
    }
}

/// A text, or the commitment to one. In an entry: as a text, or `{"c":"<base64 of 32 bytes>"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// The text itself.
    Clear(Text<'a>),
    /// Its commitment; the text is in the sidecar, unless it was erased.
    Committed(Commitment),
}

impl<'a> Value<'a> {
    /// The text, when it is in the entry.
    #[must_use]
    pub fn clear(&self) -> Option<&Text<'a>> {
        match self {
            Self::Clear(text) => Some(text),
            Self::Committed(_) => None,
        }
    }

    /// For people: the text as [`Text::display`] shows it, or that it is withheld.
    #[must_use]
    pub fn display(&self) -> String {
        match self {
            Self::Clear(text) => text.display(),
            Self::Committed(Commitment([a, b, c, d, ..])) => format!("(withheld {a:02x}{b:02x}{c:02x}{d:02x})"),
        }
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Clear(text) => Value::Clear(text.into_owned()),
            Self::Committed(commitment) => Value::Committed(commitment),
        }
    }

    /// A view that borrows from this one.
    #[must_use]
    pub fn borrow(&self) -> Value<'_> {
        match self {
            Self::Clear(text) => Value::Clear(text.borrow()),
            Self::Committed(commitment) => Value::Committed(*commitment),
        }
    }
}

impl<'a> From<Text<'a>> for Value<'a> {
    fn from(text: Text<'a>) -> Self {
        Self::Clear(text)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Clear(text.into())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Clear(bytes.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Clear(text.into())
    }
}

impl Encode for Value<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        out.value(self);
    }
}

impl<'a> Decode<'a> for Value<'a> {
    const FORM: &'static str = "value";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if bytes.skip(b"{\"c\":") {
            let commitment = Commitment(bytes.base64("base64 of 32 bytes")?);
            bytes.expect("}")?;
            bytes.count_commitment();
            return Ok(Self::Committed(commitment));
        }
        bytes.text().map(Self::Clear)
    }
}

/// A list of values: either parsed, or still the kernel's block of NUL-terminated strings, so that an argument vector is
/// written without an allocation per argument.
#[derive(Debug, Clone)]
pub enum ValueList<'a> {
    /// NUL-terminated strings one after the other, as `mm->arg_start` holds an argument vector. A last string without its
    /// NUL counts.
    Nul(&'a [u8]),
    /// The values themselves.
    Items(Vec<Value<'a>>),
}

impl ValueList<'_> {
    /// The values, in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'_>> {
        let (block, items) = match self {
            Self::Nul(block) => (*block, [].as_slice()),
            Self::Items(items) => ([].as_slice(), items.as_slice()),
        };
        let block = block.strip_suffix(&[0]).map_or((block, !block.is_empty()), |rest| (rest, true));
        block
            .0
            .split(|byte| *byte == 0)
            .take(if block.1 { usize::MAX } else { 0 })
            .map(|bytes| Value::Clear(Text::new(bytes)))
            .chain(items.iter().map(Value::borrow))
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> ValueList<'static> {
        ValueList::Items(self.iter().map(Value::into_owned).collect())
    }
}

impl PartialEq for ValueList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ValueList<'_> {}

impl Encode for ValueList<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        out.items(self.iter());
    }
}

impl<'a> Decode<'a> for ValueList<'a> {
    const FORM: &'static str = "list of value";

    fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
        bytes.items().map(ValueList::Items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_block_is_split_at_its_terminators() {
        let items =
            |block: &'static [u8]| ValueList::Nul(block).iter().map(|value| value.display()).collect::<Vec<_>>();
        assert_eq!(items(b""), Vec::<String>::new());
        assert_eq!(items(b"\0"), [""]);
        assert_eq!(items(b"ls\0-l\0"), ["ls", "-l"]);
        assert_eq!(items(b"ls\0-l"), ["ls", "-l"]);
        assert_eq!(items(b"ls\0\0"), ["ls", ""]);
    }

    #[test]
    fn a_commitment_depends_on_salt_field_and_bytes_and_cannot_be_shifted_between_them() {
        let one = Commitment::of(&[1; 16], "open.path", b"/etc/passwd");
        assert_ne!(one, Commitment::of(&[2; 16], "open.path", b"/etc/passwd"));
        assert_ne!(one, Commitment::of(&[1; 16], "exec.path", b"/etc/passwd"));
        assert_ne!(one, Commitment::of(&[1; 16], "open.pat", b"h/etc/passwd"));
        // sha256sum of the same bytes: printf 'affiant/commitment/v1'; 16 x 0x01; 00000009; open.path/etc/passwd
        let mut preimage = b"affiant/commitment/v1".to_vec();
        preimage.extend([1; 16]);
        preimage.extend(*b"\0\0\0\x09open.path/etc/passwd");
        assert_eq!(one.0, <[u8; 32]>::from(Sha256::digest(&preimage)));
    }
}
