//! Committing values while an entry is written, and the sidecar lines that disclose them.

use super::read::{Decode as _, DecodeError, Reader};
use super::text::Text;
use super::value::Commitment;
use super::write::{Encode as _, Limits, ValueVisitor, Writer};
use super::{EntryIndex, FORMS, KINDS, Member};

/// Which values are written as commitments: fields such as `open.path`; positions in lists are left out, so `exec.argv`
/// stands for every argument. `*` as the kind stands for every kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitRules(Vec<String>);

/// Why a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not a kind and a path.
    #[error("{rule:?} is not a kind and a field of it, such as \"open.path\" or \"*.claims.asked\"")]
    Form {
        /// The rule.
        rule: String,
    },
    /// No such kind.
    #[error("{rule:?} names kind {kind:?}, which there is not")]
    Kind {
        /// The rule.
        rule: String,
        /// The kind.
        kind: String,
    },
    /// The kind has no such value.
    #[error("{rule:?} names {member:?}, which is no value that entries of that kind can commit")]
    Member {
        /// The rule.
        rule: String,
        /// The path below the body.
        member: String,
    },
}

impl CommitRules {
    /// Rules from configuration.
    ///
    /// # Errors
    /// The first rule that can fit no value.
    pub fn parse<'t>(rules: impl IntoIterator<Item = &'t str>) -> Result<Self, RuleError> {
        rules.into_iter().map(|rule| checked(rule).map(str::to_owned)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing is committed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a rule names this field.
    fn name(&self, field: &str) -> bool {
        self.0.iter().any(|rule| fits(rule, field))
    }
}

fn checked(rule: &str) -> Result<&str, RuleError> {
    let (kind, path) = rule.split_once('.').ok_or_else(|| RuleError::Form { rule: rule.to_owned() })?;
    if path.split('.').any(str::is_empty) {
        return Err(RuleError::Form { rule: rule.to_owned() });
    }
    let of_kind = |schema: &&super::KindSchema| kind == "*" || schema.kind == kind;
    if !KINDS.iter().any(|schema| of_kind(&schema)) {
        return Err(RuleError::Kind { rule: rule.to_owned(), kind: kind.to_owned() });
    }
    if !KINDS.iter().filter(of_kind).any(|schema| leads_to_value(schema.members, path)) {
        return Err(RuleError::Member { rule: rule.to_owned(), member: path.to_owned() });
    }
    Ok(rule)
}

/// Whether a path below these members ends at something that can be committed.
fn leads_to_value(mut members: &[Member], path: &str) -> bool {
    let mut steps = path.split('.');
    while let Some(step) = steps.next() {
        let Some(member) = members.iter().find(|member| member.key == step) else { return false };
        if matches!(member.form, "value" | "list of value" | "[text,value]") {
            return steps.next().is_none();
        }
        match FORMS.iter().find(|form| form.form == member.form) {
            Some(form) if form.shape == "object" => members = form.members,
            _ => return false,
        }
    }
    false
}

/// Compares step by step; a position in a list fits whatever the rule says next.
fn fits(rule: &str, field: &str) -> bool {
    let mut wanted = rule.split('.').peekable();
    for (place, step) in field.split('.').enumerate() {
        match wanted.peek() {
            Some(&"*") if place == 0 => {}
            Some(next) if *next == step => {}
            _ if place > 0 && step.bytes().all(|byte| byte.is_ascii_digit()) => continue,
            _ => return false,
        }
        wanted.next();
    }
    wanted.next().is_none()
}

/// Commits what rules name.
pub(super) struct Committer<'r> {
    rules: &'r CommitRules,
    salts: &'r mut dyn FnMut() -> [u8; 16],
    pub(super) disclosures: Vec<Disclosure<'static>>,
}

impl<'r> Committer<'r> {
    pub(super) fn new(rules: &'r CommitRules, salts: &'r mut dyn FnMut() -> [u8; 16]) -> Self {
        Self { rules, salts, disclosures: Vec::new() }
    }
}

impl ValueVisitor for Committer<'_> {
    fn clear(&mut self, field: &str, text: &[u8]) -> Option<Commitment> {
        if !self.rules.name(field) {
            return None;
        }
        let disclosure = Disclosure { field: field.to_owned(), salt: (self.salts)(), text: Text::owned(text.to_vec()) };
        let commitment = disclosure.commitment();
        self.disclosures.push(disclosure);
        Some(commitment)
    }

    fn committed(&mut self, _: &str, _: Commitment) {}
}

/// Collects commitments.
#[derive(Default)]
pub(super) struct Found(pub(super) Vec<(String, Commitment)>);

impl ValueVisitor for Found {
    fn clear(&mut self, _: &str, _: &[u8]) -> Option<Commitment> {
        None
    }

    fn committed(&mut self, field: &str, commitment: Commitment) {
        self.0.push((field.to_owned(), commitment));
    }
}

/// What stands behind one commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disclosure<'a> {
    /// The value's field, such as `exec.argv.1`.
    pub field: String,
    /// The salt.
    pub salt: [u8; 16],
    /// The text.
    pub text: Text<'a>,
}

/// Longest line of a sidecar: a text of an entry that was not shortened (2 MiB of arguments, in base64), and its frame.
pub const DISCLOSURE_BYTES_MAX: usize = 4 << 20;

/// Why a line of a sidecar is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisclosureError {
    /// Longer than any can be.
    #[error("a line of {len} bytes; at most {DISCLOSURE_BYTES_MAX} are possible")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not in the one permitted form.
    #[error(transparent)]
    Form(#[from] DecodeError),
    /// Written otherwise than this format writes it.
    #[error("the line has another form than the permitted one")]
    NotCanonical,
}

impl Disclosure<'_> {
    /// The commitment that this discloses.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        Commitment::of(&self.salt, &self.field, self.text.as_bytes())
    }

    /// Appends the sidecar line for the entry `index`, its line feed included.
    pub fn encode(&self, index: EntryIndex, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, Limits::NONE);
        writer.raw(b"{\"i\":");
        index.encode(&mut writer);
        writer.raw(b",\"field\":");
        writer.text(self.field.as_bytes());
        writer.raw(b",\"salt\":");
        writer.base64(&self.salt);
        writer.raw(b",\"text\":");
        writer.text(self.text.as_bytes());
        writer.raw(b"}\n");
    }
}

impl<'a> Disclosure<'a> {
    /// Reads a sidecar line, without its line feed; which entry it is of, and what it discloses.
    ///
    /// # Errors
    /// When it is not in the one permitted form.
    pub fn decode(line: &'a [u8]) -> Result<(EntryIndex, Self), DisclosureError> {
        if line.len() > DISCLOSURE_BYTES_MAX {
            return Err(DisclosureError::TooLong { len: line.len() });
        }
        let mut reader = Reader::new(line);
        reader.expect("{\"i\":")?;
        let index = EntryIndex::decode(&mut reader)?;
        reader.expect(",\"field\":")?;
        let (_, field) = reader.bare_string()?;
        reader.expect(",\"salt\":")?;
        let salt = reader.base64("base64 of 16 bytes")?;
        reader.expect(",\"text\":")?;
        let text = reader.text()?;
        reader.expect("}")?;
        reader.end()?;
        let disclosure = Self { field: String::from_utf8_lossy(field).into_owned(), salt, text };
        let mut again = Vec::with_capacity(line.len() + 1);
        disclosure.encode(index, &mut again);
        if again.strip_suffix(b"\n") != Some(line) {
            return Err(DisclosureError::NotCanonical);
        }
        Ok((index, disclosure))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{open, placement};
    use super::super::{Body, Value, ValueList, decode};
    use super::*;

    fn rules(rules: &[&str]) -> CommitRules {
        CommitRules::parse(rules.iter().copied()).unwrap()
    }

    #[test]
    fn a_rule_names_a_field_whatever_its_position_in_lists() {
        assert!(fits("open.path", "open.path"));
        assert!(fits("*.path", "open.path"));
        assert!(fits("exec.argv", "exec.argv.12"));
        assert!(fits("context.claims.attributes", "context.claims.attributes.0.1"));
        for (rule, field) in [
            ("open.path", "exec.path"),
            ("open.claims", "open.claims.asked"),
            ("open.claims.asked", "open.claims"),
            ("exec.argv.x", "exec.argv.1"),
        ] {
            assert!(!fits(rule, field), "{rule} {field}");
        }
    }

    #[test]
    fn a_rule_that_can_fit_nothing_is_refused() {
        let wrong = |rule: &str| CommitRules::parse([rule]).unwrap_err();
        assert!(matches!(wrong("path"), RuleError::Form { .. }));
        assert!(matches!(wrong("open."), RuleError::Form { .. }));
        assert!(matches!(wrong("opens.path"), RuleError::Kind { .. }));
        assert!(matches!(wrong("open.paht"), RuleError::Member { .. }));
        assert!(matches!(wrong("*.paht"), RuleError::Member { .. }));
        assert!(matches!(wrong("open.tgid"), RuleError::Member { .. }), "a number is never committed");
        assert!(matches!(wrong("open.claims"), RuleError::Member { .. }));
        assert!(matches!(wrong("open.claims.asked.0"), RuleError::Member { .. }));
        for rule in ["exec.argv", "exec.claims.invoked", "issued.claims.labels", "*.path", "exec.script.path"] {
            rules(&[rule]);
        }
    }

    #[test]
    fn committed_values_stand_as_hashes_and_their_lines_disclose_them() {
        let draft = open(b"/etc/shadow");
        let (mut out, mut next) = (Vec::new(), 0_u8);
        let mut salts = || {
            next += 1;
            [next; 16]
        };
        let disclosures = draft.encode_committed(&placement(), &rules(&["*.path", "exec.argv"]), &mut salts, &mut out);
        let record = decode(&out).unwrap();
        let Body::Open(body) = record.body() else { panic!("an open") };
        let [disclosure] = disclosures.as_slice() else { panic!("one value: {disclosures:?}") };
        assert_eq!(body.path, Some(Value::Committed(disclosure.commitment())));
        assert_eq!(disclosure.field, "open.path");
        assert_eq!(disclosure.text.as_bytes(), b"/etc/shadow");
        assert_eq!(record.commitments(), [("open.path".to_owned(), disclosure.commitment())]);

        let mut line = Vec::new();
        disclosure.encode(record.index(), &mut line);
        assert_eq!(
            String::from_utf8_lossy(&line),
            "{\"i\":7,\"field\":\"open.path\",\"salt\":\"AQEBAQEBAQEBAQEBAQEBAQ==\",\"text\":\"/etc/shadow\"}\n"
        );
        let stripped = line.strip_suffix(b"\n").unwrap();
        assert_eq!(Disclosure::decode(stripped), Ok((EntryIndex(7), disclosure.clone())));
        for position in 0..stripped.len() {
            let mut changed = stripped.to_vec();
            changed[position] ^= 1;
            let same = Disclosure::decode(&changed)
                .is_ok_and(|(index, read)| index == EntryIndex(7) && read.commitment() == disclosure.commitment());
            assert!(!same, "byte {position}");
            assert!(Disclosure::decode(&stripped[..position]).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn every_argument_has_its_own_salt_and_position() {
        let mut draft = open(b"");
        let specimens = crate::fixture::specimens(4);
        let (_, bytes) = specimens.iter().find(|(kind, _)| kind.as_str() == "exec").unwrap();
        let Body::Exec(mut exec) = decode(bytes).unwrap().draft.body else { panic!("an exec") };
        exec.argv = ValueList::Nul(b"cat\0-n\0secret\0");
        draft.body = Body::Exec(exec);
        let (mut out, mut next) = (Vec::new(), 0_u8);
        let mut salts = || {
            next += 1;
            [next; 16]
        };
        let disclosures = draft.encode_committed(&placement(), &rules(&["exec.argv"]), &mut salts, &mut out);
        let fields: Vec<&str> = disclosures.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(fields, ["exec.argv.0", "exec.argv.1", "exec.argv.2"]);
        let record = decode(&out).unwrap();
        let expected: Vec<_> = disclosures.iter().map(|one| (one.field.clone(), one.commitment())).collect();
        assert_eq!(record.commitments(), expected);
    }

    #[test]
    fn a_long_text_that_is_committed_is_disclosed_whole() {
        let long = vec![b'x'; 200_000];
        let draft = open(&long);
        let mut out = Vec::new();
        let disclosures = draft.encode_committed(&placement(), &rules(&["open.path"]), &mut || [1; 16], &mut out);
        assert_eq!(disclosures.first().map(|one| one.text.as_bytes().len()), Some(200_000));
        let record = decode(&out).unwrap();
        assert!(record.cut.is_empty());
        assert_eq!(record.committed, 1);
    }
}
