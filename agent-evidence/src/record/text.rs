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

/// A list of byte strings: either parsed, or still the kernel's block of NUL-terminated strings, so that an
/// argument vector is written without an allocation per argument.
#[derive(Debug, Clone)]
pub enum TextList<'a> {
    /// NUL-terminated strings one after the other, as `mm->arg_start` holds an argument vector. A last string
    /// without its NUL counts.
    Nul(&'a [u8]),
    /// The strings themselves.
    Items(Vec<Text<'a>>),
}

impl<'a> TextList<'a> {
    /// The strings, in order.
    pub fn iter(&self) -> impl Iterator<Item = Text<'_>> {
        let (block, items) = match self {
            Self::Nul(block) => (*block, [].as_slice()),
            Self::Items(items) => ([].as_slice(), items.as_slice()),
        };
        let block = block.strip_suffix(&[0]).map_or((block, !block.is_empty()), |rest| (rest, true));
        block
            .0
            .split(|byte| *byte == 0)
            .take(if block.1 { usize::MAX } else { 0 })
            .map(Text::new)
            .chain(items.iter().map(Text::borrow))
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> TextList<'static> {
        TextList::Items(self.iter().map(Text::into_owned).collect())
    }
}

impl PartialEq for TextList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for TextList<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_block_is_split_at_its_terminators() {
        let items = |block: &'static [u8]| TextList::Nul(block).iter().map(|text| text.display()).collect::<Vec<_>>();
        assert_eq!(items(b""), Vec::<String>::new());
        assert_eq!(items(b"\0"), [""]);
        assert_eq!(items(b"ls\0-l\0"), ["ls", "-l"]);
        assert_eq!(items(b"ls\0-l"), ["ls", "-l"]);
        assert_eq!(items(b"ls\0\0"), ["ls", ""]);
    }

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
