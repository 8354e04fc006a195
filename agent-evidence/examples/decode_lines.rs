//! Says of each line of standard input, an entry in hexadecimal, whether it decodes: `ok`, or `err` and why.
//!
//! The differential test in `tests/fuzz/differential.py` compares these answers with those of `tests/verify.py`.

#![forbid(unsafe_code)]

use std::io::{BufRead as _, Write as _};

use agent_evidence::record::decode_with;

fn main() -> std::io::Result<()> {
    let mut input = std::io::stdin().lock();
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut line, mut scratch) = (String::new(), Vec::new());
    while input.read_line(&mut line)? > 0 {
        match bytes(line.trim_end()) {
            None => writeln!(output, "not hexadecimal")?,
            Some(entry) => match decode_with(&entry, &mut scratch) {
                Ok(_) => writeln!(output, "ok")?,
                Err(error) => writeln!(output, "err {}", error.to_string().escape_debug())?,
            },
        }
        line.clear();
    }
    output.flush()
}

/// The bytes that pairs of hexadecimal digits name.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        digits.chars().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok())).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
