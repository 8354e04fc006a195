//! The common members of an entry without reading its body: recovery goes through many entries and needs the
//! whole of few.
//!
//! Only for entries of this log's own store. The order of the members makes a plain search safe: before `prev`
//! there is no text that anybody outside the agent chose.

use agent_evidence::record::{ControlNumber, EntryIndex, Kind, SessionNumber};

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peek<'a> {
    pub(super) index: EntryIndex,
    pub(super) kind: Kind,
    pub(super) session: Option<EntryIndex>,
    pub(super) session_number: Option<SessionNumber>,
    pub(super) control_number: Option<ControlNumber>,
    /// Base64 of the leaf hash of the entry before.
    pub(super) previous: &'a str,
}

/// Reads the common members, or `None` when this is not an entry as the agent writes it.
pub(super) fn peek(entry: &[u8]) -> Option<Peek<'_>> {
    const PREVIOUS: &str = ",\"prev\":\"";
    // Everything up to `prev` with every optional member at its longest is below 400 bytes.
    let head = entry.get(..entry.len().min(512))?;
    let head = match std::str::from_utf8(head) {
        Ok(head) => head,
        Err(error) => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
    };
    let (members, rest) = head.split_once(PREVIOUS)?;
    let (previous, _) = rest.split_once('"')?;
    let rest = members.strip_prefix("{\"v\":1,\"i\":")?;
    let (index, rest) = rest.split_once(",\"kind\":\"")?;
    let (kind, rest) = rest.split_once('"')?;
    let number = |key: &str| {
        let (_, value) = rest.split_once(key)?;
        let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        value.get(..end)?.parse().ok()
    };
    Some(Peek {
        index: EntryIndex(index.parse().ok()?),
        kind: Kind::parse(kind)?,
        session: number(",\"s\":").map(EntryIndex),
        session_number: number(",\"n\":").map(SessionNumber),
        control_number: number(",\"c\":").map(ControlNumber),
        previous,
    })
}
