//! Byte strings that came from outside: paths, arguments, names.
//!
//! The kernel hands over bytes, not Unicode. They are kept as bytes and shown as text only where every reader
//! of the entry would see the same characters.

use std::borrow::Cow;
use std::fmt;

/// A byte string, borrowed while a record is written or read, owned where it must outlive its source.
///
/// In an entry it is a JSON string when it is UTF-8 without control characters (U+0000 to U+001F and U+007F
/// to U+009F), and `{"b64":"..."}` otherwise. One byte string has exactly one form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<'a>(Cow<'a, [u8]>);

impl<'a> Text<'a> {
    /// A view of these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }

    /// Takes the bytes over.
    #[must_use]
    pub const fn owned(bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, when it has the plain form.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        plain(&self.0)
    }

    /// For people: the text as [`shown`] shows it, with what is not UTF-8 as U+FFFD. Not reversible.
    #[must_use]
    pub fn display(&self) -> String {
        shown(&String::from_utf8_lossy(&self.0))
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }

    /// A view that borrows from this one.
    #[must_use]
    pub fn borrow(&self) -> Text<'_> {
        Text(Cow::Borrowed(&self.0))
    }
}

/// Untrusted text as people may be shown it: characters that move the cursor, change the direction of writing or
/// cannot be seen are written as `\u{..}`, so that a name cannot rearrange the line it stands in.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_unseen(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Line and paragraph separators, and the format characters (category Cf) that reorder or hide text.
fn is_unseen(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The bytes as text when they have the plain form: UTF-8 without control characters.
pub(super) fn plain(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    // `char::is_control` is Unicode's category Cc, exactly the two ranges the format names.
    (!text.chars().any(char::is_control)).then_some(text)
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Text<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::new(bytes)
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::owned(text.into_bytes())
    }
}

impl From<Vec<u8>> for Text<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::owned(bytes)
    }
}

/// Bytes of a structure that another document specifies, such as a TPM attestation. Always base64 in an entry.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes<'a>(Cow<'a, [u8]>);

impl<'a> Bytes<'a> {
    /// A view of these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }

    /// Takes the bytes over.
    #[must_use]
    pub const fn owned(bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Bytes<'static> {
        Bytes(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_are_shown_cannot_rearrange_the_line() {
        assert_eq!(shown("größer\u{202e}x\u{1b}[2J\u{feff}"), "größer\\u{202e}x\\u{1b}[2J\\u{feff}");
        assert_eq!(Text::new(b"a\xff\n").display(), "a\u{fffd}\\u{a}");
    }

    #[test]
    fn control_characters_of_both_ranges_are_not_plain() {
        assert_eq!(plain("ü/€".as_bytes()), Some("ü/€"));
        for bytes in ["\n", "\u{7f}", "\u{80}", "\u{9f}", "\0"] {
            assert_eq!(plain(bytes.as_bytes()), None);
        }
        assert_eq!(plain("\u{a0}".as_bytes()), Some("\u{a0}"));
        assert_eq!(plain(b"\xff"), None);
        assert_eq!(plain(b"\xed\xa0\x80"), None, "an encoded surrogate is not UTF-8");
    }
}
