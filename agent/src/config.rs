//! The agent's configuration: every key with its unit, default and limit, and the checks on them.
//!
//! Owns the meaning of `affiant.toml` and nothing else: it reads no file but the one it is given,
//! and it starts nothing. A `Config` that exists has passed every check, so its users never check
//! again. The file is trusted as root's word; a mistake in it is answered with the key, what was
//! seen, what was expected, and the line.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use agent_evidence::cosignature::WitnessKey;
use agent_evidence::record::CommitRules;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::de::{DeTable, DeValue};

use crate::probe::TierChoice;
use crate::tpm;
use crate::witness::client::WitnessUrl;

/// Where the configuration is looked for when `--config` is not given.
pub const DEFAULT_PATH: &str = "/etc/affiant/affiant.toml";

/// Largest configuration file, in bytes. The annotated default is under 5 KiB; a file of this size
/// is a mistake (a log given by accident), and reading it whole must stay cheap.
pub const FILE_SIZE_MAX: u64 = 256 * 1024;

/// Most entries in any one list of the configuration.
const LIST_LEN_MAX: usize = 256;

/// Longest text in the configuration, in bytes.
const TEXT_SIZE_MAX: usize = 512;

/// The agent's whole configuration. `Config::default()` is what runs without a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where things are kept.
    pub paths: Paths,
    /// Who may open sessions, and for how long.
    pub run: Run,
    /// The tamper-evident log.
    pub log: LogConfig,
    /// What ties the log to this machine.
    pub tpm: TpmConfig,
    /// Room on the disk of the state directory.
    pub storage: StorageConfig,
    /// Liveness records.
    pub heartbeat: Heartbeat,
    /// What is captured besides sessions.
    pub capture: Capture,
    /// What is written as a commitment.
    pub privacy: Privacy,
    /// Who may read what was captured.
    pub access: Access,
    /// Where entries are sent.
    pub export: Export,
    /// Who is asked to cosign the log's checkpoints.
    #[serde(rename = "witness", skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<WitnessConfig>,
}

/// A witness that is asked (C2SP tlog-witness).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its verifier key: `name+key id+key`, of type 0x04.
    pub vkey: String,
    /// Its submission prefix, `http://host[:port][/prefix]`.
    pub url: String,
    /// How often it is asked, in seconds.
    #[serde(default = "witness_interval_s")]
    pub interval_s: u64,
}

fn witness_interval_s() -> u64 {
    60
}

/// Places on the host. All are absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// State directory: log, write-ahead log, keys, cursors. Trusted; mode 0700 except `log/`.
    pub state: PathBuf,
    /// Run directory: the control socket.
    pub run: PathBuf,
    /// Directory of a BPF file system for pinned objects; it is mounted when absent.
    pub bpf_pins: PathBuf,
    /// Mount point of the cgroup2 hierarchy; none: found in `/proc/mounts`.
    #[serde(with = "empty_is_none")]
    pub cgroup_root: Option<PathBuf>,
    /// Name of the directory under the cgroup2 root that holds one cgroup per session.
    /// One path component.
    pub cgroup_name: String,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/affiant"),
            run: PathBuf::from("/run/affiant"),
            bpf_pins: PathBuf::from("/sys/fs/bpf/affiant"),
            cgroup_root: None,
            cgroup_name: "affiant".to_owned(),
        }
    }
}

impl Paths {
    /// The C2SP tiles directory.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The signing keys: root's alone.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.state.join("keys")
    }

    /// Durable cursors, one file per sink.
    #[must_use]
    pub fn cursors(&self) -> PathBuf {
        self.state.join("cursors")
    }

    /// The socket that `affiant run`, `status` and `session` talk to.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }
}

/// Who may open sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// User ids that may use `affiant run`. Root always may.
    pub allow_uids: Vec<u32>,
    /// Group ids whose members may use `affiant run`, by primary or supplementary group.
    pub allow_gids: Vec<u32>,
    /// Identities that users other than root may ask for. `*` stands for any run of characters
    /// except `/`, and `{uid}` for the asker's user id. Root may ask for any.
    pub allow_identities: Vec<String>,
    /// Identity of a session that asked for none. `{uid}` stands for the asker's user id.
    pub identity_default: String,
    /// Time to live of a session that asked for none, in seconds of boot time; 0: no limit but
    /// `ttl_max_s`.
    pub ttl_default_s: u64,
    /// Longest time to live that may be asked for, in seconds of boot time.
    pub ttl_max_s: u64,
    /// Most sessions open at once, over all users.
    pub sessions_max: u32,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            allow_uids: Vec::new(),
            allow_gids: Vec::new(),
            allow_identities: vec!["spiffe://local/user/{uid}/*".to_owned()],
            identity_default: "spiffe://local/user/{uid}/run".to_owned(),
            ttl_default_s: 12 * 3600,
            ttl_max_s: 7 * 24 * 3600,
            sessions_max: 1024,
        }
    }
}

/// The tamper-evident log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Origin line of the checkpoints; none: made from the host's name and a random part when the
    /// log is created. It cannot be changed afterwards.
    #[serde(with = "empty_is_none")]
    pub origin: Option<String>,
    /// Longest time an entry waits to be durable, in milliseconds.
    pub commit_ms: u64,
    /// Longest time a durable entry waits for a signed checkpoint, in milliseconds.
    pub seal_ms: u64,
    /// Length of a key epoch, in seconds.
    pub epoch_s: u64,
    /// Whether entries of long ago are kept as plain C2SP bundles or packed into compressed segments, a tenth of the
    /// size. `affiant log unpack` makes the plain view of packed ones.
    pub cold: Cold,
    /// How many of the newest entries stay plain when the cold ones are packed.
    pub cold_after: u64,
    /// How hard segments are compressed: zlib's levels.
    pub cold_level: u8,
    /// What the daemon does when the store contradicts itself at start: halt with exit code 70, or put the log aside,
    /// unchanged, and begin a successor whose genesis names its head.
    pub on_fault: OnFault,
    /// When entries of long ago go.
    pub retention: RetentionConfig,
}

/// When entries of long ago go. Off as it stands: nothing is pruned but by `affiant log prune`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Days after which entries go; 0: age prunes nothing. By the wall time at which they were written and by the time
    /// that the daemon has run since, both.
    pub max_age_days: u64,
    /// MiB on the disk that the log's directory may take before its oldest entries go; 0: size prunes nothing.
    pub max_mib: u64,
    /// How many of the newest entries no rule prunes.
    pub min_entries: u64,
    /// Whether rules leave alone what a sink has not sent yet.
    pub wait_for_sinks: bool,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { max_age_days: 0, max_mib: 0, min_entries: 65_536, wait_for_sinks: true }
    }
}

/// What happens when the store contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFault {
    /// The daemon ends, and somebody looks.
    Halt,
    /// Capture goes on in a new log.
    Succeed,
}

/// How entries of long ago are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cold {
    /// As bundles and tiles that any C2SP reader reads.
    Plain,
    /// Compressed.
    Packed,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            origin: None,
            commit_ms: 50,
            seal_ms: 1000,
            epoch_s: 3600,
            cold: Cold::Packed,
            cold_after: 1 << 20,
            cold_level: 6,
            on_fault: OnFault::Halt,
            retention: RetentionConfig::default(),
        }
    }
}

/// The TPM: where it is, and how often it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TpmConfig {
    /// `auto`: `/dev/tpmrm0` if it is there; `none`: none; a path of a device; or a TCTI such as
    /// `swtpm:host=127.0.0.1,port=2321`.
    pub device: String,
    /// Whether the daemon ends with exit code 69 when there is no TPM that works, instead of running at tier T0.
    pub required: bool,
    /// Time between two anchors (quotes over the newest checkpoint), in seconds.
    pub anchor_seconds: u64,
    /// Shortest time between two anchors that nobody waits for, in seconds: occasions closer together share one.
    pub anchor_spacing_seconds: u64,
    /// Time between two steps of the NV counter, in seconds.
    pub counter_seconds: u64,
    /// Most steps in 24 hours of the TPM's clock, starts and stops included: NV memory wears out. 0: no counter.
    pub counter_steps_per_day_max: u32,
    /// Handle of the counter's NV index, in the owner's range (TCG registry of reserved handles).
    pub nv_index: u32,
    /// Time between two readings of the kernel's measurement list (IMA), in seconds; with the first goes the firmware's event
    /// log. 0: neither is kept.
    pub measured_seconds: u64,
    /// What the daemon does when the counter is not where the log says: record it and go on, or end with exit code 70.
    pub on_counter_gap: OnCounterGap,
}

/// What happens when the counter is not where the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCounterGap {
    /// A `condition` says so, and capture goes on.
    Record,
    /// The daemon ends, and somebody looks.
    Halt,
}

impl Default for TpmConfig {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            required: false,
            anchor_seconds: 60,
            anchor_spacing_seconds: 2,
            counter_seconds: 3600,
            counter_steps_per_day_max: 48,
            nv_index: 0x0150_0100,
            measured_seconds: 900,
            on_counter_gap: OnCounterGap::Record,
        }
    }
}

/// Room on the disk of the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Free MiB below which the disk is low. It has room again from a quarter more.
    pub low_mib: u64,
    /// MiB held in reserve for the last records and seals of a full disk.
    pub reserve_mib: u64,
    /// What is not captured while the disk is low; on a full one nothing is but the agent's own records. Either way the
    /// log says exactly which events were left out.
    pub drop: Vec<Family>,
}

/// A family of events that may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Process starts and ends.
    Process,
    /// Connects.
    Network,
    /// Opens of files.
    File,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { low_mib: 256, reserve_mib: 24, drop: vec![Family::File, Family::Network] }
    }
}

/// Liveness records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heartbeat {
    /// Time between heartbeat records, in seconds.
    pub interval_s: u64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval_s: 10 }
    }
}

/// What is captured with every event family besides sessions, which always are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// Containers and pods, as recognized by their cgroup.
    pub containers: bool,
    /// systemd units by name (`nginx.service`); `*` stands for any run of characters.
    pub units: Vec<String>,
    /// Whether file opens are captured in scope.
    pub files: bool,
    /// Directories of installed software: plain reads of their files, which everybody may read and only the owner may
    /// write, are counted per process and directory (`file_folded`) instead of recorded one by one. Empty: all are
    /// recorded.
    pub fold: Vec<PathBuf>,
    /// Whether connects are captured in scope.
    pub network: bool,
    /// Which tier of hooks: `auto` takes the best that the kernel allows; any other is taken or is an error.
    pub tier: TierChoice,
    /// Whether capture goes on in the kernel's rings when the daemon stops in order, so that the next one reads
    /// what happened in between. Otherwise every hook is detached.
    pub keep_on_stop: bool,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            containers: true,
            units: Vec::new(),
            files: true,
            fold: ["/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/share"].map(PathBuf::from).to_vec(),
            network: true,
            tier: TierChoice::Auto,
            keep_on_stop: true,
        }
    }
}

/// Who may read what was captured. Entries hold argv and paths, which are sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Group that may read the log directory and list sessions; none: root only.
    #[serde(with = "empty_is_none")]
    pub reader_group: Option<String>,
}

/// What is written as a commitment, its text kept beside the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Privacy {
    /// Fields such as `exec.argv`, `open.path`, `*.claims.asked`; `*` stands for every kind.
    pub commit: Vec<String>,
}

/// Where entries are sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Export {
    /// OCSF events, one JSON object per line, appended to a file.
    pub ocsf_file: OcsfFile,
}

/// The OCSF file sink.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OcsfFile {
    /// The file appended to (created with mode 0640); none: the sink is off.
    #[serde(with = "empty_is_none")]
    pub path: Option<PathBuf>,
}

/// Writes an absent value as the empty string, so that a file can show every key at its default.
mod empty_is_none {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: From<String>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        Ok((!text.is_empty()).then(|| T::from(text)))
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("configuration {path} has {seen} bytes; expected at most {FILE_SIZE_MAX}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        seen: u64,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{place}: {}{message}", key_prefix(.key.as_deref()))]
    Syntax {
        /// File and line.
        place: Place,
        /// The dotted key, when the mistake is inside one.
        key: Option<String>,
        /// What the parser said: what was seen and what was expected.
        message: String,
    },
    /// A value of the right type outside its limits.
    #[error("{place}: {key} is {seen}; expected {expected}")]
    Value {
        /// File and line; line 0 when the value is a default or came from the command line.
        place: Place,
        /// The dotted key.
        key: &'static str,
        /// The value.
        seen: String,
        /// What is allowed.
        expected: String,
    },
}

fn key_prefix(key: Option<&str>) -> String {
    key.map(|key| format!("{key}: ")).unwrap_or_default()
}

/// A line of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; 0 when there is none.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.path.display()),
            line => write!(f, "{} line {line}", self.path.display()),
        }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Unreadable, too large, not TOML, an unknown key, a wrong type, or a value outside its limit.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(read_error)?.len();
        if size > FILE_SIZE_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned(), seen: size });
        }
        let text = std::fs::read_to_string(path).map_err(read_error)?;
        Self::parse(&text, path)
    }

    /// Reads the file at `path` when one was named, else the default place, else the defaults.
    ///
    /// A file that was named must exist; the default place may be empty.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_or_default(path: Option<&Path>) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Self::load(path),
            None => match Self::load(Path::new(DEFAULT_PATH)) {
                Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    Ok(Self::default())
                }
                other => other,
            },
        }
    }

    /// Parses and checks the text of a file; `path` is only named in errors.
    ///
    /// # Errors
    /// Not TOML, an unknown key, a wrong type, or a value outside its limit.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let span = error.span();
            ConfigError::Syntax {
                place: Place { path: path.to_owned(), line: span.as_ref().map_or(0, |span| line_of(text, span.start)) },
                key: span.and_then(|span| key_at(text, span.start)),
                message: error.message().replace('\n', "; "),
            }
        })?;
        match config.first_mistake() {
            None => Ok(config),
            Some(mistake) => Err(ConfigError::Value {
                place: Place { path: path.to_owned(), line: line_of_key(text, mistake.key) },
                key: mistake.key,
                seen: mistake.seen,
                expected: mistake.expected,
            }),
        }
    }

    /// Uses another state directory, as `--state` asks.
    ///
    /// # Errors
    /// When the path is not absolute.
    pub fn with_state(mut self, state: PathBuf) -> Result<Self, ConfigError> {
        self.paths.state = state;
        match self.first_mistake() {
            None => Ok(self),
            Some(mistake) => Err(ConfigError::Value {
                place: Place { path: PathBuf::from("--state"), line: 0 },
                key: mistake.key,
                seen: mistake.seen,
                expected: mistake.expected,
            }),
        }
    }

    /// The effective configuration as a file that would give the same.
    ///
    /// # Errors
    /// When a path is not UTF-8, which a parsed file cannot contain.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// The first value outside its limits, in the order of the file.
    fn first_mistake(&self) -> Option<Mistake> {
        let Self { paths, run, log, tpm, storage, heartbeat, capture, privacy, access, export, witnesses } = self;
        let day_s = 24 * 3600;
        [
            absolute("paths.state", Some(&paths.state)),
            absolute("paths.run", Some(&paths.run)),
            absolute("paths.bpf_pins", Some(&paths.bpf_pins)),
            absolute("paths.cgroup_root", paths.cgroup_root.as_deref()),
            component("paths.cgroup_name", &paths.cgroup_name),
            list_len("run.allow_uids", run.allow_uids.len()),
            list_len("run.allow_gids", run.allow_gids.len()),
            texts("run.allow_identities", &run.allow_identities),
            identity("run.identity_default", &run.identity_default),
            // Half a year: a longer session is a service, and belongs in a unit.
            within("run.ttl_max_s", run.ttl_max_s, 1..=183 * day_s),
            within("run.ttl_default_s", run.ttl_default_s, 0..=run.ttl_max_s),
            within("run.sessions_max", run.sessions_max.into(), 1..=65_536),
            log.origin.as_deref().and_then(|origin| origin_line("log.origin", origin)),
            within("log.commit_ms", log.commit_ms, 1..=1000),
            within("log.seal_ms", log.seal_ms, log.commit_ms..=60_000),
            within("log.epoch_s", log.epoch_s, 60..=day_s),
            // The newest segment's worth stays plain: recovery and `tail` look there.
            within("log.cold_after", log.cold_after, 65_536..=1 << 53),
            within("log.cold_level", log.cold_level.into(), 0..=10),
            // A century.
            within("log.retention.max_age_days", log.retention.max_age_days, 0..=36_525),
            // Below 64 MiB the newest entries alone take more; a PiB is a mistake.
            at_least_unless_off("log.retention.max_mib", log.retention.max_mib, 64..=1 << 30),
            // Sixteen bundles: some minutes of an idle host.
            within("log.retention.min_entries", log.retention.min_entries, 4_096..=1 << 53),
            tpm_device("tpm.device", &tpm.device),
            within("tpm.anchor_seconds", tpm.anchor_seconds, 5..=day_s),
            within("tpm.anchor_spacing_seconds", tpm.anchor_spacing_seconds, 1..=60),
            within("tpm.counter_seconds", tpm.counter_seconds, 60..=7 * day_s),
            // At one step a minute an NV cell of 100,000 writes lasts ten weeks.
            within("tpm.counter_steps_per_day_max", tpm.counter_steps_per_day_max.into(), 0..=1_440),
            within("tpm.measured_seconds", tpm.measured_seconds, 0..=day_s),
            // The range for indexes of the owner.
            within("tpm.nv_index", tpm.nv_index.into(), 0x0150_0000..=0x017f_ffff),
            // Below 4 MiB not even one pending buffer fits; a TiB is a mistake.
            within("storage.reserve_mib", storage.reserve_mib, 4..=1024),
            within("storage.low_mib", storage.low_mib, 1..=1 << 20),
            list_len("storage.drop", storage.drop.len()),
            within("heartbeat.interval_s", heartbeat.interval_s, 1..=3600),
            texts("capture.units", &capture.units),
            within("capture.fold", u64::try_from(capture.fold.len()).unwrap_or(u64::MAX), 0..=64),
            capture.fold.iter().find_map(|directory| absolute("capture.fold", Some(directory))),
            committed("privacy.commit", &privacy.commit),
            access.reader_group.as_deref().and_then(|group| text("access.reader_group", group)),
            absolute("export.ocsf_file.path", export.ocsf_file.path.as_deref()),
            within("witness", u64::try_from(witnesses.len()).unwrap_or(u64::MAX), 0..=16),
            witnesses.iter().find_map(witness),
        ]
        .into_iter()
        .flatten()
        .next()
    }
}

struct Mistake {
    key: &'static str,
    seen: String,
    expected: String,
}

fn within(key: &'static str, seen: u64, range: RangeInclusive<u64>) -> Option<Mistake> {
    (!range.contains(&seen)).then(|| Mistake {
        key,
        seen: seen.to_string(),
        expected: format!("{} to {}", range.start(), range.end()),
    })
}

fn tpm_device(key: &'static str, seen: &str) -> Option<Mistake> {
    (!tpm::Place::is_known(seen) || seen.len() > TEXT_SIZE_MAX).then(|| Mistake {
        key,
        seen: format!("{seen:?}"),
        expected: "auto, none, an absolute path, or a TCTI (device:PATH, swtpm:host=H,port=P, tabrmd:...)".to_owned(),
    })
}

fn at_least_unless_off(key: &'static str, seen: u64, range: RangeInclusive<u64>) -> Option<Mistake> {
    if seen == 0 {
        return None;
    }
    within(key, seen, range)
        .map(|mistake| Mistake { expected: format!("0 for off, or {}", mistake.expected), ..mistake })
}

fn committed(key: &'static str, rules: &[String]) -> Option<Mistake> {
    let error = CommitRules::parse(rules.iter().map(String::as_str)).err()?;
    Some(Mistake {
        key,
        seen: error.to_string(),
        expected: "fields that entries can commit (docs/FORMAT.md)".to_owned(),
    })
}

fn absolute(key: &'static str, seen: Option<&Path>) -> Option<Mistake> {
    let seen = seen?;
    (!seen.is_absolute()).then(|| Mistake {
        key,
        seen: format!("{:?}", seen.display().to_string()),
        expected: "an absolute path".to_owned(),
    })
}

fn witness(seen: &WitnessConfig) -> Option<Mistake> {
    let WitnessConfig { vkey, url, interval_s } = seen;
    let mistake = |key, seen: &str, expected: String| Some(Mistake { key, seen: format!("{seen:?}"), expected });
    if let Err(error) = WitnessKey::parse(vkey) {
        return mistake("witness.vkey", vkey, format!("a verifier key, as `affiant witness init` prints it ({error})"));
    }
    if let Err(error) = WitnessUrl::parse(url) {
        return mistake("witness.url", url, error.to_string());
    }
    within("witness.interval_s", *interval_s, 1..=86_400)
}

fn component(key: &'static str, seen: &str) -> Option<Mistake> {
    let good = !seen.is_empty()
        && seen.len() <= 64
        && !seen.starts_with('.')
        && seen.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    (!good).then(|| Mistake {
        key,
        seen: format!("{seen:?}"),
        expected: "one directory name of letters, digits, '-', '_' and '.', at most 64 bytes".to_owned(),
    })
}

fn text(key: &'static str, seen: &str) -> Option<Mistake> {
    let good = !seen.is_empty() && seen.len() <= TEXT_SIZE_MAX && !seen.contains(char::is_control);
    (!good).then(|| Mistake {
        key,
        seen: format!("{seen:?}"),
        expected: format!("1 to {TEXT_SIZE_MAX} bytes without control characters"),
    })
}

fn identity(key: &'static str, seen: &str) -> Option<Mistake> {
    text(key, seen).or_else(|| {
        (!seen.starts_with("spiffe://")).then(|| Mistake {
            key,
            seen: format!("{seen:?}"),
            expected: "an identity that begins with spiffe://".to_owned(),
        })
    })
}

/// The origin is the first line of a checkpoint and part of a key name: C2SP signed-note forbids
/// white space and `+` in key names.
fn origin_line(key: &'static str, seen: &str) -> Option<Mistake> {
    let good = seen.len() <= 200 && seen.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '+');
    (!good).then(|| Mistake {
        key,
        seen: format!("{seen:?}"),
        expected: "at most 200 bytes without white space, control characters or '+'".to_owned(),
    })
}

fn list_len(key: &'static str, seen: usize) -> Option<Mistake> {
    (seen > LIST_LEN_MAX).then(|| Mistake {
        key,
        seen: format!("a list of {seen}"),
        expected: format!("a list of at most {LIST_LEN_MAX}"),
    })
}

fn texts(key: &'static str, seen: &[String]) -> Option<Mistake> {
    list_len(key, seen.len()).or_else(|| seen.iter().find_map(|item| text(key, item)))
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// The dotted key whose name or value covers a byte offset.
fn key_at(text: &str, offset: usize) -> Option<String> {
    let root = DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut path: Vec<&str> = Vec::new();
    // At most one step per nesting level of a text that is itself bounded.
    loop {
        let hit = table.iter().find(|(name, value)| {
            name.span().contains(&offset)
                || value.span().contains(&offset)
                || value.span().start == offset
                || matches!(value.get_ref(), DeValue::Table(inner) if covers(inner, offset))
        });
        let Some((name, value)) = hit else { break };
        path.push(name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    (!path.is_empty()).then(|| path.join("."))
}

/// Whether a table holds, at most three levels down (the configuration has no more), the offset.
fn covers(table: &DeTable<'_>, offset: usize) -> bool {
    let mut level: Vec<&DeTable<'_>> = vec![table];
    for _ in 0..3 {
        let mut next = Vec::new();
        for table in level {
            for (name, value) in table {
                if name.span().contains(&offset) || value.span().contains(&offset) {
                    return true;
                }
                if let DeValue::Table(inner) = value.get_ref() {
                    next.push(inner);
                }
            }
        }
        level = next;
    }
    false
}

/// The line on which a dotted key is given; 0 when it is not in the text.
fn line_of_key(text: &str, key: &str) -> usize {
    let Ok(root) = DeTable::parse(text) else {
        return 0;
    };
    let mut table = root.get_ref();
    let mut line = 0;
    for part in key.split('.') {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == part) else {
            return 0;
        };
        line = line_of(text, name.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    fn refusal(text: &str) -> String {
        Config::parse(text, Path::new("affiant.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_pass_their_own_checks() {
        assert!(Config::default().first_mistake().is_none());
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse("", Path::new("x")).unwrap(), Config::default());
    }

    #[test]
    fn the_effective_configuration_parses_to_itself() {
        let mut config = Config::default();
        config.run.allow_uids = vec![1000];
        config.export.ocsf_file.path = Some(PathBuf::from("/var/log/affiant/ocsf.ndjson"));
        let text = config.to_toml().unwrap();
        assert_eq!(Config::parse(&text, Path::new("x")).unwrap(), config);
    }

    #[test]
    fn the_shipped_file_shows_every_key_at_its_default() {
        let text = include_str!("../../deploy/affiant.toml");
        let shipped: toml::Table = toml::from_str(text).unwrap();
        let defaults: toml::Table = toml::from_str(&Config::default().to_toml().unwrap()).unwrap();
        assert_eq!(shipped, defaults);
    }

    #[test]
    fn a_value_outside_its_limit_names_key_seen_expected_file_and_line() {
        assert_eq!(
            refusal("[log]\n# slow disk\ncommit_ms = 5000\n"),
            "affiant.toml line 3: log.commit_ms is 5000; expected 1 to 1000"
        );
    }

    #[test]
    fn retention_by_size_is_off_or_leaves_room_for_the_newest_entries() {
        assert_eq!(
            refusal("[log.retention]\nmax_mib = 5\n"),
            "affiant.toml line 2: log.retention.max_mib is 5; expected 0 for off, or 64 to 1073741824"
        );
    }

    #[test]
    fn a_default_ttl_above_the_maximum_is_refused() {
        assert_eq!(
            refusal("[run]\nttl_max_s = 60\nttl_default_s = 61\n"),
            "affiant.toml line 3: run.ttl_default_s is 61; expected 0 to 60"
        );
    }

    #[test]
    fn an_unknown_key_names_file_line_and_key() {
        let message = refusal("[log]\ncommit_ms = 10\ncomit_ms = 10\n");
        assert!(message.starts_with("affiant.toml line 3: log.comit_ms: unknown field `comit_ms`"), "{message}");
    }

    #[test]
    fn a_wrong_type_names_the_key_and_what_was_expected() {
        let message = refusal("[export.ocsf_file]\npath = 7\n");
        assert!(
            message.starts_with(
                "affiant.toml line 2: export.ocsf_file.path: invalid type: integer `7`, expected a string"
            ),
            "{message}"
        );
    }

    #[test]
    fn broken_toml_names_the_line() {
        let message = refusal("[log]\ncommit_ms = \n");
        assert!(message.starts_with("affiant.toml line 2: "), "{message}");
    }

    #[test]
    fn relative_paths_and_odd_cgroup_names_are_refused() {
        assert_eq!(
            refusal("[paths]\nstate = \"here\"\n"),
            "affiant.toml line 2: paths.state is \"here\"; expected an absolute path"
        );
        let message = refusal("[paths]\ncgroup_name = \"../x\"\n");
        assert!(message.starts_with("affiant.toml line 2: paths.cgroup_name is"), "{message}");
    }

    #[test]
    fn a_state_directory_from_the_command_line_is_checked_too() {
        let error = Config::default().with_state("x".into()).unwrap_err();
        assert_eq!(error.to_string(), "--state: paths.state is \"x\"; expected an absolute path");
    }
}
