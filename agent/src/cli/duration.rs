//! Lengths of time as people type them: `90s`, `30m`, `1h30m`, `2d`.
#![forbid(unsafe_code)]

/// Parses a length of time into nanoseconds.
///
/// # Errors
/// A sentence that says what was seen and what is expected.
pub fn parse_ns(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a length of time; expected for example 90s, 30m, 1h30m or 2d");
    let mut rest = text;
    let mut total_ns: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits).ok_or_else(wrong)?;
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at_checked(letters).ok_or_else(wrong)?;
        let unit_ns: u64 = match unit {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_not_a_number| wrong())?;
        total_ns = number.checked_mul(unit_ns).and_then(|ns| total_ns.checked_add(ns)).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total_ns)
}

/// Shows nanoseconds for people, in the two largest units that are not zero.
#[must_use]
pub fn show_ns(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) if s < 10 => format!("{s}.{:03}s", ns / 1_000_000 % 1000),
        (0, 0, 0) => format!("{s}s"),
        (0, 0, m) => format!("{m}m{s:02}s"),
        (0, h, m) => format!("{h}h{m:02}m"),
        (d, h, _) => format!("{d}d{h:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2d", 172_800), ("1d1s", 86_401)] {
            assert_eq!(parse_ns(text), Ok(seconds * 1_000_000_000), "{text}");
        }
        assert_eq!(parse_ns("250ms"), Ok(250_000_000));
    }

    #[test]
    fn what_is_not_a_length_of_time_is_refused() {
        for text in ["", "1", "h", "1w", "-1s", "1 h", "99999999999999999999s", "999999999999d", "1h30", "é"] {
            assert!(parse_ns(text).unwrap_err().contains("expected for example"), "{text}");
        }
    }

    #[test]
    fn people_read_two_units() {
        assert_eq!(show_ns(1_234_000_000), "1.234s");
        assert_eq!(show_ns(75_000_000_000), "1m15s");
        assert_eq!(show_ns(3_700_000_000_000), "1h01m");
        assert_eq!(show_ns(90_000_000_000_000), "1d01h");
    }
}
