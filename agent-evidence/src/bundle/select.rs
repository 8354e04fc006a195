//! Which entries of a log a bundle holds.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::record::{
    Body, Class, Counter, DisarmCause, Disarmed, EntryIndex, Heartbeat, Id128, ProcessCookie, Record, TreeSize,
};

use super::Disclosed;

/// Where the window of the control chain ends that a bundle hands over: not before the agent has accounted for every
/// event that was numbered by the time it first spoke after the sessions had ended.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    capture: Option<Id128>,
    /// Counters that the first heartbeat after the end stated, and have not settled up to there.
    unsettled: Option<HashMap<(u32, Class), u64>>,
}

impl Closing {
    /// Takes the next entry of the control chain, with whether every session had ended before it. `true` when the
    /// window ends with it.
    pub(crate) fn control(&mut self, body: &Body<'_>, ended: bool) -> bool {
        match body {
            Body::Armed(armed) => {
                let other = self.capture.replace(armed.capture_id).is_some_and(|before| before != armed.capture_id);
                ended && other
            }
            Body::Disarmed(disarmed) if ended => {
                disarmed.cause != DisarmCause::Upgrade || self.stated(&disarmed.counters)
            }
            Body::Heartbeat(heartbeat) if ended => self.stated(&heartbeat.counters),
            _ => false,
        }
    }

    fn stated(&mut self, rows: &[Counter]) -> bool {
        let unsettled =
            self.unsettled.get_or_insert_with(|| rows.iter().map(|row| ((row.cpu, row.class), row.next)).collect());
        for row in rows {
            let key = (row.cpu, row.class);
            if unsettled.get(&key).is_some_and(|wanted| row.settled >= *wanted) {
                unsettled.remove(&key);
            }
        }
        unsettled.is_empty()
    }
}

/// Chooses the entries of a bundle: fed with every entry of the log in order.
#[derive(Debug)]
pub struct Selection {
    /// The sessions wanted, by id, and the `issued` entry of each that was seen.
    wanted: BTreeMap<Vec<u8>, Option<EntryIndex>>,
    /// The sessions by their `issued` entry, and whether each has ended.
    sessions: BTreeMap<EntryIndex, bool>,
    /// The next number in the chain of each.
    next: HashMap<EntryIndex, u64>,
    /// Those of which entries were not there.
    pruned: BTreeSet<EntryIndex>,
    chosen: Vec<Disclosed>,
    /// The control chain since the latest `armed`, as long as no session was issued.
    before: Vec<Disclosed>,
    closing: Closing,
    closed: bool,
    /// Workloads and policy sets that may be referred to, with their lengths.
    described: HashMap<EntryIndex, u32>,
    processes: HashMap<ProcessCookie, Disclosed>,
    /// Where values of an entry were erased.
    erased: HashMap<EntryIndex, Vec<Disclosed>>,
    /// Anchors of the window, with the sizes whose roots they name.
    anchors: Vec<(EntryIndex, TreeSize)>,
}

/// What a bundle is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The sessions.
    pub sessions: Vec<EntryIndex>,
    /// The entries, ascending.
    pub disclosed: Vec<Disclosed>,
    /// Sessions of which entries are not in the log any more: a bundle of them is not complete.
    pub pruned: Vec<EntryIndex>,
    /// Sessions that have not ended.
    pub open: Vec<EntryIndex>,
    /// Whether the log goes far enough to show that nothing was lost late.
    pub closed: bool,
    /// Sizes whose roots the anchors among the entries name, ascending: with these roots a bundle shows that they hold.
    pub anchored: Vec<TreeSize>,
}

impl Selection {
    /// Of the sessions with these ids.
    pub fn new(ids: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            wanted: ids.into_iter().map(|id| (id, None)).collect(),
            sessions: BTreeMap::new(),
            next: HashMap::new(),
            pruned: BTreeSet::new(),
            chosen: Vec::new(),
            before: Vec::new(),
            closing: Closing::default(),
            closed: false,
            described: HashMap::new(),
            processes: HashMap::new(),
            erased: HashMap::new(),
            anchors: Vec::new(),
        }
    }

    /// Takes the next entry of the log, which has so many bytes.
    pub fn entry(&mut self, record: &Record<'_>, bytes: usize) {
        let index = record.index();
        let own = Disclosed { index, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) };
        let body = record.body();
        if let Body::Issued(issued) = body
            && let Some(unseen @ None) = self.wanted.get_mut(issued.id.as_bytes())
        {
            *unseen = Some(index);
            self.sessions.insert(index, false);
            self.chosen.append(&mut self.before);
            self.refer_to_process(issued.by.as_ref().and_then(|by| by.process));
        }
        let session = if matches!(body, Body::Issued(_)) { Some(index) } else { record.draft.session };
        let of_session = session.is_some_and(|session| self.sessions.contains_key(&session));
        if let Some(session) = session.filter(|_| of_session) {
            self.chosen.push(own);
            if let Some(number) = record.placement.session_number {
                self.follow(session, number.0);
            }
            self.refer_to_process(record.draft.process);
            self.refer(record.draft.workload);
            self.refer(record.draft.verdict.as_ref().map(|verdict| verdict.set));
        } else {
            match body {
                Body::Workload(_) | Body::Policy(_) => {
                    self.described.insert(index, own.bytes);
                }
                Body::Process(_) => {
                    self.processes.extend(record.draft.process.map(|cookie| (cookie, own)));
                }
                _ => {}
            }
        }
        if let Body::Heartbeat(Heartbeat { sessions: rows, .. }) | Body::Disarmed(Disarmed { sessions: rows, .. }) =
            body
        {
            for row in rows.iter().filter(|row| self.next.get(&row.session).is_some_and(|next| row.number.0 >= *next)) {
                self.pruned.insert(row.session);
            }
        }
        if let Body::Erased(erased) = body {
            self.erased.entry(erased.of).or_default().push(own);
        }
        if body.kind().is_control() {
            self.control(record, own, of_session);
        }
        if let (Body::Revoked(_), Some(ended)) = (body, session.and_then(|session| self.sessions.get_mut(&session))) {
            *ended = true;
        }
    }

    /// The chain of a session goes on with this number.
    fn follow(&mut self, session: EntryIndex, number: u64) {
        let next = self.next.entry(session).or_default();
        if number > *next {
            self.pruned.insert(session);
        }
        *next = number.saturating_add(1);
    }

    fn control(&mut self, record: &Record<'_>, own: Disclosed, chosen: bool) {
        let body = record.body();
        let ended = self.has_ended();
        if let Body::Anchor(anchor) = body
            && !self.closed
        {
            self.anchors.push((record.index(), anchor.size));
        }
        let always = matches!(body, Body::Genesis(_) | Body::Epoch(_) | Body::AttestationKey(_));
        if !self.closed && self.closing.control(body, ended) {
            self.closed = true;
            self.chosen.push(own);
        } else if always || (!self.closed && !self.sessions.is_empty()) {
            if !chosen {
                self.chosen.push(own);
            }
        } else if self.sessions.is_empty() {
            if matches!(body, Body::Armed(_)) {
                self.before.clear();
                self.anchors.clear();
            }
            self.before.push(own);
        }
    }

    fn has_ended(&self) -> bool {
        self.wanted.values().all(Option::is_some) && self.sessions.values().all(|ended| *ended)
    }

    fn refer(&mut self, to: Option<EntryIndex>) {
        if let Some((index, bytes)) = to.and_then(|index| self.described.remove_entry(&index)) {
            self.chosen.push(Disclosed { index, bytes });
        }
    }

    fn refer_to_process(&mut self, process: Option<ProcessCookie>) {
        self.chosen.extend(process.and_then(|cookie| self.processes.remove(&cookie)));
    }

    /// What the bundle holds.
    ///
    /// # Errors
    /// An id that no session of the log has.
    pub fn finish(mut self) -> Result<Selected, Vec<u8>> {
        if let Some((id, _)) = self.wanted.iter().find(|(_, issued)| issued.is_none()) {
            return Err(id.clone());
        }
        self.chosen.sort_unstable();
        self.chosen.dedup();
        let holds = |of: &EntryIndex| self.chosen.binary_search_by_key(of, |entry| entry.index).is_ok();
        let erased: Vec<_> =
            self.erased.iter().filter(|(of, _)| holds(of)).flat_map(|(_, entries)| entries).copied().collect();
        self.chosen.extend(erased);
        self.chosen.sort_unstable();
        self.chosen.dedup();
        let holds = |of: &EntryIndex| self.chosen.binary_search_by_key(of, |entry| entry.index).is_ok();
        let mut anchored: Vec<_> = self.anchors.iter().filter(|(of, _)| holds(of)).map(|(_, size)| *size).collect();
        anchored.sort_unstable();
        anchored.dedup();
        Ok(Selected {
            anchored,
            sessions: self.sessions.keys().copied().collect(),
            disclosed: self.chosen,
            pruned: self.pruned.into_iter().collect(),
            open: self.sessions.iter().filter(|(_, ended)| !**ended).map(|(session, _)| *session).collect(),
            closed: self.closed,
        })
    }
}
