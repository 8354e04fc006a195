//! Entries of a log as `affiant tail -o json` prints them: the stored bytes, one entry per line.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The stored bytes.
    pub line: String,
    value: Value,
}

/// A recorded loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// How many events.
    pub count: u64,
    /// Class number per range: 0 process, 1 cgroup, 2 network, 3 file.
    pub classes: Vec<u64>,
    /// How many were of which scope, by the id of its cgroup.
    pub shares: Vec<(u64, u64)>,
}

impl Entry {
    /// Reads one line.
    pub fn parse(line: &str) -> Result<Self> {
        let value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        Ok(Self { line: line.to_owned(), value })
    }

    /// The entry's index.
    pub fn index(&self) -> Result<u64> {
        number(&self.value, "i").with_context(|| format!("no index: {}", self.line))
    }

    /// What the entry is.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.value.get("kind").and_then(Value::as_str).unwrap_or_default()
    }

    /// When it was written, in nanoseconds since boot.
    #[must_use]
    pub fn boot(&self) -> Option<u64> {
        self.value.get("boot")?.as_str()?.parse().ok()
    }

    /// Index of the `issued` entry of the session it belongs to.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        number(&self.value, "s")
    }

    /// Kernel number: processor, class, number.
    #[must_use]
    pub fn kernel(&self) -> Option<(u64, u64, u64)> {
        let parts = self.value.get("q")?.as_array()?;
        Some((as_number(parts.first()?)?, as_number(parts.get(1)?)?, as_number(parts.get(2)?)?))
    }

    /// The process cookie.
    #[must_use]
    pub fn process(&self) -> Option<&str> {
        self.value.get("p").and_then(Value::as_str)
    }

    /// A member of the body.
    #[must_use]
    pub fn body(&self, key: &str) -> Option<&Value> {
        self.value.get("body")?.get(key)
    }

    /// A number in the body, written as a number or as a decimal string.
    #[must_use]
    pub fn body_number(&self, key: &str) -> Option<u64> {
        number(self.value.get("body")?, key)
    }

    /// A text in the body.
    #[must_use]
    pub fn body_text(&self, key: &str) -> Option<&str> {
        self.body(key)?.as_str()
    }

    /// A text among the claims in the body.
    #[must_use]
    pub fn claim(&self, key: &str) -> Option<&str> {
        self.body("claims")?.get(key)?.as_str()
    }

    /// How an act was observed.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        self.body("marks").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Kernel numbers that a `gap` accounts for: processor, class, first, last.
    #[must_use]
    pub fn gap_ranges(&self) -> Vec<(u64, u64, u64, u64)> {
        if self.kind() == "gap" { self.ranges() } else { Vec::new() }
    }

    /// Kernel numbers of the opens that a `file_folded` counts, likewise.
    #[must_use]
    pub fn folded_ranges(&self) -> Vec<(u64, u64, u64, u64)> {
        if self.kind() == "file_folded" { self.ranges() } else { Vec::new() }
    }

    fn ranges(&self) -> Vec<(u64, u64, u64, u64)> {
        let ranges = self.body("ranges").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        ranges
            .iter()
            .filter_map(|range| {
                let part = |place: usize| as_number(range.get(place)?);
                Some((part(0)?, part(1)?, part(2)?, part(3)?))
            })
            .collect()
    }

    fn gap_shares(&self) -> Vec<(u64, u64)> {
        let shares = self.body("shares").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        shares.iter().filter_map(|share| Some((as_number(share.get(0)?)?, as_number(share.get(1)?)?))).collect()
    }

    /// The loss it records, when it is a `gap`.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        if self.kind() != "gap" {
            return None;
        }
        let classes = self.gap_ranges().into_iter().map(|(_, class, _, _)| class).collect();
        Some(Gap { count: self.body_number("count").unwrap_or_default(), classes, shares: self.gap_shares() })
    }
}

/// Reads the output of `affiant tail -o json`.
pub fn entries_from_lines(text: &str) -> Result<Vec<Entry>> {
    text.lines().map(Entry::parse).collect()
}

fn number(object: &Value, key: &str) -> Option<u64> {
    as_number(object.get(key)?)
}

fn as_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_an_entry_are_found() {
        let entry = Entry::parse(
            r#"{"v":1,"i":7,"kind":"gap","q":[1,3,"42"],"body":{"count":"3","ranges":[[0,3,"9","11"]],"shares":[["99","2"]]}}"#,
        )
        .unwrap();
        assert_eq!(entry.index().unwrap(), 7);
        assert_eq!(entry.kernel(), Some((1, 3, 42)));
        assert_eq!(entry.gap_ranges(), [(0, 3, 9, 11)]);
        assert_eq!(entry.gap(), Some(Gap { count: 3, classes: vec![3], shares: vec![(99, 2)] }));
    }

    #[test]
    fn a_line_that_is_not_json_is_an_error() {
        assert!(entries_from_lines("{\"i\":0}\ngarbage\n").is_err());
    }
}
