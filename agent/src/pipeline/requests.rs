//! Answers what comes over the control socket: sessions opened, joined, ended, revoked; who somebody is.
//!
//! Who may ask was decided before; here the effect is made and recorded. An answer that claims an effect is given
//! only after the record of it is durable.

use std::collections::HashMap;
use std::ops::ControlFlow;

use agent_evidence::record::{
    self, AnchorCause, Body, BootTime, CgroupId, EntryIndex, Erased, Hold, Issued, IssuedClaims, Label, List,
    Nanoseconds, Requester, RevokeCause, Revoked, SessionSort, Text, WitnessAnswer, decode,
};

use super::error::PipelineError;
use super::handle::{Command, Reply};
use super::holds::Looked;
use super::recorder::Recorder;
use super::sessions::{CommandState, EndReason, Session, Totals};
use crate::log::Now;
use crate::session::protocol::StorageStatus;
use crate::session::protocol::{
    ClassStatus, CommandStatus, HookStatus, NotCovered, OpenSession, Peer, SessionError, SessionOpened, Status, WhoAmI,
};
use crate::witness::submit::Said;

/// Random bytes of a session id and of a join token.
const ID_BYTES: usize = 16;

impl Recorder {
    pub(super) fn answer(&mut self, command: Command) -> Result<(), PipelineError> {
        match command {
            Command::Open(wish, reply) => {
                let answer = self.open_session(wish)?;
                self.answer_when_durable(reply, answer);
            }
            Command::Join(token, peer, reply) => {
                let answer = self.join(&token, &peer);
                send(reply, answer);
            }
            Command::Ended(id, peer, status, reply) => {
                let answer = self.command_ended(&id, &peer, status);
                send(reply, answer);
            }
            Command::OpenerGone(id) => {
                if let Some(session) = self.sessions.by_id_mut(&id)
                    && !matches!(session.command, CommandState::Ended(_))
                {
                    session.command = CommandState::Abandoned;
                }
            }
            Command::Revoke(id, _peer, reply) => {
                let answer = self.revoke(&id)?;
                self.answer_when_durable(reply, answer);
            }
            Command::Hold(session, on, reason, peer, reply) => {
                let answer = self.hold(session, on, &reason, &peer)?;
                self.answer_when_durable(reply, answer);
            }
            Command::Erase(of, field, reason, looked, peer, reply) => {
                let answer = self.erase(of, (&field, &reason), looked, &peer)?;
                send(reply, answer);
            }
            Command::Prune(before, reason, dry_run, peer, reply) => {
                self.ask_to_prune(before, reason, dry_run, &peer, reply);
            }
            Command::Sessions(reply) => send(reply, self.sessions.list(self.clock.boot())),
            Command::Whoami(pid, reply) => {
                let answer = self.whoami(pid);
                send(reply, answer);
            }
            Command::Anchor(nonce, reply) => {
                // Who brings none gets one, so that the answer is as fresh for them.
                let nonce = match nonce {
                    Some(nonce) => nonce,
                    None => random_bytes()?.to_vec(),
                };
                self.ask_anchor(nonce, reply);
            }
            Command::Status(reply) => {
                let status = self.status()?;
                send(reply, status);
            }
            Command::WitnessSaid(said, reply) => {
                self.record_witness(&said)?;
                self.answer_when_durable(reply, ());
            }
        }
        Ok(())
    }

    fn record_witness(&mut self, said: &Said) -> Result<(), PipelineError> {
        let Said { outcome, name, size, root, time, line, detail } = said;
        let answer = WitnessAnswer {
            outcome: *outcome,
            name: Text::new(name.as_bytes()),
            size: *size,
            root: *root,
            time: *time,
            line: line.as_deref().map(|line| Text::new(line.as_bytes())),
            detail: detail.as_deref().map(|detail| Text::new(detail.as_bytes())),
        };
        self.append_now(None, None, Body::Witness(answer)).map(drop)
    }

    fn answer_when_durable<T: Send + 'static>(&mut self, reply: Reply<T>, answer: T) {
        self.waiting.push(Box::new(move || send(reply, answer)));
    }

    fn open_session(&mut self, wish: OpenSession) -> Result<Result<SessionOpened, SessionError>, PipelineError> {
        let open = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        if open >= self.settings.sessions_max {
            return Ok(Err(SessionError::TooMany { open, limit: self.settings.sessions_max }));
        }
        if self.log.is_full() {
            let why = "the disk of the state directory is full, nothing can be recorded of a session".to_owned();
            return Ok(Err(SessionError::Unavailable { why }));
        }
        let (id, token) = (random_hex()?, random_hex()?);
        let (cgroup, cgroup_id) = match self.session_cgroups.create(&id) {
            Ok(made) => made,
            Err(error) => {
                let why = format!("{error}: {}", error.source);
                return Ok(Err(SessionError::Unavailable { why }));
            }
        };
        // In scope before anything can be in it: its first process is captured from its first act.
        self.probe.scope_set(cgroup_id, cgroup_id, self.settings.families)?;
        let OpenSession { identity, task, ttl_ns, labels, peer } = wish;
        let identity =
            identity.unwrap_or_else(|| self.settings.identity_default.replace("{uid}", &peer.uid.to_string()));
        let now = self.clock.boot();
        let issued = Issued {
            id: Text::new(id.as_bytes()),
            sort: SessionSort::Run,
            identity: Text::new(identity.as_bytes()),
            rule: None,
            parent: None,
            cgroup: CgroupId(cgroup_id),
            uid: Some(peer.uid),
            gid: Some(peer.gid),
            ttl: ttl_ns.map(Nanoseconds),
            by: Some(Requester { process: self.process(peer.pid), tgid: peer.pid, uid: peer.uid, gid: peer.gid }),
            claims: IssuedClaims {
                task: task.as_deref().map(|task| task.as_bytes().into()),
                labels: List::from(
                    labels
                        .iter()
                        .map(|(name, value)| Label { name: Text::new(name.as_bytes()), value: value.as_bytes().into() })
                        .collect::<Vec<_>>(),
                ),
            },
        };
        let issued_wall = self.clock.wall();
        let entry = self.append_now(None, None, Body::Issued(issued))?;
        self.attribution.forget(cgroup_id);
        self.sessions.insert(Session {
            id: id.clone(),
            entry,
            identity,
            task,
            labels,
            uid: peer.uid,
            issued_wall,
            expires: ttl_ns.map(|ttl| BootTime(now.0.saturating_add(ttl))),
            cgroup_id,
            cgroup: Some(cgroup),
            command: CommandState::Awaited,
            token: Some((token.clone(), now)),
            escaped: HashMap::new(),
            totals: Totals::default(),
            expiring: false,
        });
        self.want_anchor(AnchorCause::SessionStart);
        Ok(Ok(SessionOpened { id, join_token: token, entry: entry.0 }))
    }

    fn join(&mut self, token: &str, peer: &Peer) -> Result<(), SessionError> {
        let now = self.clock.boot();
        let session = self.sessions.claim_token(token, now).ok_or(SessionError::BadToken {})?;
        if peer.uid != session.uid && peer.uid != 0 {
            // The token stays good for whom it was given to.
            return Err(SessionError::Refused { why: "the join token was given to another user".to_owned() });
        }
        let Some(cgroup) = &session.cgroup else { return Err(SessionError::Ended { id: session.id.clone() }) };
        cgroup
            .adopt(peer.pid)
            .map_err(|error| SessionError::Unavailable { why: format!("{error}: {}", error.source) })?;
        if !peer.is_same_process() {
            // Whoever has the id now is in the session's cgroup without having asked. It cannot be put back where
            // it came from, so the move stays in the log as what it was: the daemon's.
            tracing::error!(
                pid = peer.pid,
                session = session.id,
                "a process that was to join ended, and another took its id"
            );
            return Err(SessionError::Unavailable { why: "the process that asked has ended".to_owned() });
        }
        session.token = None;
        session.command = CommandState::Running;
        Ok(())
    }

    fn command_ended(&mut self, id: &str, peer: &Peer, status: CommandStatus) -> Result<(), SessionError> {
        let Some(session) = self.sessions.by_id_mut(id) else { return Err(self.not_open(id)) };
        if peer.uid != session.uid && peer.uid != 0 {
            return Err(SessionError::Refused { why: "the session is another user's".to_owned() });
        }
        session.command = CommandState::Ended(status);
        Ok(())
    }

    /// Says in the log that a value is erased, seals that, and erases it.
    fn erase(
        &mut self,
        of: EntryIndex,
        (field, reason): (&str, &str),
        mut looked: Looked,
        peer: &Peer,
    ) -> Result<Result<(), SessionError>, PipelineError> {
        let mut fields = None;
        self.log.entries_from(of, |index, entry| {
            if index == of {
                fields = decode(entry).ok().map(|record| record.commitments());
            }
            ControlFlow::Break(())
        })?;
        if fields.is_none() && of < self.log.pruned_before() {
            let why = format!("entry {} was pruned, and the texts behind it with it: there is nothing to erase", of.0);
            return Ok(Err(SessionError::BadRequest { why }));
        }
        let Some(fields) = fields else {
            return Ok(Err(SessionError::BadRequest { why: format!("there is no entry {}", of.0) }));
        };
        // What came since the asker's look, sealed or not.
        self.log.entries_from(looked.next(), |index, entry| {
            looked.entry(index, entry);
            ControlFlow::Continue(())
        })?;
        if let Some(held) = looked.held() {
            // The log has no entry for what was not done.
            tracing::warn!(
                entry = of.0,
                field,
                since = held.since.0,
                pid = peer.pid,
                uid = peer.uid,
                "an erasure was refused: the session is under hold"
            );
            let why = format!(
                "entry {} is of a session under hold since entry {} ({}): nothing of it is erased before `affiant log hold remove`",
                of.0, held.since.0, held.reason
            );
            return Ok(Err(SessionError::Refused { why }));
        }
        if !fields.iter().any(|(known, _)| known == field) {
            let known: Vec<&str> = fields.iter().map(|(known, _)| known.as_str()).collect();
            let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let why = format!("entry {} has no committed value {field:?}; it has {has}", of.0);
            return Ok(Err(SessionError::BadRequest { why }));
        }
        if !self.log.discloses(of, field)? {
            // A record now would explain away a text that somebody took.
            let why = format!("the text of {field:?} of entry {} is not there: it was erased before, or taken", of.0);
            return Ok(Err(SessionError::BadRequest { why }));
        }
        if self.log.epoch().is_none() {
            let why = "the log cannot be signed now, and nothing is erased before its record is sealed".to_owned();
            return Ok(Err(SessionError::Unavailable { why }));
        }
        let by = Requester { process: self.process(peer.pid), tgid: peer.pid, uid: peer.uid, gid: peer.gid };
        let (field_text, reason) = (Text::new(field.as_bytes()), Text::new(reason.as_bytes()));
        self.append_now(None, None, Body::Erased(Erased { of, field: field_text, reason, by }))?;
        // The record first: a text that is gone without one would look stolen.
        self.log.seal(Now { wall: self.clock.wall(), boot: self.clock.boot() })?;
        let erased = self.log.erase(of, field)?;
        tracing::info!(entry = of.0, field, erased, "a committed value was erased");
        Ok(Ok(()))
    }

    fn revoke(&mut self, id: &str) -> Result<Result<(), SessionError>, PipelineError> {
        let Some(scope) = self.sessions.by_id_mut(id).map(|session| session.cgroup_id) else {
            return Ok(Err(self.not_open(id)));
        };
        self.end_session(scope, EndReason::Operator, self.clock.boot())?;
        Ok(Ok(()))
    }

    fn hold(
        &mut self,
        session: EntryIndex,
        on: bool,
        reason: &str,
        peer: &Peer,
    ) -> Result<Result<(), SessionError>, PipelineError> {
        let mut is_issued = false;
        let read = self.log.entries_from(session, |index, entry| {
            is_issued =
                index == session && record::decode(entry).is_ok_and(|record| matches!(record.body(), Body::Issued(_)));
            ControlFlow::Break(())
        });
        if let Err(error) = read {
            return Ok(Err(SessionError::Unavailable { why: format!("entry {} cannot be read: {error}", session.0) }));
        }
        if !is_issued {
            return Ok(Err(SessionError::Unknown { id: format!("of entry {}", session.0) }));
        }
        let by = Requester { process: self.process(peer.pid), tgid: peer.pid, uid: peer.uid, gid: peer.gid };
        self.append_now(None, None, Body::Hold(Hold { session, on, reason: Text::new(reason.as_bytes()), by }))?;
        Ok(Ok(()))
    }

    fn not_open(&self, id: &str) -> SessionError {
        if self.sessions.has_ended(id) {
            SessionError::Ended { id: id.to_owned() }
        } else {
            SessionError::Unknown { id: id.to_owned() }
        }
    }

    /// Writes the `revoked` record of a session and lets go of its cgroup. What its processes do after that is
    /// attributed to what the session left behind.
    pub(super) fn end_session(&mut self, scope: u64, reason: EndReason, now: BootTime) -> Result<(), PipelineError> {
        // Its totals are of every act.
        self.record_folded()?;
        let Some(session) = self.sessions.end(scope, now) else { return Ok(()) };
        let (code, signal) = match session.command {
            CommandState::Ended(status) => (
                status.code.and_then(|code| u32::try_from(code).ok()),
                status.signal.and_then(|signal| u32::try_from(signal).ok()),
            ),
            _ => (None, None),
        };
        let Some(state) = self.log.session(session.entry) else {
            tracing::error!(session = session.id, "the log does not know an open session");
            return Ok(());
        };
        let revoked = Revoked {
            id: Text::new(session.id.as_bytes()),
            cause: match reason {
                EndReason::Exit => RevokeCause::Exit,
                EndReason::Expiry => RevokeCause::Expiry,
                EndReason::Operator => RevokeCause::Operator,
                EndReason::HostStop => RevokeCause::HostStop,
            },
            code,
            signal,
            residual: None,
            acts: List::from(session.totals.counts()),
            entries: state.number.0.saturating_add(1),
            hash: state.hash,
        };
        self.append_now(None, Some(session.entry), Body::Revoked(revoked))?;
        self.want_anchor(AnchorCause::SessionEnd);
        self.attribution.session_ended(scope, &session.id, &session.identity);
        match session.cgroup {
            // The scope stays: what is left of a revoked session goes on being captured, as such.
            Some(cgroup) if cgroup.remove().is_err() => self.left_over.push((scope, cgroup)),
            _ => self.probe.scope_remove(scope)?,
        }
        Ok(())
    }

    /// By the cgroup that the kernel says the process is in now.
    fn whoami(&mut self, pid: u32) -> Option<WhoAmI> {
        let path = cgroup2_path_of(pid)?;
        let (id, _) = self.cgroups.live().find(|(_, node)| node.path == path)?;
        let session = self
            .sessions
            .all()
            .into_iter()
            .find(|session| {
                self.cgroups.get(session.cgroup_id).is_some_and(|root| {
                    path == root.path
                        || path.strip_prefix(root.path.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/'))
                }) || self.process(pid).is_some_and(|process| session.escaped.contains_key(&process))
            })
            .map(|session| (session.id.clone(), session.identity.clone()));
        if let Some((session, identity)) = session {
            return Some(WhoAmI {
                session: Some(session),
                identity,
                cgroup: id,
                established_how: "the session's own cgroup, or descent from a process in it".to_owned(),
            });
        }
        let identity = self.attribution.identity_of(id, &self.cgroups);
        Some(WhoAmI { session: None, identity, cgroup: id, established_how: "cgroup path".to_owned() })
    }

    fn status(&mut self) -> Result<Status, PipelineError> {
        let tpm = self.tpm_status();
        let report = self.probe.report();
        let counters = self.probe.counters()?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ns: self.clock.boot().0.saturating_sub(self.armed_at.0),
            origin: self.log.origin().to_owned(),
            trust_tier: format!("{}: {}", self.log.key_tier().as_str(), self.log.key_place()),
            hook_tier: report.tier.name().to_owned(),
            resumed: report.resumed,
            hooks: report
                .hooks
                .iter()
                .map(|hook| HookStatus { event: hook.event.to_owned(), hook: hook.hook.clone() })
                .collect(),
            not_covered: report
                .not_covered
                .iter()
                .map(|(what, why)| NotCovered { what: what.clone(), why: why.clone() })
                .collect(),
            epoch: self.log.epoch().map(|epoch| epoch.0),
            entries: self.log.durable_size().0,
            sealed: self.log.sealed_size().0,
            log_size: self.keeper.log_bytes(),
            retention: self.retention_status(),
            sessions: self.sessions.len() as u64,
            classes: agent_evidence::record::Class::ALL
                .into_iter()
                .map(|class| {
                    let (generated, dropped) = counters.totals(class as u8);
                    ClassStatus { class: class.name().to_owned(), generated, dropped }
                })
                .collect(),
            tpm,
            storage: StorageStatus {
                state: self.room.state().as_str().to_owned(),
                free_bytes: self.log.free_bytes(),
                left_out: self.room.skipped_total(),
            },
            // Added by the handle, which knows the sinks.
            sinks: Vec::new(),
        })
    }
}

/// Gives an answer; one whose asker went away is nobody's loss.
pub(super) fn send<T>(reply: Reply<T>, answer: T) {
    drop(reply.send(answer));
}

fn random_bytes() -> Result<[u8; ID_BYTES], PipelineError> {
    let mut bytes = [0_u8; ID_BYTES];
    getrandom::fill(&mut bytes).map_err(PipelineError::Random)?;
    Ok(bytes)
}

fn random_hex() -> Result<String, PipelineError> {
    Ok(random_bytes()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The path of a process's cgroup in the default hierarchy: the line `0::` of `/proc/PID/cgroup`, read by the
/// daemon in its own namespaces.
fn cgroup2_path_of(pid: u32) -> Option<Vec<u8>> {
    let text = std::fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::")).map(<[u8]>::to_vec)
}
