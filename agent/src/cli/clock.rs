//! Wall times for people: UTC in RFC 3339, from and to nanoseconds since 1970.
//!
//! The wall clock is the host's claim; nothing here reads it but [`now_ns`].
#![forbid(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

const SECOND_NS: u64 = 1_000_000_000;
const DAY_S: u64 = 86_400;

/// The host's wall clock, in nanoseconds since 1970; 0 before that.
#[must_use]
pub fn now_ns() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a command that says `10 minutes ago` must know now")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// `2026-11-23 20:40:01.123` in UTC.
#[must_use]
pub fn show_utc(wall_ns: u64) -> String {
    let (date, time) = split(wall_ns);
    format!("{date} {time}")
}

/// `20:40:01.123` in UTC.
#[must_use]
pub fn show_time(wall_ns: u64) -> String {
    split(wall_ns).1
}

fn split(wall_ns: u64) -> (String, String) {
    let seconds = wall_ns / SECOND_NS;
    let (year, month, day) = civil(seconds / DAY_S);
    let of_day = seconds % DAY_S;
    let ms = wall_ns / 1_000_000 % 1000;
    (
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{:02}:{:02}:{:02}.{ms:03}", of_day / 3600, of_day / 60 % 60, of_day % 60),
    )
}

/// Gregorian date of a day number since 1970-01-01. The year is counted from March, so that the
/// leap day is its last: 153 days are five months from March on, 146,097 days are 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; the date must exist.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let shifted_year = if month <= 2 { year.checked_sub(1)? } else { year };
    let era = shifted_year / 400;
    let year_of_era = shifted_year % 400;
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era).checked_sub(719_468)
}

/// Reads `2026-11-23T20:40:01Z`, with `T` or a space, seconds and a fraction optional, and `Z`
/// optional: it is always UTC. None when it is no such time, or before 1970.
#[must_use]
pub fn parse_utc(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let number = |part: &str, digits: usize| -> Option<u64> {
        (part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4)?;
    let month = number(parts.next()?, 2)?;
    let day = number(parts.next()?, 2)?;
    if parts.next().is_some() || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let day_number = days(year, month, day)?;
    if civil(day_number) != (year, month, day) {
        return None;
    }
    let mut parts = time.splitn(3, ':');
    let hour = number(parts.next()?, 2)?;
    let minute = number(parts.next()?, 2)?;
    let (second, fraction) = parts.next().unwrap_or("00").split_once('.').unwrap_or((time_seconds(time), "0"));
    let second = number(second, 2)?;
    if hour > 23 || minute > 59 || second > 59 || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u64.pow(9 - u32::try_from(fraction.len()).ok()?);
    let nanoseconds = number(fraction, fraction.len())? * scale;
    let seconds = day_number * DAY_S + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(SECOND_NS)?.checked_add(nanoseconds)
}

/// The seconds of `hh:mm:ss` without a fraction, `00` when there are none.
fn time_seconds(time: &str) -> &str {
    time.splitn(3, ':').nth(2).unwrap_or("00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_as_they_are_shown() {
        for (ns, shown) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400_000_000_000, "2000-02-29 00:00:00.000"),
            (1_795_466_401_123_000_000, "2026-11-23 20:40:01.123"),
            (4_107_542_399_999_000_000, "2100-02-28 23:59:59.999"),
        ] {
            assert_eq!(show_utc(ns), shown);
            assert_eq!(parse_utc(shown), Some(ns), "{shown}");
        }
    }

    #[test]
    fn shorter_forms_are_read_and_impossible_times_are_not() {
        assert_eq!(parse_utc("1970-01-02"), Some(DAY_S * SECOND_NS));
        assert_eq!(parse_utc("1970-01-01T00:01Z"), Some(60 * SECOND_NS));
        assert_eq!(parse_utc("1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
        for text in
            ["", "2026", "2026-13-01", "2026-02-29", "2100-02-29", "2026-01-01T24:00", "1969-12-31", "2026-1-1", "10m"]
        {
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }
}
