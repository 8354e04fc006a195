//! What the commands print, and how: facts on standard output, our own words on standard error.
//!
//! Everything that came from a workload passes [`printable`] before it reaches a terminal, since a
//! path or an argument may hold escape sequences or characters that turn the line around.
#![forbid(unsafe_code)]

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::cli::exit::Exit;

/// Where lines go: standard output, or a buffer in tests.
pub trait Lines {
    /// Prints one line.
    ///
    /// # Errors
    /// When it cannot be written; a reader that went away ends the command quietly.
    fn line(&mut self, line: &str) -> Result<(), Exit>;
}

impl Lines for Output {
    fn line(&mut self, line: &str) -> Result<(), Exit> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }
}

impl Lines for Vec<u8> {
    fn line(&mut self, line: &str) -> Result<(), Exit> {
        self.extend_from_slice(line.as_bytes());
        self.push(b'\n');
        Ok(())
    }
}

/// Standard output: locked once, buffered, flushed by [`Output::flush`].
#[derive(Debug)]
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Locks standard output.
    #[must_use]
    pub fn open() -> Self {
        Self { out: BufWriter::new(io::stdout().lock()) }
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// As [`Lines::line`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Exit> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Prints a value as JSON, indented.
    ///
    /// # Errors
    /// As [`Lines::line`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Exit> {
        serde_json::to_writer_pretty(&mut self.out, value).map_err(io::Error::from)?;
        self.bytes(b"\n")
    }

    /// Makes what was printed so far visible.
    ///
    /// # Errors
    /// As [`Lines::line`].
    pub fn flush(&mut self) -> Result<(), Exit> {
        Ok(self.out.flush()?)
    }
}

/// Prints our own words: `affiant: message` on standard error. A closed standard error is no
/// reason to fail.
pub fn complain(message: &str) {
    let mut error = io::stderr().lock();
    let _unheard = writeln!(error, "affiant: {message}");
}

/// The text with every character that could act on a terminal, or reorder what is read, escaped.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if acts_on_a_terminal(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The bytes as text: UTF-8 as [`printable`], every other byte as `\xNN`.
#[must_use]
pub fn printable_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&printable(chunk.valid()));
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// Control characters; the bidirectional controls and marks, the invisible and the line-breaking
/// characters of Unicode (UAX #9, general categories Cf, Zl and Zp as far as they hide or reorder).
fn acts_on_a_terminal(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// One word as a shell would read it back: quoted where it must be, `$'..'` where it has
/// characters that would act on a terminal.
#[must_use]
pub fn shell_word(bytes: &[u8]) -> String {
    let shown = printable_bytes(bytes);
    let escaped = shown.as_bytes() != bytes;
    if escaped {
        // Inside $'..' a backslash escapes: those that were there before must be doubled, so the
        // text is rebuilt rather than quoted.
        return format!("$'{}'", ansi_c(bytes));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte) || byte >= 0x80;
    if !shown.is_empty() && shown.bytes().all(plain) {
        return shown;
    }
    format!("'{}'", shown.replace('\'', "'\\''"))
}

fn ansi_c(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => shown.push_str("\\\\"),
                '\'' => shown.push_str("\\'"),
                '\n' => shown.push_str("\\n"),
                '\t' => shown.push_str("\\t"),
                _ if character.is_ascii_control() => shown.push_str(&format!("\\x{:02x}", u32::from(character))),
                _ if acts_on_a_terminal(character) => shown.push_str(&format!("\\U{:08x}", u32::from(character))),
                _ => shown.push(character),
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_reordering_marks_are_shown_as_text() {
        assert_eq!(printable("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(printable("safe\u{202e}fdp.exe"), "safe\\u{202e}fdp.exe");
        assert_eq!(printable("Grüße 文"), "Grüße 文");
        assert_eq!(printable_bytes(b"\xffa\x9b"), "\\xffa\\x9b");
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!(shell_word(b"-c"), "-c");
        assert_eq!(shell_word(b""), "''");
        assert_eq!(shell_word(b"a b"), "'a b'");
        assert_eq!(shell_word(b"it's"), "'it'\\''s'");
        assert_eq!(shell_word(b"a\nb"), "$'a\\nb'");
        assert_eq!(shell_word(b"\x1b\\"), "$'\\x1b\\\\'");
        assert_eq!(shell_word(b"\xff"), "$'\\xff'");
    }
}
