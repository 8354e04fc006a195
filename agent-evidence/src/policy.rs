//! Trust policies (C2SP tlog-policy): which logs and witnesses are known, and which witnesses together are enough.
//!
//! Read strictly and evaluated from the first definition to the last: a definition can only name earlier ones, so
//! nothing here is recursive. Pure. A policy is trusted: it is what a verifier is told, never what it verifies.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::cosignature::{CosignatureError, VKEY_BYTES_MAX, WitnessKey};
use crate::note::{NoteError, VerifierKey};

/// Largest policy that is read, in bytes: all that it may define, with addresses and comments.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;
/// Most logs, and most witnesses, and most groups. C2SP asks for at least 32 of each.
pub const DEFINITIONS_MAX: usize = 64;
/// Longest name or address, in bytes.
pub const WORD_BYTES_MAX: usize = VKEY_BYTES_MAX;

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Larger than is read.
    #[error("the policy has {seen} bytes, at most {POLICY_BYTES_MAX} are read")]
    TooLarge {
        /// Bytes seen.
        seen: usize,
    },
    /// A byte that a policy must not have.
    #[error("line {line} of the policy has the control character {byte:#04x}; only tab and line feed may stand there")]
    Control {
        /// Which line, from 1.
        line: usize,
        /// The byte.
        byte: u8,
    },
    /// A line that says nothing known, or says it with too few or too many words.
    #[error("line {line} of the policy is not {expected}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What would be understood.
        expected: &'static str,
    },
    /// A log's key that is none.
    #[error("line {line} of the policy names no log key")]
    LogKey {
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: NoteError,
    },
    /// A witness's key that is none.
    #[error("line {line} of the policy names no witness's key")]
    WitnessKey {
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: CosignatureError,
    },
    /// A key that an earlier line named.
    #[error("line {line} of the policy repeats a key: one party would count twice")]
    KeyRepeated {
        /// Which line, from 1.
        line: usize,
    },
    /// A name that an earlier line defined, or `none`.
    #[error("line {line} of the policy defines {name:?}, which is defined already")]
    NameTaken {
        /// Which line, from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// A name that no earlier line defined.
    #[error("line {line} of the policy names {name:?}, which no earlier line defines")]
    NameUnknown {
        /// Which line, from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// A member of two groups, or of one twice.
    #[error("line {line} of the policy makes {name:?} a member a second time: it would count twice")]
    MemberRepeated {
        /// Which line, from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// A threshold that no number of members reaches, or that none is needed for.
    #[error("line {line} of the policy needs {threshold} of {members} members; expected 1 to {members}")]
    Threshold {
        /// Which line, from 1.
        line: usize,
        /// The number asked for.
        threshold: u64,
        /// Members named.
        members: usize,
    },
    /// More definitions than are kept.
    #[error("line {line} of the policy is one definition of its sort too many: at most {DEFINITIONS_MAX}")]
    TooMany {
        /// Which line, from 1.
        line: usize,
    },
    /// Two quorums.
    #[error("line {line} of the policy is a second `quorum`")]
    QuorumRepeated {
        /// Which line, from 1.
        line: usize,
    },
    /// No quorum.
    #[error("the policy has no line `quorum NAME` (or `quorum none`)")]
    QuorumMissing,
}

/// A log that the policy knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key; named as the origin.
    pub key: VerifierKey,
    /// Where it is, in words of the application.
    pub url: Option<String>,
}

/// A witness that the policy knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyWitness {
    /// Its name within the policy; not the name of its key.
    pub name: String,
    /// Its key.
    pub key: WitnessKey,
    /// Its submission prefix.
    pub url: Option<String>,
}

/// A witness or a group, by its place in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    threshold: usize,
    members: Vec<Member>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    /// `None`: no cosignature is needed.
    quorum: Option<Member>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`] with the number of the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLarge { seen: bytes.len() });
        }
        let mut reading = Reading::default();
        // Each line is ended; a last one that is not would be a file that was cut off.
        let (lines, cut) = match bytes.strip_suffix(b"\n") {
            Some(lines) => (lines, false),
            None => (bytes, !bytes.is_empty()),
        };
        let mut number = 0;
        for line in lines.split(|byte| *byte == b'\n') {
            number += 1;
            if let Some(byte) = line.iter().copied().find(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
                return Err(PolicyError::Control { line: number, byte });
            }
            reading.line(number, line)?;
        }
        if cut {
            return Err(PolicyError::Line { line: number, expected: "ended by a line feed" });
        }
        let quorum = reading.quorum.ok_or(PolicyError::QuorumMissing)?;
        Ok(Self { logs: reading.logs, witnesses: reading.witnesses, groups: reading.groups, quorum })
    }

    /// The logs.
    #[must_use]
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// The witnesses.
    #[must_use]
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// Whether any cosignature is needed at all: not with `quorum none`.
    #[must_use]
    pub fn needs_witnesses(&self) -> bool {
        self.quorum.is_some()
    }

    /// Whether the witnesses for which `cosigned` answers true, by their place in [`Policy::witnesses`], are a quorum.
    /// Always with `quorum none`.
    #[must_use]
    pub fn is_met(&self, mut cosigned: impl FnMut(usize) -> bool) -> bool {
        let witnesses: Vec<bool> = (0..self.witnesses.len()).map(&mut cosigned).collect();
        let mut groups: Vec<bool> = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let holds = |member: &&Member| match member {
                Member::Witness(at) => witnesses.get(*at).copied().unwrap_or(false),
                // Only groups before this one can be members of it.
                Member::Group(at) => groups.get(*at).copied().unwrap_or(false),
            };
            let met = group.members.iter().filter(holds).count() >= group.threshold;
            groups.push(met);
        }
        match self.quorum {
            None => true,
            Some(Member::Witness(at)) => witnesses.get(at).copied().unwrap_or(false),
            Some(Member::Group(at)) => groups.get(at).copied().unwrap_or(false),
        }
    }
}

/// What was read so far. Names are bytes: the specification compares them as such.
#[derive(Default)]
struct Reading {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    /// Outer: whether there was such a line.
    quorum: Option<Option<Member>>,
    /// Every name, and whether it is a member of a group already.
    names: HashMap<Vec<u8>, (Member, bool)>,
}

impl Reading {
    fn line(&mut self, number: usize, line: &[u8]) -> Result<(), PolicyError> {
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        let Some(what) = words.next().filter(|word| !word.starts_with(b"#")) else {
            return Ok(());
        };
        let words: Vec<&[u8]> = words.collect();
        match what {
            b"log" => self.log(number, &words),
            b"witness" => self.witness(number, &words),
            b"group" => self.group(number, &words),
            b"quorum" => self.quorum(number, &words),
            _ => Err(PolicyError::Line { line: number, expected: "`log`, `witness`, `group`, `quorum` or a comment" }),
        }
    }

    fn log(&mut self, line: usize, words: &[&[u8]]) -> Result<(), PolicyError> {
        let expected = "`log VKEY [URL]`";
        let (key, url) = match words {
            [key] => (key, None),
            [key, url] => (key, Some(shown(url))),
            _ => return Err(PolicyError::Line { line, expected }),
        };
        let key = std::str::from_utf8(key).map_err(|_not_text| PolicyError::Line { line, expected })?;
        let key = VerifierKey::parse(key).map_err(|source| PolicyError::LogKey { line, source })?;
        if self.logs.iter().any(|log| log.key.key() == key.key()) {
            return Err(PolicyError::KeyRepeated { line });
        }
        if self.logs.len() == DEFINITIONS_MAX {
            return Err(PolicyError::TooMany { line });
        }
        self.logs.push(PolicyLog { key, url });
        Ok(())
    }

    fn witness(&mut self, line: usize, words: &[&[u8]]) -> Result<(), PolicyError> {
        let expected = "`witness NAME VKEY [URL]`";
        let (name, key, url) = match words {
            [name, key] => (name, key, None),
            [name, key, url] => (name, key, Some(shown(url))),
            _ => return Err(PolicyError::Line { line, expected }),
        };
        let key = std::str::from_utf8(key).map_err(|_not_text| PolicyError::Line { line, expected })?;
        let key = WitnessKey::parse(key).map_err(|source| PolicyError::WitnessKey { line, source })?;
        if self.witnesses.iter().any(|witness| witness.key.key_bytes() == key.key_bytes()) {
            return Err(PolicyError::KeyRepeated { line });
        }
        if self.witnesses.len() == DEFINITIONS_MAX {
            return Err(PolicyError::TooMany { line });
        }
        self.define(line, name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(PolicyWitness { name: shown(name), key, url });
        Ok(())
    }

    fn group(&mut self, line: usize, words: &[&[u8]]) -> Result<(), PolicyError> {
        let expected = "`group NAME all|any|NUMBER MEMBER...`";
        let [name, threshold, members @ ..] = words else {
            return Err(PolicyError::Line { line, expected });
        };
        let count = members.len();
        let threshold = match *threshold {
            b"all" => u64::try_from(count).unwrap_or(u64::MAX),
            b"any" => 1,
            number => crate::proof::decimal(number).ok_or(PolicyError::Line { line, expected })?,
        };
        let wrong = PolicyError::Threshold { line, threshold, members: count };
        let threshold = usize::try_from(threshold).ok().filter(|k| (1..=count).contains(k)).ok_or(wrong)?;
        if self.groups.len() == DEFINITIONS_MAX {
            return Err(PolicyError::TooMany { line });
        }
        let mut resolved = Vec::with_capacity(count);
        for member in members {
            let known = self.names.get_mut(*member);
            let (member_is, used) = known.ok_or_else(|| PolicyError::NameUnknown { line, name: shown(member) })?;
            if std::mem::replace(used, true) {
                return Err(PolicyError::MemberRepeated { line, name: shown(member) });
            }
            resolved.push(*member_is);
        }
        self.define(line, name, Member::Group(self.groups.len()))?;
        self.groups.push(Group { threshold, members: resolved });
        Ok(())
    }

    fn quorum(&mut self, line: usize, words: &[&[u8]]) -> Result<(), PolicyError> {
        let [name] = words else {
            return Err(PolicyError::Line { line, expected: "`quorum NAME` or `quorum none`" });
        };
        let quorum = match self.names.get(*name) {
            _ if *name == b"none" => None,
            Some((member, _)) => Some(*member),
            None => return Err(PolicyError::NameUnknown { line, name: shown(name) }),
        };
        if self.quorum.replace(quorum).is_some() {
            return Err(PolicyError::QuorumRepeated { line });
        }
        Ok(())
    }

    fn define(&mut self, line: usize, name: &[u8], member: Member) -> Result<(), PolicyError> {
        if name == b"none" || self.names.contains_key(name) {
            return Err(PolicyError::NameTaken { line, name: shown(name) });
        }
        self.names.insert(name.to_vec(), (member, false));
        Ok(())
    }
}

/// Bytes for people.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..WORD_BYTES_MAX).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::KeyName;
    use crate::record::PublicKey;

    fn vkey(number: u8) -> String {
        WitnessKey::ed25519(KeyName::new(&format!("witness.example/{number}")).unwrap(), PublicKey([number; 32]))
            .to_string()
    }

    fn log_key() -> String {
        VerifierKey::new(KeyName::new("log.example").unwrap(), PublicKey([200; 32])).to_string()
    }

    /// The example of the tlog-policy specification, with keys.
    fn example() -> String {
        let mut text = format!("# an example\nlog {}\n\n", log_key());
        for (number, name) in (1..).zip(["X1", "X2", "X3", "Y1", "Y2", "Y3"]) {
            text.push_str(&format!("witness {name}\t {}\n", vkey(number)));
        }
        text.push_str("\tgroup X-witnesses 2 X1 X2 X3\ngroup Y-witnesses any Y1 Y2 Y3\n");
        text.push_str("group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n");
        text
    }

    #[test]
    fn the_example_of_the_specification_wants_two_of_x_and_one_of_y() {
        let policy = Policy::parse(example().as_bytes()).unwrap();
        assert_eq!((policy.logs().len(), policy.witnesses().len(), policy.needs_witnesses()), (1, 6, true));
        assert_eq!(policy.witnesses()[3].name, "Y1");
        // Every set of witnesses, against the words of the specification.
        for set in 0..64_u32 {
            let x = (set & 0b111).count_ones();
            let y = (set >> 3).count_ones();
            assert_eq!(policy.is_met(|at| set & (1 << at) != 0), x >= 2 && y >= 1, "{set:#b}");
        }
    }

    #[test]
    fn no_quorum_needs_nobody_and_a_witness_alone_can_be_one() {
        let none = Policy::parse(b"quorum none\n").unwrap();
        assert!(!none.needs_witnesses() && none.is_met(|_| false));
        let one = Policy::parse(format!("witness \u{e4} {} https://w.example/\nquorum \u{e4}\n", vkey(1)).as_bytes());
        let one = one.unwrap();
        assert!(one.is_met(|_| true) && !one.is_met(|_| false));
        assert_eq!(one.witnesses()[0].url.as_deref(), Some("https://w.example/"));
    }

    #[test]
    fn every_mistake_is_refused_with_its_line() {
        let w = |name: &str, number| format!("witness {name} {}\n", vkey(number));
        let check = |text: String, error: PolicyError| assert_eq!(Policy::parse(text.as_bytes()), Err(error), "{text}");
        let unknown = |line, name: &str| PolicyError::NameUnknown { line, name: name.to_owned() };
        let taken = |line, name: &str| PolicyError::NameTaken { line, name: name.to_owned() };
        check(String::new(), PolicyError::QuorumMissing);
        check("quorum none".into(), PolicyError::Line { line: 1, expected: "ended by a line feed" });
        check("quorum none\nquorum none\n".into(), PolicyError::QuorumRepeated { line: 2 });
        check("quorum a\n".into(), unknown(1, "a"));
        check(w("none", 1), taken(1, "none"));
        check(w("a", 1) + &w("a", 2), taken(2, "a"));
        check(w("a", 1) + &w("b", 1), PolicyError::KeyRepeated { line: 2 });
        check(format!("log {0}\nlog {0}\n", log_key()), PolicyError::KeyRepeated { line: 2 });
        check(w("a", 1) + "group g any b\n", unknown(2, "b"));
        check(w("a", 1) + "group g any g\n", unknown(2, "g"));
        check(w("a", 1) + "group g any none\n", unknown(2, "none"));
        check(w("a", 1) + "group a any a\n", taken(2, "a"));
        let repeated = |line| PolicyError::MemberRepeated { line, name: "a".to_owned() };
        check(w("a", 1) + "group g any a a\n", repeated(2));
        check(w("a", 1) + "group g any a\ngroup h any a\n", repeated(3));
        for (asked, threshold) in [("0", 0), ("2", 2), ("99999999999", 99_999_999_999)] {
            let error = PolicyError::Threshold { line: 2, threshold, members: 1 };
            check(w("a", 1) + &format!("group g {asked} a\n"), error);
        }
        check("group g any\n".into(), PolicyError::Threshold { line: 1, threshold: 1, members: 0 });
        let group = PolicyError::Line { line: 1, expected: "`group NAME all|any|NUMBER MEMBER...`" };
        for line in ["group\n", "group g\n", "group g 01 a\n", "group g some a\n"] {
            check(line.into(), group.clone());
        }
        check("quorum\n".into(), PolicyError::Line { line: 1, expected: "`quorum NAME` or `quorum none`" });
        check(
            "Quorum none\n".into(),
            PolicyError::Line { line: 1, expected: "`log`, `witness`, `group`, `quorum` or a comment" },
        );
        check("quorum none\r\n".into(), PolicyError::Control { line: 1, byte: b'\r' });
        check("#\n#\x7f\n".into(), PolicyError::Control { line: 2, byte: 0x7f });
        assert!(matches!(
            Policy::parse(format!("witness a {}\n", log_key()).as_bytes()),
            Err(PolicyError::WitnessKey { line: 1, .. })
        ));
        assert!(matches!(
            Policy::parse(format!("log {}\n", vkey(1)).as_bytes()),
            Err(PolicyError::LogKey { line: 1, .. })
        ));
        let many: String = (0..=64).map(|number| w(&format!("w{number}"), number)).collect();
        check(many, PolicyError::TooMany { line: 65 });
    }
}
