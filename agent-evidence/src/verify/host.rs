//! What a report says of the host: boot after boot what was quoted, measured, or only said, and what that proves.
//!
//! Owns the words. What is measured is told from what the agent says of itself; nothing is printed that no register confirms
//! without saying so.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Value, json};

use crate::attest::pcr::RegisterPolicy;
use crate::record::{EntryIndex, SecureBoot, shown};

use super::report::Outcome;

/// Most boots that are listed; all are judged.
pub(super) const BOOTS_MAX: usize = 1_000;

/// What the agent says of a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Kernel release.
    pub kernel: String,
    /// Lockdown mode.
    pub lockdown: String,
    /// Secure Boot.
    pub secure_boot: SecureBoot,
}

/// What became of one log of one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// Nothing was quoted that it could be compared with.
    NotJudged,
    /// The log of evidence has none, or its content is not there.
    NotSupplied,
    /// It says nothing of the registers that were quoted; why.
    Unusable(String),
    /// It does not give what was quoted, or is none.
    Wrong,
    /// It gives what was quoted. How many events or entries it has.
    Replayed(u64),
}

impl LogState {
    /// Its name for machines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotJudged => "not_judged",
            Self::NotSupplied => "not_supplied",
            Self::Unusable(_) => "unusable",
            Self::Wrong => "wrong",
            Self::Replayed(_) => "replayed",
        }
    }
}

/// What is known of one boot of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootReport {
    /// The kernel's boot id, as the agent says.
    pub id: String,
    /// The first entry of it.
    pub from: EntryIndex,
    /// Quotes of registers.
    pub quotes: u64,
    /// The firmware's event log.
    pub event_log: LogState,
    /// The kernel's measurement list.
    pub ima: LogState,
    /// How many of its entries report that a file changed while it was measured.
    pub violations: u64,
    /// How many values of the kernel's register no list explains, though none contradicts them: the list is not that long.
    pub ima_ahead: u64,
    /// Registers that the logs explain, in every quote.
    pub explained: Vec<u32>,
    /// Registers that were quoted and that no log explains.
    pub unexplained: Vec<u32>,
    /// Whether the firmware verified what it booted, as it measured into a register that was quoted.
    pub secure_boot: Option<bool>,
    /// What the agent says.
    pub said: Option<Said>,
}

/// What is known of the host, boot after boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState {
    /// The boots in the log, the first 1,000.
    pub boots: Vec<BootReport>,
    /// How many there were.
    pub boots_total: u64,
    /// Quotes of registers in all.
    pub quotes: u64,
    /// Quoted boots of which no event log gives the registers.
    pub without_event_log: u64,
    /// Boots in which the agent ran and nothing was quoted.
    pub never_quoted: u64,
    /// Every register that was quoted.
    pub quoted: BTreeSet<u32>,
    /// Those of them that some boot's logs do not explain.
    pub unexplained: BTreeSet<u32>,
    /// The first quote that does not hold every register that the policy names, and such a register.
    pub not_quoted: Option<(EntryIndex, u32)>,
    /// Whether there was more than is followed.
    pub overflowed: bool,
}

impl HostState {
    /// What becomes of the claim, if nothing speaks against it. `vouched`: who vouches for the keys that quoted, if the trust
    /// file names them.
    pub(super) fn outcome(&self, policy: &[RegisterPolicy], vouched: Option<&str>) -> Outcome {
        let not_proved = Outcome::NotProved;
        if self.quotes == 0 {
            return not_proved("the log carries no attestation of what the host had booted".to_owned());
        }
        if self.overflowed {
            return not_proved("the log has more quotes and logs of what was measured than are followed".to_owned());
        }
        let measured = self.measured();
        let Some(vouched) = vouched else {
            return not_proved(format!(
                "the trust file does not name the attestation key that quoted: any program can sign what looks like a quote; {measured}"
            ));
        };
        if policy.is_empty() {
            return not_proved(format!(
                "the trust file has no PCR policy (`pcr`): what was booted is measured, and nobody says whether it is right; {measured}"
            ));
        }
        if let Some((index, register)) = self.not_quoted {
            return not_proved(format!(
                "entry {} does not quote register {register}, for which the trust file has a PCR policy",
                index.0
            ));
        }
        if self.never_quoted > 0 {
            return not_proved(format!("of {} boots in which the agent ran nothing was quoted", self.never_quoted));
        }
        if self.without_event_log > 0 {
            return not_proved(format!(
                "of {} boots there is no event log that gives what was quoted; {measured}",
                self.without_event_log
            ));
        }
        let named = ranges(policy.iter().map(|register| register.index));
        Outcome::Proved(format!(
            "every quote has values in registers {named} that the trust file allows; {measured}; who vouches for the key that quoted: {vouched}"
        ))
    }

    /// What the logs explain, in words.
    fn measured(&self) -> String {
        let explained = ranges(self.quoted.difference(&self.unexplained).copied());
        let mut text = format!("{} quotes in {} boots", self.quotes, self.boots_total);
        if !explained.is_empty() {
            text.push_str(&format!("; the logs of what was measured explain registers {explained}"));
        }
        if !self.unexplained.is_empty() {
            text.push_str(&format!("; no log explains registers {}", ranges(self.unexplained.iter().copied())));
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "quotes": self.quotes,
            "boots": self.boots.iter().map(BootReport::json).collect::<Vec<_>>(),
            "boots_total": self.boots_total,
        })
    }
}

impl BootReport {
    fn json(&self) -> Value {
        let said = self.said.as_ref();
        json!({
            "boot_id": self.id,
            "from": self.from.0,
            "quotes": self.quotes,
            "event_log": self.event_log.json("events"),
            "ima": self.ima.json("entries"),
            "ima_violations": self.violations,
            "explained": self.explained,
            "unexplained": self.unexplained,
            "secure_boot": {
                "measured": self.secure_boot.map(word),
                "reported": said.map(|said| said.secure_boot.as_str()),
            },
            "kernel": {"reported": said.map(|said| &said.kernel)},
            "lockdown": {"reported": said.map(|said| &said.lockdown)},
        })
    }
}

fn word(on: bool) -> &'static str {
    if on { SecureBoot::On.as_str() } else { SecureBoot::Off.as_str() }
}

impl LogState {
    fn json(&self, count: &str) -> Value {
        let (mut number, mut reason) = (None, None);
        match self {
            Self::Replayed(events) => number = Some(events),
            Self::Unusable(why) => reason = Some(why),
            Self::NotJudged | Self::NotSupplied | Self::Wrong => {}
        }
        json!({"state": self.name(), count: number, "reason": reason})
    }

    fn text(&self, unit: &str) -> String {
        match self {
            Self::NotJudged => "not judged".to_owned(),
            Self::NotSupplied => "not supplied".to_owned(),
            Self::Unusable(why) => format!("not usable, because {why}"),
            Self::Wrong => "WRONG: see the findings".to_owned(),
            Self::Replayed(count) => format!("{count} {unit}"),
        }
    }
}

impl fmt::Display for BootReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "from entry {}, boot {}: ", self.from.0, shown(&self.id))?;
        if self.quotes == 0 {
            write!(out, "nothing was quoted")?;
        } else {
            write!(
                out,
                "{} quotes; event log: {}; measurement list: {}",
                self.quotes,
                self.event_log.text("events"),
                self.ima.text("entries")
            )?;
            if self.violations > 0 {
                write!(out, ", {} of them violations", self.violations)?;
            }
            if self.ima_ahead > 0 {
                write!(out, ", {} quoted values are of a longer one", self.ima_ahead)?;
            }
            let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
            write!(
                out,
                "; registers explained by these: {}, by none: {}",
                or_none(ranges(self.explained.iter().copied())),
                or_none(ranges(self.unexplained.iter().copied()))
            )?;
        }
        let Some(Said { kernel, lockdown, secure_boot }) = &self.said else { return Ok(()) };
        match self.secure_boot {
            Some(on) => write!(out, "; Secure Boot {} (measured by the firmware)", word(on))?,
            None => write!(out, "; Secure Boot {} (reported by the agent)", secure_boot.as_str())?,
        }
        write!(out, "; kernel {}, lockdown {} (reported by the agent)", shown(kernel), shown(lockdown))
    }
}

/// Numbers in ascending order, those in a row joined: `0-7, 9`.
fn ranges(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut rows: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match rows.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => rows.push((number, number)),
        }
    }
    let row = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    rows.iter().map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_numbers_are_joined() {
        assert_eq!(ranges([0, 1, 2, 7, 9, 10]), "0-2, 7, 9-10");
        assert_eq!(ranges([]), "");
        assert_eq!(ranges([u32::MAX]), u32::MAX.to_string());
    }
}
