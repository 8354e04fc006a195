//! Who may open, see and end sessions: a pure decision over the kernel's word on the asker.
//!
//! Owns the rules, no state and no input of its own. A permission carries its limits: the only way
//! to an [`OpenSession`] the pipeline will see is through [`RunAuthorization::open`], which has
//! settled identity and time to live.
#![forbid(unsafe_code)]

use crate::config;
use crate::session::protocol::{OpenSession, Peer, SessionError};

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// The rules of `[run]` and `[access]`.
#[derive(Debug, Clone)]
pub struct RunAuthorization {
    run: config::Run,
    /// Group that may list all sessions, already looked up.
    reader_gid: Option<u32>,
}

impl RunAuthorization {
    /// The rules of a configuration; `reader_gid` is `access.reader_group` looked up by the caller.
    #[must_use]
    pub fn new(run: config::Run, reader_gid: Option<u32>) -> Self {
        Self { run, reader_gid }
    }

    /// Whether the asker may open sessions, and with which identity and time to live.
    ///
    /// # Errors
    /// [`SessionError::Refused`] with the rule that refused and what would help.
    pub fn open(&self, mut wish: OpenSession) -> Result<OpenSession, SessionError> {
        let peer = &wish.peer;
        let allowed = peer.uid == 0
            || self.run.allow_uids.contains(&peer.uid)
            || self.run.allow_gids.contains(&peer.gid)
            || peer.groups.iter().any(|gid| self.run.allow_gids.contains(gid));
        if !allowed {
            return Err(refused(format!(
                "uid {} may not open sessions; add it to run.allow_uids, or one of its groups to run.allow_gids",
                peer.uid
            )));
        }
        let own = |pattern: &str| pattern.replace("{uid}", &peer.uid.to_string());
        match &wish.identity {
            None => wish.identity = Some(own(&self.run.identity_default)),
            Some(identity) => {
                let named = self.run.allow_identities.iter().any(|pattern| matches(&own(pattern), identity));
                if peer.uid != 0 && !named {
                    return Err(refused(format!(
                        "uid {} may not use identity {identity}; run.allow_identities allows {}",
                        peer.uid,
                        self.run.allow_identities.iter().map(|p| own(p)).collect::<Vec<_>>().join(", ")
                    )));
                }
            }
        }
        let ttl_max_ns = self.run.ttl_max_s.saturating_mul(SECOND_NS);
        wish.ttl_ns = Some(match wish.ttl_ns {
            Some(ttl_ns) if ttl_ns > ttl_max_ns => {
                return Err(refused(format!(
                    "a time to live of {} s is longer than run.ttl_max_s = {}",
                    ttl_ns / SECOND_NS,
                    self.run.ttl_max_s
                )));
            }
            Some(ttl_ns) => ttl_ns,
            None if self.run.ttl_default_s == 0 => ttl_max_ns,
            None => self.run.ttl_default_s.saturating_mul(SECOND_NS),
        });
        Ok(wish)
    }

    /// Whether the asker may see a session of `owner_uid`.
    #[must_use]
    pub fn may_see(&self, peer: &Peer, owner_uid: u32) -> bool {
        peer.uid == 0 || peer.uid == owner_uid || self.is_reader(peer)
    }

    /// Whether the asker may revoke a session of `owner_uid`.
    #[must_use]
    pub fn may_revoke(&self, peer: &Peer, owner_uid: u32) -> bool {
        peer.uid == 0 || peer.uid == owner_uid
    }

    fn is_reader(&self, peer: &Peer) -> bool {
        self.reader_gid.is_some_and(|gid| peer.gid == gid || peer.groups.contains(&gid))
    }
}

fn refused(why: String) -> SessionError {
    SessionError::Refused { why }
}

/// Whether `text` fits `pattern`, where `*` stands for any run of characters but `/`.
///
/// Linear in the product of the lengths: on a mismatch only the newest `*` grows, which is enough
/// within one path segment, and no `*` crosses segments.
fn matches(pattern: &str, text: &str) -> bool {
    let mut patterns = pattern.split('/');
    let mut texts = text.split('/');
    loop {
        match (patterns.next(), texts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(text)) if segment_matches(pattern.as_bytes(), text.as_bytes()) => {}
            _ => return false,
        }
    }
}

fn segment_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&expected) if expected == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&byte| byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32) -> Peer {
        Peer { uid, gid: uid, groups: vec![uid, 27], pid: 1, start_ticks: 0 }
    }

    fn wish(uid: u32, identity: Option<&str>, ttl_ns: Option<u64>) -> OpenSession {
        OpenSession { identity: identity.map(str::to_owned), task: None, ttl_ns, labels: Vec::new(), peer: peer(uid) }
    }

    fn rules(change: impl FnOnce(&mut config::Run)) -> RunAuthorization {
        let mut run = config::Run::default();
        change(&mut run);
        RunAuthorization::new(run, Some(500))
    }

    #[test]
    fn root_may_ask_for_any_identity_and_others_for_none_by_default() {
        let opened = rules(|_| {}).open(wish(0, Some("spiffe://prod/billing"), None)).unwrap();
        assert_eq!(opened.identity.as_deref(), Some("spiffe://prod/billing"));
        assert!(matches!(
            rules(|_| {}).open(wish(1000, None, None)),
            Err(SessionError::Refused { why }) if why.contains("run.allow_uids")
        ));
    }

    #[test]
    fn an_allowed_user_gets_its_own_identity_and_the_default_ttl() {
        let opened = rules(|run| run.allow_uids = vec![1000]).open(wish(1000, None, None)).unwrap();
        assert_eq!(opened.identity.as_deref(), Some("spiffe://local/user/1000/run"));
        assert_eq!(opened.ttl_ns, Some(12 * 3600 * SECOND_NS));
    }

    #[test]
    fn a_member_of_an_allowed_group_may_open() {
        assert!(rules(|run| run.allow_gids = vec![27]).open(wish(1000, None, None)).is_ok());
    }

    #[test]
    fn an_allowed_user_may_not_take_another_users_identity() {
        let rules = rules(|run| run.allow_uids = vec![1000]);
        assert!(rules.open(wish(1000, Some("spiffe://local/user/1000/etl"), None)).is_ok());
        for identity in ["spiffe://local/user/1001/etl", "spiffe://local/user/1000/a/b", "spiffe://local/user/1000"] {
            assert!(
                matches!(rules.open(wish(1000, Some(identity), None)), Err(SessionError::Refused { .. })),
                "{identity}"
            );
        }
    }

    #[test]
    fn a_ttl_above_the_maximum_is_refused_even_for_root() {
        let rules = rules(|run| run.ttl_max_s = 60);
        assert!(rules.open(wish(0, None, Some(60 * SECOND_NS))).is_ok());
        assert!(matches!(rules.open(wish(0, None, Some(60 * SECOND_NS + 1))), Err(SessionError::Refused { .. })));
    }

    #[test]
    fn sessions_are_seen_by_owner_root_and_readers_and_revoked_by_owner_and_root() {
        let rules = rules(|_| {});
        let reader = Peer { groups: vec![500], ..peer(7) };
        assert!(rules.may_see(&peer(1000), 1000) && rules.may_see(&peer(0), 1000) && rules.may_see(&reader, 1000));
        assert!(!rules.may_see(&peer(7), 1000));
        assert!(rules.may_revoke(&peer(1000), 1000) && rules.may_revoke(&peer(0), 1000));
        assert!(!rules.may_revoke(&reader, 1000));
    }

    #[test]
    fn a_star_matches_within_one_segment() {
        for (pattern, text, expected) in [
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/*-*x", "a/1-2-3x", true),
            ("a/*-*x", "a/1-2-3y", false),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
