//! From what the kernel says of an act (sticky scope, cgroup at the act) to whose act it was.
//!
//! The order is: an open session by its scope; a session that has ended, by the scope its left-over processes still
//! carry; the owner of the scope's root or of the cgroup, by the cgroup tree; else unknown, with the reason. The
//! answer is the index of an entry (`issued` or `workload`), written once and referred to by every act after.

use std::collections::{HashMap, VecDeque};

use agent_evidence::record::{EntryIndex, WorkloadKind};

use crate::workload::{CgroupIndex, Owner};

/// How many ended sessions are still recognized by their scope. Their processes can outlive them only when an
/// operator revoked the session or it expired.
pub const ENDED_SCOPES_MAX: usize = 4_096;
/// Most cgroups whose workload entry is remembered; on overflow everything is forgotten and described again.
pub const DESCRIBED_MAX: usize = 131_072;

/// What must be written before an act of this cgroup can be attributed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What sort of workload.
    pub sort: WorkloadKind,
    /// Its identity.
    pub id: String,
    /// The cgroup.
    pub cgroup_id: u64,
    /// Its path, when known.
    pub path: Vec<u8>,
    /// How the identity was established.
    pub how: &'static str,
    /// What else is known.
    pub labels: Vec<(&'static str, String)>,
    /// Why it is unknown, when it is.
    pub unknown: Option<&'static str>,
}

/// A session that has ended.
#[derive(Debug, Clone)]
struct EndedScope {
    session: String,
    identity: String,
}

/// Which entry describes the workload of which cgroup.
#[derive(Debug)]
pub struct Attribution {
    trust_domain: String,
    /// By scope root or cgroup.
    by_cgroup: HashMap<u64, EntryIndex>,
    /// Cgroups of one owner share an entry.
    by_owner: HashMap<Owner, EntryIndex>,
    /// Unknown cgroups, with their `unknown` entry.
    unknown: HashMap<u64, EntryIndex>,
    ended: HashMap<u64, EndedScope>,
    ended_order: VecDeque<u64>,
}

impl Attribution {
    /// Nothing is described yet. `trust_domain` is the host part of the SPIFFE-shaped ids made from names.
    #[must_use]
    pub fn new(trust_domain: String) -> Self {
        Self {
            trust_domain,
            by_cgroup: HashMap::new(),
            by_owner: HashMap::new(),
            unknown: HashMap::new(),
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
        }
    }

    /// The entry that describes the workload of `cgroup_id`, when it was written already.
    #[must_use]
    pub fn known(&self, cgroup_id: u64) -> Option<EntryIndex> {
        self.by_cgroup.get(&cgroup_id).copied()
    }

    /// The identity of a cgroup that is known, whether its entry was written or not.
    #[must_use]
    pub fn identity_of(&self, cgroup_id: u64, index: &CgroupIndex) -> String {
        self.description(cgroup_id, index).id
    }

    /// What to write of `cgroup_id`, or the entry that already describes its owner.
    ///
    /// # Errors
    /// The description to write, when there is no entry yet: not a failure.
    pub fn describe(&mut self, cgroup_id: u64, index: &CgroupIndex) -> Result<EntryIndex, Description> {
        if !self.ended.contains_key(&cgroup_id)
            && let Some(node) = index.get(cgroup_id)
            && let Some(entry) = self.by_owner.get(&node.owner).copied()
        {
            self.remember(cgroup_id, entry);
            return Ok(entry);
        }
        Err(self.description(cgroup_id, index))
    }

    fn description(&self, cgroup_id: u64, index: &CgroupIndex) -> Description {
        if let Some(ended) = self.ended.get(&cgroup_id) {
            return Description {
                sort: WorkloadKind::Session,
                id: ended.identity.clone(),
                cgroup_id,
                path: index.get(cgroup_id).map(|node| node.path.clone()).unwrap_or_default(),
                how: "scope of a session that had been revoked before",
                labels: vec![("session", ended.session.clone())],
                unknown: None,
            };
        }
        let Some(node) = index.get(cgroup_id) else {
            return self.unknown_cgroup(cgroup_id, Vec::new(), "the cgroup's creation was not observed and it is gone");
        };
        let domain = &self.trust_domain;
        let description = |sort, id: String, labels| Description {
            sort,
            id,
            cgroup_id,
            path: node.path.clone(),
            how: "cgroup path",
            labels,
            unknown: None,
        };
        match &node.owner {
            Owner::Container { runtime, id, pod_uid } => {
                let mut labels = vec![("container_id", id.clone()), ("runtime", runtime.name().to_owned())];
                let (sort, name) = match pod_uid {
                    Some(uid) => {
                        labels.push(("pod_uid", uid.clone()));
                        (WorkloadKind::Kubernetes, format!("spiffe://{domain}/pod/{uid}/container/{id}"))
                    }
                    None => (WorkloadKind::Container, format!("spiffe://{domain}/container/{id}")),
                };
                description(sort, name, labels)
            }
            Owner::Pod { pod_uid } => description(
                WorkloadKind::Kubernetes,
                format!("spiffe://{domain}/pod/{pod_uid}"),
                vec![("pod_uid", pod_uid.clone())],
            ),
            Owner::Systemd { unit, user } => {
                let mut labels = vec![("unit", unit.clone())];
                let name = match user {
                    Some(uid) => {
                        labels.push(("user", uid.to_string()));
                        format!("spiffe://{domain}/user/{uid}/unit/{}", segment(unit))
                    }
                    None => format!("spiffe://{domain}/unit/{}", segment(unit)),
                };
                description(WorkloadKind::Systemd, name, labels)
            }
            Owner::Host => description(WorkloadKind::Host, format!("spiffe://{domain}/host"), Vec::new()),
            Owner::Unknown { reason } => self.unknown_cgroup(cgroup_id, node.path.clone(), reason),
        }
    }

    fn unknown_cgroup(&self, cgroup_id: u64, path: Vec<u8>, reason: &'static str) -> Description {
        Description {
            sort: WorkloadKind::Unknown,
            id: format!("spiffe://{}/unknown/{cgroup_id}", self.trust_domain),
            cgroup_id,
            path,
            how: "not established",
            labels: Vec::new(),
            unknown: Some(reason),
        }
    }

    /// Notes that `entry` describes the workload of `cgroup_id`, and of every cgroup of its owner.
    pub fn described(&mut self, cgroup_id: u64, entry: EntryIndex, index: &CgroupIndex) {
        if let Some(node) = index.get(cgroup_id)
            && !self.ended.contains_key(&cgroup_id)
        {
            self.by_owner.insert(node.owner.clone(), entry);
        }
        self.remember(cgroup_id, entry);
    }

    /// Notes the `unknown` entry of a cgroup.
    pub fn described_unknown(&mut self, cgroup_id: u64, unknown: EntryIndex) {
        self.unknown.insert(cgroup_id, unknown);
    }

    /// Cgroups recorded as unknown that the tree can name now, with their `unknown` entry. Each is given once.
    pub fn now_known(&mut self, index: &CgroupIndex) -> Vec<(u64, EntryIndex)> {
        let known: Vec<_> = self
            .unknown
            .iter()
            .filter(|(id, _)| index.get(**id).is_some_and(|node| !matches!(node.owner, Owner::Unknown { .. })))
            .map(|(id, entry)| (*id, *entry))
            .collect();
        for (id, _) in &known {
            self.unknown.remove(id);
            self.by_cgroup.remove(id);
        }
        known
    }

    /// Forgets what a cgroup id meant: it was created anew.
    pub fn forget(&mut self, cgroup_id: u64) {
        self.by_cgroup.remove(&cgroup_id);
    }

    /// Notes that the session with this scope has ended: what its left-over processes do is theirs, and is marked.
    pub fn session_ended(&mut self, scope_id: u64, session: &str, identity: &str) {
        if self.ended.len() >= ENDED_SCOPES_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        let ended = EndedScope { session: session.to_owned(), identity: identity.to_owned() };
        if self.ended.insert(scope_id, ended).is_none() {
            self.ended_order.push_back(scope_id);
        }
        self.by_cgroup.remove(&scope_id);
    }

    fn remember(&mut self, cgroup_id: u64, entry: EntryIndex) {
        if self.by_cgroup.len() >= DESCRIBED_MAX {
            // Describing again costs an entry per cgroup; growing without bound would cost the host.
            self.by_cgroup.clear();
        }
        self.by_cgroup.insert(cgroup_id, entry);
    }
}

/// A unit name as one segment of a SPIFFE path (letters, digits, `.`, `-`, `_`): everything else becomes `_`.
fn segment(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(cgroups: &[(u64, &str)]) -> CgroupIndex {
        let mut index = CgroupIndex::default();
        for (id, path) in cgroups {
            index.insert(*id, path.as_bytes().to_vec());
        }
        index
    }

    fn attribution() -> Attribution {
        Attribution::new("host.example".to_owned())
    }

    #[test]
    fn cgroups_of_one_owner_share_one_entry() {
        let tree = index(&[(1, "/"), (2, "/system.slice"), (3, "/system.slice/nginx.service")]);
        let mut attribution = attribution();
        let host = attribution.describe(1, &tree).expect_err("not described yet");
        assert_eq!((host.sort, host.id.as_str()), (WorkloadKind::Host, "spiffe://host.example/host"));
        attribution.described(1, EntryIndex(10), &tree);
        assert_eq!(attribution.describe(2, &tree), Ok(EntryIndex(10)));
        assert_eq!(attribution.known(2), Some(EntryIndex(10)));
        let unit = attribution.describe(3, &tree).expect_err("another owner");
        assert_eq!((unit.sort, unit.id.as_str()), (WorkloadKind::Systemd, "spiffe://host.example/unit/nginx.service"));
    }

    #[test]
    fn what_a_revoked_session_left_behind_is_named_as_such() {
        let tree = index(&[(1, "/"), (9, "/affiant/abc")]);
        let mut attribution = attribution();
        attribution.described(1, EntryIndex(10), &tree);
        attribution.session_ended(9, "abc", "spiffe://local/user/0/run");
        let left = attribution.describe(9, &tree).expect_err("to be described");
        assert_eq!((left.sort, left.id.as_str()), (WorkloadKind::Session, "spiffe://local/user/0/run"));
        attribution.described(9, EntryIndex(20), &tree);
        assert_eq!(attribution.known(9), Some(EntryIndex(20)));
        assert_eq!(attribution.describe(1, &tree), Ok(EntryIndex(10)), "the host keeps its own entry");
    }

    #[test]
    fn an_unknown_cgroup_is_recorded_and_identified_once() {
        let mut tree = index(&[(1, "/")]);
        let mut attribution = attribution();
        let unknown = attribution.describe(77, &tree).expect_err("never seen");
        assert_eq!(unknown.unknown, Some("the cgroup's creation was not observed and it is gone"));
        attribution.described(77, EntryIndex(5), &tree);
        attribution.described_unknown(77, EntryIndex(4));
        assert_eq!(attribution.now_known(&tree), []);
        tree.insert(77, b"/system.slice/late.service".to_vec());
        assert_eq!(attribution.now_known(&tree), [(77, EntryIndex(4))]);
        assert_eq!(attribution.now_known(&tree), []);
        assert_eq!(attribution.known(77), None);
    }
}
