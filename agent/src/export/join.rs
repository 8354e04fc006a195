//! What earlier entries say about the things later entries refer to by key.
//!
//! A workload, a session and a process are described once in the log and referred to after that;
//! a SIEM wants each event whole. This table is that memory: pure, bounded, and rebuilt by reading
//! the log again. What it does not know is said to be unknown, never guessed: a process may have
//! been forgotten (the table is full), or described before the part of the log that was read.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};

use agent_evidence::record::{Body, EntryIndex, Exec, ProcessCookie, Record, Text, Value, ValueList};

use crate::cli::output::shell_word;

/// Most processes remembered. A process costs at most about 1.5 KiB with its path and command line,
/// so the table stays below 24 MiB at worst; a host with 1,000 processes needs 0.3 MiB.
const PROCESSES_MAX: usize = 16_384;

/// Most processes remembered that have ended: their children may still name them as parent.
const ENDED_MAX: usize = 1024;

/// Most workloads and most sessions remembered. They can be read again by index when forgotten.
const DESCRIPTIONS_MAX: usize = 16_384;

/// Longest command line remembered, in bytes; the `exec` event itself has the whole.
const COMMAND_LINE_SIZE_MAX: usize = 1024;

/// The host, as `genesis` and the newest `armed` describe it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// The kernel's boot id.
    pub boot_id: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// SHA-256 of the machine id, in hexadecimal.
    pub machine: Option<String>,
    /// Version of the agent.
    pub agent_version: Option<String>,
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What sort of thing it is.
    pub sort: &'static str,
    /// Its identity.
    pub id: String,
    /// Path of its cgroup.
    pub path: String,
    /// How the identity was established.
    pub how: String,
    /// What is known of it.
    pub labels: Vec<(String, String)>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Its identity.
    pub identity: String,
    /// When it was issued, by the host's clock, in nanoseconds since 1970.
    pub issued_wall_ns: u64,
    /// Its time to live in nanoseconds.
    pub ttl_ns: Option<u64>,
    /// What the requester says it is for: a claim.
    pub task: Option<String>,
}

/// A process image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its tgid.
    pub tgid: u32,
    /// When it started, in nanoseconds since boot, where known.
    pub start_ns: Option<u64>,
    /// Its parent's cookie, where known.
    pub parent: Option<u64>,
    /// Path of its binary, where known.
    pub path: Option<Vec<u8>>,
    /// Its command line, as a shell would read it, where known.
    pub command_line: Option<Box<str>>,
    /// Whether the command line is only the first `COMMAND_LINE_SIZE_MAX` bytes of it.
    pub command_line_cut: bool,
    /// Real user id.
    pub uid: u32,
}

/// The memory.
#[derive(Debug, Default)]
pub struct JoinTable {
    host: Host,
    workloads: Bounded<Workload>,
    sessions: Bounded<Session>,
    processes: HashMap<u64, Process>,
    /// Cookies in the order they were learned; may hold cookies that are gone.
    learned: VecDeque<u64>,
    ended: VecDeque<u64>,
}

/// A map that forgets its oldest key when it is full.
#[derive(Debug)]
struct Bounded<V> {
    values: HashMap<u64, V>,
    order: VecDeque<u64>,
}

impl<V> Default for Bounded<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<V> Bounded<V> {
    fn insert(&mut self, key: u64, value: V) {
        if self.values.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        while self.values.len() > DESCRIPTIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }
}

impl JoinTable {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The workload that an entry describes.
    #[must_use]
    pub fn workload(&self, index: EntryIndex) -> Option<&Workload> {
        self.workloads.values.get(&index.0)
    }

    /// The session that an entry issues.
    #[must_use]
    pub fn session(&self, index: EntryIndex) -> Option<&Session> {
        self.sessions.values.get(&index.0)
    }

    /// A process as it is now.
    #[must_use]
    pub fn process(&self, cookie: ProcessCookie) -> Option<&Process> {
        self.processes.get(&cookie.0)
    }

    /// A process as it is now, by its bare cookie.
    #[must_use]
    pub fn processes_by_cookie(&self, cookie: u64) -> Option<&Process> {
        self.processes.get(&cookie)
    }

    /// How many processes are remembered.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    /// Learns from one entry, in the order of the log. Call it after the entry was mapped: an
    /// `exec` is mapped with the image before it in the table.
    pub fn learn(&mut self, record: &Record<'_>) {
        let index = record.index().0;
        let cookie = record.draft.process.map(|cookie| cookie.0);
        match record.body() {
            Body::Genesis(genesis) => {
                self.host.machine = genesis.machine.map(|digest| hex(&digest.0));
                self.host.boot_id = Some(owned(&genesis.boot_id));
                self.host.kernel = Some(owned(&genesis.kernel));
            }
            Body::Armed(armed) => {
                let boot_id = owned(&armed.boot_id);
                // Cookies and cgroup ids mean nothing in another boot.
                if self.host.boot_id.as_ref() != Some(&boot_id) {
                    self.processes.clear();
                    self.learned.clear();
                    self.ended.clear();
                }
                self.host.boot_id = Some(boot_id);
                self.host.kernel = Some(owned(&armed.kernel));
                self.host.agent_version = Some(owned(&armed.agent_version));
            }
            Body::Workload(workload) => self.workloads.insert(
                index,
                Workload {
                    sort: workload.sort.as_str(),
                    id: owned(&workload.id),
                    path: owned(&workload.path),
                    how: owned(&workload.how),
                    labels: workload
                        .labels
                        .iter()
                        .map(|label| (owned(&label.name), label.value.clear().map(owned).unwrap_or_default()))
                        .collect(),
                },
            ),
            Body::Issued(issued) => self.sessions.insert(
                index,
                Session {
                    id: owned(&issued.id),
                    identity: owned(&issued.identity),
                    issued_wall_ns: record.draft.wall.0,
                    ttl_ns: issued.ttl.map(|ttl| ttl.0),
                    task: issued.claims.task.as_ref().and_then(Value::clear).map(owned),
                },
            ),
            Body::Process(process) => {
                if let Some(cookie) = cookie {
                    self.put(
                        cookie,
                        Process {
                            tgid: process.tgid,
                            start_ns: Some(process.start.0),
                            parent: process.parent.map(|parent| parent.0),
                            path: process.path.as_ref().and_then(Value::clear).map(|path| path.as_bytes().to_vec()),
                            command_line: None,
                            command_line_cut: false,
                            uid: process.uid,
                        },
                    );
                }
            }
            Body::Fork(fork) => {
                // A new process runs its parent's image until it replaces it.
                let image = cookie.and_then(|parent| self.processes.get(&parent));
                let child = Process {
                    tgid: fork.child_tgid,
                    start_ns: Some(fork.child_start.0),
                    parent: cookie,
                    path: image.and_then(|image| image.path.clone()),
                    command_line: image.and_then(|image| image.command_line.clone()),
                    command_line_cut: image.is_some_and(|image| image.command_line_cut),
                    uid: fork.uid,
                };
                self.put(fork.child.0, child);
            }
            Body::Exec(exec) => {
                if let Some(cookie) = cookie {
                    let start_ns = self.processes.get(&cookie).and_then(|before| before.start_ns);
                    self.put(cookie, remembered(image_of(exec, start_ns)));
                }
            }
            Body::Exit(_) => {
                if let Some(cookie) = cookie {
                    self.ended.push_back(cookie);
                    if self.ended.len() > ENDED_MAX
                        && let Some(oldest) = self.ended.pop_front()
                    {
                        self.processes.remove(&oldest);
                    }
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, cookie: u64, process: Process) {
        if self.processes.insert(cookie, process).is_none() {
            self.learned.push_back(cookie);
        }
        while self.processes.len() > PROCESSES_MAX {
            let Some(oldest) = self.ended.pop_front().or_else(|| self.learned.pop_front()) else {
                break;
            };
            self.processes.remove(&oldest);
        }
        // Processes that ended leave their cookies behind; sweep before these outweigh the table.
        if self.learned.len() > 2 * PROCESSES_MAX {
            let processes = &self.processes;
            self.learned.retain(|cookie| processes.contains_key(cookie));
        }
    }
}

/// The image that an `exec` establishes.
#[must_use]
pub fn image_of(exec: &Exec<'_>, start_ns: Option<u64>) -> Process {
    Process {
        tgid: exec.tgid,
        start_ns,
        parent: Some(exec.parent.0),
        path: exec.path.as_ref().and_then(Value::clear).map(|path| path.as_bytes().to_vec()),
        command_line: Some(command_line(&exec.argv)),
        command_line_cut: false,
        uid: exec.uid,
    }
}

fn command_line(argv: &ValueList<'_>) -> Box<str> {
    let words: Vec<String> = argv
        .iter()
        .map(|word| word.clear().map_or_else(|| word.display(), |text| shell_word(text.as_bytes())))
        .collect();
    words.join(" ").into_boxed_str()
}

/// The image with no more of its command line than is remembered.
fn remembered(mut image: Process) -> Process {
    if let Some(line) = &image.command_line
        && line.len() > COMMAND_LINE_SIZE_MAX
    {
        let end = line.floor_char_boundary(COMMAND_LINE_SIZE_MAX);
        image.command_line = line.get(..end).map(Box::from);
        image.command_line_cut = true;
    }
    image
}

fn owned(text: &Text<'_>) -> String {
    text.display()
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
