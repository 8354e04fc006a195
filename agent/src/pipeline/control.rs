//! What the agent records about itself: `armed`, `scope`, `heartbeat`, `disarmed`, and the processes that were
//! alive before capture began.

use agent_common::stats::family;
use agent_evidence::record::{
    AnchorCause, Armed, Body, BootTime, Cadence, CgroupId, CommClaims, Counter, Digest, DisarmCause, Disarmed, Draft,
    Heartbeat, Hook, List, NotCovered, Process, ProcessCookie, Scope, ScopeRoot, SecureBoot, Text, Value,
};

use super::error::PipelineError;
use super::recorder::{Recorder, append};

/// Class bits of `scope` records: process and cgroup events and privileged acts are captured of the whole host.
const HOST_CLASSES: u32 = 0b1_0011;
/// Most scope roots in one `scope` record, so that it stays below an entry's limit.
const ROOTS_PER_RECORD_MAX: usize = 200;
/// Most rows of one `heartbeat`: counters of 64 processors and the sessions that fit beside them.
const SESSIONS_PER_RECORD_MAX: usize = 300;

impl Recorder {
    /// Says what captures what from here on.
    pub(super) fn record_armed(&mut self) -> Result<(), PipelineError> {
        let report = self.probe.report().clone();
        let hooks = report
            .hooks
            .iter()
            .map(|hook| Hook {
                event: Text::from(hook.event),
                hook: Text::new(hook.hook.as_bytes()),
                program: Text::from(hook.program),
                tag: Text::new(hook.tag.as_bytes()),
                id: hook.program_id,
                link: Some(hook.link_id),
            })
            .collect::<Vec<_>>();
        let not_covered = report
            .not_covered
            .iter()
            .map(|(what, why)| NotCovered { what: Text::new(what.as_bytes()), why: Text::new(why.as_bytes()) })
            .collect::<Vec<_>>();
        let settings = self.settings.clone();
        let scope = self.scope_text();
        let uname = rustix::system::uname();
        let armed = Armed {
            run: settings.run,
            boot_id: Text::new(settings.boot_id.as_bytes()),
            capture_id: self.capture_id,
            resumed: report.resumed,
            agent_version: Text::from(env!("CARGO_PKG_VERSION")),
            agent_digest: Digest(settings.agent_digest),
            object_digest: Digest(report.object_digest),
            offsets_digest: Digest(report.offsets_digest),
            config_digest: Digest(settings.config_digest),
            policy_digest: None,
            kernel: Text::new(report.kernel_release.as_bytes()),
            kernel_build: Some(Text::new(uname.version().to_bytes())),
            lockdown: Text::new(report.lockdown.as_deref().unwrap_or("unknown").as_bytes()),
            secure_boot: secure_boot(),
            hook_tier: Text::from(report.tier.name()),
            key_tier: self.log.key_tier(),
            cadence: Cadence {
                commit_ms: settings.commit_ms,
                seal_ms: settings.seal_ms,
                heartbeat_ms: settings.heartbeat_ms,
                anchor_ms: settings.anchor_ms,
                counter_ms: settings.counter_ms,
            },
            hooks: List::from(hooks),
            not_covered: List::from(not_covered),
            scope: Text::new(scope.as_bytes()),
        };
        self.append_now(None, None, Body::Armed(armed))?;
        for set in &report.removed {
            tracing::warn!(dir = %set.dir.display(), why = set.why, unread_bytes = set.unread_bytes, "a pinned set of another version was removed");
        }
        Ok(())
    }

    fn scope_text(&self) -> String {
        let families = match self.settings.families {
            family::ALL => "process, cgroup, network and file events and privileged acts",
            family::FILE => "process, cgroup and file events and privileged acts",
            family::NETWORK => "process, cgroup and network events and privileged acts",
            _ => "process and cgroup events and privileged acts",
        };
        let containers = if self.settings.containers { ", containers and pods" } else { "" };
        let units = if self.settings.units.is_empty() {
            String::new()
        } else {
            format!(", units {}", self.settings.units.join(" "))
        };
        format!(
            "sessions{containers}{units}: {families}; the rest of the host: process and cgroup events and privileged acts; \
             of the agent itself: process and cgroup events"
        )
    }

    /// Puts the containers and units that exist already in scope, and records the scope in force.
    pub(super) fn scope_existing(&mut self) -> Result<(), PipelineError> {
        let wanted: Vec<(u64, Vec<u8>)> = self
            .cgroups
            .live()
            .filter(|(id, _)| self.is_wanted(*id))
            .map(|(id, node)| (id, node.path.clone()))
            .collect();
        // The root of a scope is the topmost wanted cgroup: a container's own children belong to it.
        let mut roots: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut by_depth = wanted;
        by_depth.sort_by_key(|(_, path)| path.len());
        for (id, path) in by_depth {
            let root = roots.iter().find(|(_, root)| below(&path, root)).map_or(id, |(root, _)| *root);
            self.probe.scope_set(id, root, self.settings.families)?;
            if root == id {
                roots.push((id, path));
            }
        }
        for session in self.sessions.all() {
            if let Some(node) = self.cgroups.get(session.cgroup_id) {
                roots.push((session.cgroup_id, node.path.clone()));
            }
        }
        let classes = HOST_CLASSES | (self.settings.families << 2);
        let text = self.scope_text();
        let rows = roots
            .iter()
            .map(|(id, path)| ScopeRoot { cgroup: Some(CgroupId(*id)), path: Text::new(path), classes })
            .collect::<Vec<_>>();
        let mut chunks = rows.chunks(ROOTS_PER_RECORD_MAX).collect::<Vec<_>>();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let scope =
                Scope { text: Text::new(text.as_bytes()), host_classes: HOST_CLASSES, roots: List::from(chunk) };
            self.append_now(None, None, Body::Scope(scope))?;
        }
        Ok(())
    }

    fn counters(&self) -> Result<Vec<Counter>, PipelineError> {
        let settled: std::collections::HashMap<_, _> =
            self.accounting.settled().into_iter().map(|(stream, settled, _)| (stream, settled)).collect();
        Ok(self
            .read_counters()?
            .into_iter()
            // A processor that never ran a program says nothing.
            .filter(|(_, reading)| reading.generated > 0)
            .map(|(stream, reading)| Counter {
                cpu: stream.cpu,
                class: stream.class,
                next: reading.generated,
                dropped: reading.dropped,
                settled: settled.get(&stream).copied().unwrap_or(0),
            })
            .collect())
    }

    /// Says that the agent lives, and where its counters and sessions stand.
    pub(super) fn record_heartbeat(&mut self) -> Result<(), PipelineError> {
        let check = self.probe.check_hooks()?;
        if !check.ok {
            tracing::error!("a hook is no longer attached as it was armed: {}", check.what);
            self.want_anchor(AnchorCause::Act);
        }
        let counters = self.counters()?;
        let states = self.log.sessions();
        let mut chunks = states.chunks(SESSIONS_PER_RECORD_MAX).collect::<Vec<_>>();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        for (number, sessions) in chunks.into_iter().enumerate() {
            let heartbeat = Heartbeat {
                capture_id: self.capture_id,
                counters: List::from(if number == 0 { counters.as_slice() } else { &[] }),
                sessions: List::from(sessions),
                hooks_ok: check.ok,
                hooks_digest: Digest(check.digest),
                canaries: List::default(),
            };
            // All parts carry one time: recovery takes them for one heartbeat.
            let draft = Draft {
                wall,
                boot,
                kernel: None,
                process: None,
                workload: None,
                session: None,
                verdict: None,
                body: Body::Heartbeat(heartbeat),
            };
            append(&mut self.log, &draft)?;
        }
        Ok(())
    }

    /// Ends this run in order.
    pub(super) fn record_disarmed(&mut self, cause: DisarmCause) -> Result<(), PipelineError> {
        let counters = self.counters()?;
        let sessions = self.log.sessions();
        let disarmed = Disarmed {
            cause,
            capture_id: self.capture_id,
            counters: List::from(counters),
            sessions: List::from(sessions.get(..SESSIONS_PER_RECORD_MAX.min(sessions.len())).unwrap_or_default()),
        };
        self.append_now(None, None, Body::Disarmed(disarmed))?;
        Ok(())
    }

    /// Describes the processes that were alive before capture began, so that later acts of theirs have an origin.
    /// After a takeover there are none: their forks and execs are in the log or the ring.
    pub(super) fn record_backfill(&mut self) -> Result<(), PipelineError> {
        if self.probe.report().resumed {
            return Ok(());
        }
        for alive in self.probe.backfill()? {
            if self.log.is_full() {
                // Only the control chain has room. What a description would add, an act's own entry says too.
                tracing::warn!("the disk is full: the processes that run already are not described");
                return Ok(());
            }
            let workload = match self.sessions.by_scope(alive.scope_id) {
                Some(_) => None,
                None => Some(self.workload_of(alive.cgroup_id)?),
            };
            let process = Process {
                tgid: alive.tgid,
                start: BootTime(alive.start_ns),
                parent: (alive.parent_tgid != 0)
                    .then(|| ProcessCookie::derive(BootTime(alive.parent_start_ns), alive.parent_tgid)),
                cgroup: CgroupId(alive.cgroup_id),
                path: alive.path.as_deref().map(Value::from),
                uid: alive.uid,
                gid: alive.gid,
                euid: alive.euid,
                egid: alive.egid,
                how: Text::from(alive.how),
                claims: CommClaims { comm: Text::new(&alive.comm) },
            };
            let boot = self.clock.boot();
            let draft = Draft {
                wall: self.clock.wall(),
                boot,
                kernel: None,
                process: Some(ProcessCookie::derive(BootTime(alive.start_ns), alive.tgid)),
                workload,
                session: None,
                verdict: None,
                body: Body::Process(process),
            };
            append(&mut self.log, &draft)?;
        }
        Ok(())
    }
}

/// Whether `path` lies below `root`.
fn below(path: &[u8], root: &[u8]) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// What the firmware's variable says (UEFI specification 2.10, section 3.3: four bytes of attributes, one of value).
/// Reported by the agent, not measured.
fn secure_boot() -> SecureBoot {
    const VARIABLE: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    match std::fs::read(VARIABLE).ok().as_deref() {
        Some([_, _, _, _, 1]) => SecureBoot::On,
        Some([_, _, _, _, 0]) => SecureBoot::Off,
        _ => SecureBoot::Unknown,
    }
}
